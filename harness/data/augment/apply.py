"""Owns carrying out drawn rounds: images of one operation are worked on together, whatever their magnitudes.
Refuses to draw, and to group on the device: the grouping needs no answer from it.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from harness.data.augment.boxes import put_images
from harness.data.augment.geometry import GEOMETRY_OPS, warp
from harness.data.augment.pixels import PIXEL_OPS
from harness.data.augment.policies import OPS, Round
from harness.data.augment.transfer import blocks, to_device

_IS_GEOMETRY = np.array([op in GEOMETRY_OPS for op in OPS])


def apply_rounds_(images: Tensor, rounds: Sequence[Round], interpolation: str) -> Tensor:
    for drawn in rounds:
        apply_round_(images, drawn, interpolation)
    return images


def apply_round_(images: Tensor, drawn: Round, interpolation: str) -> Tensor:
    """images uint8 n x 3 x H x W, contiguous: image i goes through operation drawn.ops[i], in place."""
    for name, rows in _groups(drawn.ops):
        for block in blocks(len(rows), images.shape[1:].numel(), images.device):
            chosen = rows[block]
            on_device = to_device(chosen, images.device)
            picked = images.index_select(0, on_device)
            put_images(images, on_device, _operate(name, picked, chosen, drawn, interpolation))
    return images


def _groups(ops: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(operation, rows) for every operation that changes something; all geometry is one group, as its tables mix."""
    groups = [("geometry", np.flatnonzero(_IS_GEOMETRY[ops]))]
    groups += [(name, np.flatnonzero(ops == OPS.index(name))) for name in PIXEL_OPS]
    return [(name, rows) for name, rows in groups if len(rows)]


def _operate(name: str, picked: Tensor, rows: np.ndarray, drawn: Round, interpolation: str) -> Tensor:
    magnitudes = drawn.magnitudes[rows]
    if name != "geometry":
        return PIXEL_OPS[name](picked, magnitudes)
    names = [OPS[op] for op in drawn.ops[rows]]
    return warp(picked, list(zip(names, magnitudes.tolist(), strict=True)), interpolation)
