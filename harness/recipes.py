"""What a recipe is: everything about training that can change a result, how it is fitted to a data set and to another
number of epochs, and the recipes by name, with where each comes from and what its source says of cost and accuracy.

Accuracies are the sources' own, on the test set; RECIPES.md says what still deviates from them, and why. A recipe is
also found by its source's name: `--recipe vit-cifar` is `--recipe s1`.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.datasets import Dataset
from variants.fields import (
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Probability,
    Range,
    Rate,
    Share,
    UsageError,
    check_fields,
    near_matches,
)

# The augmentation steps; harness/data/augment/steps.py has the function of each.
AUGMENTATIONS = (
    *("crop", "resized-crop", "flip", "autoaugment-cifar", "autoaugment-svhn", "autoaugment-pil-cifar"),
    *("autoaugment-pil-svhn", "randaugment", "trivialaugment", "erase", "erase-lee", "crop-paste"),
)
# In a recipe, each is followed by the data set's own policy: AutoAugment as torchvision, and as DeepVoltaire, has it.
POLICY_SHORTHANDS = ("autoaugment", "autoaugment-pil")


@dataclass(frozen=True)
class Recipe:
    """`None` leaves a rate to the variant."""

    epochs: Count = 200
    batch_size: Count = 128
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: Positive = 1e-3
    lr_min: NotNegative = 1e-5
    beta1: Rate = 0.9
    beta2: Rate = 0.999
    weight_decay: NotNegative = 0.05
    # weights: those of linear and convolution layers; matrices: whatever has two or more dimensions, positions included
    decay: Literal["weights", "matrices", "all"] = "weights"
    schedule: Literal["cosine", "constant"] = "cosine"
    schedule_unit: Literal["step", "epoch"] = "step"
    # of a schedule by the epoch: how many it has, spread over all epochs; 0: one for each
    schedule_epochs: CountOrZero = 0
    cycles: Count = 1  # warm restarts: the schedule, warm-up included, repeats this often
    warmup_epochs: NotNegative = 10.0  # of each cycle
    warmup_shape: Literal["linear", "from-min", "harmonic"] = "linear"  # see learning_rate in training/optimiser.py
    cosine_over: Literal["rest", "cycle"] = "rest"  # what its fall takes: the cycle after the warm-up, or one as long
    late_epochs: NotNegative = 0.0  # the rate follows the schedule this much later
    clip: NotNegative = 0.0  # largest gradient norm; 0 does not clip
    clip_scope: Literal["all", "each"] = "all"  # the norm over all parameters, or that of each by itself
    ema: Rate = 0.0  # decay of the averaged weights that are evaluated; 0 evaluates the trained ones

    scaling: Literal["dataset", "half", "unit"] = "dataset"  # mean/std of the data set; .5/.5; [0, 1]
    augment: tuple[str, ...] = ()
    crop_padding: CountOrZero = 4
    crop_scale: tuple[Share, Share] = (0.8, 1.0)
    crop_ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    randaugment_ops: CountOrZero = 2
    randaugment_magnitude: Annotated[int, Range(least=0, most=30)] = 9
    erase_prob: Probability = 0.25
    erase_fill: Literal["zero", "noise"] = "zero"
    mix: Literal["none", "mixup", "cutmix", "either"] = "none"
    mix_prob: Probability = 1.0
    mixup_alpha: Positive = 1.0
    cutmix_alpha: Positive = 1.0
    mix_per_image: bool = False
    label_smoothing: Rate = 0.0
    smoothing_over: Literal["all", "others"] = "all"  # classes among which it is spread: all, or all but the true one
    train_share: Share = 1.0  # of each class's training images; they are shown so much more often, as many an epoch

    dropout: Rate | None = None
    attention_dropout: Rate | None = None
    head_dropout: Rate | None = None
    drop_path: Rate | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        epochs = self.time_epochs
        limits = {
            "cycles": (epochs, f"the {epochs} epochs"),
            "warmup_epochs": (epochs / self.cycles, f"{epochs / self.cycles:g}, a cycle's length"),
            "late_epochs": (epochs, f"the {epochs} epochs"),
            "lr_min": (self.lr, f"lr={self.lr}"),
        }
        for name, (most, words) in limits.items():
            if getattr(self, name) > most:
                raise UsageError(f"{name}={getattr(self, name)}: must be at most {words}")
        if self.schedule_epochs and self.schedule_unit == "step":
            raise UsageError(f"schedule_epochs={self.schedule_epochs}: only schedule_unit=epoch has a number of them")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise UsageError(f"{name}={low},{high}: the smaller number must come first")
        known = (*AUGMENTATIONS, *POLICY_SHORTHANDS, "flip-always")
        if unknown := [name for name in self.augment if name not in known]:
            raise UsageError(f"unknown augmentation {unknown[0]!r}: {near_matches(unknown[0], known)}")

    @property
    def time_epochs(self) -> int:
        """The epochs in which the schedule's warm-up, delay and cycles are counted."""
        return self.schedule_epochs or self.epochs


def fitted(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe on this data set: no mirrored digits, and the data set's own AutoAugment policy."""
    return with_policy(recipe, dataset, without=() if dataset.flips else ("flip",))


def with_policy(recipe: Recipe, dataset: Dataset, without: tuple[str, ...] = ()) -> Recipe:
    """`autoaugment` and `autoaugment-pil` become the data set's own policy, `flip-always` a flip on any data set."""
    meant = {name: f"{name}-{dataset.policy}" for name in POLICY_SHORTHANDS} | {"flip-always": "flip"}
    names = tuple(meant.get(name, name) for name in recipe.augment if name not in without)
    return recipe if names == recipe.augment else replace(recipe, augment=names)


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe over another number of epochs; the rate's curve keeps its shape."""
    if epochs < 1:  # before it divides anything
        raise UsageError(f"epochs={epochs}: must be at least 1")
    if recipe.schedule_unit == "epoch":  # its own number of whole epochs, however many are trained
        return replace(recipe, epochs=epochs, schedule_epochs=recipe.time_epochs if epochs != recipe.time_epochs else 0)
    cycles = min(recipe.cycles, epochs)
    share = recipe.warmup_epochs * recipe.cycles / recipe.epochs
    late = recipe.late_epochs * epochs / recipe.epochs
    return replace(recipe, epochs=epochs, cycles=cycles, warmup_epochs=share * epochs / cycles, late_epochs=late)


# --- the recipes by name ---------------------------------------------------------------------------------------------

# S0, jordandeklerk/ViT-pytorch: what its code at HEAD and its notebook have in common.
_S0 = Recipe(
    weight_decay=0.1,
    schedule_unit="epoch",
    cycles=4,
    warmup_shape="from-min",
    scaling="unit",
    augment=("trivialaugment", "flip", "crop", "erase"),
    interpolation="bilinear",
    erase_prob=0.1,
    mix="cutmix",
    label_smoothing=0.1,
)

# Compact Transformers (arXiv:2104.05704), its example script:
#   python -m harness.run --variant cvt-7-4 --dataset c10 --recipe compact-transformers
# ViT-Lite-7/4 91.38 % on CIFAR-10 and 69.75 % on CIFAR-100, CVT-7/4 92.43 % and 73.01 %.
_CCT = Recipe(
    lr=5e-4,
    lr_min=0.0,
    weight_decay=0.03,
    decay="all",
    schedule_unit="epoch",
    warmup_epochs=5,
    warmup_shape="harmonic",
    augment=("autoaugment-pil", "crop", "flip"),
    label_smoothing=0.1,
    attention_dropout=0.1,
    drop_path=0.1,
)

RECIPES = {
    # One recipe of equal budget for every variant:
    #   python -m harness.run --variant compact --dataset c10
    # The values are those on which recent small-ViT work agrees (AdamW 1e-3 at batch 128, decay .05, smoothing .1,
    # RandAugment 2 x 9); MixUp or CutMix change half of the images, because models of .1 M parameters share the recipe
    # with models of 6 M. None of it was tuned here, on any variant.
    "common": Recipe(
        clip=1.0,
        augment=("crop", "flip", "randaugment"),
        mix="either",
        mix_prob=0.5,
        mixup_alpha=0.8,
        mix_per_image=True,
        label_smoothing=0.1,
    ),
    # A few seconds on the embedded digits, for trying things out:
    #   python -m harness.run --variant compact --dataset digits --recipe quick
    "quick": Recipe(epochs=10, batch_size=32, warmup_epochs=1, label_smoothing=0.1),
    # S1, omihub777/ViT-CIFAR, with its flags for AutoAugment and label smoothing:
    #   python -m harness.run --variant vanilla --dataset c10 --recipe vit-cifar
    # 90.92 % on CIFAR-10 (2 h 14 min on a V100), 66.54 % on CIFAR-100, 97.31 % on SVHN.
    # Its scheduler has the first epoch at a rate of 0, and a cosine as long as the whole run.
    "s1": Recipe(
        optimizer="adam",
        weight_decay=5e-5,
        decay="all",
        schedule_unit="epoch",
        warmup_epochs=5,
        cosine_over="cycle",
        late_epochs=1,
        augment=("crop", "flip", "autoaugment-pil"),
        label_smoothing=0.1,
        smoothing_over="others",
    ),
    # S2, mc-ViT, which has the recipe of tintn/vision-transformer-from-scratch:
    #   python -m harness.run --variant compact --dataset c10 --recipe mc-vit
    # 77.25 % on CIFAR-10, 47.21 % on CIFAR-100; tintn prints 75.5 % for `compact-cls` on CIFAR-10.
    "s2": Recipe(
        epochs=100,
        batch_size=256,
        lr=1e-2,
        lr_min=0.0,
        weight_decay=0.01,
        decay="all",
        schedule="constant",
        warmup_epochs=0,
        scaling="half",
        augment=("flip", "resized-crop"),
    ),
    # S0 at HEAD, whose code does not run and has no published accuracy:
    #   python -m harness.run --variant patch2 --dataset c10 --recipe jordandeklerk
    # It scales its test images and not its training images, a defect: both are in [0, 1] here.
    "s0-head": replace(_S0, lr_min=1e-6, beta2=0.99, decay="matrices", clip=3.0, clip_scope="each", drop_path=0.1),
    # S0n, its notebook:
    #   python -m harness.run --variant patch2-conv --dataset c10 --recipe jordandeklerk-notebook
    # 96.80 % on CIFAR-10, 6 h on an A100.
    # It steps its scheduler an epoch late, so that the first epoch has the rate of a cycle's last.
    "s0n": replace(_S0, late_epochs=1, cutmix_alpha=0.5, head_dropout=0.3),
    "cct": _CCT,
    # The flags that its README gives beside CCT-7/3x1's 94.78 % on CIFAR-10 (77.05 % on CIFAR-100):
    #   python -m harness.run --variant cct-7-3x1 --dataset c10 --recipe cct-7-3x1
    "cct-7-3x1": replace(_CCT, batch_size=64, warmup_epochs=10),
    # Lee et al. (arXiv:2112.13492), each of whose 100 "epochs" goes through the images three times:
    #   python -m harness.run --variant small-p4 --dataset c10 --recipe lee
    # 93.58 % on CIFAR-10, 73.81 % on CIFAR-100, 97.82 % on SVHN, which is mirrored too.
    "lee": Recipe(
        epochs=300,
        lr_min=1e-6,
        decay="all",
        warmup_epochs=30,
        warmup_shape="from-min",
        augment=("flip-always", "crop", "autoaugment-pil", "erase-lee"),
        mix="either",
        mix_prob=0.5,
        label_smoothing=0.1,
        drop_path=0.1,
    ),
    # S3, HarshTomar1234/vision_transformer-ViT-, the example of its README:
    #   python -m harness.run --variant vit-224 --dataset c10 --recipe harshtomar1234
    # 80.2 % on CIFAR-10.
    "s3": Recipe(
        epochs=5,
        batch_size=64,
        optimizer="adam",
        lr=1e-4,
        lr_min=0.0,
        weight_decay=0.0,
        schedule="constant",
        warmup_epochs=0,
        scaling="half",
        augment=("flip",),
    ),
    # S3, the ImageNet example of its README: 300 epochs, batch 256, rate 1e-3, 10,000 warm-up steps. The rest is
    # assumed to be what its train.py has by default, which does not run, and warms up over 30 epochs:
    #   python -m harness.run --variant vit-base-224 --dataset folder:imagenet@224 --recipe harshtomar1234-imagenet
    # No accuracy belongs to it: the curves behind the README's "~76.5%" on ImageNet show a warm-up of about 30 epochs.
    "s3-imagenet": Recipe(
        epochs=300,
        batch_size=256,
        lr_min=0.0,
        weight_decay=0.1,
        decay="matrices",
        warmup_epochs=10_000 / 5_005,  # steps, by those of an epoch of ImageNet's 1,281,167 images
        warmup_shape="from-min",
        clip=1.0,
        augment=("resized-crop", "flip", "randaugment"),
        crop_scale=(0.08, 1.0),
        interpolation="bilinear",
        mix="either",
    ),
}

# The sources' own names. Records, tables and run ids have the names above.
ALIASES = {
    "vit-cifar": "s1",
    "omihub777": "s1",
    "mc-vit": "s2",
    "tintn": "s2",
    "jordandeklerk": "s0-head",
    "jordandeklerk-notebook": "s0n",
    "compact-transformers": "cct",
    "harshtomar1234": "s3",
    "harshtomar1234-imagenet": "s3-imagenet",
}

PUBLISHED = {
    "vanilla": "s1",
    "compact": "s2",
    "compact-cls": "s2",
    "patch2": "s0-head",
    "patch2-conv": "s0n",
    "vit-lite-7-4": "cct",
    "cvt-7-4": "cct",
    "cct-7-3x1": "cct-7-3x1",
    "small-p4": "lee",
    "vit-224": "s3",
    "vit-base-224": "s3-imagenet",
}


def _with_aliases(name: str) -> str:
    aliases = [alias for alias, meant in ALIASES.items() if meant == name]
    return f"{name} ({', '.join(aliases)})" if aliases else name


RECIPE_HELP = f"published, {', '.join(map(_with_aliases, RECIPES))}"


def canonical(name: str) -> str:
    """The recipe's own name where `name` is its source's, in capitals or not; any other name as it is."""
    return ALIASES.get(name.lower(), name)


def recipe_of(name: str, variant_name: str) -> tuple[str, Recipe]:
    """The recipe's own name and the recipe; `published` is the one that the variant was published with."""
    name = canonical(name)
    if name == "published":
        if variant_name not in PUBLISHED:
            others = f"only for {', '.join(sorted(PUBLISHED))}: use --recipe common"
            raise UsageError(f"no recipe was published for variant {variant_name!r}, {others}")
        name = PUBLISHED[variant_name]
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: {near_matches(name, [*RECIPES, *ALIASES, 'published'])}")
    return name, RECIPES[name]
