"""Owns the explicit dicts of augmentation steps by name, and running named steps in the given order.
Refuses unknown names, with the near matches; a step of the other kind (uint8 or float) is skipped, not an error.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from harness.data.augment.apply import PILLOW_OPERATIONS, apply_rounds_, torchvision_operations
from harness.data.augment.crops import crop_, draw_crops, draw_flips, draw_resized_crops, flip_, resized_crop
from harness.data.augment.erasing import LEE, Erasure, draw_erasures, erase
from harness.data.augment.paste import Pastes, crop_paste, draw_pastes
from harness.data.augment.policies import (
    CIFAR10_POLICY,
    SVHN_POLICY,
    SubPolicy,
    draw_autoaugment,
    draw_randaugment,
    draw_trivialaugment,
)
from harness.data.augment.settings import AugmentSettings

S = TypeVar("S")
Step = Callable[[Tensor, AugmentSettings, np.random.Generator], Tensor]


class FloatStep(NamedTuple):
    """Drawing and applying apart, since the draws of many batches are made together."""

    draw: Callable[[int, int, int, AugmentSettings, np.random.Generator], Any]  # images, height, width
    # Float images, scaled, are left as they are; the last is the data set's mean colour in [0, 1], 3 x 1 x 1.
    apply: Callable[[Tensor, Any, AugmentSettings, Tensor], Tensor]


def augment_uint8_(images: Tensor, names: Sequence[str], settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    """images uint8 n x 3 x H x W, which may be overwritten; returns the augmented ones on the same device."""
    images = images.contiguous()
    for step in _known(names, UINT8_STEPS):
        images = step(images, settings, rng)
    return images


def float_steps(names: Sequence[str]) -> list[FloatStep]:
    return _known(names, FLOAT_STEPS)


def _known(names: Sequence[str], steps: dict[str, S]) -> list[S]:
    for name in names:
        _check_known(name)
    return [steps[name] for name in names if name in steps]


def _check_known(name: str) -> None:
    known = [*UINT8_STEPS, *FLOAT_STEPS]
    if name not in known:
        near = get_close_matches(name, known, cutoff=0.4) or known
        raise ValueError(f"unknown augmentation {name!r}; near matches: {', '.join(near)}")


def _crop(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    return crop_(images, draw_crops(len(images), settings.crop_padding, rng), settings.crop_padding)


def _resized_crop(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    n, _, height, width = images.shape
    windows = draw_resized_crops(n, height, width, settings.crop_scale, settings.crop_ratio, rng)
    return resized_crop(images, windows)


def _flip(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    return flip_(images, draw_flips(len(images), rng))


def _autoaugment(policy: tuple[SubPolicy, ...], as_pillow: bool = False) -> Step:
    """The step of one policy: as torchvision has it on tensors, or as DeepVoltaire/AutoAugment has it with Pillow."""

    def step(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
        n, _, height, width = images.shape
        rounds = draw_autoaugment(policy, n, height, width, rng, as_pillow)
        operations = PILLOW_OPERATIONS if as_pillow else torchvision_operations(settings.interpolation)
        return apply_rounds_(images, rounds, operations)

    return step


def _randaugment(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    n, _, height, width = images.shape
    ops, magnitude_bin = settings.randaugment_ops, settings.randaugment_magnitude
    rounds = draw_randaugment(n, height, width, ops, magnitude_bin, rng)
    return apply_rounds_(images, rounds, torchvision_operations(settings.interpolation))


def _trivialaugment(images: Tensor, settings: AugmentSettings, rng: np.random.Generator) -> Tensor:
    n, _, height, width = images.shape
    rounds = draw_trivialaugment(n, height, width, rng)
    return apply_rounds_(images, rounds, torchvision_operations(settings.interpolation))


def _draw_erasures(n: int, height: int, width: int, settings: AugmentSettings, rng: np.random.Generator) -> Erasure:
    return draw_erasures(n, height, width, settings.erase_prob, rng)


def _erase(images: Tensor, erasure: Erasure, settings: AugmentSettings, mean: Tensor) -> Tensor:
    return erase(images, erasure, settings.erase_fill)


def _draw_lee(n: int, height: int, width: int, settings: AugmentSettings, rng: np.random.Generator) -> Erasure:
    return draw_erasures(n, height, width, settings.erase_prob, rng, LEE)


def _erase_lee(images: Tensor, erasure: Erasure, settings: AugmentSettings, mean: Tensor) -> Tensor:
    """Lee's code writes the mean of the unscaled images into scaled ones: about .49, where 0 would be the mean."""
    return erase(images, erasure, mean)


def _draw_pastes(n: int, height: int, width: int, settings: AugmentSettings, rng: np.random.Generator) -> Pastes:
    return draw_pastes(n, height, width, rng)


def _crop_paste(images: Tensor, pastes: Pastes, settings: AugmentSettings, mean: Tensor) -> Tensor:
    return crop_paste(images, pastes)


UINT8_STEPS: dict[str, Step] = {
    "crop": _crop,
    "resized-crop": _resized_crop,
    "flip": _flip,
    "autoaugment-cifar": _autoaugment(CIFAR10_POLICY),
    "autoaugment-svhn": _autoaugment(SVHN_POLICY),
    "autoaugment-pil-cifar": _autoaugment(CIFAR10_POLICY, as_pillow=True),
    "autoaugment-pil-svhn": _autoaugment(SVHN_POLICY, as_pillow=True),
    "randaugment": _randaugment,
    "trivialaugment": _trivialaugment,
}
FLOAT_STEPS: dict[str, FloatStep] = {
    "erase": FloatStep(_draw_erasures, _erase),
    "erase-lee": FloatStep(_draw_lee, _erase_lee),
    "crop-paste": FloatStep(_draw_pastes, _crop_paste),
}
