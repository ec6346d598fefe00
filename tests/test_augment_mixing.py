"""MixUp and CutMix: images and labels against torchvision's v2 transforms with the same weight or box, and the draws
against the recipe."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torchvision.transforms import v2

from harness.data.augment.mixing import Mix, cutmix_boxes, draw_mix, mix_images
from harness.recipes import Recipe
from tests.test_augment_steps import p_value

CLASSES = 5


def _images(n: int, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((n, 3, height, width)).astype(np.float32))


def _draw(n: int, recipe: Recipe, height: int = 32, width: int = 32) -> Mix:
    return draw_mix(n, height, width, recipe, np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
def test_mixing_equals_torchvision(size: tuple[int, int], kind: Any) -> None:
    images, labels = _images(16, *size), torch.arange(16) % CLASSES
    mix = _draw(16, Recipe(mix=kind), *size)
    y1, x1, y2, x2 = mix.box[0].tolist()
    lam = float(mix.own[0]) if kind == "mixup" else 1.0 - (x2 - x1) * (y2 - y1) / (size[0] * size[1])
    transform: Any = v2.MixUp(num_classes=CLASSES) if kind == "mixup" else v2.CutMix(num_classes=CLASSES)
    params = {"lam": lam} if kind == "mixup" else {"box": (x1, y1, x2, y2), "lam_adjusted": lam}
    params = {"labels": labels, "batch_size": 16, **params}
    before = images.clone()
    assert 0 < lam < 1 and torch.equal(mix_images(images, mix), transform.transform(images, params))
    one_hot, weight = torch.nn.functional.one_hot(labels, CLASSES).float(), mix.label_weight[:, None]
    mixed_labels = weight * one_hot + (1 - weight) * one_hot.roll(1, 0)
    tolerance = 0 if kind == "mixup" else 1e-7
    torch.testing.assert_close(mixed_labels, transform.transform(labels, params), rtol=0, atol=tolerance)
    assert torch.equal(images, before)


def test_cutmix_boxes_follow_torchvisions_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    cutmix, images = v2.CutMix(num_classes=CLASSES), _images(1, 20, 33)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        lam, x, y = float(rng.random()), int(rng.integers(33)), int(rng.integers(20))
        centre = iter([torch.tensor([x]), torch.tensor([y])])
        monkeypatch.setattr(cutmix, "_dist", type("Fixed", (), {"sample": lambda *_, lam=lam: lam})())
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", lambda *_, centre=centre, **__: next(centre))
            params = cutmix.make_params([images])
        ours = cutmix_boxes(np.array([0.5 * np.sqrt(1 - lam)]), np.array([y]), np.array([x]), 20, 33)
        x1, y1, x2, y2 = params["box"]
        assert ours.tolist() == [[y1, x1, y2, x2]]


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "either"])
@pytest.mark.parametrize("per_image", [False, True])
def test_each_pixel_is_the_weighted_sum_of_the_two_images(kind: Any, per_image: bool) -> None:
    images = _images(40)
    mix = _draw(40, Recipe(mix=kind, mix_per_image=per_image))
    ours, ways = mix_images(images, mix), torch.cat([mix.own[:, None], mix.box], dim=1).unique(dim=0)
    assert len(ways) > 20 if per_image else len(ways) == 1
    for i in range(40):
        y1, x1, y2, x2 = mix.box[i].tolist()
        expected = images[i] * mix.own[i] + images[i - 1] * (1 - mix.own[i])
        expected[:, y1:y2, x1:x2] = images[i - 1][:, y1:y2, x1:x2]
        assert torch.equal(ours[i], expected)
        own_share = float(mix.own[i]) * (1 - (y2 - y1) * (x2 - x1) / 1024)
        assert float(mix.label_weight[i]) == pytest.approx(own_share, abs=1e-6)


@pytest.mark.parametrize("per_image", [False, True])
def test_none_and_probability_zero_change_nothing(per_image: bool) -> None:
    images = _images(8)
    for recipe in (Recipe(mix="none"), Recipe(mix="either", mix_prob=0.0)):
        mix = _draw(8, replace(recipe, mix_per_image=per_image))
        assert torch.equal(mix_images(images, mix), images)
        assert bool((mix.label_weight == 1).all())


def test_kinds_and_weights_follow_the_recipe() -> None:
    n = 20_000
    mix = _draw(n, Recipe(mix="either", mix_prob=0.6, mixup_alpha=0.4, cutmix_alpha=2.0, mix_per_image=True))
    is_mixup = (mix.own < 1).numpy()
    is_cutmix = (mix.box[:, 2] > mix.box[:, 0]).numpy()
    assert not (is_mixup & is_cutmix).any()
    assert abs(is_mixup.mean() - 0.3) < 0.015
    assert 0.25 < is_cutmix.mean() < 0.315  # a few boxes are too small to have an area
    # Kolmogorov-Smirnov needs the values below 1 only: float32 rounds a few draws of Beta(0.4, 0.4) to 1 exactly.
    assert kstest(mix.own.numpy()[is_mixup], beta(0.4, 0.4).cdf).pvalue > 1e-3
    inner = mix.box.numpy()[is_cutmix]
    inner = inner[(inner[:, :2] > 0).all(1) & (inner[:, 2:] < 32).all(1)]
    assert (inner[:, 2] - inner[:, 0] == inner[:, 3] - inner[:, 1]).all()
    rng = np.random.default_rng(3)
    half, (y, x) = 0.5 * np.sqrt(1 - rng.beta(2.0, 2.0, n)), rng.integers(32, size=(2, n))
    expected = cutmix_boxes(half, y, x, 32, 32)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (mix.box.numpy()[is_cutmix], expected)]
    assert p_value(areas[0], areas[1][areas[1] > 0]) > 1e-3


def test_mixing_is_one_graph() -> None:
    images = _images(6)
    mix = _draw(6, Recipe(mix="either", mix_per_image=True))
    compiled = torch.compile(mix_images, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images, mix), mix_images(images, mix))
