"""A recipe: everything about training that can change a result, and how it is fitted to a data set and to another
number of epochs."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.augmentations import FLOAT_NAMES, POLICY_SHORTHANDS, UINT8_NAMES
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
    schedule_epochs: CountOrZero = (
        0  # of a schedule by the epoch: how many it has, spread over all epochs; 0: one for each
    )
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
        self._check_schedule()
        self._check_augment()

    @property
    def time_epochs(self) -> int:
        """The epochs in which the schedule's warm-up, delay and cycles are counted."""
        return self.schedule_epochs or self.epochs

    def _check_schedule(self) -> None:
        if self.schedule_epochs and self.schedule_unit == "step":
            raise UsageError(f"schedule_epochs={self.schedule_epochs}: only schedule_unit=epoch has a number of them")
        epochs = self.time_epochs
        if self.cycles > epochs:
            raise UsageError(f"cycles={self.cycles}: must be at most the {epochs} epochs")
        if self.warmup_epochs > epochs / self.cycles:
            raise UsageError(
                f"warmup_epochs={self.warmup_epochs}: must be at most {epochs / self.cycles:g}, a cycle's length"
            )
        if self.late_epochs > epochs:
            raise UsageError(f"late_epochs={self.late_epochs}: must be at most the {epochs} epochs")
        if self.lr_min > self.lr:
            raise UsageError(f"lr_min={self.lr_min}: must be at most lr={self.lr}")

    def _check_augment(self) -> None:
        known = (*UINT8_NAMES, *FLOAT_NAMES, *POLICY_SHORTHANDS, "flip-always")
        for name in self.augment:
            if name not in known:
                raise UsageError(f"unknown augmentation {name!r}: {near_matches(name, known)}")
        for name, (low, high) in {"crop_scale": self.crop_scale, "crop_ratio": self.crop_ratio}.items():
            if low > high:
                raise UsageError(f"{name}={low},{high}: the smaller number must come first")


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
    if epochs < 1:
        raise UsageError(f"epochs={epochs}: must be at least 1")
    if recipe.schedule_unit == "epoch":  # its own number of whole epochs, however many are trained
        return replace(recipe, epochs=epochs, schedule_epochs=recipe.time_epochs if epochs != recipe.time_epochs else 0)
    cycles = min(recipe.cycles, epochs)
    share = recipe.warmup_epochs * recipe.cycles / recipe.epochs
    late = recipe.late_epochs * epochs / recipe.epochs
    return replace(recipe, epochs=epochs, cycles=cycles, warmup_epochs=share * epochs / cycles, late_epochs=late)
