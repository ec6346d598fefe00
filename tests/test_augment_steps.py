"""Every augmentation step. First what all promise: randomness of its own for each image, same seed same bytes, the
stream of draws as it was; where there is a GPU, that it agrees with the CPU. Then each one's pixels against
torchvision's functions or a plain loop with the same draws, and its draws against their rules."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import RandomErasing, RandomResizedCrop
from torchvision.transforms import functional as F

from harness.data.augment.mixing import draw_mix, mix_images
from harness.data.augment.steps import (
    FLOAT_STEPS,
    LEE,
    UINT8_STEPS,
    augment_uint8_,
    crop_,
    crop_paste,
    draw_crops,
    draw_erasures,
    draw_flips,
    draw_pastes,
    draw_resized_crops,
    erase,
    flip_,
    float_steps,
    resized_crop,
    resized_together,
)
from harness.data.augment.transfer import blocks, sent_together
from harness.recipes import AUGMENTATIONS, Recipe

ALL_NAMES = (*UINT8_STEPS, *FLOAT_STEPS)
RECIPE = Recipe(crop_scale=(0.08, 1.0), erase_prob=0.5, mix="either", mix_prob=0.8, mixup_alpha=0.8, mix_per_image=True)
# Least shares of distinct outputs among 512 copies of one image; a flip has two outcomes in all.
LEAST_DISTINCT = dict.fromkeys(ALL_NAMES, 100) | {name: 50 for name in ALL_NAMES if name.startswith("autoaugment")}
LEAST_DISTINCT |= {"crop": 75, "flip": 2}
# What the generator of seed 7 gives after each step's draws for 96 images of 32 x 32: no stream may move.
DRAWN_NEXT = {
    "crop": 59161149,
    "resized-crop": 47771817,
    "flip": 59161149,
    "autoaugment-cifar": 908165477,
    "autoaugment-svhn": 908165477,
    "autoaugment-pil-cifar": 908165477,
    "autoaugment-pil-svhn": 908165477,
    "randaugment": 261976681,
    "trivialaugment": 402008316,
    "erase": 502428719,
    "erase-lee": 502428719,
    "crop-paste": 829185117,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def some_images(name: str, n: int = 96, is_same: bool = False) -> torch.Tensor:
    # A photograph-like range and some texture: AutoContrast and Posterize must have something to do.
    rng = np.random.default_rng(1)
    uint8 = torch.from_numpy(rng.integers(20, 200, (1 if is_same else n, 3, 32, 32), dtype=np.uint8))
    uint8 = uint8.expand(n, -1, -1, -1).contiguous()
    return uint8 if name in UINT8_STEPS else uint8.float() / 50 - 2


def augmented(images: torch.Tensor, names: tuple[str, ...], recipe: Recipe = RECIPE, rng: Any = None) -> torch.Tensor:
    """Of a copy, laid out in memory as the images are: the uint8 steps may overwrite what they are given."""
    rng = rng or np.random.default_rng(7)
    if images.dtype == torch.uint8:
        return augment_uint8_(images.clone(memory_format=torch.preserve_format), names, recipe, rng)
    n, _, height, width = images.shape
    for step in float_steps(names):
        (drawn,) = sent_together([step.draw(n, height, width, recipe, rng)], images.device)
        images = step.apply(images, drawn, recipe, torch.full((3, 1, 1), 0.49, device=images.device))
    return images


def test_names_are_those_of_the_steps():
    assert set(ALL_NAMES) == set(AUGMENTATIONS)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_batch_of_one_image_comes_out_as_many_images(name):
    images = some_images(name, 512, is_same=True)
    assert len(augmented(images, (name,)).flatten(1).unique(dim=0)) >= LEAST_DISTINCT[name]


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize(("interpolation", "fill"), [("nearest", "zero"), ("bilinear", "noise")])
def test_same_seed_same_bytes_whatever_the_layout_and_float_images_are_left_alone(name, interpolation, fill):
    recipe = replace(RECIPE, interpolation=interpolation, erase_fill=fill)
    images = some_images(name)
    before, rng = images.clone(), np.random.default_rng(7)
    first = augmented(images, (name,), recipe, rng)
    assert torch.equal(images, before)
    drawn_next = int(rng.integers(1 << 30))
    assert drawn_next == DRAWN_NEXT.get(name), f"a new step: add {name!r}: {drawn_next} to DRAWN_NEXT"
    assert not torch.equal(first, augmented(images, (name,), recipe, rng))
    assert (first.dtype, first.shape) == (images.dtype, images.shape) and first.is_contiguous()
    for same in (images, images.to(memory_format=torch.channels_last), images.repeat_interleave(2, dim=3)[..., ::2]):
        assert torch.equal(first, augmented(same, (name,), recipe))


@pytest.mark.parametrize("name", UINT8_STEPS)
def test_nothing_depends_on_the_block_size(name, monkeypatch):
    images = some_images(name)
    expected = augmented(images, (name,))
    monkeypatch.setattr("harness.data.augment.transfer.CPU_BLOCK_VALUES", 7 * 3 * 32 * 32)
    assert [block.stop - block.start for block in blocks(16, 3 * 32 * 32, images.device)] == [7, 7, 2]
    assert torch.equal(augmented(images, (name,)), expected)
    assert [len(augmented(images[:n], (name,))) for n in (0, 1, 3)] == [0, 1, 3]


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("crop_padding", 2, "crop"),
        ("crop_scale", (0.5, 0.9), "resized-crop"),
        ("crop_ratio", (1.0, 1.0), "resized-crop"),
        ("randaugment_ops", 1, "randaugment"),
        ("randaugment_magnitude", 20, "randaugment"),
        ("interpolation", "bilinear", "autoaugment-svhn"),
        ("interpolation", "bilinear", "randaugment"),
        ("interpolation", "bilinear", "trivialaugment"),
        ("erase_prob", 0.1, "erase"),
        ("erase_fill", "noise", "erase"),
        ("erase_prob", 0.1, "erase-lee"),
    ],
)
def test_every_setting_is_read(field, value, name):
    images = some_images(name)
    assert not torch.equal(augmented(images, (name,)), augmented(images, (name,), replace(RECIPE, **{field: value})))


def test_steps_run_in_the_given_order_and_those_of_the_other_kind_draw_nothing():
    images, rng = some_images("crop"), np.random.default_rng(7)
    expected = augment_uint8_(augment_uint8_(images.clone(), ["crop"], RECIPE, rng), ["flip"], RECIPE, rng)
    assert torch.equal(augmented(images, (*FLOAT_STEPS, "crop", "flip")), expected)
    assert not torch.equal(augmented(images, ("flip", "crop")), expected)
    assert torch.equal(augmented(images.float(), tuple(UINT8_STEPS)), images.float())


@pytest.mark.cuda
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_gpu_differs_from_the_cpu_in_at_most_one_pixel_of_a_thousand(name, interpolation):
    recipe, images = replace(RECIPE, interpolation=interpolation), some_images(name, 512)
    on_gpu = images.cuda()
    torch.cuda.set_sync_debug_mode("error")  # any wait of the host for the device fails the test
    try:
        theirs = augmented(on_gpu, (name,), recipe)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    ours = augmented(images, (name,), recipe)
    differs = ~torch.isclose(ours.float(), theirs.cpu().float(), rtol=0, atol=1e-5)
    assert differs.float().mean() <= 1e-3


@pytest.mark.cuda
def test_mixing_on_a_gpu_equals_the_cpu():
    images = some_images("erase", 512)
    mix = draw_mix(512, 32, 32, RECIPE, np.random.default_rng(0))
    theirs = mix_images(images.cuda(), mix.to("cuda")).cpu()
    assert torch.allclose(mix_images(images, mix), theirs, rtol=0, atol=1e-5)


# --- each step --------------------------------------------------------------------------------------------------------

SIZES = [(32, 32), (20, 33)]
WIDE = Recipe(crop_scale=(0.08, 1.0))
ALWAYS = Recipe(erase_prob=1.0)
SMALL = Recipe(crop_scale=(0.02, 0.1), crop_ratio=(0.2, 5.0))


def p_value(ours: np.ndarray, theirs: np.ndarray) -> float:
    return ks_2samp(ours, theirs)[1]  # type: ignore[return-value]  # scipy's result has no usable type


def uint8_images(n: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, 3, height, width), dtype=np.uint8))


def float_images(n: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((n, 3, height, width)).astype(np.float32))


# --- crop and flip ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_equals_torchvision(padding, size: tuple[int, int]):
    images = uint8_images(150, *size)
    corners = draw_crops(150, *size, Recipe(crop_padding=padding), np.random.default_rng(2))
    ours = crop_(images.clone(), corners, padding)
    for image, (top, left), our in zip(images, corners.tolist(), ours, strict=True):
        assert torch.equal(our, F.crop(F.pad(image, [padding]), top, left, *size))


def test_flip_equals_torchvision():
    images = uint8_images(100, 8, 9)
    drawn = draw_flips(100, 8, 9, RECIPE, np.random.default_rng(4))
    for flips in (drawn, np.zeros(100, dtype=bool), np.ones(100, dtype=bool)):
        ours = flip_(images.clone(), flips)
        for image, is_flipped, our in zip(images, flips, ours, strict=True):
            assert torch.equal(our, F.hflip(image) if is_flipped else image)


def test_corners_are_uniform_with_both_edges_and_half_of_the_images_flipped():
    corners = draw_crops(40_000, 32, 32, RECIPE, np.random.default_rng(3))
    counts = np.bincount(corners[:, 0] * 9 + corners[:, 1], minlength=81)
    assert len(counts) == 81 and chisquare(counts).pvalue > 1e-3
    assert abs(draw_flips(40_000, 8, 9, RECIPE, np.random.default_rng(5)).mean() - 0.5) < 0.01


# --- resized crop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, (96, 96)])
@pytest.mark.parametrize("recipe", [WIDE, SMALL], ids=["wide", "small"])
def test_resized_crop_equals_torchvision(recipe, size: tuple[int, int]):
    """Shape by shape, as on a CPU. Together, as on a GPU, sums in another order may round to the next level."""
    images = uint8_images(100, *size)
    images[::5] = images[::5] // 255 * 255
    windows = draw_resized_crops(100, *size, recipe, np.random.default_rng(6))
    before, ours, together = images.clone(), resized_crop(images, windows), resized_together(images, windows)
    for image, window, our in zip(images, windows.tolist(), ours, strict=True):
        assert torch.equal(our, F.resized_crop(image, *window, size=list(size), antialias=True)), window
    differences = (ours.int() - together.int()).abs()
    assert differences.max() <= 1 and (differences > 0).double().mean() < 1e-3
    assert torch.equal(images, before)
    assert all(found.dtype == torch.uint8 and found.is_contiguous() for found in (ours, together))


def test_every_window_shape_and_place():
    """Where a side is a power of two, all weights and sums are exact."""
    side = 8
    tops, bottoms, lefts, rights = (part.ravel() for part in np.mgrid[:side, 1 : side + 1, :side, 1 : side + 1])
    inside = (bottoms > tops) & (rights > lefts)
    windows = np.stack([tops, lefts, bottoms - tops, rights - lefts], axis=1)[inside]
    images = uint8_images(36**2, side, side)
    ours = resized_crop(images, windows)
    for image, window, our in zip(images, windows.tolist(), ours, strict=True):
        assert torch.equal(our, F.resized_crop(image, *window, size=[side, side], antialias=True)), window
    assert torch.equal(ours, resized_together(images, windows))


class Calls(TorchDispatchMode):
    """The operations that torch is asked for, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})


def test_many_shapes_resized_together_take_as_many_calls_as_one():
    images, calls = uint8_images(200, 32, 32), []
    for recipe in (Recipe(), Recipe(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))):
        with Calls() as counted:
            resized_together(images, draw_resized_crops(200, 32, 32, recipe, np.random.default_rng(7)))
        calls.append(counted.names)
    assert calls[0] == calls[1] and calls[0].count("bmm") == 2 and len(calls[0]) < 80


def windows_of_erasures(n: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    boxes = draw_erasures(n, height, width, ALWAYS, rng).boxes.numpy()
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


DRAWS: dict[str, tuple[Any, Any]] = {
    "resized crop": (
        lambda n, height, width, rng: draw_resized_crops(n, height, width, WIDE, rng),
        lambda blank: RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]),
    ),
    "erasing": (
        windows_of_erasures,
        lambda blank: RandomErasing.get_params(blank, (0.02, 0.33), (0.3, 3.3), [0.0])[:4],
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", DRAWS)
def test_windows_are_drawn_like_torchvisions(kind: str, size: tuple[int, int]):
    draw, torchvisions = DRAWS[kind]
    ours = draw(2000, *size, np.random.default_rng(7))
    torch.manual_seed(0)
    theirs = np.array([torchvisions(torch.zeros(3, *size)) for _ in range(2000)])
    for mine, column in zip(ours.T, theirs.T, strict=True):
        assert p_value(mine, column) > 1e-3
    assert (ours[:, :2] >= 0).all() and tuple((ours[:, :2] + ours[:, 2:]).max(axis=0)) == size


@pytest.mark.parametrize("size", [(8, 40), (40, 8), (32, 32)])
def test_where_nothing_fits_the_centre_crop_is_torchvisions(size: tuple[int, int]):
    scale, ratio = (1.0, 1.0), (6.0, 6.0) if size[0] > size[1] else (1 / 6, 1 / 6)  # no try fits
    ours = draw_resized_crops(3, *size, Recipe(crop_scale=scale, crop_ratio=ratio), np.random.default_rng(8))
    expected = RandomResizedCrop.get_params(torch.zeros(3, *size), list(scale), list(ratio))
    assert [tuple(window) for window in ours.tolist()] == [expected] * 3


# --- random erasing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["zero", "noise", "mean"])
@pytest.mark.parametrize("size", SIZES)
def test_erase_equals_torchvision(size: tuple[int, int], fill):
    images, mean = float_images(150, *size), torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    drawn = draw_erasures(150, *size, Recipe(erase_prob=0.6), np.random.default_rng(2))
    before = images.clone()
    ours = erase(images, drawn, mean if fill == "mean" else fill)
    for image, (y1, x1, y2, x2), our in zip(images, drawn.boxes.tolist(), ours, strict=True):
        value = {"zero": torch.zeros(3, 1, 1), "noise": our[:, y1:y2, x1:x2], "mean": mean}[fill]
        assert torch.equal(our, F.erase(image, y1, x1, y2 - y1, x2 - x1, value))
    assert torch.equal(images, before) and ours.dtype == torch.float32 and not torch.equal(ours, images)


def test_noise_is_standard_normal_and_of_its_own_pixel_and_draw():
    images, rng = torch.full((200, 3, 32, 32), 9.0), np.random.default_rng(3)
    drawn = draw_erasures(200, 32, 32, ALWAYS, rng)
    ours = erase(images, drawn, "noise")
    values = ours[ours != 9.0]
    assert abs(float(values.mean())) < 0.02 and abs(float(values.std()) - 1) < 0.02
    assert values.unique().numel() > 0.9 * values.numel()
    assert torch.equal(ours, erase(images, drawn, "noise"))
    assert draw_erasures(200, 32, 32, ALWAYS, rng).noise_seed != drawn.noise_seed


def test_erasing_happens_as_often_as_asked():
    for probability, slack in ((0.0, 0.0), (0.25, 0.015), (1.0, 0.0)):
        drawn = draw_erasures(20_000, 32, 32, Recipe(erase_prob=probability), np.random.default_rng(5))
        assert abs((drawn.boxes[:, 2] > drawn.boxes[:, 0]).double().mean() - probability) <= slack


def test_lee_s_boxes_are_drawn_by_lee_s_rule():
    """Areas and ratios uniform, of up to a hundred tries the first that fits: .203 of an erased image on average."""
    boxes = draw_erasures(20_000, 32, 32, ALWAYS, np.random.default_rng(4), LEE).boxes.numpy()
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    rng = np.random.default_rng(5)
    areas, ratios = rng.uniform(0.02, 0.4, 20_000) * 1024, rng.uniform(0.3, 1 / 0.3, 20_000)
    theirs = np.rint(np.sqrt([areas * ratios, areas / ratios]))
    theirs = theirs[:, (theirs < 32).all(axis=0)]
    assert (heights > 0).all(), "ten tries always find a box that fits"
    assert p_value(heights, theirs[0]) > 1e-3 and p_value(widths, theirs[1]) > 1e-3
    assert float((heights * widths).mean()) / 1024 == pytest.approx(0.203, abs=0.003)
    log_uniform = draw_erasures(20_000, 32, 32, ALWAYS, np.random.default_rng(4)).boxes.numpy()
    assert p_value(heights, log_uniform[:, 2] - log_uniform[:, 0]) < 1e-9


# --- crop-paste ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_crop_paste_equals_a_loop(size: tuple[int, int]):
    images = float_images(200, *size)
    pastes = draw_pastes(200, *size, RECIPE, np.random.default_rng(6))
    before, ours = images.clone(), crop_paste(images, pastes)
    for image, our, (y1, x1, y2, x2), (top, left), is_flipped, keep in zip(images, ours, *pastes, strict=True):
        piece, expected = image[:, y1:y2, x1:x2], image.clone()
        place = expected[:, top : top + y2 - y1, left : left + x2 - x1]
        place.copy_(keep * place + (1 - keep) * (piece.flip(2) if is_flipped else piece))
        assert torch.equal(our, expected)
    assert torch.equal(images, before) and ours.dtype == torch.float32 and not torch.equal(ours, images)


def test_crop_paste_draws_by_its_rules():
    n, side = 40_000, 32
    drawn = draw_pastes(n, side, side, RECIPE, np.random.default_rng(7))
    boxes, corners, flips, keep = (part.numpy() for part in drawn)
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert (sizes >= 0).all() and (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= side).all()
    assert (corners >= 0).all() and (corners + sizes <= side).all()
    assert (corners + sizes == side).any(axis=0).all() and (corners == 0).any(axis=0).all()
    assert abs(flips.mean() - 0.5) < 0.01
    assert abs(keep.mean() - 0.5) < 0.01 and abs(keep.std() - 12**-0.5) < 0.01
    # lam uniform: the chance of a whole side below s is 1 - P(lam > 1 - s^2) = s^2; sides are halved and truncated.
    rng = np.random.default_rng(8)
    whole = (side * np.sqrt(1 - rng.random(n))).astype(int) // 2
    centre = rng.integers(side, size=n)
    expected = np.minimum(centre + whole, side) - np.maximum(centre - whole, 0)
    assert p_value(sizes[:, 0], expected) > 1e-3 and p_value(sizes[:, 1], expected) > 1e-3
    small = (sizes == 2).all(axis=1) & (boxes[:, 0] > 0)
    assert chisquare(np.bincount(corners[small, 0], minlength=31)).pvalue > 1e-3
