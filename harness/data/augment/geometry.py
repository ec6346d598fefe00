"""Shear, translation and rotation of uint8 images, one an image, by tables that are made once on the CPU and cached.

As torchvision does them: nearest or bilinear, 0 outside, on a CPU equal bit for bit. As Pillow does them: shears
bicubic about the top left corner, the others nearest, translations by parts of a pixel too, grey outside.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from harness.data.augment.pixels import truncated
from harness.data.augment.transfer import blocks, gather_pixels, to_device

SHIFTS = ("TranslateX", "TranslateY", "Rotate")
GEOMETRY_OPS = ("ShearX", "ShearY", *SHIFTS)
GREY = 128  # what Pillow's flavour has outside the image
TAPS = 4  # pixels that a cubic goes through
Warp = tuple[str, float]  # (operation, signed magnitude)


def warp(images: Tensor, warps: Sequence[Warp], interpolation: str) -> Tensor:
    """images uint8 n x C x H x W, one warp an image."""
    if interpolation == "nearest":
        return warp_nearest(images, warps, nearest_source)
    distinct, rows = distinct_warps(warps, images.device)
    table = torch.cat([sampling_grid(op, magnitude, *images.shape[-2:]) for op, magnitude in distinct])
    grids = to_device(table, images.device).index_select(0, rows)
    sampled = grid_sample(images.float(), grids, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.round_().to(torch.uint8)


def distinct_warps(warps: Sequence[Warp], device: torch.device) -> tuple[list[Warp], Tensor]:
    """Every warp in use, to be looked up and sent once, and each image's row among them, on the device."""
    distinct = {key: row for row, key in enumerate(dict.fromkeys(warps))}
    return list(distinct), to_device(np.array([distinct[key] for key in warps], dtype=np.int64), device)


def warp_nearest(images: Tensor, warps: Sequence[Warp], source_of: Callable[..., Tensor], fill: int = 0) -> Tensor:
    """source_of(op, magnitude, height, width) says which pixel each output pixel shows, as `nearest_source` does."""
    height, width = images.shape[-2:]
    distinct, rows = distinct_warps(warps, images.device)
    table = torch.stack([source_of(op, magnitude, height, width) for op, magnitude in distinct])
    source = to_device(table.clamp(min=0), images.device).index_select(0, rows)
    inside = to_device((table >= 0).to(torch.uint8), images.device).index_select(0, rows)
    return fill_outside(gather_pixels(images, source, height, width), inside.view(-1, 1, height, width), fill)


def fill_outside(images: Tensor, inside: Tensor, fill: int) -> Tensor:
    """inside uint8 n x 1 x H x W; in place. Products and sums of bytes: torch's masked fill takes 20 times as long."""
    images.mul_(inside)
    return images.add_((1 - inside) * fill) if fill else images


@lru_cache(maxsize=4096)
def nearest_source(op: str, magnitude: float, height: int, width: int) -> Tensor:
    """Flat position of the pixel that each output pixel shows, -1 outside: int64, height * width."""
    # Sampling an image of its own positions leaves the rounding rule to torch; 0 then means "outside".
    positions = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, 1, height, width)
    grid = sampling_grid(op, magnitude, height, width)
    found = grid_sample(positions, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return found.view(-1).long() - 1


@lru_cache(maxsize=4096)
def sampling_grid(op: str, magnitude: float, height: int, width: int) -> Tensor:
    """1 x height x width x 2 positions (x, y) in [-1, 1] for grid_sample."""
    # Always made on the CPU with these very float32 steps: a last bit decides which pixel "nearest" takes.
    theta = torch.tensor(inverse_matrix(op, magnitude, height, width), dtype=torch.float32).view(1, 2, 3)
    to_unit = theta.transpose(1, 2) / torch.tensor([0.5 * width, 0.5 * height], dtype=torch.float32)
    x = torch.linspace(0.5 - 0.5 * width, 0.5 * width - 0.5, width)
    y = torch.linspace(0.5 - 0.5 * height, 0.5 * height - 0.5, height)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    homogeneous = torch.stack((columns, rows, torch.ones_like(rows)), dim=-1).view(1, height * width, 3)
    return homogeneous.bmm(to_unit).view(1, height, width, 2)


def inverse_matrix(op: str, magnitude: float, height: int, width: int) -> list[float]:
    """Rows (a, b, c, d, e, f): output position, from the image's centre, -> input position."""
    half_w, half_h = 0.5 * width, 0.5 * height
    if op == "ShearX":
        # Through degrees and back, and about the corner, as torchvision does: the last bits count.
        slope = math.tan(math.radians(math.degrees(math.atan(magnitude))))
        return [1.0, slope, (half_w + slope * half_h) - half_w, 0.0, 1.0, 0.0]
    if op == "ShearY":
        angle = math.radians(math.degrees(math.atan(magnitude)))
        slope = math.sin(angle) / math.cos(angle)
        return [1.0, 0.0, 0.0, slope, 1.0, (slope * half_w + half_h) - half_h]
    if op == "TranslateX":
        return [1.0, 0.0, -float(int(magnitude)), 0.0, 1.0, 0.0]
    if op == "TranslateY":
        return [1.0, 0.0, 0.0, 0.0, 1.0, -float(int(magnitude))]
    angle = math.radians(-magnitude)  # Rotate
    return [math.cos(angle), math.sin(angle), 0.0, -math.sin(angle), math.cos(angle), 0.0]


# --- as Pillow does them ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def pillow_source(op: str, magnitude: float, height: int, width: int) -> Tensor:
    """As `nearest_source`, for translations (in pixels of the source) and rotations (in degrees, counter-clockwise)."""
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
    source, beyond, inside = (to_device(torch.stack(table), images.device) for table in tables)
    result = torch.empty_like(images)
    for block in blocks(len(images), 2 * TAPS * images.shape[1:].numel(), images.device):
        own = rows[block]
        own_source = source.index_select(0, own).flatten(1)
        longer = gather_pixels(images[block], own_source, source.shape[1], source.shape[2]).to(torch.int16)
        first, second, third, fourth = (longer.narrow(axis, tap, length) for tap in range(TAPS))
        # The cubic through four pixels a step apart. In this form four equal ones give themselves: the fraction is
        # dropped afterwards, so a last bit is a grey level.
        linear = third - first
        square = (first - second).mul_(2).add_(third).sub_(fourth)
        cube = (second - first).sub_(third).add_(fourth)
        at = beyond.index_select(0, own)
        values = at.mul(cube).add_(square).mul_(at).add_(linear).mul_(at).add_(second)
        result[block] = truncated(values.clamp_(0, 255))
    return fill_outside(result, inside.index_select(0, rows), GREY)


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
