"""What must hold for the statistics of any sample, tried on examples that hypothesis draws, against SciPy where it has
the same. The short form always runs, the full one with -m long.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import images, intervals, paired
from harness.statistics.paired import (
    MOST_SEEDS,
    WANTED,
    power,
    probability_of_improvement,
    seeds_needed,
    variance_shares,
)
from tests.properties import LONG_FORM, Property, attempt

# Accuracies in percent and their differences, exact in binary, so that shifting and doubling them rounds nothing.
POINT = st.one_of(st.sampled_from((0.0, 0.25, 50.0, 100.0)), st.integers(-6400, 6400).map(lambda n: n / 64))
SAMPLE = st.one_of(
    st.lists(POINT, max_size=9), st.tuples(POINT, st.integers(1, 9)).map(lambda pair: [pair[0]] * pair[1])
)
SOME = SAMPLE.filter(len)
ROUGH = st.lists(st.one_of(st.floats(-100, 100), st.floats(-1e-160, 1e-160), st.just(5e-324)), max_size=9)
BY_SEED = st.dictionaries(st.integers(0, 9), POINT, max_size=8)
P_VALUES = st.lists(st.one_of(st.none(), st.sampled_from((0.0, 0.01, 0.05, 0.5, 1.0)), st.floats(0, 1)), max_size=8)
near = pytest.approx


PROPERTIES: dict[str, Property] = {}


def of(examples: st.SearchStrategy[Any], number: int = 100, telling: Sequence[Any] = ()) -> Callable[[Any], None]:
    def register(holds: Callable[[Any], None]) -> None:
        PROPERTIES[holds.__name__] = Property(examples, holds, number, telling)

    return register


def numbers_in(found: Any) -> list[float]:
    """Every number in a result, however deep."""
    if isinstance(found, (bool, int, float)):
        return [float(found)]
    parts = vars(found).values() if hasattr(found, "__dict__") else found if isinstance(found, (list, tuple)) else ()
    return [number for part in parts for number in numbers_in(part)]


@of(st.tuples(SOME, POINT, st.integers(-3, 3)))
def mean_interval_fits(example: tuple[list[float], float, int]) -> None:
    sample, shift, power_of_two = example
    mean, half, n = intervals.mean_interval(sample)
    assert n == len(sample) and min(sample) - 1e-9 <= mean <= max(sample) + 1e-9
    assert (half is None) == (n == 1) and intervals.mean_interval(sample[::-1]) == (mean, half, n)
    moved, scaled = [x + shift for x in sample], [-(2.0**power_of_two) * x for x in sample]
    assert intervals.mean_interval(moved)[0] == near(mean + shift, abs=1e-9)
    assert intervals.mean_interval(scaled)[0] == near(-(2.0**power_of_two) * mean, rel=1e-12)
    if half is not None:
        assert half >= 0 and (half > 1e-9) == (max(sample) > min(sample))
        assert intervals.mean_interval(moved)[1] == near(half, abs=1e-9)
        assert intervals.mean_interval(scaled)[1] == near(2.0**power_of_two * half, rel=1e-12)
        assert half == near(stats.t.ppf(0.975, n - 1) * np.std(sample, ddof=1) / math.sqrt(n), abs=1e-9)


@of(st.tuples(SAMPLE, POINT, st.integers(-3, 3), st.integers(0, 9)))
def bootstrap_fits(example: tuple[list[float], float, int, int]) -> None:
    sample, shift, power_of_two, seed = example
    found = intervals.bca_interval(sample, seed, resamples=200)
    assert (found is None) == (len(sample) < 2)
    if found is None:
        return
    assert min(sample) - 1e-9 <= found[0] <= found[1] <= max(sample) + 1e-9
    assert found == intervals.bca_interval(sample, seed, resamples=200)
    scaled = intervals.bca_interval([2.0**power_of_two * x for x in sample], seed, resamples=200)
    moved = intervals.bca_interval([x + round(shift) for x in sample], seed, resamples=200)
    assert scaled == near(tuple(2.0**power_of_two * end for end in found), rel=1e-9, abs=1e-9)
    assert moved == near(tuple(end + round(shift) for end in found), rel=1e-9, abs=1e-9)


@of(st.tuples(BY_SEED, BY_SEED))
def pairing_is_antisymmetric(example: tuple[dict[int, float], dict[int, float]]) -> None:
    a, b = example
    found, turned = paired.paired(a, b), paired.paired(b, a)
    assert (
        (found.n, found.dropped) == (turned.n, turned.dropped) == (len(a.keys() & b.keys()), len(a.keys() ^ b.keys()))
    )
    assert (found.mean is None) == (turned.mean is None) == (found.n == 0)
    if found.mean is not None:
        assert found.mean == -(turned.mean or 0.0)
    assert (found.half, found.spread, found.t_p) == (turned.half, turned.spread, turned.t_p)
    assert (found.sign_flip_p, found.smallest_sign_flip_p) == (turned.sign_flip_p, turned.smallest_sign_flip_p)


@of(SAMPLE)
def differences_are_judged(differences: list[float]) -> None:
    """As documented where there is nothing to judge, as SciPy's paired test where there is."""
    found = paired.of_differences(differences)
    equal = len(set(differences)) <= 1
    assert (found.sign_flip_p is None) == (found.n < 2) and (found.spread is None) == (found.n < 2)
    assert (found.t_p is None) == (found.n < 2 or (equal and any(differences)))
    assert (found.half is None) == (found.n < 2 or (equal and any(differences)))
    if found.n >= 2 and equal:
        assert found.spread == 0 and found.t_p in (None, 1.0)
    if found.n >= 2 and not equal:
        assert found.t_p == near(stats.ttest_1samp(differences, 0)[1], rel=1e-6, abs=1e-12)
    again = paired.of_differences(differences[::-1])
    assert numbers_in(again) == near(numbers_in(found), rel=1e-12)


@of(SAMPLE.map(lambda sample: sample[:7]))
def signs_are_counted(differences: list[float]) -> None:
    found = paired.sign_flip_p(differences)
    assert (found is None) == (len(differences) < 2)
    if found is None:
        return
    assert paired.smallest_p(len(differences)) <= found <= 1
    assert found == paired.sign_flip_p([-x for x in differences]) == paired.sign_flip_p(sorted(differences))
    signs = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(math.fsum(sign * x for sign, x in zip(one, differences))) for one in signs]
    assert found == sum(one >= sums[0] for one in sums) / len(sums)


@of(st.tuples(P_VALUES, st.integers(0, 8)))
def holm_is_in_order(example: tuple[list[float | None], int]) -> None:
    p_values, turn = example
    found = paired.holm(p_values)
    assert [p is None for p in found] == [p is None for p in p_values]
    known = [(p, q) for p, q in zip(p_values, found) if p is not None and q is not None]
    assert all(p <= q <= 1 for p, q in known)
    assert all(q <= other for (p, q), (raw, other) in itertools.permutations(known, 2) if p < raw)
    turned = paired.holm([*p_values[turn:], *p_values[:turn]])
    assert turned == [*found[turn:], *found[:turn]]
    ordered = sorted(p for p, _ in known)
    for p, q in known:  # Holm's own words: the largest of what every smaller p was multiplied to
        steps = [min(1.0, (len(ordered) - at) * other) for at, other in enumerate(ordered) if other <= p]
        assert q == max(steps)


@of(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30))
def images_are_symmetric(example: list[tuple[int, int, int]]) -> None:
    labels, first, second = (np.array(column, dtype=np.int64) for column in zip(*example))
    found, turned = images.agreement(labels, first, second), images.agreement(labels, second, first)
    assert found.n == len(example) and (found.both, found.neither) == (turned.both, turned.neither)
    assert (found.only_first, found.only_second) == (turned.only_second, turned.only_first)
    assert found.difference == -turned.difference == near((second == labels).mean() - (first == labels).mean())
    low, high = images.difference_interval(found, 0, resamples=200)
    assert -1 <= low <= high <= 1 and (
        low < high or found.both + found.neither in (0, found.n) or found.n < 9 or low == 0
    )
    table = images.confusion(labels, first, 4)
    assert table.sum() == len(example) and table.trace() == found.both + found.only_first
    for label, share in enumerate(images.class_accuracy(table)):
        of_class = first[labels == label] == label
        assert share == near(100 * of_class.mean()) if of_class.size else math.isnan(share)


@of(st.tuples(st.integers(0, 60), st.integers(0, 60)))
def mcnemar_is_symmetric(example: tuple[int, int]) -> None:
    a, b = example
    p = images.mcnemar_p(a, b)
    assert 0 < p <= 1 and p == images.mcnemar_p(b, a)
    assert p == near(stats.binomtest(min(a, b), a + b).pvalue if a + b else 1.0, rel=1e-9)
    assert images.mcnemar_p(min(a, b), max(a, b) + 1) <= p or a == b


@of(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans()), min_size=1, max_size=30))
def calibration_adds_up(example: list[tuple[float, bool, bool]]) -> None:
    confidence, right, side = (np.array(column) for column in zip(*example))
    whole = images.calibration_bins(confidence, right)
    assert whole.images_B.sum() == len(example) and 0 <= whole.calibration_error <= 1
    assert abs(whole.overconfidence) <= whole.calibration_error + 1e-12
    assert images.calibration_bins(confidence[::-1], right[::-1]).calibration_error == near(
        whole.calibration_error, abs=1e-12
    )
    if 0 < side.sum() < len(side):
        first, second = (images.calibration_bins(confidence[part], right[part]) for part in (side, ~side))
        assert np.allclose(list(vars(first + second).values()), list(vars(whole).values()))


@of(st.tuples(SOME, SOME, st.integers(0, 9)))
def improvement_is_a_share(example: tuple[list[float], list[float], int]) -> None:
    x, y, seed = example
    found, turned = (probability_of_improvement(*pair, seed, 200) for pair in ((x, y), (y, x)))
    assert found.probability + turned.probability == near(1)
    assert found.probability == near(stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)))
    assert (found.interval is None) == (min(len(x), len(y)) < 2)
    if found.interval:
        assert 0 <= found.interval[0] <= found.interval[1] <= 1


@st.composite
def grids(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.lists(st.integers(2, 4), min_size=3, max_size=4))  # two or three factors, and replicates
    values = draw(st.lists(POINT, min_size=math.prod(shape), max_size=math.prod(shape)))
    return np.array(values).reshape(shape)


@of(grids())
def shares_add_up(grid: np.ndarray) -> None:
    found = variance_shares(grid)
    assert (found is None) == bool((grid == grid.flat[0]).all())
    if found is None:
        return
    effects, residual = found
    parts = [*effects.values(), residual]
    assert sum(parts) == near(1) and all(-1e-12 <= part <= 1 + 1e-12 for part in parts)
    turned = variance_shares(grid.swapaxes(0, 1)[:, ::-1])
    assert turned is not None and turned[1] == near(residual, abs=1e-9)
    for axes, part in effects.items():
        elsewhere = tuple(sorted({0: 1, 1: 0}.get(axis, axis) for axis in axes))
        assert turned[0][elsewhere] == near(part, abs=1e-9)
    moved = variance_shares(4 * grid - 7)
    assert moved is not None and [*moved[0].values(), moved[1]] == near(parts, abs=1e-9)
    cells = grid.mean(-1, keepdims=True)
    assert residual == near(((grid - cells) ** 2).sum() / ((grid - grid.mean()) ** 2).sum(), abs=1e-9)


@of(st.tuples(st.integers(2, 50), st.integers(1, 50), st.floats(0, 5), st.floats(0.01, 5)))
def power_rises(example: tuple[int, int, float, float]) -> None:
    seeds, more, difference, spread = example
    found = power(seeds, difference, spread)
    assert 0.05 - 1e-9 <= found <= 1 and found == power(seeds, -difference, spread)
    assert power(seeds + more, difference, spread) >= found - 1e-7
    assert power(seeds, 1.5 * difference, spread) >= found - 1e-7
    assert power(seeds, difference, 1.5 * spread) <= found + 1e-7


@of(st.tuples(st.one_of(st.just(0.0), st.floats(0.001, 5)), st.floats(0, 5)))
def seeds_are_the_fewest(example: tuple[float, float]) -> None:
    difference, spread = example
    found = seeds_needed(difference, spread)
    if found is None:
        assert not difference or spread <= 0 or power(MOST_SEEDS, difference, spread) < WANTED
        return
    assert power(found, difference, spread) >= WANTED and found == seeds_needed(-difference, spread)
    assert found == 2 or power(found - 1, difference, spread) < WANTED


@of(ROUGH, 200, [[1e-162, 2e-162], [5e-324, 0.0], [1e-200, 3e-200, 1.0]])
def nothing_is_nan(sample: list[float]) -> None:
    """Whatever finite numbers come, down to the smallest: a number, None, or the documented refusal of nothing."""
    found: list[Any] = [
        paired.of_differences(sample),
        intervals.bca_interval(sample, 0, 50),
        intervals.sample_spread(sample),
    ]
    found += [paired.sign_flip_p(sample), paired.paired_t_p(sample), paired.paired(dict(enumerate(sample)), {0: 1.0})]
    if sample:
        found += [intervals.mean_interval(sample), probability_of_improvement(sample, sample, 0, 50)]
    assert all(math.isfinite(number) for number in numbers_in(found))
    known = [number for number in (found[0].t_p, found[0].sign_flip_p) if number is not None]
    assert all(0 <= p <= 1 for p in known) and (found[0].half is None or found[0].half >= 0)


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("times", [1, pytest.param(LONG_FORM, marks=pytest.mark.long)])
def test_holds(name, times):
    one = PROPERTIES[name]
    attempt(one, times * one.number)
