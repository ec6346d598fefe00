"""The operations and policies against torchvision's own: every pixel at every magnitude, and how often each operation,
magnitude and sign is drawn (chi-square at fixed seeds)."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, RandAugment, TrivialAugmentWide
from torchvision.transforms import InterpolationMode as Mode
from torchvision.transforms.autoaugment import _apply_op

from harness.data.augment.pixels import PIXEL_OPS
from harness.data.augment.policies import (
    BINLESS_OPS,
    CIFAR10_POLICY,
    OPS,
    RANDOM_OPS,
    SIGNED_OPS,
    SVHN_POLICY,
    Round,
    apply_round_,
    apply_rounds_,
    draw_autoaugment,
    draw_randaugment,
    draw_trivialaugment,
    magnitude_bins,
    torchvision_operations,
)

SPACES = {
    "autoaugment": lambda size: AutoAugment()._augmentation_space(10, size),
    "randaugment": lambda size: RandAugment()._augmentation_space(31, size),
    "trivialaugment": lambda size: TrivialAugmentWide()._augmentation_space(31),
}
BINS = {"autoaugment": 10, "randaugment": 31, "trivialaugment": 31}
POLICIES = {AutoAugmentPolicy.CIFAR10: CIFAR10_POLICY, AutoAugmentPolicy.SVHN: SVHN_POLICY}
N = 30_000
SMALLEST_P = 1e-3

pytestmark = pytest.mark.usefixtures("one_thread")


# --- pixels ----------------------------------------------------------------------------------------------------------


def pictures(height: int, width: int) -> torch.Tensor:
    """Random, smooth, dark, constant and two-valued images: the degenerate ones are where histograms go wrong."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (2, 3, height, width))
    ramp = np.broadcast_to(np.linspace(0, 255, width)[None, None, None], (1, 3, height, width))
    dark = rng.integers(0, 20, (1, 3, height, width))
    constants = np.stack([np.full((3, height, width), value) for value in (0, 77, 255)])
    two_valued = np.where(rng.random((1, 3, height, width)) < 0.3, 30, 200)
    mostly_one = np.where(rng.random((1, 3, height, width)) < 0.02, 3, 255)
    blocks = np.kron(rng.integers(0, 256, (1, 3, -(-height // 4), -(-width // 4))), np.ones((1, 1, 4, 4)))
    everything = [noise, ramp, dark, constants, two_valued, mostly_one, blocks[:, :, :height, :width]]
    return torch.from_numpy(np.concatenate(everything).astype(np.uint8))


def signed_magnitudes(space: str, op: str, size: tuple[int, int]) -> list[float]:
    table, is_signed = SPACES[space](size)[op]
    magnitudes = [float(value) for value in table.reshape(-1)]
    return magnitudes + [-value for value in magnitudes] if is_signed else magnitudes


@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
@pytest.mark.parametrize("space", SPACES)
def test_magnitudes_and_signs_are_torchvisions(space, size: tuple[int, int]):
    theirs = SPACES[space](size)
    assert set(theirs) == set(OPS) - ({"Identity"} if space == "autoaugment" else {"Invert"})
    for op, (table, is_signed) in theirs.items():
        ours = magnitude_bins(op, BINS[space], *size, wide=space == "trivialaugment")
        expected = table.double().numpy() if table.ndim else np.zeros(BINS[space])
        np.testing.assert_array_equal(ours, expected, err_msg=op)
        assert is_signed == (op in SIGNED_OPS) and (table.ndim == 0) == (op in (*BINLESS_OPS, "Identity"))


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (20, 33)])
@pytest.mark.parametrize("op", OPS)
def test_every_magnitude_equals_torchvision(op, size: tuple[int, int]):
    images = pictures(*size)
    modes = ["nearest", "bilinear"] if op.startswith(("Shear", "Translate", "Rotate")) else ["nearest"]
    spaces = [space for space in SPACES if op in SPACES[space](size)]
    magnitudes = sorted({m for space in spaces for m in signed_magnitudes(space, op, size)})
    magnitudes = magnitudes if size == (32, 32) else magnitudes[::6]
    drawn = Round(np.full(len(images) * len(magnitudes), OPS.index(op)), np.repeat(np.array(magnitudes), len(images)))
    for mode in modes:
        ours = apply_round_(images.repeat(len(magnitudes), 1, 1, 1), drawn, torchvision_operations(mode))
        for magnitude, our in zip(magnitudes, ours.split(len(images)), strict=True):
            theirs = _apply_op(images, op, magnitude, Mode(mode), None)
            assert torch.equal(our, theirs), (op, magnitude, mode)


def test_the_pictures_exercise_every_operation():
    images = pictures(32, 32)
    for op in set(OPS) - {"Identity"}:
        magnitude = 4.0 if op in ("Posterize", "TranslateX", "TranslateY", "Rotate") else 0.3
        drawn = Round(np.full(len(images), OPS.index(op)), np.full(len(images), magnitude))
        assert not torch.equal(apply_round_(images.clone(), drawn, torchvision_operations("nearest")), images), op


@pytest.mark.parametrize("op", PIXEL_OPS)
def test_pixel_operations_leave_their_input_alone(op):
    images = pictures(8, 8)
    before = images.clone()
    PIXEL_OPS[op](images, np.full(len(images), 3.0 if op == "Posterize" else 0.4))
    assert torch.equal(images, before)


def test_images_too_small_to_smooth_are_returned_as_they_are():
    images = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    assert torch.equal(PIXEL_OPS["Sharpness"](images, np.full(2, 0.9)), images)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=["cifar", "svhn"])
def test_a_drawn_plan_replayed_with_torchvision_gives_the_same_images(policy, size: tuple[int, int], mode):
    """Each image its own operation and magnitude."""
    rng = np.random.default_rng(9)
    images = torch.from_numpy(rng.integers(0, 256, (64, 3, *size), dtype=np.uint8))
    rounds = [*draw_autoaugment(policy, 64, *size, rng), *draw_randaugment(64, *size, 1, 9, rng)]
    ours = apply_rounds_(images.clone(), rounds, torchvision_operations(mode))
    for i, image in enumerate(images):
        for drawn in rounds:
            image = _apply_op(image, OPS[drawn.ops[i]], float(drawn.magnitudes[i]), Mode(mode), None)
        assert torch.equal(ours[i], image), i
    assert not torch.equal(ours, images) and ours.dtype == torch.uint8


# --- draws -----------------------------------------------------------------------------------------------------------


def names_of(drawn: Round) -> list[str]:
    return [OPS[op] for op in drawn.ops]


def check_frequencies(seen: Counter, expected: dict) -> None:
    """Chi-square over all outcomes with a positive chance; an outcome without one must never be seen."""
    possible = {key: share for key, share in expected.items() if share > 0}
    assert set(seen) <= set(possible), set(seen) - set(possible)
    counts = [seen[key] for key in possible]
    assert chisquare(counts, [share * sum(counts) for share in possible.values()]).pvalue > SMALLEST_P


def signed_outcomes(op: str, p: float, bin_: int | None, space: dict) -> list[tuple[str, float, float]]:
    table, is_signed = space[op]
    magnitude = 0.0 if bin_ is None else float(table[bin_])
    return [(op, magnitude, p / 2), (op, -magnitude, p / 2)] if is_signed else [(op, magnitude, p)]


@pytest.mark.parametrize("policy", POLICIES)
def test_autoaugment_draws_pairs_as_often_as_torchvision_declares(policy):
    expected: dict = defaultdict(float)
    theirs = AutoAugment(policy)
    assert list(POLICIES[policy]) == theirs.policies and len(theirs.policies) == 25
    space = theirs._augmentation_space(10, (32, 32))
    for sub_policy in theirs.policies:
        outcomes = [[("Identity", 0.0, 1.0 - p), *signed_outcomes(op, p, b, space)] for op, p, b in sub_policy]
        for first_op, first_m, first_p in outcomes[0]:
            for second_op, second_m, second_p in outcomes[1]:
                expected[first_op, first_m, second_op, second_m] += first_p * second_p / 25
    assert sum(expected.values()) == pytest.approx(1.0)
    first, second = draw_autoaugment(POLICIES[policy], N, 32, 32, np.random.default_rng(5))
    check_frequencies(
        Counter(zip(names_of(first), first.magnitudes, names_of(second), second.magnitudes, strict=True)), expected
    )


def test_randaugment_picks_uniformly_at_its_one_magnitude():
    space = RandAugment()._augmentation_space(31, (32, 24))
    rounds = draw_randaugment(N, 32, 24, 2, 9, np.random.default_rng(7))
    expected = {}
    for op in space:
        for name, magnitude, share in signed_outcomes(op, 1 / len(space), 9 if space[op][0].ndim else None, space):
            expected[name, magnitude] = share
    for drawn in rounds:
        check_frequencies(Counter(zip(names_of(drawn), drawn.magnitudes, strict=True)), expected)
    assert len(rounds) == 2 and chisquare(np.bincount(rounds[0].ops * 14 + rounds[1].ops)).pvalue > SMALLEST_P


def test_trivialaugment_picks_operation_bin_and_sign_uniformly():
    assert list(RANDOM_OPS) == list(RandAugment()._augmentation_space(31, (8, 8))) == list(OPS[:-1])
    (drawn,) = draw_trivialaugment(N, 32, 32, np.random.default_rng(8))
    names = np.array(names_of(drawn))
    check_frequencies(Counter(names.tolist()), dict.fromkeys(RANDOM_OPS, 1 / 14))
    for op in (*SIGNED_OPS, "Solarize"):
        values = magnitude_bins(op, 31, 32, 32, wide=True)
        check_frequencies(Counter(np.abs(drawn.magnitudes[names == op])), dict.fromkeys(values, 1 / 31))
    for op in SIGNED_OPS:
        moved = drawn.magnitudes[(names == op) & (drawn.magnitudes != 0)]
        assert abs((moved > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(moved))


@pytest.mark.parametrize(
    ("policy", "digest"), [(CIFAR10_POLICY, "f2e71a305e26f746"), (SVHN_POLICY, "58e1a49d55ed5a5b")], ids=["c10", "svhn"]
)
def test_the_draws_are_those_of_before(policy, digest):
    """Operations, magnitudes in thousandths, where the generator then stands."""
    rng, seen = np.random.default_rng(16), hashlib.sha256()
    for drawn in draw_autoaugment(policy, 2000, 32, 32, rng):
        seen.update(drawn.ops.astype(np.int64).tobytes())
        seen.update(np.round(drawn.magnitudes * 1000).astype(np.int64).tobytes())
    assert (seen.hexdigest()[:16], rng.integers(1 << 30)) == (digest, 979708574)
