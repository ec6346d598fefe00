"""What every named step promises: randomness of its own for each image, same seed same bytes, the stream of draws as it
was; and that a GPU, where there is one, agrees with the CPU."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from harness.data.augment.catalog import FLOAT_STEPS, UINT8_STEPS, augment_uint8_, float_steps
from harness.data.augment.mixing import draw_mix, mix_images
from harness.data.augment.transfer import blocks, sent_together
from harness.recipes import FLOAT_NAMES, MIX_NAMES, UINT8_NAMES, Recipe
from variants.fields import UsageError

ALL_NAMES = (*UINT8_NAMES, *FLOAT_NAMES)
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
    return uint8 if name in UINT8_NAMES else uint8.float() / 50 - 2


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


def test_names_are_those_of_the_catalogue():
    assert tuple(UINT8_STEPS) == UINT8_NAMES and tuple(FLOAT_STEPS) == FLOAT_NAMES
    assert MIX_NAMES == ("none", "mixup", "cutmix", "either")


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_batch_of_one_image_comes_out_as_many_images(name):
    images = some_images(name, 512, is_same=True)
    assert len(augmented(images, (name,)).flatten(1).unique(dim=0)) >= LEAST_DISTINCT[name]


def test_each_image_of_a_batch_is_mixed_in_its_own_way():
    # Two images in turn: every mixture is of the same pair, so that only the draw can tell two outputs apart.
    images = some_images("erase", n=2).repeat(128, 1, 1, 1)
    for kind in ("mixup", "cutmix", "either"):
        mix = draw_mix(256, 32, 32, replace(RECIPE, mix=kind), np.random.default_rng(0))
        assert len(mix_images(images, mix).flatten(1).unique(dim=0)) > 150


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize(("interpolation", "fill"), [("nearest", "zero"), ("bilinear", "noise")])
def test_same_seed_same_bytes_whatever_the_layout_and_float_images_are_left_alone(name, interpolation, fill):
    recipe = replace(RECIPE, interpolation=interpolation, erase_fill=fill)
    images = some_images(name)
    before, rng = images.clone(), np.random.default_rng(7)
    first = augmented(images, (name,), recipe, rng)
    assert torch.equal(images, before)
    assert rng.integers(1 << 30) == DRAWN_NEXT[name]
    assert not torch.equal(first, augmented(images, (name,), recipe, rng))
    assert (first.dtype, first.shape) == (images.dtype, images.shape) and first.is_contiguous()
    for same in (images, images.to(memory_format=torch.channels_last), images.repeat_interleave(2, dim=3)[..., ::2]):
        assert torch.equal(first, augmented(same, (name,), recipe))


@pytest.mark.parametrize("name", ALL_NAMES)
def test_small_batches_keep_their_shape(name):
    for n in (0, 1, 3):
        assert augmented(some_images(name, n=n), (name,)).shape == (n, 3, 32, 32)


@pytest.mark.parametrize("name", UINT8_NAMES)
def test_nothing_depends_on_the_block_size(name, monkeypatch):
    images = some_images(name)
    expected = augmented(images, (name,))
    monkeypatch.setattr("harness.data.augment.transfer.CPU_BLOCK_VALUES", 7 * 3 * 32 * 32)
    assert [block.stop - block.start for block in blocks(16, 3 * 32 * 32, images.device)] == [7, 7, 2]
    assert torch.equal(augmented(images, (name,)), expected)


@pytest.mark.parametrize(
    ("field", "value", "name"),
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
def test_every_setting_is_read(field, value, name):
    images = some_images(name)
    assert not torch.equal(augmented(images, (name,)), augmented(images, (name,), replace(RECIPE, **{field: value})))


@pytest.mark.parametrize(
    "wrong",
    [{"interpolation": "bicubic"}, {"erase_fill": "mean"}, {"mix": "mixxup"}, {"augment": ("autoaugment_cifar",)}]
    + [{"randaugment_magnitude": magnitude} for magnitude in (-1, 31)],
    ids=str,
)
def test_what_no_step_knows_is_no_recipe(wrong):
    with pytest.raises(UsageError):
        Recipe(**wrong)


def test_steps_run_in_the_given_order_from_one_generator():
    images, rng = some_images("crop"), np.random.default_rng(7)
    expected = UINT8_STEPS["flip"](UINT8_STEPS["crop"](images.clone(), RECIPE, rng), RECIPE, rng)
    assert torch.equal(augmented(images, ("crop", "flip")), expected)
    assert not torch.equal(augmented(images, ("flip", "crop")), expected)


def test_steps_of_the_other_kind_are_skipped_without_a_draw():
    rng = np.random.default_rng(0)
    images = some_images("crop")
    assert torch.equal(augmented(images, FLOAT_NAMES, rng=rng), images)
    assert torch.equal(augmented(images.float(), UINT8_NAMES, rng=rng), images.float())
    assert rng.random() == np.random.default_rng(0).random()


def test_a_name_that_was_not_fitted_to_a_data_set_is_no_step():
    for images in (some_images("crop"), some_images("erase")):
        with pytest.raises(KeyError):
            augmented(images, ("autoaugment",))


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
