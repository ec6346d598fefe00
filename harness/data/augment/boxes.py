"""Owns boxes as rows (y1, x1, y2, x2), the masks they cover, and moving pixels and whole images by index.
Refuses to draw anything: who draws a box keeps its rule.
"""

import torch
from torch import Tensor


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """boxes n x 4 -> bool n x 1 x height x width, true inside; an empty box covers nothing."""
    y = torch.arange(height, device=boxes.device).view(1, height, 1)
    x = torch.arange(width, device=boxes.device).view(1, 1, width)
    y1, x1, y2, x2 = (edge.view(-1, 1, 1) for edge in boxes.unbind(1))
    return ((y >= y1) & (y < y2) & (x >= x1) & (x < x2)).unsqueeze(1)


def gather_pixels(images: Tensor, source: Tensor, height: int, width: int, into_BCHW: Tensor | None = None) -> Tensor:
    """images n x C x h x w, source n x (height * width) flat positions in h x w -> n x C x height x width, new or
    written into a contiguous tensor of other images."""
    n, channels = images.shape[:2]
    index = source.view(n, 1, height * width).expand(n, channels, height * width)
    if into_BCHW is not None:
        torch.gather(images.flatten(2), 2, index, out=into_BCHW.view(n, channels, -1))
        return into_BCHW
    return images.flatten(2).gather(2, index).view(n, channels, height, width)


def put_images(target: Tensor, rows: Tensor, images: Tensor) -> None:
    """target[rows] = images, in place; target is contiguous (a view of it must be possible, or the write is lost)."""
    target, images = target.view(len(target), -1), images.reshape(len(images), -1)
    if target.shape[1] * target.element_size() % 8 == 0:
        # torch copies row by row and element by element: eight bytes at a time is nine times faster on a CPU.
        target, images = target.view(torch.int64), images.view(torch.int64)
    target.index_copy_(0, rows, images)
