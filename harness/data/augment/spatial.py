"""Crop, flip and resized crop of uint8 images; random erasing and crop-paste of float images that are scaled already.
draw_* decides on the host where and for which images, the other half only carries it out."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from harness.data.augment.pixels import truncated
from harness.data.augment.transfer import blocks, box_mask, gather_pixels, put_images, to_device

TRIES = 10  # as often as torchvision looks for a crop or a box that fits


class Windows(NamedTuple):
    """One window an image, each int64 (n,)."""

    tops: np.ndarray
    lefts: np.ndarray
    heights: np.ndarray
    widths: np.ndarray


def draw_crops(n: int, padding: int, rng: np.random.Generator) -> np.ndarray:
    """n x 2 (top, left) in the padded image."""
    return rng.integers(2 * padding + 1, size=(n, 2))


def crop_(images: Tensor, corners: np.ndarray, padding: int) -> Tensor:
    """Contiguous images become, in place, the H x W window at each one's corner of the image padded with zeros."""
    (height, width), device = images.shape[-2:], images.device
    padded_width = width + 2 * padding
    window = _within(height, width, padded_width, device)
    starts = to_device(corners[:, 0] * padded_width + corners[:, 1], device)[:, None]
    for block in blocks(len(images), images.shape[1:].numel(), device):
        here = images[block]
        # Zeros around a copy: several times faster than torch's own padding of uint8.
        padded = here.new_zeros(len(here), here.shape[1], height + 2 * padding, padded_width)
        padded[:, :, padding : padding + height, padding : padding + width] = here
        images[block] = gather_pixels(padded, starts[block] + window, height, width)
    return images


def draw_flips(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random(n) < 0.5


def flip_(images: Tensor, flips: np.ndarray) -> Tensor:
    """Mirrors contiguous images left and right, in place, where flips is true."""
    rows = to_device(np.flatnonzero(flips), images.device)
    for block in blocks(len(rows), images.shape[1:].numel(), images.device):
        put_images(images, rows[block], images.index_select(0, rows[block]).flip(3))
    return images


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
    return resized_together(images, windows) if images.is_cuda else resized_by_shape(images, windows)


def resized_by_shape(images: Tensor, windows: Windows) -> Tensor:
    """By torch's own resizing, with torchvision's bits on a CPU: one call for each shape of window."""
    height, width = images.shape[-2:]
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    for rows in _same_shape(windows):
        for block in blocks(len(rows), images.shape[1:].numel(), images.device):
            chosen = rows[block]
            on_device = to_device(chosen, images.device)
            window = _cut(images.index_select(0, on_device), Windows(*(part[chosen] for part in windows)))
            resized = interpolate(
                window.float(), size=(height, width), mode="bilinear", align_corners=False, antialias=True
            )
            put_images(result, on_device, truncated(resized.round_()))
    return result


def resized_together(images: Tensor, windows: Windows) -> Tensor:
    """The same as rows @ image @ columns, where each image has matrices of its own: as many launches on a GPU for many
    shapes of window as for one. Sums in another order may round a pixel to the next level."""
    n, channels, height, width = images.shape
    tops, lefts, heights, widths = to_device(np.stack(windows), images.device).float()
    rows_BYH, columns_BXW = axis_weights(tops, heights, height), axis_weights(lefts, widths, width)
    # With the channels inside of the rows, both products are one batched call, and changing the type lays them so.
    images_BHCW = images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    tall_BYCW = torch.bmm(rows_BYH, images_BHCW.view(n, height, -1)).view(n, -1, width)
    resized_BYCX = torch.bmm(tall_BYCW, columns_BXW.transpose(1, 2)).view(n, height, channels, width)
    return resized_BYCX.round_().transpose(1, 2).to(torch.uint8, memory_format=torch.contiguous_format)


def axis_weights(starts: Tensor, lengths: Tensor, side: int) -> Tensor:
    """n x side x side: how much of each input position (last) goes into each output position, along one axis. A window
    is never larger than the image, so antialiasing leaves the triangle that is one pixel wide on either side."""
    at = torch.arange(side, device=starts.device, dtype=torch.float32) + 0.5
    centres = at * (lengths / side)[:, None]  # from the window's first position, as `within` is
    within = at - starts[:, None]
    weights = (1 - (within[:, None, :] - centres[:, :, None]).abs_()).clamp_(min=0)
    weights *= ((within > 0) & (within < lengths[:, None]))[:, None, :]
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _same_shape(windows: Windows) -> list[np.ndarray]:
    """The rows of each window shape: one call of torch resizes images of one shape only."""
    shapes = windows.heights * (windows.widths.max(initial=0) + 1) + windows.widths
    order = np.argsort(shapes, kind="stable")
    return [rows for rows in np.split(order, np.flatnonzero(np.diff(shapes[order])) + 1) if len(rows)]


def _cut(images: Tensor, windows: Windows) -> Tensor:
    """The windows, all of one shape."""
    image_width, (height, width) = images.shape[-1], (int(windows.heights[0]), int(windows.widths[0]))
    starts = to_device(windows.tops * image_width + windows.lefts, images.device)[:, None]
    source = starts + _within(height, width, image_width, images.device)
    return gather_pixels(images, source, height, width)


def _within(height: int, width: int, image_width: int, device: torch.device) -> Tensor:
    """Where a window's pixels lie, counted from its first; made on the device, because a copy would wait for it."""
    rows = torch.arange(height, device=device)[:, None] * image_width
    return (rows + torch.arange(width, device=device)).view(1, -1)


# --- random erasing (Zhong et al. 2020, arXiv:1708.04896) ------------------------------------------------------------


class BoxLaw(NamedTuple):
    """Shares of the image's area, uniform; ratios of height to width, uniform or log-uniform."""

    areas: tuple[float, float]
    ratios: tuple[float, float]
    is_log: bool


TORCHVISION = BoxLaw((0.02, 0.33), (0.3, 3.3), is_log=True)
# Lee's code looks up to 100 times for a box that fits; ten times do not find one in less than one image in a million.
LEE = BoxLaw((0.02, 0.4), (0.3, 1 / 0.3), is_log=False)


class Erasure(NamedTuple):
    boxes: Tensor  # n x 4 int64 (y1, x1, y2, x2), empty where nothing is erased; on the host as drawn
    noise_seed: int


def draw_erasures(
    n: int, height: int, width: int, probability: float, rng: np.random.Generator, law: BoxLaw = TORCHVISION
) -> Erasure:
    """The first of ten boxes that is smaller than the image on both sides; none if all ten are not."""
    wanted = rng.random(n) < probability
    areas = height * width * rng.uniform(*law.areas, size=(n, TRIES))
    ratios = rng.uniform(*(np.log(law.ratios) if law.is_log else law.ratios), size=(n, TRIES))
    ratios = np.exp(ratios) if law.is_log else ratios
    heights = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
    widths = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
    fits = (heights < height) & (widths < width)
    first, erased = fits.argmax(1), fits.any(1) & wanted
    chosen_h = np.where(erased, heights[np.arange(n), first], 0)
    chosen_w = np.where(erased, widths[np.arange(n), first], 0)
    tops = rng.integers(height - chosen_h + 1)
    lefts = rng.integers(width - chosen_w + 1)
    boxes = np.stack([tops, lefts, tops + chosen_h, lefts + chosen_w], axis=1)
    return Erasure(torch.from_numpy(boxes), int(rng.integers(2**63 - 1)))


def erase(images: Tensor, erasure: Erasure, fill: str | Tensor) -> Tensor:
    """fill "zero" writes 0, "noise" a standard normal value a pixel and channel, a tensor its value a channel."""
    inside = box_mask(erasure.boxes, *images.shape[-2:])
    if isinstance(fill, Tensor):
        return torch.where(inside, fill, images)
    if fill == "zero":
        return images.masked_fill(inside, 0.0)
    # The one draw made on the device: its boxes are the same everywhere, its values are the device's own.
    generator = torch.Generator(images.device).manual_seed(erasure.noise_seed)
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return torch.where(inside, noise, images)


# --- crop-paste ------------------------------------------------------------------------------------------------------


class Pastes(NamedTuple):
    """On the host as drawn."""

    boxes: Tensor  # n x 4 int64 (y1, x1, y2, x2): the piece that is copied
    corners: Tensor  # n x 2 int64 (top, left): where it goes
    flips: Tensor  # n bool: the piece is mirrored left and right
    keep: Tensor  # n float32: weight of what was there before


def draw_pastes(n: int, height: int, width: int, rng: np.random.Generator) -> Pastes:
    side = np.sqrt(1.0 - rng.beta(1.0, 1.0, size=n))
    half_h, half_w = (height * side).astype(np.int64) // 2, (width * side).astype(np.int64) // 2
    centre_y, centre_x = rng.integers(height, size=n), rng.integers(width, size=n)
    y1, y2 = np.maximum(centre_y - half_h, 0), np.minimum(centre_y + half_h, height)
    x1, x2 = np.maximum(centre_x - half_w, 0), np.minimum(centre_x + half_w, width)
    top, left = rng.integers(height - (y2 - y1) + 1), rng.integers(width - (x2 - x1) + 1)
    flips = rng.random(n) < 0.5
    keep = rng.random(n).astype(np.float32)
    boxes, corners = np.stack([y1, x1, y2, x2], axis=1), np.stack([top, left], axis=1)
    return Pastes(*(torch.from_numpy(part) for part in (boxes, corners, flips, keep)))


def crop_paste(images: Tensor, pastes: Pastes) -> Tensor:
    """A piece of each image is blended into another place of the same image. As in its origin (RandomCropPaste of
    omihub777/ViT-CIFAR), the background is not flipped: "flip" does that."""
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
