"""Owns carrying out drawn rounds: images of one operation are worked on together, whatever their magnitudes.
Refuses to draw, and to group on the device: the grouping needs no answer from it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from harness.data.augment.boxes import put_images
from harness.data.augment.geometry import GEOMETRY_OPS, Warp, warp
from harness.data.augment.pillow import SHIFTS, shear, shift
from harness.data.augment.pixels import PILLOW_PIXEL_OPS, PIXEL_OPS, PixelOp
from harness.data.augment.policies import OPS, Round
from harness.data.augment.transfer import blocks, to_device


class Operations(NamedTuple):
    """How the operations are carried out: geometry of several names at once, as its tables mix, pixels name by name."""

    warps: dict[tuple[str, ...], Callable[[Tensor, Sequence[Warp]], Tensor]]
    pixels: dict[str, PixelOp]


def torchvision_operations(interpolation: str) -> Operations:
    return Operations({GEOMETRY_OPS: partial(warp, interpolation=interpolation)}, PIXEL_OPS)


PILLOW_OPERATIONS = Operations({("ShearX",): shear, ("ShearY",): shear, SHIFTS: shift}, PILLOW_PIXEL_OPS)


def apply_rounds_(images: Tensor, rounds: Sequence[Round], operations: Operations) -> Tensor:
    for drawn in rounds:
        apply_round_(images, drawn, operations)
    return images


def apply_round_(images: Tensor, drawn: Round, operations: Operations) -> Tensor:
    """images uint8 n x 3 x H x W, contiguous: image i goes through operation drawn.ops[i], in place."""
    for names in (*operations.warps, *((name,) for name in operations.pixels)):
        rows = np.flatnonzero(np.array([op in names for op in OPS])[drawn.ops])
        for block in blocks(len(rows), images.shape[1:].numel(), images.device):
            chosen = rows[block]
            on_device = to_device(chosen, images.device)
            picked = images.index_select(0, on_device)
            put_images(images, on_device, _operate(names, picked, chosen, drawn, operations))
    return images


def _operate(names: tuple[str, ...], picked: Tensor, rows: np.ndarray, drawn: Round, operations: Operations) -> Tensor:
    magnitudes = drawn.magnitudes[rows]
    if names not in operations.warps:
        return operations.pixels[names[0]](picked, magnitudes)
    own_names = [OPS[op] for op in drawn.ops[rows]]
    return operations.warps[names](picked, list(zip(own_names, magnitudes.tolist(), strict=True)))
