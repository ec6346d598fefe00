"""Owns shear, translation and rotation of uint8 images, nearest or bilinear, as tables made once on the CPU and cached.
Refuses randomness; outside the image is 0, and every result equals torchvision's tensor path bit for bit on a CPU.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from harness.data.augment.boxes import gather_pixels
from harness.data.augment.transfer import tensor_to_device, to_device

GEOMETRY_OPS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
Warp = tuple[str, float]  # (operation, signed magnitude)


def warp(images: Tensor, warps: Sequence[Warp], interpolation: str) -> Tensor:
    """images uint8 n x C x H x W, one warp an image."""
    if interpolation == "nearest":
        return warp_nearest(images, warps, nearest_source)
    if interpolation == "bilinear":
        return _warp_bilinear(images, warps)
    raise ValueError(f"interpolation must be 'nearest' or 'bilinear', not {interpolation!r}")


def distinct_warps(warps: Sequence[Warp], device: torch.device) -> tuple[list[Warp], Tensor]:
    """Every warp in use, to be looked up and sent once, and each image's row among them, on the device."""
    distinct = {key: row for row, key in enumerate(dict.fromkeys(warps))}
    return list(distinct), to_device(np.array([distinct[key] for key in warps], dtype=np.int64), device)


def warp_nearest(images: Tensor, warps: Sequence[Warp], source_of: Callable[..., Tensor], fill: int = 0) -> Tensor:
    """source_of(op, magnitude, height, width) says which pixel each output pixel shows, as `nearest_source` does."""
    height, width = images.shape[-2:]
    distinct, rows = distinct_warps(warps, images.device)
    table = torch.stack([source_of(op, magnitude, height, width) for op, magnitude in distinct])
    source = tensor_to_device(table.clamp(min=0), images.device).index_select(0, rows)
    inside = tensor_to_device((table >= 0).to(torch.uint8), images.device).index_select(0, rows)
    return fill_outside(gather_pixels(images, source, height, width), inside.view(-1, 1, height, width), fill)


def fill_outside(images: Tensor, inside: Tensor, fill: int) -> Tensor:
    """inside uint8 n x 1 x H x W; in place. Products and sums of bytes: torch's masked fill takes 20 times as long."""
    images.mul_(inside)
    return images.add_((1 - inside) * fill) if fill else images


def _warp_bilinear(images: Tensor, warps: Sequence[Warp]) -> Tensor:
    height, width = images.shape[-2:]
    distinct, rows = distinct_warps(warps, images.device)
    table = torch.cat([sampling_grid(op, magnitude, height, width) for op, magnitude in distinct])
    grids = tensor_to_device(table, images.device).index_select(0, rows)
    sampled = grid_sample(images.float(), grids, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.round_().to(torch.uint8)


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
    if op == "Rotate":
        angle = math.radians(-magnitude)
        return [math.cos(angle), math.sin(angle), 0.0, -math.sin(angle), math.cos(angle), 0.0]
    raise ValueError(f"unknown geometric operation {op!r}; known: {', '.join(GEOMETRY_OPS)}")
