"""Two treatments over the same seeds: their differences with interval and p values, Holm's adjustment of many, and how
many seeds it would take. Beside it what runs of different seeds can say (the probability of improvement), and how the
variance of a grid falls on its factors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from harness.statistics.intervals import RESAMPLES, TAIL, mean_interval, sample_spread, t_quantile

MOST_FLIPPED = 20  # 2^19 sums; above, Student's t needs no companion
ROUNDING = 1e-9  # of the largest difference: a spread below it is the floating point's
FLOOR = 1e-100  # and so is one below this, whose square is 0

WANTED = 0.8  # power
MOST_SEEDS = 10_000  # nobody trains more; above, the answer is none
FAR = 1e6  # spreads: nothing is missed there
NO_DISTANCE = 1e-9  # from the null; closer to it, SciPy has a power of 0 for two seeds, where it is .05

Values = Sequence[float] | np.ndarray
Seed = int | Sequence[int]
Axes = tuple[int, ...]  # of a grid: the factors that act together; one alone is a main effect


@dataclass(frozen=True)
class Paired:
    """What differences say. None stands for what they cannot say: undecided."""

    n: int
    dropped: int  # keys (seeds) that one side has and the other has not
    mean: float | None
    half: float | None  # of the 95 % t-interval
    spread: float | None  # ddof 1
    t_p: float | None
    sign_flip_p: float | None
    smallest_sign_flip_p: float | None  # what this n allows at best


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Paired:
    """Second minus first, key by key (a key is a seed); what one side lacks is dropped and counted."""
    both = sorted(first.keys() & second.keys())
    return of_differences([second[key] - first[key] for key in both], len(first.keys() ^ second.keys()))


def of_differences(differences: Sequence[float], dropped: int = 0) -> Paired:
    """No difference: nothing is known. One: its value, undecided.

    Without spread there is no t. Differences that are all 0 say that nothing was seen (interval of no width, p = 1);
    differences that all equal something else are undecided by t, because p = 0 would be a claim that rounding made;
    the sign-flip p, which knows no spread, stands.
    """
    if not differences:
        return Paired(0, dropped, None, None, None, None, None, None)
    mean, half, n = mean_interval(differences)
    spread, p, flipped = sample_spread(differences), paired_t_p(differences), sign_flip_p(differences)
    if n > 1 and without_spread(differences):
        half, spread = None if mean else 0.0, 0.0
    return Paired(n, dropped, mean, half, spread, p, flipped, None if flipped is None else smallest_p(n))


def without_spread(differences: Sequence[float]) -> bool:
    return max(differences) - min(differences) <= max(ROUNDING * max(map(abs, differences)), FLOOR)


def paired_t_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of the paired t-test; none for one pair and for equal differences other than 0."""
    from scipy.special import stdtr

    n = len(differences)
    if n < 2:
        return None
    if without_spread(differences):
        return None if any(differences) else 1.0
    t = math.fsum(differences) / n / ((sample_spread(differences) or 0.0) / math.sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def sign_flip_p(differences: Sequence[float]) -> float | None:
    """Two-sided, exact: the share of the 2^n ways to set the signs whose sum is as far from 0 as the one seen.

    None for one pair (it could only be 1) and for more than 20.
    """
    n = len(differences)
    if not 2 <= n <= MOST_FLIPPED:
        return None
    sums = np.array([differences[0]], float)  # the first sign stays: turning all signs around turns the sum around
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    slack = ROUNDING * math.fsum(map(abs, differences))
    return float((np.abs(sums) >= abs(math.fsum(differences)) - slack).mean())


def smallest_p(n: int) -> float:
    """The least that the sign-flip test can say with n pairs: .0625 at 5, so 6 are needed for .05."""
    return 2 / 2**n


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Step-down adjusted p values, in the order given (Holm 1979). What has no p is no part of the family."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, index) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[index] = least
    return adjusted


# --- how many seeds a paired difference needs -------------------------------------------------------------------------


def power(seeds: int, difference: float, spread: float) -> float:
    """How often the two-sided paired t-test at .05 sees a true difference, given the true spread of differences."""
    from scipy.special import ncfdtr  # t squared is F; nctdtr has no value far out in the tail

    away = seeds * min(abs(difference) / spread, FAR) ** 2
    away = away if away > NO_DISTANCE else 0.0
    missed = float(ncfdtr(1, seeds - 1, away, t_quantile(seeds - 1) ** 2))
    return 1.0 if math.isnan(missed) else 1 - missed  # far out it underflows, which SciPy now and then calls NaN


def seeds_needed(difference: float, spread: float, wanted: float = WANTED) -> int | None:
    """The fewest seeds with the wanted power; none for no difference, no spread, or more than 10,000."""
    if not difference or spread <= 0 or power(MOST_SEEDS, difference, spread) < wanted:
        return None
    low, high = 1, MOST_SEEDS  # low has too little power, high has enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, difference, spread) >= wanted else (middle, high)
    return high


# --- runs of different seeds ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Improvement:
    probability: float  # of X > Y, a tie counting half
    interval: tuple[float, float] | None  # 95 % percentile bootstrap over the runs of each side; none for a single run


def probability_of_improvement(x: Values, y: Values, seed: Seed, resamples: int = RESAMPLES) -> Improvement:
    """P(X > Y) over independent runs (Agarwal et al. 2021, for one task).

    Where every x beats every y, so does every resample: the interval has no width and says less than it seems to.
    """
    wins_XY = (np.sign(np.subtract.outer(np.asarray(x, float), np.asarray(y, float))) + 1) / 2
    if min(wins_XY.shape) < 2:
        return Improvement(float(wins_XY.mean()), None)
    rng = np.random.default_rng(seed)
    rows, columns = (rng.integers(size, size=(resamples, size)) for size in wins_XY.shape)
    means = wins_XY[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    low, high = np.quantile(means, [TAIL, 1 - TAIL])
    return Improvement(float(wins_XY.mean()), (float(low), float(high)))


# --- the variance of a balanced grid ----------------------------------------------------------------------------------


def variance_shares(values: np.ndarray) -> tuple[dict[Axes, float], float] | None:
    """Of a full grid, an axis for each factor and the last for the replicates: the share of the total sum of squares
    (eta squared) of each effect (main effects first, then what pairs add to them, ...) and of the residual; they add
    up to 1. None where all values are equal.

    Noise alone gives each part about its degrees of freedom over the total's: a small share is no effect.
    """
    if np.ptp(values) == 0:
        return None
    deviations = values - values.mean()
    total = (deviations**2).sum()
    cells = deviations.mean(-1)
    factors = range(cells.ndim)
    parts: dict[Axes, np.ndarray] = {}
    for axes in (axes for size in factors for axes in combinations(factors, size + 1)):
        others = tuple(axis for axis in factors if axis not in axes)
        smaller = (part for within, part in parts.items() if set(within) < set(axes))
        parts[axes] = cells.mean(others, keepdims=True) - sum(smaller)

    def share(part: np.ndarray) -> float:
        return float(values.size / part.size * (part**2).sum() / total)

    return {axes: share(part) for axes, part in parts.items()}, share(deviations - cells[..., None])
