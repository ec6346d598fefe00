"""Holds crop, flip and resized crop to torchvision's functions with the drawn parameters, and the draws to their rules.
A parameter shared by the batch, an edge never drawn or a window off by one pixel must fail here.
"""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from harness.data.augment.crops import (
    Windows,
    crop_,
    draw_crops,
    draw_flips,
    draw_resized_crops,
    flip_,
    resized_by_shape,
    resized_crop,
    resized_together,
)

SIZES = [(32, 32), (8, 8), (20, 33)]
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


pytestmark = pytest.mark.usefixtures("one_thread")


def _p_value(ours: np.ndarray, theirs: np.ndarray) -> float:
    return ks_2samp(ours, theirs)[1]  # type: ignore[return-value]  # scipy's result has no usable type


def _images(n: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, 3, height, width), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_equals_torchvision(padding: int, size: tuple[int, int]) -> None:
    images = _images(500, *size)
    corners = draw_crops(500, padding, np.random.default_rng(2))
    ours = crop_(images.clone(), corners, padding)
    for image, (top, left), our in zip(images, corners.tolist(), ours, strict=True):
        assert torch.equal(our, F.crop(F.pad(image, [padding]), top, left, *size))


def test_crop_corners_are_uniform_with_both_edges() -> None:
    corners = draw_crops(40_000, 4, np.random.default_rng(3))
    counts = np.bincount(corners[:, 0] * 9 + corners[:, 1], minlength=81)
    assert len(counts) == 81 and chisquare(counts).pvalue > 1e-3


def test_flip_equals_torchvision_and_happens_half_the_time() -> None:
    images = _images(400, 8, 9)
    flips = draw_flips(400, np.random.default_rng(4))
    ours = flip_(images.clone(), flips)
    for image, is_flipped, our in zip(images, flips, ours, strict=True):
        assert torch.equal(our, F.hflip(image) if is_flipped else image)
    assert abs(draw_flips(40_000, np.random.default_rng(5)).mean() - 0.5) < 0.01


@pytest.mark.parametrize("flips", [np.zeros(3, dtype=bool), np.ones(3, dtype=bool)])
def test_flip_of_none_and_of_all(flips: np.ndarray) -> None:
    images = _images(3, 8, 8)
    assert torch.equal(flip_(images.clone(), flips), images.flip(3) if flips[0] else images)


def _resized_by_torchvision(image: torch.Tensor, window: tuple[int, ...]) -> torch.Tensor:
    top, left, height, width = window
    return F.resized_crop(image, top, left, height, width, list(image.shape[1:]), antialias=True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale, ratio", [(SCALE, RATIO), ((0.02, 0.1), (0.2, 5.0))])
def test_resized_crop_equals_torchvision(scale: tuple, ratio: tuple, size: tuple[int, int]) -> None:
    height, width = size
    images = _images(600, height, width)
    images[::5] = images[::5] // 255 * 255
    windows = draw_resized_crops(600, height, width, scale, ratio, np.random.default_rng(6))
    before = images.clone()
    ours = resized_crop(images, windows)
    for i, window in enumerate(zip(*(part.tolist() for part in windows), strict=True)):
        assert torch.equal(ours[i], _resized_by_torchvision(images[i], window)), window
    assert torch.equal(images, before)
    assert ours.dtype == torch.uint8 and ours.is_contiguous()


def test_every_window_shape_equals_torchvision() -> None:
    side = 16
    heights, widths = (part.ravel() for part in np.mgrid[1 : side + 1, 1 : side + 1])
    windows = Windows((side - heights) // 2, (side - widths + 1) // 2, heights, widths)
    images = _images(len(heights), side, side)
    ours = resized_crop(images, windows)
    for i, window in enumerate(zip(*(part.tolist() for part in windows), strict=True)):
        assert torch.equal(ours[i], _resized_by_torchvision(images[i], window)), window


@pytest.mark.parametrize("size", [*SIZES, (28, 28), (96, 96)])
@pytest.mark.parametrize("scale, ratio", [((0.8, 1.0), RATIO), (SCALE, RATIO), ((0.02, 0.1), (0.2, 5.0))])
def test_resizing_together_equals_resizing_by_shape(scale: tuple, ratio: tuple, size: tuple[int, int]) -> None:
    """What a GPU does, done on the CPU. Where a side is a power of two, all weights and sums are exact."""
    images = _images(300, *size)
    images[::5] = images[::5] // 255 * 255
    windows = draw_resized_crops(300, *size, scale, ratio, np.random.default_rng(6))
    before = images.clone()
    one, other = resized_by_shape(images, windows), resized_together(images, windows)
    differences = (one.int() - other.int()).abs()
    if size in ((32, 32), (8, 8)):
        assert torch.equal(one, other)
    assert differences.max() <= 1 and (differences > 0).double().mean() < 1e-3
    assert torch.equal(images, before)
    assert other.dtype == torch.uint8 and other.is_contiguous()


def test_every_window_shape_and_place_resized_together() -> None:
    side = 8
    tops, bottoms, lefts, rights = (part.ravel() for part in np.mgrid[:side, 1 : side + 1, :side, 1 : side + 1])
    inside = (bottoms > tops) & (rights > lefts)
    windows = Windows(*(part[inside] for part in (tops, lefts, bottoms - tops, rights - lefts)))
    images = _images(len(windows.tops), side, side)
    assert len(images) == 36**2
    assert torch.equal(resized_by_shape(images, windows), resized_together(images, windows))


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **kwargs or {})


def test_many_shapes_resized_together_take_as_many_calls_as_one() -> None:
    images, calls = _images(200, 32, 32), []
    for scale, ratio in (((0.8, 1.0), RATIO), ((1.0, 1.0), (1.0, 1.0))):
        with Calls() as counted:
            resized_together(images, draw_resized_crops(200, 32, 32, scale, ratio, np.random.default_rng(7)))
        calls.append(counted.names)
    assert calls[0] == calls[1] and calls[0].count("aten.bmm.default") == 2 and len(calls[0]) < 80


@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
def test_resized_crop_draws_like_torchvision(size: tuple[int, int]) -> None:
    n, (height, width) = 4000, size
    ours = draw_resized_crops(n, height, width, SCALE, RATIO, np.random.default_rng(7))
    torch.manual_seed(0)
    blank = torch.zeros(3, *size)
    theirs = np.array([RandomResizedCrop.get_params(blank, list(SCALE), list(RATIO)) for _ in range(n)])
    for mine, column in zip(ours, theirs.T, strict=True):
        assert _p_value(mine, column) > 1e-3
    assert (ours.tops >= 0).all() and (ours.tops + ours.heights <= size[0]).all()
    assert (ours.lefts >= 0).all() and (ours.lefts + ours.widths <= size[1]).all()
    assert (ours.tops + ours.heights == size[0]).any() and (ours.lefts + ours.widths == size[1]).any()


@pytest.mark.parametrize("size, ratio", [((8, 40), RATIO), ((40, 8), RATIO), ((32, 32), RATIO)])
def test_where_nothing_fits_the_centre_crop_is_torchvisions(size: tuple[int, int], ratio: tuple) -> None:
    scale = (4.0, 5.0)  # larger than the image, so that all tries fail
    ours = draw_resized_crops(3, *size, scale, ratio, np.random.default_rng(8))
    expected = RandomResizedCrop.get_params(torch.zeros(3, *size), list(scale), list(ratio))
    for window in zip(*(part.tolist() for part in ours), strict=True):
        assert window == expected
