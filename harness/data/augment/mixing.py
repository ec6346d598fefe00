"""MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899): each image is mixed with the one before it in the batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.data.augment.transfer import box_mask, boxes_around, to_device
from harness.recipes import Recipe


class Mix(NamedTuple):
    own: Tensor  # n float32: weight of the image itself outside its box
    box: Tensor  # n x 4 int64 (y1, x1, y2, x2): there the partner alone is seen; empty for MixUp
    label_weight: Tensor  # n float32: share of the image's own label; the rest is that of images.roll(1, 0)

    def to(self, device: torch.device | str) -> "Mix":
        return Mix(*(to_device(part, torch.device(device)) for part in self))


class MixDraw(NamedTuple):
    """What a batch takes from the generator, an entry an image or one for them all; what cannot happen is not drawn."""

    is_mixed: np.ndarray  # uniform: mixed below mix_prob
    prefers_cutmix: np.ndarray  # uniform
    mixup: np.ndarray  # Beta: weight of the image itself
    cutmix: np.ndarray  # Beta: share of the image that stays
    x: np.ndarray  # centre of the box
    y: np.ndarray


def draw_mix(n: int, height: int, width: int, recipe: Recipe, rng: np.random.Generator) -> Mix:
    """Host tensors; one draw for the batch, or one for each image when recipe.mix_per_image."""
    return mix_of([draw_mix_values(n, height, width, recipe, rng)], [n], height, width, recipe)


def draw_mix_values(n: int, height: int, width: int, recipe: Recipe, rng: np.random.Generator) -> MixDraw:
    draws = n if recipe.mix_per_image else 1
    is_mixed, prefers_cutmix = rng.random(draws), rng.random(draws)
    mixup = cutmix = np.ones(draws)
    x = y = np.zeros(draws, dtype=np.int64)
    # A recipe without one of the two methods must not need its alpha, so each is drawn only where it can happen.
    if recipe.mix in ("mixup", "either"):
        mixup = rng.beta(recipe.mixup_alpha, recipe.mixup_alpha, size=draws)
    if recipe.mix in ("cutmix", "either"):
        cutmix = rng.beta(recipe.cutmix_alpha, recipe.cutmix_alpha, size=draws)
        x, y = rng.integers(width, size=draws), rng.integers(height, size=draws)
    return MixDraw(is_mixed, prefers_cutmix, mixup, cutmix, x, y)


def mix_of(draws: Sequence[MixDraw], counts: Sequence[int], height: int, width: int, recipe: Recipe) -> Mix:
    """Host tensors for the images of several batches, one batch of `counts` after the other."""
    drawn = MixDraw(*(np.concatenate(values) for values in zip(*draws, strict=True)))
    is_mixed = drawn.is_mixed < recipe.mix_prob
    prefers_cutmix = drawn.prefers_cutmix < {"mixup": 0.0, "cutmix": 1.0}.get(recipe.mix, 0.5)
    is_mixup, is_cutmix = is_mixed & ~prefers_cutmix, is_mixed & prefers_cutmix
    # Rounded before 1 - lam is formed, so that the two weights add up as torchvision's do.
    own = np.where(is_mixup, drawn.mixup.astype(np.float32), np.float32(1))
    boxes = cutmix_boxes(0.5 * np.sqrt(1.0 - drawn.cutmix), drawn.y, drawn.x, height, width)
    box = np.where(is_cutmix[:, None], boxes, 0)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    label_weight = np.where(is_mixup, own, 1.0 - area / (height * width)).astype(np.float32)
    times = 1 if recipe.mix_per_image else counts
    return Mix(*(torch.from_numpy(np.repeat(part, times, axis=0)) for part in (own, box, label_weight)))


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """images float n x C x H x W on the device of mix -> images * weight + their partners * (1 - weight)."""
    inside = box_mask(mix.box, images.shape[2], images.shape[3])
    weight = torch.where(inside, 0.0, mix.own.view(-1, 1, 1, 1))
    return images * weight + images.roll(1, 0) * (1.0 - weight)


def cutmix_boxes(half_side: np.ndarray, y: np.ndarray, x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes around whole-pixel centres, half sides as a share of the image and truncated, clipped to the image."""
    halves = np.stack([half_side * height, half_side * width]).astype(np.int64)
    return boxes_around(np.stack([y, x]), halves, (height, width))
