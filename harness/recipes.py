"""Owns how a variant is trained: Recipe, the named recipes, and which one each variant was published with.
Refuses to train, and to know a data set beyond what may be done to its images.
"""

from dataclasses import dataclass, replace
from typing import Literal

from harness.augmentations import FLOAT_NAMES, POLICY_SHORTHANDS, UINT8_NAMES
from harness.datasets import Dataset
from variants.fields import LARGEST, UsageError, check_fields, near_matches


@dataclass(frozen=True)
class Recipe:
    """Everything about training that can change a result. `None` leaves a rate to the variant."""

    epochs: int = 200
    batch_size: int = 128
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: float = 1e-3
    lr_min: float = 1e-5
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.05
    decay: Literal["weights", "all"] = "weights"  # weights: those of linear and convolution layers, nothing else
    schedule: Literal["cosine", "constant"] = "cosine"
    schedule_unit: Literal["step", "epoch"] = "step"
    cycles: int = 1  # warm restarts: the schedule, warm-up included, repeats this often
    warmup_epochs: float = 10.0  # of each cycle
    clip: float = 0.0  # largest gradient norm; 0 does not clip
    ema: float = 0.0  # decay of the averaged weights that are evaluated; 0 evaluates the trained ones

    scaling: Literal["dataset", "half", "unit"] = "dataset"  # mean/std of the data set; .5/.5; [0, 1]
    augment: tuple[str, ...] = ()
    crop_padding: int = 4
    crop_scale: tuple[float, float] = (0.8, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    randaugment_ops: int = 2
    randaugment_magnitude: int = 9
    erase_prob: float = 0.25
    erase_fill: Literal["zero", "noise"] = "zero"
    mix: Literal["none", "mixup", "cutmix", "either"] = "none"
    mix_prob: float = 1.0
    mixup_alpha: float = 1.0
    cutmix_alpha: float = 1.0
    mix_per_image: bool = False
    label_smoothing: float = 0.0
    train_share: float = 1.0  # of each class's training images; they are shown so much more often, as many a pass

    dropout: float | None = None
    attention_dropout: float | None = None
    head_dropout: float | None = None
    drop_path: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_counts()
        self._check_rates()
        self._check_augment()

    def _check_counts(self) -> None:
        for name in ("epochs", "batch_size", "cycles"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: at least 1 is needed")
        for name in ("crop_padding", "randaugment_ops"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: it cannot be negative")
        if not 0 <= self.randaugment_magnitude <= 30:
            raise UsageError(f"randaugment_magnitude={self.randaugment_magnitude}: 0 to 30 is needed")
        if self.cycles > self.epochs:
            raise UsageError(f"cycles={self.cycles}: more than the {self.epochs} epochs")
        if not 0 <= self.warmup_epochs <= self.epochs / self.cycles:
            raise UsageError(
                f"warmup_epochs={self.warmup_epochs}: 0 to {self.epochs / self.cycles:g}, a cycle's length"
            )

    def _check_rates(self) -> None:
        if not self.lr > 0:
            raise UsageError(f"lr={self.lr}: a positive rate is needed")
        if not 0 <= self.lr_min <= self.lr:
            raise UsageError(f"lr_min={self.lr_min}: 0 to lr={self.lr} is needed")
        for name in ("weight_decay", "clip"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: it cannot be negative")
        for name in (
            "beta1",
            "beta2",
            "ema",
            "label_smoothing",
            "dropout",
            "attention_dropout",
            "head_dropout",
            "drop_path",
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"{name}={value}: 0 to below 1 is needed")
        for name in ("erase_prob", "mix_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}={getattr(self, name)}: a probability is needed")
        if not 0 < self.train_share <= 1:
            raise UsageError(f"train_share={self.train_share}: above 0 to 1 is needed")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}={getattr(self, name)}: a positive number is needed")

    def _check_augment(self) -> None:
        known = (*UINT8_NAMES, *FLOAT_NAMES, *POLICY_SHORTHANDS)
        for name in self.augment:
            if name not in known:
                raise UsageError(f"unknown augmentation {name!r}: {near_matches(name, known)}")
        for name, (low, high) in {"crop_scale": self.crop_scale, "crop_ratio": self.crop_ratio}.items():
            if not 0 < low <= high:
                raise UsageError(f"{name}={low},{high}: two positive numbers in order are needed")
        if self.crop_scale[1] > 1:
            raise UsageError(f"crop_scale={self.crop_scale}: a share of the image is at most 1")


S1 = Recipe(
    optimizer="adam",
    weight_decay=5e-5,
    decay="all",
    schedule_unit="epoch",
    warmup_epochs=5,
    augment=("crop", "flip", "autoaugment"),
    label_smoothing=0.1,
)
S2 = Recipe(
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
)
S0_HEAD = Recipe(
    lr_min=1e-6,
    beta2=0.99,
    weight_decay=0.1,
    cycles=4,
    warmup_epochs=10,
    clip=3.0,
    augment=("trivialaugment",),
    mix="cutmix",
    label_smoothing=0.1,
    drop_path=0.1,
)
S0N = Recipe(
    weight_decay=0.1,
    cycles=4,
    warmup_epochs=10,
    scaling="unit",
    augment=("trivialaugment", "flip", "crop", "erase"),
    interpolation="bilinear",
    erase_prob=0.1,
    mix="cutmix",
    cutmix_alpha=0.5,
    label_smoothing=0.1,
    head_dropout=0.3,
)
CCT = Recipe(
    lr=5e-4,
    lr_min=0.0,
    weight_decay=0.03,
    decay="all",
    schedule_unit="epoch",
    warmup_epochs=5,
    augment=("autoaugment", "crop", "flip"),
    label_smoothing=0.1,
    attention_dropout=0.1,
    drop_path=0.1,
)
LEE = Recipe(
    epochs=300,  # 100 "epochs" of three passes each
    lr_min=1e-6,
    decay="all",
    warmup_epochs=30,
    augment=("flip", "crop", "autoaugment", "erase"),
    erase_prob=0.25,
    mix="either",
    mix_prob=0.5,
    label_smoothing=0.1,
    drop_path=0.1,
)
S3 = Recipe(
    epochs=5,
    batch_size=64,
    lr=1e-4,
    lr_min=0.0,
    weight_decay=0.01,
    decay="all",
    schedule="constant",
    warmup_epochs=0,
    scaling="half",
    augment=("crop", "flip"),
)
# One recipe of equal budget for every variant. The values are those on which recent small-ViT work agrees (AdamW 1e-3
# at batch 128, decay .05, smoothing .1, RandAugment 2 x 9); MixUp or CutMix touch half of the images, because models of
# .1 M parameters share the recipe with models of 6 M. None of it was tuned here, on any variant.
COMMON = Recipe(
    clip=1.0,
    augment=("crop", "flip", "randaugment"),
    mix="either",
    mix_prob=0.5,
    mixup_alpha=0.8,
    mix_per_image=True,
    label_smoothing=0.1,
)
QUICK = Recipe(epochs=10, batch_size=32, warmup_epochs=1, label_smoothing=0.1)

RECIPES = {
    "common": COMMON,
    "quick": QUICK,
    "s1": S1,
    "s2": S2,
    "s0-head": S0_HEAD,
    "s0n": S0N,
    "cct": CCT,
    "lee": LEE,
    "s3": S3,
}

PUBLISHED = {
    "vanilla": "s1",
    "compact": "s2",
    "compact-cls": "s2",
    "patch2": "s0-head",
    "patch2-conv": "s0n",
    "vit-lite-7-4": "cct",
    "cvt-7-4": "cct",
    "cct-7-3x1": "cct",
    "small-p4": "lee",
    "vit-224": "s3",
}

# What a source does not state and is assumed here. S2 states rate, batch, epochs and the model; the rest comes from the
# code whose config it uses. S3 states epochs, rate and batch.
ASSUMED = {
    "s2": ("optimizer", "weight_decay", "decay", "augment", "crop_scale", "crop_ratio", "scaling", "label_smoothing"),
    "s0-head": ("cycles", "schedule_unit", "decay"),
    "s3": ("optimizer", "weight_decay", "decay", "schedule", "warmup_epochs", "augment", "scaling", "label_smoothing"),
}


def recipe_of(name: str, variant_name: str) -> tuple[str, Recipe]:
    """The recipe's own name and the recipe; `published` is the one that the variant was published with."""
    if name == "published":
        if variant_name not in PUBLISHED:
            having = ", ".join(sorted(PUBLISHED))
            raise UsageError(
                f"no recipe was published for variant {variant_name!r}, only for {having}: use --recipe common"
            )
        name = PUBLISHED[variant_name]
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: {near_matches(name, [*RECIPES, 'published'])}")
    return name, RECIPES[name]


def fitted(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe on this data set: no mirrored digits, and the data set's own AutoAugment policy."""
    return with_policy(recipe, dataset, without=() if dataset.flips else ("flip",))


def with_policy(recipe: Recipe, dataset: Dataset, without: tuple[str, ...] = ()) -> Recipe:
    """`autoaugment` and `autoaugment-pil` become the data set's own policy."""
    own = {name: f"{name}-{dataset.policy}" for name in POLICY_SHORTHANDS}
    names = tuple(own.get(name, name) for name in recipe.augment if name not in without)
    return recipe if names == recipe.augment else replace(recipe, augment=names)


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe over another number of passes; warm-up keeps its share, so that the curve keeps its shape."""
    if not 1 <= epochs <= LARGEST:
        raise UsageError(f"epochs={epochs}: at least 1 is needed, and at most {LARGEST:,}")
    cycles = min(recipe.cycles, epochs)
    share = recipe.warmup_epochs * recipe.cycles / recipe.epochs
    return replace(recipe, epochs=epochs, cycles=cycles, warmup_epochs=share * epochs / cycles)
