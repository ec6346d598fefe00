"""Every augmentation step by the name that recipes list: how it is drawn on the host and how it is applied. Steps of
uint8 images (crop, flip, resized crop and the policies) may overwrite them; steps of float images, which are scaled
already (erasing, crop-paste), leave them as they are.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from harness.data.augment.pixels import truncated
from harness.data.augment.policies import (
    PILLOW_OPERATIONS,
    apply_rounds_,
    draw_autoaugment,
    draw_randaugment,
    draw_trivialaugment,
    torchvision_operations,
)
from harness.data.augment.transfer import blocks, box_mask, boxes_around, gather_pixels, put_images, to_device
from harness.recipes import Recipe

TRIES = 10  # as often as torchvision looks for a crop or a box that fits
Rng = np.random.Generator


class Step(NamedTuple):
    """Drawing and applying apart, since the draws of many batches are made together."""

    draw: Callable[[int, int, int, Recipe, Rng], Any]  # n, height, width, ...
    # (images, what was drawn, recipe); for float images also the data set's mean colour in [0, 1], 3 x 1 x 1
    apply: Callable[..., Tensor]


def augment_uint8_(
    images: Tensor, names: Sequence[str], recipe: Recipe, rng: Rng, rows: np.ndarray | None = None, of: int = 0
) -> Tensor:
    """images uint8 n x 3 x H x W, which may be overwritten; returns the augmented ones on the same device. Steps of
    float images are skipped. With `rows` they are those of so many images, for which all is drawn."""
    images = images.contiguous()
    n, _, height, width = images.shape
    for name in names:
        if name not in FLOAT_STEPS:
            step = UINT8_STEPS[name]
            drawn = step.draw(n if rows is None else of, height, width, recipe, rng)
            if n:
                images = step.apply(images, drawn if rows is None else drawn_for(rows, drawn), recipe)
    return images


def drawn_for(rows: np.ndarray, drawn: Any) -> Any:
    """Of what was drawn for many images, what belongs to some of them."""
    if isinstance(drawn, (np.ndarray, Tensor)):
        return drawn[rows]
    if isinstance(drawn, (list, tuple)):
        parts = [drawn_for(rows, part) for part in drawn]
        return type(drawn)(*parts) if hasattr(drawn, "_fields") else parts
    return drawn


def float_steps(names: Sequence[str]) -> list[Step]:
    return [FLOAT_STEPS[name] for name in names if name not in UINT8_STEPS]


# --- boxes -----------------------------------------------------------------------------------------------------------


class BoxLaw(NamedTuple):
    """Shares of the image's area, uniform; ratios of its sides, uniform or log-uniform."""

    areas: tuple[float, float]
    ratios: tuple[float, float]
    is_log: bool = True

    def draw(self, n: int, area: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
        """Of ten tries for each image, the side that grows with the ratio and the other one: n x 10."""
        areas = area * rng.uniform(*self.areas, size=(n, TRIES))
        ratios = rng.uniform(*(np.log(self.ratios) if self.is_log else self.ratios), size=(n, TRIES))
        ratios = np.exp(ratios) if self.is_log else ratios
        return np.rint(np.sqrt(areas * ratios)).astype(np.int64), np.rint(np.sqrt(areas / ratios)).astype(np.int64)


TORCHVISION = BoxLaw((0.02, 0.33), (0.3, 3.3))
# Lee's code looks up to 100 times for a box that fits; ten times do not find one in less than one image in a million.
LEE = BoxLaw((0.02, 0.4), (0.3, 1 / 0.3), is_log=False)


def first_fitting(fits: np.ndarray, sides: np.ndarray, otherwise: int) -> np.ndarray:
    """Each image's first side that fits, of n x 10, or the other value where none does."""
    return np.where(fits.any(1), np.take_along_axis(sides, fits.argmax(1)[:, None], 1)[:, 0], otherwise)


# --- crop, flip, resized crop ----------------------------------------------------------------------------------------


def draw_crops(n: int, height: int, width: int, recipe: Recipe, rng: Rng) -> np.ndarray:
    """n x 2 (top, left) in the padded image."""
    return rng.integers(2 * recipe.crop_padding + 1, size=(n, 2))


def crop_(images: Tensor, corners: np.ndarray, padding: int) -> Tensor:
    """Contiguous images become, in place, the H x W window at each one's corner of the image padded with zeros."""
    (channels, height, width), device = images.shape[1:], images.device
    padded_width = width + 2 * padding
    window = within(height, width, padded_width, device)
    starts = to_device(corners[:, 0] * padded_width + corners[:, 1], device)[:, None]
    parts = list(blocks(len(images), images.shape[1:].numel(), device))
    # Zeros around a copy: several times faster than torch's own padding of uint8. One memory for all blocks, and the
    # result straight into the images: fresh memory would cost as much as filling it.
    most = parts[0].stop if parts else 0
    padded = images.new_zeros(most, channels, height + 2 * padding, padded_width)
    sources = starts.new_empty(most, height * width)
    for block in parts:
        here, count = images[block], block.stop - block.start
        padded[:count, :, padding : padding + height, padding : padding + width] = here
        source = torch.add(starts[block], window, out=sources[:count])
        gather_pixels(padded[:count], source, height, width, out=here)
    return images


def draw_flips(n: int, height: int, width: int, recipe: Recipe, rng: Rng) -> np.ndarray:
    return rng.random(n) < 0.5


def flip_(images: Tensor, flips: np.ndarray) -> Tensor:
    """Mirrors contiguous images left and right, in place, where flips is true."""
    rows = to_device(np.flatnonzero(flips), images.device)
    for block in blocks(len(rows), images.shape[1:].numel(), images.device):
        put_images(images, rows[block], images.index_select(0, rows[block]).flip(3))
    return images


def draw_resized_crops(n: int, height: int, width: int, recipe: Recipe, rng: Rng) -> np.ndarray:
    """n x 4 windows (top, left, height, width). Area uniform, side ratio log-uniform; the first of ten tries that fits,
    else the largest allowed centre crop."""
    widths, heights = BoxLaw(recipe.crop_scale, recipe.crop_ratio).draw(n, height * width, rng)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    centre_h, centre_w = _largest_centre_crop(height, width, recipe.crop_ratio)
    chosen_h, chosen_w = first_fitting(fits, heights, centre_h), first_fitting(fits, widths, centre_w)
    # Drawn for every image, fitting or not, so that the stream does not depend on how many fitted.
    tops = rng.integers(np.maximum(height - chosen_h, 0) + 1)
    lefts = rng.integers(np.maximum(width - chosen_w, 0) + 1)
    tops = np.where(fits.any(1), tops, (height - chosen_h) // 2)
    lefts = np.where(fits.any(1), lefts, (width - chosen_w) // 2)
    return np.stack([tops, lefts, chosen_h, chosen_w], axis=1)


def _largest_centre_crop(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    if width / height < min(ratio):
        return round(width / min(ratio)), width
    if width / height > max(ratio):
        return height, round(height * max(ratio))
    return height, width


def resized_crop(images: Tensor, windows: np.ndarray) -> Tensor:
    """Each image's window, resized to the image's own size: bilinear, antialiased, rounded. A CPU is two to three times
    faster by shape, and a GPU takes as many launches for many shapes together as for one."""
    return resized_together(images, windows) if images.is_cuda else resized_by_shape(images, windows)


def resized_by_shape(images: Tensor, windows: np.ndarray) -> Tensor:
    """By torch's own resizing, with torchvision's bits on a CPU: one call for each shape of window."""
    side, device = images.shape[-2:], images.device
    shapes = windows[:, 2] * (windows[:, 3].max(initial=0) + 1) + windows[:, 3]
    order = np.argsort(shapes, kind="stable")
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    for rows in np.split(order, np.flatnonzero(np.diff(shapes[order])) + 1):
        for block in blocks(len(rows), images.shape[1:].numel(), device):
            chosen = to_device(rows[block], device)
            tops, lefts, heights, widths = windows[rows[block]].T
            starts = to_device(tops * side[1] + lefts, device)[:, None]
            height, width = int(heights[0]), int(widths[0])
            source = starts + within(height, width, side[1], device)
            cut = gather_pixels(images.index_select(0, chosen), source, height, width).float()
            resized = interpolate(cut, size=side, mode="bilinear", align_corners=False, antialias=True)
            put_images(result, chosen, truncated(resized.round_()))
    return result


def resized_together(images: Tensor, windows: np.ndarray) -> Tensor:
    """The same as rows @ image @ columns, where each image has matrices of its own. Sums in another order may round a
    pixel to the next level."""
    n, channels, height, width = images.shape
    tops, lefts, heights, widths = to_device(windows.T, images.device).float()
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


def within(height: int, width: int, image_width: int, device: torch.device) -> Tensor:
    """Where a window's pixels lie, counted from its first; made on the device, because a copy would wait for it."""
    rows = torch.arange(height, device=device)[:, None] * image_width
    return (rows + torch.arange(width, device=device)).view(1, -1)


# --- random erasing (Zhong et al. 2020, arXiv:1708.04896) ------------------------------------------------------------


class Erasure(NamedTuple):
    boxes: Tensor  # n x 4 int64 (y1, x1, y2, x2), empty where nothing is erased; on the host as drawn
    places: Tensor  # n int64: of these images among all that it was drawn for
    noise_seed: int
    of: int


def draw_erasures(n: int, height: int, width: int, recipe: Recipe, rng: Rng, law: BoxLaw = TORCHVISION) -> Erasure:
    """The first of ten boxes that is smaller than the image on both sides; none if all ten are not."""
    wanted = rng.random(n) < recipe.erase_prob
    heights, widths = law.draw(n, height * width, rng)
    fits = (heights < height) & (widths < width) & wanted[:, None]
    chosen_h, chosen_w = first_fitting(fits, heights, 0), first_fitting(fits, widths, 0)
    tops = rng.integers(height - chosen_h + 1)
    lefts = rng.integers(width - chosen_w + 1)
    boxes = np.stack([tops, lefts, tops + chosen_h, lefts + chosen_w], axis=1)
    return Erasure(torch.from_numpy(boxes), torch.arange(n), int(rng.integers(2**63 - 1)), n)


def erase(images: Tensor, erasure: Erasure, fill: str | Tensor) -> Tensor:
    """fill "zero" writes 0, "noise" a standard normal value a pixel and channel, a tensor its value a channel."""
    inside = box_mask(erasure.boxes, *images.shape[-2:])
    if isinstance(fill, Tensor):
        return torch.where(inside, fill, images)
    if fill == "zero":
        return images.masked_fill(inside, 0.0)
    # The one draw made on the device: its boxes are the same everywhere, its values are the device's own.
    generator = torch.Generator(images.device).manual_seed(erasure.noise_seed)
    noise = torch.randn(erasure.of, *images.shape[1:], generator=generator, device=images.device, dtype=images.dtype)
    return torch.where(inside, noise.index_select(0, erasure.places), images)


# --- crop-paste ------------------------------------------------------------------------------------------------------


class Pastes(NamedTuple):
    """On the host as drawn."""

    boxes: Tensor  # n x 4 int64 (y1, x1, y2, x2): the piece that is copied
    corners: Tensor  # n x 2 int64 (top, left): where it goes
    flips: Tensor  # n bool: the piece is mirrored left and right
    keep: Tensor  # n float32: weight of what was there before


def draw_pastes(n: int, height: int, width: int, recipe: Recipe, rng: Rng) -> Pastes:
    side = np.sqrt(1.0 - rng.beta(1.0, 1.0, size=n))
    halves = np.stack([height * side, width * side]).astype(np.int64) // 2
    centres = np.stack([rng.integers(height, size=n), rng.integers(width, size=n)])
    boxes = boxes_around(centres, halves, (height, width))
    free = np.array((height, width)) - (boxes[:, 2:] - boxes[:, :2])
    corners = np.stack([rng.integers(free[:, axis] + 1) for axis in range(2)], axis=1)
    flips = rng.random(n) < 0.5
    keep = rng.random(n).astype(np.float32)
    return Pastes(*(torch.from_numpy(part) for part in (boxes, corners, flips, keep)))


def crop_paste(images: Tensor, pastes: Pastes) -> Tensor:
    """A piece of each image is blended into another place of the same image. As in its origin (RandomCropPaste of
    omihub777/ViT-CIFAR), the background is not flipped: "flip" does that."""
    height, width = images.shape[-2:]
    (y1, x1, y2, x2), (top, left) = pastes.boxes.unbind(1), pastes.corners.unbind(1)
    # Where each pixel comes from; outside the target it only has to be a pixel, since nothing reads it.
    y = torch.arange(height, device=top.device) + (y1 - top)[:, None]
    x = torch.arange(width, device=top.device) * torch.where(pastes.flips, -1, 1)[:, None]
    x = x + torch.where(pastes.flips, x2 - 1 + left, x1 - left)[:, None]
    rows, columns = y.clamp(0, height - 1), x.clamp(0, width - 1)
    piece = gather_pixels(images, (rows[:, :, None] * width + columns[:, None, :]).flatten(1), height, width)
    target = torch.stack([top, left, top + y2 - y1, left + x2 - x1], dim=1)
    keep = pastes.keep.view(-1, 1, 1, 1)
    return torch.where(box_mask(target, height, width), images * keep + piece * (1 - keep), images)


# --- all steps by name -----------------------------------------------------------------------------------------------


def as_torchvision(draw: Callable[[int, int, int, Recipe, Rng], Any]) -> Step:
    return Step(
        draw, lambda images, rounds, recipe: apply_rounds_(images, rounds, torchvision_operations(recipe.interpolation))
    )


def as_pillow(draw: Callable[[int, int, int, Recipe, Rng], Any]) -> Step:
    return Step(draw, lambda images, rounds, recipe: apply_rounds_(images, rounds, PILLOW_OPERATIONS))


UINT8_STEPS = {
    "crop": Step(draw_crops, lambda images, corners, recipe: crop_(images, corners, recipe.crop_padding)),
    "resized-crop": Step(draw_resized_crops, lambda images, windows, recipe: resized_crop(images, windows)),
    "flip": Step(draw_flips, lambda images, flips, recipe: flip_(images, flips)),
    "autoaugment-cifar": as_torchvision(partial(draw_autoaugment, "cifar")),
    "autoaugment-svhn": as_torchvision(partial(draw_autoaugment, "svhn")),
    "autoaugment-pil-cifar": as_pillow(partial(draw_autoaugment, "pil-cifar")),
    "autoaugment-pil-svhn": as_pillow(partial(draw_autoaugment, "pil-svhn")),
    "randaugment": as_torchvision(draw_randaugment),
    "trivialaugment": as_torchvision(draw_trivialaugment),
}
FLOAT_STEPS = {
    "erase": Step(draw_erasures, lambda images, drawn, recipe, mean: erase(images, drawn, recipe.erase_fill)),
    # Lee's code writes the mean of the unscaled images into scaled ones: about .49, where 0 would be the mean.
    "erase-lee": Step(partial(draw_erasures, law=LEE), lambda images, drawn, recipe, mean: erase(images, drawn, mean)),
    "crop-paste": Step(draw_pastes, lambda images, pastes, recipe, mean: crop_paste(images, pastes)),
}
