"""Moving values and pixels about: from the host to the images' device without waiting for it, and by index between
images."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# A float32 copy of one block stays inside a CPU's second-level caches; larger blocks run at main-memory speed.
CPU_BLOCK_VALUES = 1 << 20


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    # A copy from pageable memory would wait for the stream.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def sent_together(draws: Sequence[Any], device: torch.device) -> list[Any]:
    """The same draws of several batches, named tuples of host tensors and plain numbers: each of the tensors is sent
    once for all batches, and cut into them again on the device."""
    fields = []
    for values in zip(*draws, strict=True):
        if isinstance(values[0], Tensor):
            values = to_device(torch.cat(values), device).split([len(value) for value in values])
        fields.append(values)
    return [type(draws[0])(*values) for values in zip(*fields, strict=True)]


def per_image(values: np.ndarray, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """n x 1 x 1 x 1, one value an image; cast on the host, so that every device gets the same bits."""
    return to_device(torch.from_numpy(np.ascontiguousarray(values)).to(dtype), device).view(-1, 1, 1, 1)


def blocks(count: int, values_per_image: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover range(count): cache-sized on a CPU, one slice on an accelerator (fewer launches)."""
    step = max(1, CPU_BLOCK_VALUES // max(1, values_per_image)) if device.type == "cpu" else max(1, count)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def boxes_around(centres: np.ndarray, halves: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """2 x n centres and half sides (y, x) in whole pixels -> n x 4 boxes (y1, x1, y2, x2), clipped to the image."""
    ends = np.array(sides)[:, None]
    return np.concatenate([np.maximum(centres - halves, 0), np.minimum(centres + halves, ends)]).T


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """boxes n x 4 -> bool n x 1 x height x width, true inside; an empty box covers nothing."""
    y = torch.arange(height, device=boxes.device).view(1, height, 1)
    x = torch.arange(width, device=boxes.device).view(1, 1, width)
    y1, x1, y2, x2 = (edge.view(-1, 1, 1) for edge in boxes.unbind(1))
    return ((y >= y1) & (y < y2) & (x >= x1) & (x < x2)).unsqueeze(1)


def gather_pixels(images: Tensor, source: Tensor, height: int, width: int, out: Tensor | None = None) -> Tensor:
    """images n x C x h x w, source n x (height * width) flat positions in h x w -> n x C x height x width, where given
    in the contiguous `out`."""
    n, channels = images.shape[:2]
    index = source.view(n, 1, height * width).expand(n, channels, height * width)
    into = None if out is None else out.view(n, channels, -1)
    return torch.gather(images.flatten(2), 2, index, out=into).view(n, channels, height, width)


def put_images(target: Tensor, rows: Tensor, images: Tensor) -> None:
    """target[rows] = images, in place; target is contiguous (a view of it must be possible, or the write is lost)."""
    values = target.shape[1:].numel()
    target, images = target.view(-1, values), images.reshape(-1, values)
    if target.shape[1] * target.element_size() % 8 == 0:
        # torch copies row by row and element by element: eight bytes at a time is nine times faster on a CPU.
        target, images = target.view(torch.int64), images.view(torch.int64)
    target.index_copy_(0, rows, images)
