"""Owns random crop with zero padding, random horizontal flip and random resized crop of uint8 images.
Refuses to mix drawing with applying: draw_* decides on the host, the other half only carries it out.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from harness.data.augment.boxes import gather_pixels, put_images
from harness.data.augment.transfer import blocks, per_image, to_device

TRIES = 10  # as often as torchvision looks for a crop that fits


class Windows(NamedTuple):
    """One window an image, each int64 (n,)."""

    tops: np.ndarray
    lefts: np.ndarray
    heights: np.ndarray
    widths: np.ndarray


def draw_crops(n: int, padding: int, rng: np.random.Generator) -> np.ndarray:
    """n x 2 (top, left) in the padded image."""
    return rng.integers(2 * padding + 1, size=(n, 2))


def crop(images: Tensor, corners: np.ndarray, padding: int) -> Tensor:
    """The H x W window at each image's corner of the image padded with zeros."""
    height, width = images.shape[-2:]
    padded_width = width + 2 * padding
    window = torch.arange(height)[:, None] * padded_width + torch.arange(width)
    window = window.view(1, -1).to(images.device)
    starts = to_device(corners[:, 0] * padded_width + corners[:, 1], images.device)[:, None]
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    for block in blocks(len(images), images.shape[1:].numel(), images.device):
        padded = _padded(images[block], padding)
        result[block] = gather_pixels(padded, starts[block] + window, height, width)
    return result


def _padded(images: Tensor, padding: int) -> Tensor:
    # Zeros and a copy: several times faster than torch's own padding of uint8.
    n, channels, height, width = images.shape
    padded = images.new_zeros(n, channels, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = images
    return padded


def draw_flips(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random(n) < 0.5


def flip(images: Tensor, flips: np.ndarray) -> Tensor:
    """Mirrors left and right where flips is true."""
    rows = to_device(np.flatnonzero(flips), images.device)
    result = images.clone(memory_format=torch.contiguous_format)
    for block in blocks(len(rows), images.shape[1:].numel(), images.device):
        put_images(result, rows[block], images.index_select(0, rows[block]).flip(3))
    return result


def draw_resized_crops(
    n: int, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Windows:
    """Area uniform, side ratio log-uniform; the first of ten tries that fits, else the largest allowed centre crop."""
    areas = height * width * rng.uniform(scale[0], scale[1], size=(n, TRIES))
    ratios = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), size=(n, TRIES)))
    widths = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
    heights = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first, found = fits.argmax(1), fits.any(1)
    centre_h, centre_w = _largest_centre_crop(height, width, ratio)
    chosen_h = np.where(found, heights[np.arange(n), first], centre_h)
    chosen_w = np.where(found, widths[np.arange(n), first], centre_w)
    # Drawn for every image, fitting or not, so that the stream does not depend on how many fitted.
    tops = rng.integers(np.maximum(height - chosen_h, 0) + 1)
    lefts = rng.integers(np.maximum(width - chosen_w, 0) + 1)
    tops = np.where(found, tops, (height - chosen_h) // 2)
    lefts = np.where(found, lefts, (width - chosen_w) // 2)
    return Windows(tops, lefts, chosen_h, chosen_w)


def _largest_centre_crop(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    if width / height < min(ratio):
        return round(width / min(ratio)), width
    if width / height > max(ratio):
        return height, round(height * max(ratio))
    return height, width


def resized_crop(images: Tensor, windows: Windows) -> Tensor:
    """Each image's window, resized to the image's own size: bilinear, antialiased, rounded."""
    # The resize is separable and torch works along rows first, so two passes grouped by one side each give the same
    # bits as one pass for each of up to H x W window shapes, in H + W launches.
    stretched = _resize_columns(images.float(), windows.lefts, windows.widths)
    stretched = _resize_columns(stretched.transpose(2, 3), windows.tops, windows.heights).transpose(2, 3)
    return stretched.round_().to(torch.uint8).contiguous()


def _resize_columns(images: Tensor, starts: np.ndarray, lengths: np.ndarray) -> Tensor:
    """Columns start .. start + length of every image, stretched to the full width. float32 in and out."""
    n, channels, height, width = images.shape
    result = torch.empty(n, channels, height, width, device=images.device)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        on_device = to_device(rows, images.device)
        first = per_image(starts[rows], images.device, torch.int64)
        columns = (first + torch.arange(length, device=images.device)).expand(-1, channels, height, -1)
        window = images.index_select(0, on_device).gather(3, columns)
        resized = interpolate(window, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
        put_images(result, on_device, resized)
    return result
