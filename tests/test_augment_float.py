"""Holds erasing and crop-paste of float images to a function applied image by image with the drawn parameters.
Also the draws: how often, how large, where, and never the same for the whole batch.
"""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp
from torchvision.transforms import RandomErasing
from torchvision.transforms import functional as F

from harness.data.augment.erasing import LEE, draw_erasures, erase
from harness.data.augment.paste import Pastes, crop_paste, draw_pastes

SIZES = [(32, 32), (8, 8), (20, 33)]


def _p_value(ours: np.ndarray, theirs: np.ndarray) -> float:
    return ks_2samp(ours, theirs)[1]  # type: ignore[return-value]  # scipy's result has no usable type


def _images(n: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((n, 3, height, width)).astype(np.float32))


@pytest.mark.parametrize("fill", ["zero", "noise"])
@pytest.mark.parametrize("size", SIZES)
def test_erase_equals_torchvision(size: tuple[int, int], fill: str) -> None:
    images = _images(300, *size)
    drawn = draw_erasures(300, *size, 0.6, np.random.default_rng(2))
    before = images.clone()
    ours = erase(images, drawn, fill)
    for image, (y1, x1, y2, x2), our in zip(images, drawn.boxes.tolist(), ours, strict=True):
        value = torch.zeros(3, 1, 1) if fill == "zero" else our[:, y1:y2, x1:x2]
        assert torch.equal(our, F.erase(image, y1, x1, y2 - y1, x2 - x1, value))
    assert torch.equal(images, before)
    assert ours.dtype == torch.float32 and not torch.equal(ours, images)


def test_noise_is_standard_normal_and_of_its_own_pixel_and_draw() -> None:
    images = torch.full((400, 3, 32, 32), 9.0)
    rng = np.random.default_rng(3)
    drawn = draw_erasures(400, 32, 32, 1.0, rng)
    ours = erase(images, drawn, "noise")
    values = ours[ours != 9.0]
    assert abs(float(values.mean())) < 0.01 and abs(float(values.std()) - 1) < 0.01
    assert values.unique().numel() > 0.9 * values.numel()
    assert torch.equal(ours, erase(images, drawn, "noise"))
    assert draw_erasures(400, 32, 32, 1.0, rng).noise_seed != drawn.noise_seed


@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
def test_erasing_draws_like_torchvision(size: tuple[int, int]) -> None:
    n = 4000
    boxes = draw_erasures(n, *size, 1.0, np.random.default_rng(4)).boxes.numpy()
    torch.manual_seed(0)
    blank = torch.zeros(3, *size)
    theirs = np.array([RandomErasing.get_params(blank, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(n)])
    ours = [boxes[:, 0], boxes[:, 1], boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]]
    for mine, column in zip(ours, theirs.T, strict=True):
        assert _p_value(mine, column) > 1e-3
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= size).all()
    assert (boxes[:, 2] == size[0]).any() and (boxes[:, 3] == size[1]).any()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_happens_as_often_as_asked(probability: float) -> None:
    boxes = draw_erasures(20_000, 32, 32, probability, np.random.default_rng(5)).boxes.numpy()
    erased = (boxes[:, 2] > boxes[:, 0]).mean()
    assert erased == probability if probability in (0.0, 1.0) else abs(erased - probability) < 0.015


def test_an_unknown_fill_is_refused() -> None:
    drawn = draw_erasures(2, 8, 8, 1.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="mean"):
        erase(_images(2, 8, 8), drawn, "mean")


def _paste_slowly(image: torch.Tensor, box: list, corner: list, is_flipped: bool, keep: torch.Tensor) -> torch.Tensor:
    (y1, x1, y2, x2), (top, left) = box, corner
    piece = image[:, y1:y2, x1:x2].clone()
    if is_flipped:
        piece = piece.flip(2)
    result = image.clone()
    place = result[:, top : top + y2 - y1, left : left + x2 - x1]
    place.copy_(keep * place + (1 - keep) * piece)
    return result


def _lee_box(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """One image's box by the rule of Lee's code: up to a hundred tries, areas and ratios uniform."""
    for _ in range(100):
        area, ratio = rng.uniform(0.02, 0.4) * height * width, rng.uniform(0.3, 1 / 0.3)
        h, w = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if h < height and w < width:
            return h, w
    raise AssertionError("not in a hundred tries")


def test_lee_s_boxes_are_drawn_by_lee_s_rule() -> None:
    """The published code erases .203 of an erased image on average."""
    boxes = draw_erasures(20_000, 32, 32, 1.0, np.random.default_rng(4), LEE).boxes.numpy()
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    rng = np.random.default_rng(5)
    theirs = np.array([_lee_box(32, 32, rng) for _ in range(20_000)])
    assert (heights > 0).all(), "ten tries always find a box that fits"
    assert _p_value(heights, theirs[:, 0]) > 1e-3 and _p_value(widths, theirs[:, 1]) > 1e-3
    assert float((heights * widths).mean()) / 1024 == pytest.approx(0.203, abs=0.003)
    log_uniform = draw_erasures(20_000, 32, 32, 1.0, np.random.default_rng(4)).boxes.numpy()
    assert _p_value(heights, log_uniform[:, 2] - log_uniform[:, 0]) < 1e-9


def test_lee_s_boxes_are_filled_with_the_data_set_s_mean() -> None:
    images, mean = _images(50, 32, 32), torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    drawn = draw_erasures(50, 32, 32, 0.5, np.random.default_rng(6), LEE)
    ours = erase(images, drawn, mean)
    for image, (y1, x1, y2, x2), our in zip(images, drawn.boxes.tolist(), ours, strict=True):
        assert torch.equal(our, F.erase(image, y1, x1, y2 - y1, x2 - x1, mean))


@pytest.mark.parametrize("size", SIZES)
def test_crop_paste_equals_a_loop(size: tuple[int, int]) -> None:
    images = _images(400, *size)
    pastes = draw_pastes(400, *size, np.random.default_rng(6))
    before = images.clone()
    ours = crop_paste(images, pastes)
    for i, our in enumerate(ours):
        box, corner = pastes.boxes[i].tolist(), pastes.corners[i].tolist()
        assert torch.equal(our, _paste_slowly(images[i], box, corner, bool(pastes.flips[i]), pastes.keep[i])), i
    assert torch.equal(images, before)
    assert ours.dtype == torch.float32 and not torch.equal(ours, images)


def test_crop_paste_by_hand() -> None:
    image = torch.arange(9, dtype=torch.float32).view(1, 1, 3, 3).repeat(2, 3, 1, 1)
    pastes = Pastes(
        boxes=torch.tensor([[0, 0, 1, 2], [0, 0, 1, 2]]),
        corners=torch.tensor([[2, 1], [2, 1]]),
        flips=torch.tensor([False, True]),
        keep=torch.tensor([0.0, 0.5]),
    )
    ours = crop_paste(image, pastes)
    assert ours[0, 1].tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    assert ours[1, 2].tolist() == [[0, 1, 2], [3, 4, 5], [6, 4, 4]]


def test_crop_paste_draws_by_its_rules() -> None:
    n, side = 40_000, 32
    boxes, corners, flips, keep = (part.numpy() for part in draw_pastes(n, side, side, np.random.default_rng(7)))
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
    assert _p_value(sizes[:, 0], expected) > 1e-3 and _p_value(sizes[:, 1], expected) > 1e-3
    small = (sizes == 2).all(axis=1) & (boxes[:, 0] > 0)
    assert chisquare(np.bincount(corners[small, 0], minlength=31)).pvalue > 1e-3
