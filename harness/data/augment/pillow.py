"""Shear, translation and rotation of uint8 images as Pillow does them: shears bicubic about the top left corner, the
others nearest, translations by parts of a pixel too. Outside is grey. Tables are made once on the CPU, and cached.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.data.augment.boxes import gather_pixels
from harness.data.augment.geometry import Warp, distinct_warps, fill_outside, warp_nearest
from harness.data.augment.pixels import truncated
from harness.data.augment.transfer import blocks, tensor_to_device

SHIFTS = ("TranslateX", "TranslateY", "Rotate")
GREY = 128
TAPS = 4  # pixels that a cubic goes through


def shift(images: Tensor, warps: Sequence[Warp]) -> Tensor:
    """Translations (in pixels of the source) and rotations (in degrees, counter-clockwise), one an image."""
    return warp_nearest(images, warps, pillow_source, fill=GREY)


@lru_cache(maxsize=256)
def pillow_source(op: str, magnitude: float, height: int, width: int) -> Tensor:
    """Flat position of the pixel that each output pixel shows, -1 outside: int64, height * width."""
    # Pillow moves an image of positions: whole numbers of 32 bits go through the code that moves RGB and RGBA, so that
    # its fixed-point rounding need not be written again.
    positions = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    if op == "Rotate":
        moved = positions.rotate(magnitude, fillcolor=-1)
    else:
        x, y = (magnitude, 0.0) if op == "TranslateX" else (0.0, magnitude)
        moved = positions.transform(positions.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y), fillcolor=-1)
    return torch.from_numpy(np.array(moved)).view(-1).long()


def shear(images: Tensor, warps: Sequence[Warp]) -> Tensor:
    """Shears along one axis, which is that of the first: four pixels of one row, or of one column, make a new one."""
    height, width = images.shape[-2:]
    axis, length = (3, width) if warps[0][0] == "ShearX" else (2, height)
    distinct, rows = distinct_warps(warps, images.device)
    tables = zip(*(shear_tables(op, slope, height, width) for op, slope in distinct), strict=True)
    source, beyond, inside = (tensor_to_device(torch.stack(table), images.device) for table in tables)
    result = torch.empty_like(images)
    for block in blocks(len(images), 2 * TAPS * images.shape[1:].numel(), images.device):
        own = rows[block]
        own_source = source.index_select(0, own).flatten(1)
        longer = gather_pixels(images[block], own_source, source.shape[1], source.shape[2]).to(torch.int16)
        taps = [longer.narrow(axis, first, length) for first in range(TAPS)]
        result[block] = truncated(_cubic(taps, beyond.index_select(0, own)).clamp_(0, 255))
    return fill_outside(result, inside.index_select(0, rows), GREY)


def _cubic(taps: list[Tensor], beyond: Tensor) -> Tensor:
    """The cubic through four int16 pixels a step apart, at float32 how far `beyond` the second."""
    first, second, third, fourth = taps
    # In this form four equal pixels give themselves: the fraction is dropped afterwards, so a last bit is a grey level.
    linear = third - first
    square = (first - second).mul_(2).add_(third).sub_(fourth)
    cube = (second - first).sub_(third).add_(fourth)
    return beyond.mul(cube).add_(square).mul_(beyond).add_(linear).mul_(beyond).add_(second)


@lru_cache(maxsize=256)
def shear_tables(op: str, slope: float, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The sheared image, three pixels longer along the shear so that a point's four pixels follow each other, as flat
    source positions (int64); how far each point lies beyond its second pixel (float32, 1 x height x width); whether it
    is in the image (uint8, 1 x height x width)."""
    axis, length = (1, width) if op == "ShearX" else (0, height)
    grid = np.indices((height + (axis == 0) * (TAPS - 1), width + (axis == 1) * (TAPS - 1)))
    along, across = grid[axis], grid[1 - axis]
    point = (along + 0.5) + slope * (across + 0.5)
    # A line is moved by one amount, but for the rounding of the sum: its least start serves all of the line.
    moved = (np.floor(point - 0.5) - along).min(axis=axis, keepdims=True)
    beyond = (point - 0.5 - along - moved)[:height, :width]
    inside = ((point >= 0) & (point < length))[:height, :width]
    grid[axis] = np.clip(along + moved - 1, 0, length - 1)
    source = torch.from_numpy(grid[0] * width + grid[1])
    return source, torch.from_numpy(beyond).float()[None], torch.from_numpy(inside).to(torch.uint8)[None]
