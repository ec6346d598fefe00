"""Owns the way of small host arrays to the images' device, and the size of the blocks that images are worked on in.
Refuses everything that would make the host wait for the device.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# A float32 copy of one block stays inside a CPU's second-level caches; larger blocks run at main-memory speed.
CPU_BLOCK_VALUES = 1 << 20


def tensor_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        # A copy from pageable memory would wait for the stream.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    return tensor_to_device(torch.from_numpy(np.ascontiguousarray(array)), device)


def sent_together(draws: Sequence[Any], device: torch.device) -> list[Any]:
    """The same draws of several batches, named tuples of host tensors and plain numbers: each of the tensors is sent
    once for all batches, and cut into them again on the device."""
    fields = []
    for values in zip(*draws, strict=True):
        if isinstance(values[0], Tensor):
            values = tensor_to_device(torch.cat(values), device).split([len(value) for value in values])
        fields.append(values)
    return [type(draws[0])(*values) for values in zip(*fields, strict=True)]


def per_image(values: np.ndarray, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """n x 1 x 1 x 1, one value an image; cast on the host, so that every device gets the same bits."""
    return tensor_to_device(torch.from_numpy(np.ascontiguousarray(values)).to(dtype), device).view(-1, 1, 1, 1)


def blocks(count: int, values_per_image: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover range(count): cache-sized on a CPU, one slice on an accelerator (fewer launches)."""
    step = max(1, CPU_BLOCK_VALUES // max(1, values_per_image)) if device.type == "cpu" else max(1, count)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
