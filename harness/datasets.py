"""The facts of each data set that are known before it is read: sizes, classes, scaling, what may be done to it; and the
corruptions of its test images that a run is judged under.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from variants.fields import UsageError, near_matches


@dataclass(frozen=True)
class Dataset:
    name: str
    title: str
    image_size: int
    num_classes: int
    flips: bool  # a mirrored image is still a likely image of its class
    policy: str  # whose AutoAugment policy
    train_count: int
    test_count: int
    mean: tuple[float, float, float] | None = None  # None: computed from the training images
    std: tuple[float, float, float] | None = None
    classes: tuple[str, ...] = ()  # their names, by label; empty where nobody gave any

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes or tuple(map(str, range(self.num_classes)))


C10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
C100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man
maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail
snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
tulip turtle wardrobe whale willow_tree wolf woman worm
"""
# Mean and standard deviation.
C10_SCALING = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
C100_SCALING = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

EMBEDDED = "digits"  # comes with scikit-learn; a cell takes seconds

DATASETS = {
    "c10": Dataset("c10", "CIFAR-10", 32, 10, True, "cifar", 50_000, 10_000, *C10_SCALING, tuple(C10_CLASSES.split())),
    "c100": Dataset(
        "c100", "CIFAR-100", 32, 100, True, "cifar", 50_000, 10_000, *C100_SCALING, tuple(C100_CLASSES.split())
    ),
    "svhn": Dataset(
        "svhn", "SVHN", 32, 10, False, "svhn", 73_257, 26_032, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
    ),
    EMBEDDED: Dataset(EMBEDDED, "digits", 8, 10, False, "svhn", 1_437, 360),
}


# What robustness is measured under, each at five strengths; see harness/data/corrupt.py.
CORRUPTION_NAMES = ("noise", "blur", "contrast", "brightness", "pixelation", "jpeg", "occlusion")
CORRUPTION_STRENGTHS = 5


def check_name(name: str) -> None:
    if name.startswith("folder:") and re.sub(r"@\d*$", "", Path(name[7:]).name) in ("", ".", ".."):
        raise UsageError(
            f"data set {name!r}: the runs are named after the folder, which has no name here; write it out"
        )
    if name not in DATASETS and not name.startswith("folder:"):
        raise UsageError(
            f"unknown data set {name!r}: {near_matches(name, DATASETS)}\n"
            "also possible: folder:PATH for class folders under PATH/train and PATH/test (or PATH/val)"
        )


def title(name: str) -> str:
    return DATASETS[name].title if name in DATASETS else name
