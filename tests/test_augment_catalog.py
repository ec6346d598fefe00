"""Holds what every named step promises: own randomness for each image, same seed same bytes.
Also that the names are importable without torch, and that a GPU, where there is one, agrees with the CPU.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from harness.augmentations import FLOAT_NAMES, MIX_NAMES, UINT8_NAMES
from harness.data.augment.catalog import FLOAT_STEPS, UINT8_STEPS, augment_uint8_, float_steps
from harness.data.augment.mixing import draw_mix, mix_images
from harness.data.augment.transfer import blocks, sent_together


@dataclass(frozen=True)
class Settings:
    crop_padding: int = 4
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    randaugment_ops: int = 2
    randaugment_magnitude: int = 9
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    erase_prob: float = 0.5
    erase_fill: Literal["zero", "noise"] = "zero"
    mix: Literal["none", "mixup", "cutmix", "either"] = "either"
    mix_prob: float = 0.8
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    mix_per_image: bool = True


ALL_NAMES = (*UINT8_NAMES, *FLOAT_NAMES)
# Least shares of distinct outputs among 512 copies of one image; a flip has two outcomes in all.
LEAST_DISTINCT = dict.fromkeys(ALL_NAMES, 100) | {
    "crop": 75,
    "flip": 2,
    "autoaugment-cifar": 50,
    "autoaugment-svhn": 50,
    "autoaugment-pil-cifar": 50,
    "autoaugment-pil-svhn": 50,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def _images(name: str, n: int = 512, is_same: bool = False) -> torch.Tensor:
    rng = np.random.default_rng(1)
    # A photograph-like range and some texture: AutoContrast and Posterize must have something to do.
    uint8 = torch.from_numpy(rng.integers(20, 200, (1 if is_same else n, 3, 32, 32), dtype=np.uint8))
    uint8 = uint8.expand(n, -1, -1, -1).contiguous()
    return uint8 if name in UINT8_NAMES else uint8.float() / 50 - 2


def _augment(images: torch.Tensor, name: str, settings: Settings, seed: int = 0) -> torch.Tensor:
    """Of a copy, laid out in memory as the images are: the uint8 steps may overwrite what they are given."""
    rng = np.random.default_rng(seed)
    if name in UINT8_NAMES:
        return augment_uint8_(images.clone(memory_format=torch.preserve_format), (name,), settings, rng)
    return _augment_float(images, (name,), settings, rng)


def _augment_float(images: torch.Tensor, names: Sequence[str], settings: Settings, rng: Any) -> torch.Tensor:
    n, _, height, width = images.shape
    for step in float_steps(names):
        (drawn,) = sent_together([step.draw(n, height, width, settings, rng)], images.device)
        images = step.apply(images, drawn, settings, torch.full((3, 1, 1), 0.49, device=images.device))
    return images


def test_names_are_those_of_the_catalogue() -> None:
    assert tuple(UINT8_STEPS) == UINT8_NAMES
    assert tuple(FLOAT_STEPS) == FLOAT_NAMES
    assert MIX_NAMES == ("none", "mixup", "cutmix", "either")


def test_names_and_settings_need_no_torch() -> None:
    modules = "harness.augmentations, harness.data.augment.settings"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_batch_of_one_image_comes_out_as_many_images(name: str) -> None:
    images = _images(name, is_same=True)
    distinct = len(_augment(images, name, Settings()).flatten(1).unique(dim=0))
    assert distinct >= LEAST_DISTINCT[name]


def test_each_image_of_a_batch_is_mixed_in_its_own_way() -> None:
    # Two images in turn: every mixture is of the same pair, so that only the draw can tell two outputs apart.
    images = _images("erase", n=2).repeat(128, 1, 1, 1)
    for kind in ("mixup", "cutmix", "either"):
        mix = draw_mix(256, 32, 32, Settings(mix=kind), np.random.default_rng(0))
        assert len(mix_images(images, mix).flatten(1).unique(dim=0)) > 150


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("interpolation, fill", [("nearest", "zero"), ("bilinear", "noise")])
def test_same_seed_same_bytes_and_float_images_are_left_alone(name: str, interpolation: Any, fill: Any) -> None:
    settings = Settings(interpolation=interpolation, erase_fill=fill)
    images = _images(name)
    before = images.clone()
    first, second = _augment(images, name, settings), _augment(images, name, settings)
    assert torch.equal(first, second)
    assert not torch.equal(first, _augment(images, name, settings, seed=1))
    assert torch.equal(images, before)
    assert (first.dtype, first.shape, first.device) == (images.dtype, images.shape, images.device)
    assert first.is_contiguous()


@pytest.mark.parametrize("name", ALL_NAMES)
def test_the_layout_in_memory_changes_nothing(name: str) -> None:
    images = _images(name)
    expected = _augment(images, name, Settings())
    for odd in (images.to(memory_format=torch.channels_last), images.repeat_interleave(2, dim=3)[..., ::2]):
        ours = _augment(odd, name, Settings())
        assert torch.equal(ours, expected) and not odd.is_contiguous()


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("n", [0, 1, 3])
def test_small_batches_keep_their_shape(name: str, n: int) -> None:
    assert _augment(_images(name, n=n), name, Settings()).shape == (n, 3, 32, 32)


@pytest.mark.parametrize("name", UINT8_NAMES)
def test_nothing_depends_on_the_block_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(name)
    expected = _augment(images, name, Settings())
    monkeypatch.setattr("harness.data.augment.transfer.CPU_BLOCK_VALUES", 7 * 3 * 32 * 32)
    assert [block.stop - block.start for block in blocks(16, 3 * 32 * 32, images.device)] == [7, 7, 2]
    assert torch.equal(_augment(images, name, Settings()), expected)


@pytest.mark.parametrize(
    "field, value, name",
    [
        ("crop_padding", 2, "crop"),
        ("crop_scale", (0.5, 0.9), "resized-crop"),
        ("crop_ratio", (1.0, 1.0), "resized-crop"),
        ("randaugment_ops", 1, "randaugment"),
        ("randaugment_magnitude", 20, "randaugment"),
        ("interpolation", "bilinear", "autoaugment-cifar"),
        ("interpolation", "bilinear", "autoaugment-svhn"),
        ("interpolation", "bilinear", "randaugment"),
        ("interpolation", "bilinear", "trivialaugment"),
        ("erase_prob", 0.1, "erase"),
        ("erase_fill", "noise", "erase"),
        ("erase_prob", 0.1, "erase-lee"),
    ],
)
def test_every_setting_is_read(field: str, value: object, name: str) -> None:
    images = _images(name)
    changed = replace(Settings(), **{field: value})  # type: ignore[arg-type]
    assert not torch.equal(_augment(images, name, Settings()), _augment(images, name, changed))


def test_steps_run_in_the_given_order_from_one_generator() -> None:
    images, rng = _images("crop"), np.random.default_rng(0)
    settings = Settings()
    expected = UINT8_STEPS["flip"](UINT8_STEPS["crop"](images.clone(), settings, rng), settings, rng)
    both = augment_uint8_(images.clone(), ("crop", "flip"), settings, np.random.default_rng(0))
    turned = augment_uint8_(images.clone(), ("flip", "crop"), settings, np.random.default_rng(0))
    assert torch.equal(both, expected) and not torch.equal(both, turned)


def test_steps_of_the_other_kind_are_skipped_without_a_draw() -> None:
    settings, rng = Settings(), np.random.default_rng(0)
    images = _images("crop")
    assert torch.equal(augment_uint8_(images, FLOAT_NAMES, settings, rng), images)
    assert torch.equal(_augment_float(images.float(), UINT8_NAMES, settings, rng), images.float())
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("run", [augment_uint8_, _augment_float])
def test_an_unknown_name_is_refused_with_the_near_matches(run: Callable) -> None:
    with pytest.raises(ValueError, match=r"'autoaugment_cifar'.*autoaugment-cifar"):
        run(_images("crop", n=1), ("crop", "autoaugment_cifar"), Settings(), np.random.default_rng(0))


@pytest.mark.cuda
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_gpu_differs_from_the_cpu_in_at_most_one_pixel_of_a_thousand(name: str, interpolation: Any) -> None:
    settings, images = Settings(interpolation=interpolation), _images(name)
    on_gpu = images.cuda()
    torch.cuda.set_sync_debug_mode("error")  # any wait of the host for the device fails the test
    try:
        theirs = _augment(on_gpu, name, settings)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    ours = _augment(images, name, settings)
    differs = ~torch.isclose(ours.float(), theirs.cpu().float(), rtol=0, atol=1e-5)
    assert differs.float().mean() <= 1e-3


@pytest.mark.cuda
def test_mixing_on_a_gpu_equals_the_cpu() -> None:
    images = _images("erase")
    mix = draw_mix(512, 32, 32, Settings(), np.random.default_rng(0))
    theirs = mix_images(images.cuda(), mix.to("cuda")).cpu()
    assert torch.allclose(mix_images(images, mix), theirs, rtol=0, atol=1e-5)
