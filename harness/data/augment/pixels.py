"""Operations on the pixel values of uint8 images n x 3 x H x W, one magnitude an image (host float64). On a CPU those
of PIXEL_OPS equal torchvision's tensor path bit for bit, those of PILLOW_PIXEL_OPS Pillow's."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from harness.data.augment.transfer import per_image

PixelOp = Callable[[Tensor, np.ndarray], Tensor]


def brightness(images: Tensor, magnitudes: np.ndarray) -> Tensor:
    scaled = images.float().mul_(per_image(1.0 + magnitudes, images.device))
    return _to_uint8(scaled)


def posterize(images: Tensor, magnitudes: np.ndarray) -> Tensor:
    lowest_kept_bit = 2.0 ** (8 - magnitudes.astype(np.int64))
    masks = (256 - lowest_kept_bit).astype(np.uint8)
    return images & per_image(masks, images.device, torch.uint8)


def solarize(images: Tensor, magnitudes: np.ndarray) -> Tensor:
    # For whole numbers v >= t and v >= ceil(t) are the same, and the second needs no float image.
    thresholds = per_image(np.ceil(magnitudes).astype(np.uint8), images.device, torch.uint8)
    all_bits_where_bright = (images >= thresholds).to(torch.uint8).neg_()
    return images ^ all_bits_where_bright


def autocontrast(images: Tensor, magnitudes: np.ndarray) -> Tensor:
    flat = images.flatten(2)
    low = flat.amin(2).float()[:, :, None, None]
    high = flat.amax(2).float()[:, :, None, None]
    is_flat = low == high
    scale = torch.where(is_flat, 1.0, 255.0 / (high - low))
    low = torch.where(is_flat, 0.0, low)
    return _to_uint8(images.float().sub_(low).mul_(scale))


def equalize(images: Tensor, magnitudes: np.ndarray) -> Tensor:
    n, channels, height, width = images.shape
    planes = images.reshape(n * channels, height * width).long()
    # Counting whole numbers is exact in any order, and scatter_add_ never makes the host wait, as bincount would.
    counts = torch.zeros(len(planes), 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(1, planes, torch.ones_like(planes, dtype=torch.int32))
    brightest = images.flatten(2).amax(2).view(-1, 1).long()
    in_brightest_bin = counts.gather(1, brightest)
    step = torch.div(height * width - in_brightest_bin, 255, rounding_mode="floor").float()
    below = counts.cumsum(1, dtype=torch.int32).sub_(counts).float()
    # Float division of whole numbers below 2**23 never rounds up to the next whole number, and is fast.
    levels = truncated(below.add_((step * 0.5).floor_()).div_(step.clamp(min=1.0)).clamp_(0, 255))
    unchanged = torch.arange(256, dtype=torch.uint8, device=images.device)
    table = torch.where(step > 0, levels, unchanged)
    return table.gather(1, planes).view_as(images)


def pillow_autocontrast(images: Tensor, magnitudes: np.ndarray) -> Tensor:
    n, channels = images.shape[:2]
    planes = images.reshape(n * channels, -1)
    low, high = planes.amin(1, keepdim=True).double(), planes.amax(1, keepdim=True).double()
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    # A number over a tensor would be a product with the reciprocal, which rounds twice.
    scale = torch.full_like(low, 255.0).div_((high - low).clamp_(min=1.0))
    table = levels.mul(scale).sub_(low * scale)
    table = _to_uint8(torch.where(high > low, table, levels))
    return table.gather(1, planes.long()).view_as(images)


def _blend(images: Tensor, other: Tensor, magnitudes: np.ndarray) -> Tensor:
    """(1 + magnitude) of the image and the rest of `other` (float32, broadcast over the images)."""
    ratios = 1.0 + magnitudes
    own = images.float().mul_(per_image(ratios, images.device))
    rest = per_image(1.0 - ratios, images.device)
    return _to_uint8(own.add_(other * rest))


def _pillow_blend(images: Tensor, other: Tensor, magnitudes: np.ndarray) -> Tensor:
    """From `other` (1 + magnitude) of the way to the image; the difference first, which decides the last bit."""
    difference = images - other
    return _to_uint8(difference.mul_(per_image(1.0 + magnitudes, images.device)).add_(other))


def _to_uint8(values: Tensor) -> Tensor:
    """Clips in place, then drops the fraction."""
    return truncated(values.clamp_(0, 255))


def truncated(values: Tensor) -> Tensor:
    """Values of 0 to below 256 without their fraction; by way of int16, torch takes half the time on a CPU."""
    return values.to(torch.int16).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    luma = (0.2989 * red).add_(0.587 * green).add_(0.114 * blue)
    return truncated(luma).unsqueeze(1)


def _mean(grey: Tensor) -> Tensor:
    return grey.mean(dim=(1, 2, 3), keepdim=True)


def _pillow_grey(images: Tensor) -> Tensor:
    """Weights in 65536ths, rounded: int32."""
    red, green, blue = images.to(torch.int32).unbind(1)
    luma = (19595 * red).add_(green, alpha=38470).add_(blue, alpha=7471).add_(1 << 15)
    return (luma >> 16).unsqueeze(1)


def _pillow_mean(grey: Tensor) -> Tensor:
    """Rounded half up, in whole numbers."""
    pixels = grey.shape[-2:].numel()
    return ((2 * grey.sum(dim=(1, 2, 3), keepdim=True) + pixels) // (2 * pixels)).float()


def _smoothed(images: Tensor) -> Tensor:
    """Nine-neighbour mean with a five-fold centre, rounded; the one-pixel border stays. Whole values in float32."""
    # Flat, a neighbour is one or a row away: long runs of memory. What runs over an edge lands in the border.
    width, flat = images.shape[-1], images.to(torch.int16).flatten()
    across = flat.clone()
    across[1:] += flat[:-1]
    across[:-1] += flat[1:]
    sums = across.add(flat, alpha=4)
    sums[width:] += across[:-width]
    sums[:-width] += across[width:]
    # A thirteenth is never half way between two whole numbers, so rounding hides how the sum was ordered.
    smoothed = sums.float().div_(13.0).round_().view(images.shape)
    for edge in ((..., 0, slice(None)), (..., -1, slice(None)), (..., 0), (..., -1)):
        smoothed[edge] = images[edge].float()
    return smoothed


PIXEL_OPS: dict[str, PixelOp] = {
    "Brightness": brightness,
    "Color": lambda images, magnitudes: _blend(images, _grey(images).float(), magnitudes),
    # The mean is that of the already truncated grey levels.
    "Contrast": lambda images, magnitudes: _blend(images, _mean(_grey(images).float()), magnitudes),
    "Sharpness": lambda images, magnitudes: _blend(images, _smoothed(images), magnitudes),
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": autocontrast,
    "Equalize": equalize,
    "Invert": lambda images, magnitudes: images ^ 255,
}
# Pillow rounds these four otherwise; the rest are whole-number arithmetic, or one product.
PILLOW_PIXEL_OPS: dict[str, PixelOp] = PIXEL_OPS | {
    "Color": lambda images, magnitudes: _pillow_blend(images, _pillow_grey(images).float(), magnitudes),
    "Contrast": lambda images, magnitudes: _pillow_blend(images, _pillow_mean(_pillow_grey(images)), magnitudes),
    "Sharpness": lambda images, magnitudes: _pillow_blend(images, _smoothed(images), magnitudes),
    "AutoContrast": pillow_autocontrast,
}
