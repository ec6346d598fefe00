"""Owns MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899): each image is mixed with the one before it in the batch.
Refuses labels: it hands back label_weight, the share of an image's own label; the rest is that of images.roll(1, 0).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.augmentations import MIX_NAMES
from harness.data.augment.boxes import box_mask
from harness.data.augment.settings import MixSettings
from harness.data.augment.transfer import tensor_to_device

EITHER_CUTMIX_PROBABILITY = 0.5


class Mix(NamedTuple):
    own: Tensor  # n float32: weight of the image itself outside its box
    box: Tensor  # n x 4 int64 (y1, x1, y2, x2): there the partner alone is seen; empty for MixUp
    label_weight: Tensor  # n float32: weight of the image's own label

    def to(self, device: torch.device | str) -> "Mix":
        return Mix(*(tensor_to_device(part, torch.device(device)) for part in self))


def draw_mix(n: int, height: int, width: int, settings: MixSettings, rng: np.random.Generator) -> Mix:
    """Host tensors; one draw for the batch, or one for each image when settings.mix_per_image."""
    if settings.mix not in MIX_NAMES:
        raise ValueError(f"mix must be one of {', '.join(MIX_NAMES)}, not {settings.mix!r}")
    draws = n if settings.mix_per_image else 1
    is_mixup, is_cutmix = _draw_kinds(draws, settings, rng)
    own, box = np.ones(draws, dtype=np.float32), np.zeros((draws, 4), dtype=np.int64)
    # A recipe without one of the two methods must not need its alpha, so each is drawn only where it can happen.
    if settings.mix in ("mixup", "either"):
        # Rounded before 1 - lam is formed, so that the two weights add up as torchvision's do.
        lam = rng.beta(settings.mixup_alpha, settings.mixup_alpha, size=draws).astype(np.float32)
        own = np.where(is_mixup, lam, own)
    if settings.mix in ("cutmix", "either"):
        drawn = _draw_cutmix_boxes(draws, height, width, settings.cutmix_alpha, rng)
        box = np.where(is_cutmix[:, None], drawn, box)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    label_weight = np.where(is_mixup, own, 1.0 - area / (height * width)).astype(np.float32)
    return Mix(*(_one_per_image(part, n) for part in (own, box, label_weight)))


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """images float n x C x H x W on the device of mix -> images * weight + their partners * (1 - weight)."""
    inside = box_mask(mix.box, images.shape[2], images.shape[3])
    weight = torch.where(inside, 0.0, mix.own.view(-1, 1, 1, 1))
    return images * weight + images.roll(1, 0) * (1.0 - weight)


def _draw_kinds(draws: int, settings: MixSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """bool (draws,) each: mixed by MixUp, mixed by CutMix."""
    is_mixed = rng.random(draws) < settings.mix_prob
    prefers_cutmix = rng.random(draws) < EITHER_CUTMIX_PROBABILITY
    if settings.mix != "either":
        prefers_cutmix[:] = settings.mix == "cutmix"
    is_mixed &= settings.mix != "none"
    return is_mixed & ~prefers_cutmix, is_mixed & prefers_cutmix


def _draw_cutmix_boxes(draws: int, height: int, width: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    half_side = 0.5 * np.sqrt(1.0 - rng.beta(alpha, alpha, size=draws))
    x, y = rng.integers(width, size=draws), rng.integers(height, size=draws)
    return cutmix_boxes(half_side, y, x, height, width)


def cutmix_boxes(half_side: np.ndarray, y: np.ndarray, x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes around whole-pixel centres, half sides as a share of the image and truncated, clipped to the image."""
    half_h, half_w = (half_side * height).astype(np.int64), (half_side * width).astype(np.int64)
    y1, y2 = np.maximum(y - half_h, 0), np.minimum(y + half_h, height)
    x1, x2 = np.maximum(x - half_w, 0), np.minimum(x + half_w, width)
    return np.stack([y1, x1, y2, x2], axis=1)


def _one_per_image(values: np.ndarray, n: int) -> Tensor:
    return torch.from_numpy(np.broadcast_to(values, (n, *values.shape[1:])).copy())
