"""Owns "crop-paste" of float images: a piece of an image is blended into another place of the same image.
Refuses to flip the background, as its origin (RandomCropPaste of omihub777/ViT-CIFAR) also does: "flip" does that.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.data.augment.boxes import box_mask, gather_pixels

BETA_ALPHA = 1.0
FLIP_PROBABILITY = 0.5


class Pastes(NamedTuple):
    """On the host as drawn."""

    boxes: Tensor  # n x 4 int64 (y1, x1, y2, x2): the piece that is copied
    corners: Tensor  # n x 2 int64 (top, left): where it goes
    flips: Tensor  # n bool: the piece is mirrored left and right
    keep: Tensor  # n float32: weight of what was there before


def draw_pastes(n: int, height: int, width: int, rng: np.random.Generator) -> Pastes:
    side = np.sqrt(1.0 - rng.beta(BETA_ALPHA, BETA_ALPHA, size=n))
    half_h, half_w = (height * side).astype(np.int64) // 2, (width * side).astype(np.int64) // 2
    centre_y, centre_x = rng.integers(height, size=n), rng.integers(width, size=n)
    y1, y2 = np.maximum(centre_y - half_h, 0), np.minimum(centre_y + half_h, height)
    x1, x2 = np.maximum(centre_x - half_w, 0), np.minimum(centre_x + half_w, width)
    top, left = rng.integers(height - (y2 - y1) + 1), rng.integers(width - (x2 - x1) + 1)
    flips = rng.random(n) < FLIP_PROBABILITY
    keep = rng.random(n).astype(np.float32)
    boxes, corners = np.stack([y1, x1, y2, x2], axis=1), np.stack([top, left], axis=1)
    return Pastes(*(torch.from_numpy(part) for part in (boxes, corners, flips, keep)))


def crop_paste(images: Tensor, pastes: Pastes) -> Tensor:
    height, width = images.shape[-2:]
    corners, boxes, keep = pastes.corners, pastes.boxes, pastes.keep.view(-1, 1, 1, 1)
    target = torch.cat([corners, corners + boxes[:, 2:] - boxes[:, :2]], dim=1)
    piece = gather_pixels(images, _piece_source(pastes, height, width), height, width)
    return torch.where(box_mask(target, height, width), images * keep + piece * (1 - keep), images)


def _piece_source(pastes: Pastes, height: int, width: int) -> Tensor:
    """n x (H * W) flat source positions; outside the target they are only kept legal, since nothing reads them."""
    (y1, x1, _, x2), (top, left), flips = pastes.boxes.unbind(1), pastes.corners.unbind(1), pastes.flips
    y = torch.arange(height, device=top.device) + (y1 - top)[:, None]
    x = torch.arange(width, device=top.device) * torch.where(flips, -1, 1)[:, None]
    x = x + torch.where(flips, x2 - 1 + left, x1 - left)[:, None]
    rows, columns = y.clamp(0, height - 1), x.clamp(0, width - 1)
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
