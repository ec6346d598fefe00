"""A recipe: everything about training that can change a result, its checks, and how it is fitted to a data set and to
another number of passes."""

from dataclasses import dataclass, replace
from typing import Literal

from harness.augmentations import FLOAT_NAMES, POLICY_SHORTHANDS, UINT8_NAMES
from harness.datasets import Dataset
from variants.fields import LARGEST, UsageError, check_fields, near_matches


@dataclass(frozen=True)
class Recipe:
    """`None` leaves a rate to the variant."""

    epochs: int = 200
    batch_size: int = 128
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: float = 1e-3
    lr_min: float = 1e-5
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.05
    # weights: those of linear and convolution layers; matrices: whatever has two or more dimensions, positions included
    decay: Literal["weights", "matrices", "all"] = "weights"
    schedule: Literal["cosine", "constant"] = "cosine"
    schedule_unit: Literal["step", "epoch"] = "step"
    schedule_epochs: int = 0  # of a schedule by the epoch: how many it has, spread over all epochs; 0: one for each
    cycles: int = 1  # warm restarts: the schedule, warm-up included, repeats this often
    warmup_epochs: float = 10.0  # of each cycle
    warmup_shape: Literal["linear", "from-min", "harmonic"] = "linear"  # see learning_rate in training/optimiser.py
    cosine_over: Literal["rest", "cycle"] = "rest"  # what its fall takes: the cycle after the warm-up, or one as long
    late_epochs: float = 0.0  # the rate follows the schedule this much later
    clip: float = 0.0  # largest gradient norm; 0 does not clip
    clip_scope: Literal["all", "each"] = "all"  # the norm over all parameters, or that of each by itself
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
    smoothing_over: Literal["all", "others"] = "all"  # classes among which it is spread: all, or all but the true one
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

    @property
    def time_epochs(self) -> int:
        """The epochs in which the schedule's warm-up, delay and cycles are counted."""
        return self.schedule_epochs or self.epochs

    def _check_counts(self) -> None:
        for name in ("epochs", "batch_size", "cycles"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: at least 1 is needed")
        for name in ("crop_padding", "randaugment_ops", "schedule_epochs"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: it cannot be negative")
        if not 0 <= self.randaugment_magnitude <= 30:
            raise UsageError(f"randaugment_magnitude={self.randaugment_magnitude}: 0 to 30 is needed")
        if self.schedule_epochs and self.schedule_unit == "step":
            raise UsageError(f"schedule_epochs={self.schedule_epochs}: only schedule_unit=epoch has a number of them")
        epochs = self.time_epochs
        if self.cycles > epochs:
            raise UsageError(f"cycles={self.cycles}: more than the {epochs} epochs")
        if not 0 <= self.warmup_epochs <= epochs / self.cycles:
            raise UsageError(f"warmup_epochs={self.warmup_epochs}: 0 to {epochs / self.cycles:g}, a cycle's length")
        if not 0 <= self.late_epochs <= epochs:
            raise UsageError(f"late_epochs={self.late_epochs}: 0 to the {epochs} epochs")

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
        known = (*UINT8_NAMES, *FLOAT_NAMES, *POLICY_SHORTHANDS, "flip-always")
        for name in self.augment:
            if name not in known:
                raise UsageError(f"unknown augmentation {name!r}: {near_matches(name, known)}")
        for name, (low, high) in {"crop_scale": self.crop_scale, "crop_ratio": self.crop_ratio}.items():
            if not 0 < low <= high:
                raise UsageError(f"{name}={low},{high}: two positive numbers in order are needed")
        if self.crop_scale[1] > 1:
            raise UsageError(f"crop_scale={self.crop_scale}: a share of the image is at most 1")


def fitted(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe on this data set: no mirrored digits, and the data set's own AutoAugment policy."""
    return with_policy(recipe, dataset, without=() if dataset.flips else ("flip",))


def with_policy(recipe: Recipe, dataset: Dataset, without: tuple[str, ...] = ()) -> Recipe:
    """`autoaugment` and `autoaugment-pil` become the data set's own policy, `flip-always` a flip on any data set."""
    meant = {name: f"{name}-{dataset.policy}" for name in POLICY_SHORTHANDS} | {"flip-always": "flip"}
    names = tuple(meant.get(name, name) for name in recipe.augment if name not in without)
    return recipe if names == recipe.augment else replace(recipe, augment=names)


def shortened(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe over another number of passes; the rate's curve keeps its shape."""
    if not 1 <= epochs <= LARGEST:
        raise UsageError(f"epochs={epochs}: at least 1 is needed, and at most {LARGEST:,}")
    if recipe.schedule_unit == "epoch":  # whole epochs of its own, however many passes there are
        return replace(recipe, epochs=epochs, schedule_epochs=recipe.time_epochs if epochs != recipe.time_epochs else 0)
    cycles = min(recipe.cycles, epochs)
    share = recipe.warmup_epochs * recipe.cycles / recipe.epochs
    late = recipe.late_epochs * epochs / recipe.epochs
    return replace(recipe, epochs=epochs, cycles=cycles, warmup_epochs=share * epochs / cycles, late_epochs=late)
