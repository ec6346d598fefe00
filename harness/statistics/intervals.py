"""The interval of a mean: Student's t, and the bootstrap corrected for bias and skew (BCa)."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

LEVEL = 0.95
ALPHA = 1 - LEVEL
TAIL = (1 - LEVEL) / 2
RESAMPLES = 10_000


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, int]:
    """Mean, half-width of the two-sided 95 % interval by Student's t (none for one value), and n."""
    n, variance = len(values), _variance(values)
    if not n:
        raise ValueError("no values: nothing to average")
    half = None if variance is None else t_quantile(n - 1) * math.sqrt(variance / n)
    return math.fsum(values) / n, half, n


def sample_spread(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample (ddof 1); none for fewer than two values."""
    variance = _variance(values)
    return None if variance is None else math.sqrt(variance)


def _variance(values: Sequence[float]) -> float | None:
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    return math.fsum((value - mean) ** 2 for value in values) / (n - 1)


@cache
def t_quantile(degrees: int) -> float:
    """Half of the two-sided 95 % interval, in standard errors."""
    from scipy.special import stdtrit  # scipy.stats has the same number and takes ten times as long to import

    return float(stdtrit(degrees, 1 - TAIL))


def bca_interval(
    values: Sequence[float] | np.ndarray, seed: int | Sequence[int], resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """The 95 % BCa bootstrap interval of the mean (Efron 1987).

    One value has none. Equal values have one of no width: every resample is the same. At n = 5 the interval is too
    short (`python -m harness.simulate` says by how much), so it may stand beside the t-interval and not in its place.
    """
    sample = np.asarray(values, float)
    if sample.size < 2:
        return None
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    drawn = np.random.default_rng(seed).integers(sample.size, size=(resamples, sample.size))
    means = sample[drawn].mean(1)
    low, high = np.quantile(means, _bca_levels(sample, means))
    return float(low), float(high)


def _bca_levels(sample: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Which quantiles of the resampled means are the interval's ends."""
    from scipy.special import ndtr, ndtri

    # Rounding must not decide a tie; a share of 0 or 1 would send the bias to infinity, so it stays half a count away.
    tied = np.isclose(means, sample.mean(), rtol=1e-12, atol=0)
    share = ((means < sample.mean()) & ~tied).mean() + tied.mean() / 2
    bias = ndtri(np.clip(share, 0.5 / len(means), 1 - 0.5 / len(means)))
    deviations = sample - sample.mean()
    deviations = deviations / np.abs(deviations).max()  # of no consequence but for numbers whose squares are 0
    # By the jackknife, whose means deviate from theirs as the left-out value does from the mean, turned around.
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    shifts = bias + ndtri([TAIL, 1 - TAIL])
    return ndtr(bias + shifts / (1 - acceleration * shifts))
