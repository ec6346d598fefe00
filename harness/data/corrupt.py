"""The corruptions under which robustness is judged: seven kinds at five strengths, batched on the images' device.

The strengths of noise, blur, contrast, brightness and JPEG are those of CIFAR-10-C (Hendrycks and Dietterich,
arXiv:1903.12261, their code for 32 pixels); its pixelation does not harm more from one strength to the next, so ours
has its own. Lengths are shares of the image's side: they mean the same at any size. The images are disturbed here, so
what is measured cannot be compared digit by digit with that data set.
"""

import functools
import io
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from harness.data.augment.transfer import to_device
from harness.datasets import CORRUPTION_STRENGTHS

SEED = 20_260  # of every run alike: all models see the same disturbed images
GREY = 128.0

NOISE_STD = (0.04, 0.06, 0.08, 0.09, 0.10)  # of the whole range
BLUR_SIDES = (0.4 / 32, 0.6 / 32, 0.7 / 32, 0.8 / 32, 1.0 / 32)  # standard deviation of the Gaussian
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # what is left of it
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)  # added to the value of HSV
PIXELATION = (0.9, 0.8, 0.6, 0.4, 0.3)  # side of the small image
JPEG_QUALITY = (80, 65, 58, 50, 40)
OCCLUSION_SIDES = (0.2, 0.3, 0.4, 0.5, 0.6)  # of the grey square

TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class Corruptions:
    """What disturbs one split, batch by batch in its order. The draws do not depend on the size of a batch."""

    def __init__(self) -> None:
        self._noise, self._places = (np.random.default_rng((SEED, part)) for part in range(2))

    def of(self, images: torch.Tensor) -> Iterator[tuple[str, int, torch.Tensor]]:
        """Every kind at every strength (0 to 4) of B x 3 x H x W uint8 images, as uint8 images."""
        pixels = images.float()
        # One draw for the five strengths: a stronger one adds to what a weaker one did.
        noise, places = (to_device(drawn, images.device) for drawn in self._draw(images.shape))
        kinds: dict[str, Callable[[int], torch.Tensor]] = {
            "noise": lambda i: pixels + noise * (255 * NOISE_STD[i]),
            "blur": lambda i: blurred(pixels, BLUR_SIDES[i] * pixels.shape[-1]),
            "contrast": lambda i: torch.lerp(pixels.mean(dim=(2, 3), keepdim=True), pixels, CONTRAST[i]),
            "brightness": lambda i: brightened(pixels, 255 * BRIGHTNESS[i]),
            "pixelation": lambda i: pixelated(pixels, PIXELATION[i]),
            "jpeg": lambda i: jpeg(pixels, JPEG_QUALITY[i]),
            "occlusion": lambda i: occluded(pixels, places, OCCLUSION_SIDES[i]),
        }
        for kind, disturb in kinds.items():
            for strength in range(CORRUPTION_STRENGTHS):
                yield kind, strength, disturb(strength).round_().clamp_(0, 255).to(torch.uint8)

    def skip(self, shape: Sequence[int]) -> None:
        """Of a batch that another process disturbs."""
        self._draw(shape)

    def _draw(self, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        return self._noise.standard_normal(tuple(shape), np.float32), self._places.random((shape[0], 2), np.float32)


def blurred(pixels: torch.Tensor, std: float) -> torch.Tensor:
    """By a Gaussian cut off at four standard deviations; the border is repeated outwards."""
    reach = max(1, min(math.ceil(4 * std), pixels.shape[-1] - 1))
    row = bell(std, reach, pixels.device)
    wide = F.pad(pixels, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(wide, row, groups=3), row.transpose(2, 3), groups=3)


@functools.cache
def bell(std: float, reach: int, device: torch.device) -> torch.Tensor:
    """The Gaussian's weights, of sum 1, as one row for each channel."""
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-(at**2) / (2 * std**2))
    return (weights / weights.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1).to(device)


def brightened(pixels: torch.Tensor, amount: float) -> torch.Tensor:
    """Hue and saturation stay; black, which has none, becomes grey."""
    value = pixels.amax(dim=1, keepdim=True)
    lifted = (value + amount).clamp(max=255)
    return torch.where(value > 0, pixels * (lifted / value.clamp(min=1)), lifted)


def pixelated(pixels: torch.Tensor, share: float) -> torch.Tensor:
    small = F.interpolate(pixels, size=[max(1, int(side * share)) for side in pixels.shape[2:]], mode="area")
    return F.interpolate(small, size=pixels.shape[2:], mode="nearest")


def occluded(pixels: torch.Tensor, places_B2: torch.Tensor, share: float) -> torch.Tensor:
    """A grey square somewhere within each image."""
    sides = pixels.shape[2:]
    size = max(1, round(share * min(sides)))
    covered = []
    for axis, side in enumerate(sides):
        first = (places_B2[:, axis, None] * (side - size + 1)).floor().clamp(max=side - size)
        at = torch.arange(side, device=pixels.device)
        covered.append((at >= first) & (at < first + size))
    mask_BHW = covered[0][:, :, None] & covered[1][:, None, :]
    return torch.where(mask_BHW[:, None], GREY, pixels)


def jpeg(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    """Baseline JPEG with every channel at full resolution; entropy coding loses nothing and is left out."""
    to_ycc, to_rgb, dct, steps = jpeg_constants(quality, pixels.device)
    height, width = pixels.shape[2:]
    whole = F.pad(pixels, (0, -width % 8, 0, -height % 8), mode="replicate")
    ycc = torch.einsum("dc,bchw->bdhw", to_ycc, whole).round_()
    ycc[:, 0] -= 128  # chrominance lies around 0 already
    blocks = ycc.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # B, 3, rows, columns, 8, 8
    shares = dct @ blocks @ dct.T / steps
    kept = (shares.abs() + 0.5).floor_() * shares.sign() * steps  # halves away from 0, as the library rounds
    back = (dct.T @ kept @ dct).transpose(3, 4).flatten(4, 5).flatten(2, 3).round_()
    back[:, 0] += 128
    limits = ((0, 255), (-128, 127), (-128, 127))
    back = torch.stack([back[:, c].clamp(*limit) for c, limit in enumerate(limits)], dim=1)
    rgb = torch.einsum("cd,bdhw->bchw", to_rgb, back)[:, :, :height, :width]
    return rgb.contiguous()  # for another layout a compiled model would be compiled again


@functools.cache
def jpeg_constants(quality: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The matrices to YCbCr and back, the cosine transform, and the three channels' steps; made on the host, because a
    GPU would take one short call after the other for them and would be waited for."""
    at = torch.arange(8, dtype=torch.float32)
    dct = torch.cos((2 * at + 1) * at[:, None] * (math.pi / 16)) / 2
    dct[0] /= math.sqrt(2)
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "JPEG", quality=quality)
    luminance, chrominance = Image.open(written).quantization.values()  # type: ignore[attr-defined]
    steps = torch.tensor((luminance, chrominance, chrominance)).view(3, 8, 8).float()
    to_ycc = torch.tensor(TO_YCC)
    parts = to_ycc, torch.linalg.inv(to_ycc), dct, steps[:, None, None]
    return tuple(part.to(device) for part in parts)  # type: ignore[return-value]  # it is of four
