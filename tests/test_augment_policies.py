"""Holds the drawn policies to torchvision's: the declared sub-policies, how often each operation happens, and its sign.
Frequencies are tested by chi-square at fixed seeds; the whole of AutoAugment by replaying drawn plans image by image.
"""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, RandAugment
from torchvision.transforms import InterpolationMode as Mode
from torchvision.transforms.autoaugment import _apply_op

from harness.data.augment.apply import apply_rounds_, torchvision_operations
from harness.data.augment.policies import (
    CIFAR10_POLICY,
    OPS,
    RANDOM_OPS,
    SIGNED_OPS,
    SVHN_POLICY,
    Round,
    draw_autoaugment,
    draw_randaugment,
    draw_trivialaugment,
    magnitude_bins,
)

POLICIES = {AutoAugmentPolicy.CIFAR10: CIFAR10_POLICY, AutoAugmentPolicy.SVHN: SVHN_POLICY}
N = 60_000
SMALLEST_P = 1e-3


def _names(drawn: Round) -> list[str]:
    return [OPS[op] for op in drawn.ops]


def _check_frequencies(seen: Counter, expected: dict) -> None:
    """Chi-square over all outcomes with a positive chance; an outcome without one must never be seen."""
    possible = {key: share for key, share in expected.items() if share > 0}
    assert set(seen) <= set(possible), set(seen) - set(possible)
    total = sum(seen.values())
    counts = [seen[key] for key in possible]
    assert chisquare(counts, [share * total for share in possible.values()]).pvalue > SMALLEST_P


@pytest.mark.parametrize("theirs, ours", POLICIES.items())
def test_sub_policies_are_torchvisions(theirs: AutoAugmentPolicy, ours: tuple) -> None:
    assert list(ours) == AutoAugment(theirs).policies
    assert len(ours) == 25


@pytest.mark.parametrize("policy", POLICIES)
def test_autoaugment_draws_pairs_as_often_as_torchvision_declares(policy: AutoAugmentPolicy) -> None:
    expected: dict = defaultdict(float)
    theirs = AutoAugment(policy)
    space = theirs._augmentation_space(10, (32, 32))
    for sub_policy in theirs.policies:
        outcomes = [[("Identity", 0.0, 1.0 - p), *_signed_outcomes(op, p, b, space)] for op, p, b in sub_policy]
        for first_op, first_m, first_p in outcomes[0]:
            for second_op, second_m, second_p in outcomes[1]:
                expected[first_op, first_m, second_op, second_m] += first_p * second_p / len(theirs.policies)
    assert sum(expected.values()) == pytest.approx(1.0)
    first, second = draw_autoaugment(POLICIES[policy], N, 32, 32, np.random.default_rng(5))
    seen = Counter(zip(_names(first), first.magnitudes, _names(second), second.magnitudes, strict=True))
    _check_frequencies(seen, expected)


def _signed_outcomes(op: str, p: float, bin_: int | None, space: dict) -> list[tuple[str, float, float]]:
    table, is_signed = space[op]
    magnitude = 0.0 if bin_ is None else float(table[bin_])
    return [(op, magnitude, p / 2), (op, -magnitude, p / 2)] if is_signed else [(op, magnitude, p)]


def test_every_sub_policy_is_equally_likely() -> None:
    # With certain operations whose bins count upwards, the magnitude names the sub-policy.
    certain = tuple((("Posterize", 1.0, i % 5 * 2), ("Solarize", 1.0, i // 5)) for i in range(25))
    first, second = draw_autoaugment(certain, N, 32, 32, np.random.default_rng(6))
    seen = Counter(zip(first.magnitudes, second.magnitudes, strict=True))
    assert len(seen) == 25
    assert chisquare(list(seen.values())).pvalue > SMALLEST_P


def test_randaugment_picks_uniformly_at_its_one_magnitude() -> None:
    space = RandAugment()._augmentation_space(31, (32, 24))
    rounds = draw_randaugment(N, 32, 24, 2, 9, np.random.default_rng(7))
    assert len(rounds) == 2
    expected = {}
    for op in space:
        for name, magnitude, share in _signed_outcomes(op, 1 / len(space), 9 if space[op][0].ndim else None, space):
            expected[name, magnitude] = share
    for drawn in rounds:
        _check_frequencies(Counter(zip(_names(drawn), drawn.magnitudes, strict=True)), expected)
    assert chisquare(np.bincount(rounds[0].ops * 14 + rounds[1].ops)).pvalue > SMALLEST_P


def test_trivialaugment_picks_operation_bin_and_sign_uniformly() -> None:
    (drawn,) = draw_trivialaugment(N, 32, 32, np.random.default_rng(8))
    names = np.array(_names(drawn))
    _check_frequencies(Counter(names.tolist()), dict.fromkeys(RANDOM_OPS, 1 / 14))
    for op in (*SIGNED_OPS, "Solarize"):
        values = magnitude_bins(op, 31, 32, 32, wide=True)
        _check_frequencies(Counter(np.abs(drawn.magnitudes[names == op])), dict.fromkeys(values, 1 / 31))
    for op in SIGNED_OPS:
        moved = drawn.magnitudes[(names == op) & (drawn.magnitudes != 0)]
        assert abs((moved > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(moved))


def test_random_operations_share_their_positions_with_all_operations() -> None:
    assert "Invert" not in RANDOM_OPS and OPS[: len(RANDOM_OPS)] == RANDOM_OPS
    assert list(RANDOM_OPS) == list(RandAugment()._augmentation_space(31, (8, 8)))


@pytest.mark.parametrize("magnitude", [-1, 31])
def test_randaugment_refuses_a_magnitude_outside_its_bins(magnitude: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.30"):
        draw_randaugment(4, 32, 32, 2, magnitude, np.random.default_rng(0))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=["cifar", "svhn"])
def test_a_drawn_plan_replayed_with_torchvision_gives_the_same_images(policy: tuple, size: tuple, mode: str) -> None:
    rng = np.random.default_rng(9)
    images = torch.from_numpy(rng.integers(0, 256, (64, 3, *size), dtype=np.uint8))
    height, width = size
    rounds = draw_autoaugment(policy, 64, height, width, rng)
    ours = apply_rounds_(images.clone(), rounds, torchvision_operations(mode))
    for i, image in enumerate(images):
        for drawn in rounds:
            image = _apply_op(image, OPS[drawn.ops[i]], float(drawn.magnitudes[i]), Mode(mode), None)
        assert torch.equal(ours[i], image), i
    assert not torch.equal(ours, images)
