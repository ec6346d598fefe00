"""Random erasing (Zhong et al. 2020, arXiv:1708.04896) of float images that are scaled already: boxes as torchvision
draws them, and as Lee et al. do."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.data.augment.boxes import box_mask

TRIES = 10


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
    if fill == "noise":
        # The one draw made on the device: its boxes are the same everywhere, its values are the device's own.
        generator = torch.Generator(images.device).manual_seed(erasure.noise_seed)
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return torch.where(inside, noise, images)
    raise ValueError(f"erase_fill must be 'zero' or 'noise', not {fill!r}")
