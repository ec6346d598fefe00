"""Corruptions: each kind by hand or against a second implementation, the draws, and the evaluation under them."""

import io
import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from harness.data import corrupt
from harness.data.corrupt import Corruptions, blurred, brightened, jpeg, occluded, pixelated
from harness.data.pipeline import DeviceSplit, Scaling
from harness.datasets import CORRUPTION_NAMES
from harness.training.evaluate import Given, evaluate_corrupted
from tests.test_augment_steps import Calls


def some_images(count: int = 8, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth, with some noise, as photographs are."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(128, 90, (count, 3, side, side))
    smooth = gaussian_filter(rough, (0, 0, 3, 3)) * 3 - 256 + rng.normal(0, 6, rough.shape)
    return torch.from_numpy(smooth.clip(0, 255).astype(np.uint8))


def disturbed(images: torch.Tensor, batch: int = 1000) -> dict[tuple[str, int], torch.Tensor]:
    corruptions, parts = Corruptions(), {}
    for start in range(0, len(images), batch):
        for kind, strength, out in corruptions.of(images[start : start + batch]):
            parts.setdefault((kind, strength), []).append(out)
    return {key: torch.cat(found) if len(found) > 1 else found[0] for key, found in parts.items()}


def test_every_kind_at_five_strengths_each_worse_than_the_last():
    images = some_images(32)
    before = images.clone()
    found = disturbed(images)
    assert list(found) == [(kind, strength) for kind in CORRUPTION_NAMES for strength in range(5)]
    assert torch.equal(images, before), "the images themselves stay"
    for kind in CORRUPTION_NAMES:
        for out in (found[kind, i] for i in range(5)):
            # In another layout, a compiled model would be compiled once more in the middle of an evaluation.
            assert (out.dtype, out.shape, out.stride()) == (torch.uint8, images.shape, images.stride())
        damage = [(found[kind, i].float() - images.float()).square().mean().item() for i in range(5)]
        assert damage == sorted(damage) and damage[0] > 0.5, (kind, damage)


def test_the_draws_are_the_same_whatever_the_batch_and_whenever():
    images = some_images(20)
    whole, parts = disturbed(images), disturbed(images, batch=7)
    for key, out in whole.items():
        difference = (out.int() - parts[key].int()).abs()
        assert difference.max() <= 1 and difference.float().mean() < 1e-3, key  # sums in another order round otherwise
    assert torch.equal(whole["noise", 4], parts["noise", 4]) and torch.equal(
        whole["occlusion", 2], parts["occlusion", 2]
    )


def test_constants_are_made_once():
    """Matrices, their inverse and the Gaussians: a GPU would be waited for at each."""
    images, corruptions, calls = some_images(4, side=24), Corruptions(), []
    corrupt.jpeg_constants.cache_clear()
    corrupt.bell.cache_clear()
    for _ in range(2):
        with Calls() as counted:
            list(corruptions.of(images))
        calls.append(Counter(counted.names))
    made = {"linalg_inv_ex", "cos", "exp"}
    assert all(calls[0][name] >= 5 and not calls[1][name] for name in made), calls


def test_noise_has_its_strength():
    grey = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    for strength, std in enumerate(corrupt.NOISE_STD):
        assert disturbed(grey)["noise", strength].float().std().item() == pytest.approx(255 * std, rel=0.02)
    one, two = disturbed(grey)["noise", 0][:2]
    assert not torch.equal(one, two), "each image has its own"


@pytest.mark.parametrize("quality", corrupt.JPEG_QUALITY)
def test_jpeg_equals_pillow_s(quality):
    """Pillow's library works in whole numbers, ours does not: a level here or there."""
    for image in some_images(6, side=40):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling=0)
        theirs = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float()
        ours = jpeg(image[None].float(), quality)[0].round().clamp(0, 255)
        lost = (theirs - image.float()).abs().mean()
        assert (ours - theirs).abs().mean() < min(0.5, 0.15 * lost), quality


@pytest.mark.parametrize("side", [5, 8, 33])
def test_sizes_that_no_block_fits(side):
    images = some_images(2, side=side)
    assert all(out.shape == images.shape for out in disturbed(images).values())
    assert (jpeg(images.float(), 100) - images.float()).abs().mean() < 1.5


def test_blur_equals_scipy_s():
    pixels = some_images(3).float()
    for std in (0.4, 0.8, 1.7):
        reach = math.ceil(4 * std)
        wanted = gaussian_filter(pixels.numpy(), (0, 0, std, std), mode="nearest", radius=(0, 0, reach, reach))
        np.testing.assert_allclose(blurred(pixels, std).numpy(), wanted, atol=0.01)


def test_brightness_contrast_and_pixelation_by_hand():
    pixels = torch.tensor([[100.0, 50.0, 0.0], [0.0, 0.0, 0.0], [200.0, 100.0, 20.0]]).view(3, 3, 1, 1)
    assert brightened(pixels, 50).view(3, 3).tolist() == [[150, 75, 0], [50, 50, 50], [250, 125, 25]]
    image = torch.tensor([0, 200], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 2, 2)
    assert disturbed(image)["contrast", 1][0, 0, 0].tolist() == [50, 150]
    row = torch.tensor([0.0, 8.0, 100.0, 200.0]).view(1, 1, 1, 4).expand(1, 3, 4, 4)
    assert pixelated(row, 0.5)[0, 0, 0].tolist() == [4, 4, 150, 150]


def test_occlusion_is_one_square_within_each_image():
    pixels, places = torch.zeros(200, 3, 10, 10), torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    places[0], places[1] = 0.0, 1.0  # float rounding may give 1
    grey = occluded(pixels, places, 0.3)[:, 0] == corrupt.GREY
    assert (grey.sum(dim=(1, 2)) == 9).all() and grey[0, :3, :3].all() and grey[1, 7:, 7:].all()
    assert grey.any(dim=0).all(), "every pixel is hit at some time"


class Brightness(torch.nn.Module):
    """Class 1 for images brighter than a half; it minds its mode as dropout does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def test_accuracy_is_counted_over_all_images_for_each_strength():
    images = torch.full((100, 3, 8, 8), 100, dtype=torch.uint8)
    images[:40] = 30
    split = DeviceSplit(images, torch.zeros(100, dtype=torch.int64))
    one = torch.full((3, 8, 8), 1 / 255)
    model, told = Brightness().train(), []
    scale = Scaling(one, torch.zeros(3, 8, 8), torch.zeros(3, 1, 1))
    (found,) = evaluate_corrupted(Given(model, model, split, scale, "fp32"), told.append)
    assert found["brightness"] == [1.0, 1.0, 0.4, 0.4, 0.4], "100 + 38 is over a half, 30 + 76 is not"
    assert found["contrast"] == [1.0] * 5 and set(found) == set(CORRUPTION_NAMES)
    assert model.training and told[-1] == 100


@pytest.mark.cuda
def test_a_gpu_disturbs_as_a_cpu_does():
    images = some_images(64)
    for key, out in disturbed(images.cuda()).items():
        difference = (out.cpu().int() - disturbed(images)[key].int()).abs()
        assert difference.float().mean() < 0.05, key
