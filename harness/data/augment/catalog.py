"""The augmentation steps by name, as recipes list them, and running those of a recipe in its order."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from harness.data.augment.policies import (
    CIFAR10_POLICY,
    PILLOW_OPERATIONS,
    SVHN_POLICY,
    SubPolicy,
    apply_rounds_,
    draw_autoaugment,
    draw_randaugment,
    draw_trivialaugment,
    torchvision_operations,
)
from harness.data.augment.spatial import (
    LEE,
    TORCHVISION,
    BoxLaw,
    Erasure,
    crop_,
    crop_paste,
    draw_crops,
    draw_erasures,
    draw_flips,
    draw_pastes,
    draw_resized_crops,
    erase,
    flip_,
    resized_crop,
)
from harness.recipes import Recipe

Step = Callable[[Tensor, Recipe, np.random.Generator], Tensor]


class FloatStep(NamedTuple):
    """Drawing and applying apart, since the draws of many batches are made together."""

    draw: Callable[[int, int, int, Recipe, np.random.Generator], Any]  # images, height, width
    # Float images, scaled, are left as they are; the last is the data set's mean colour in [0, 1], 3 x 1 x 1.
    apply: Callable[[Tensor, Any, Recipe, Tensor], Tensor]


def augment_uint8_(images: Tensor, names: Sequence[str], recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """images uint8 n x 3 x H x W, which may be overwritten; returns the augmented ones on the same device. Steps of
    float images are skipped."""
    images = images.contiguous()
    for name in names:
        if name not in FLOAT_STEPS:
            images = UINT8_STEPS[name](images, recipe, rng)
    return images


def float_steps(names: Sequence[str]) -> list[FloatStep]:
    return [FLOAT_STEPS[name] for name in names if name not in UINT8_STEPS]


def _crop(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    return crop_(images, draw_crops(len(images), recipe.crop_padding, rng), recipe.crop_padding)


def _resized_crop(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    n, _, height, width = images.shape
    return resized_crop(images, draw_resized_crops(n, height, width, recipe.crop_scale, recipe.crop_ratio, rng))


def _flip(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    return flip_(images, draw_flips(len(images), rng))


def _autoaugment(policy: tuple[SubPolicy, ...], as_pillow: bool = False) -> Step:
    """The step of one policy: as torchvision has it on tensors, or as DeepVoltaire/AutoAugment has it with Pillow."""

    def step(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
        n, _, height, width = images.shape
        rounds = draw_autoaugment(policy, n, height, width, rng, as_pillow)
        operations = PILLOW_OPERATIONS if as_pillow else torchvision_operations(recipe.interpolation)
        return apply_rounds_(images, rounds, operations)

    return step


def _randaugment(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    n, _, height, width = images.shape
    rounds = draw_randaugment(n, height, width, recipe.randaugment_ops, recipe.randaugment_magnitude, rng)
    return apply_rounds_(images, rounds, torchvision_operations(recipe.interpolation))


def _trivialaugment(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    n, _, height, width = images.shape
    rounds = draw_trivialaugment(n, height, width, rng)
    return apply_rounds_(images, rounds, torchvision_operations(recipe.interpolation))


def _erasing(law: BoxLaw, apply: Callable[[Tensor, Erasure, Recipe, Tensor], Tensor]) -> FloatStep:
    def draw(n: int, height: int, width: int, recipe: Recipe, rng: np.random.Generator) -> Erasure:
        return draw_erasures(n, height, width, recipe.erase_prob, rng, law)

    return FloatStep(draw, apply)


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
    "erase": _erasing(TORCHVISION, lambda images, drawn, recipe, mean: erase(images, drawn, recipe.erase_fill)),
    # Lee's code writes the mean of the unscaled images into scaled ones: about .49, where 0 would be the mean.
    "erase-lee": _erasing(LEE, lambda images, drawn, recipe, mean: erase(images, drawn, mean)),
    "crop-paste": FloatStep(
        lambda n, height, width, recipe, rng: draw_pastes(n, height, width, rng),
        lambda images, pastes, recipe, mean: crop_paste(images, pastes),
    ),
}
