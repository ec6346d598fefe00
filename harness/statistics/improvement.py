"""Owns the probability of improvement: how often a run of one cell beats a run of another.
Refuses paired runs: what shares a seed is compared by its differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.statistics.intervals import RESAMPLES, TAIL


@dataclass(frozen=True)
class Improvement:
    probability: float  # of X > Y, a tie counting half
    interval: tuple[float, float] | None  # 95 % percentile bootstrap over the runs of each side; none for a single run


def probability_of_improvement(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    seed: int | Sequence[int],
    resamples: int = RESAMPLES,
) -> Improvement:
    """P(X > Y) over independent runs (Agarwal et al. 2021, for one task).

    Where every x beats every y, so does every resample: the interval has no width and says less than it seems to.
    """
    if not len(x) or not len(y):
        raise ValueError("at least one run of each side is needed")
    wins_XY = (np.sign(np.subtract.outer(np.asarray(x, float), np.asarray(y, float))) + 1) / 2
    if min(wins_XY.shape) < 2:
        return Improvement(float(wins_XY.mean()), None)
    rng = np.random.default_rng(seed)
    rows, columns = (rng.integers(size, size=(resamples, size)) for size in wins_XY.shape)
    means = wins_XY[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    low, high = np.quantile(means, [TAIL, 1 - TAIL])
    return Improvement(float(wins_XY.mean()), (float(low), float(high)))
