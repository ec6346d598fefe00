"""Owns the statistics of a table's cell: a mean with its t-interval.
Refuses to know what the numbers mean, and to put an interval around a single one.
"""

import math
from collections.abc import Sequence
from functools import cache

LEVEL = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, int]:
    """Mean, half-width of the two-sided 95 % interval by Student's t (none for one value), and n."""
    n = len(values)
    if n == 0:
        raise ValueError("no values: nothing to average")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, 1
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, _t_quantile(n - 1) * math.sqrt(variance / n), n


@cache
def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit  # scipy.stats has the same number and takes ten times as long to import

    return float(stdtrit(degrees, (1 + LEVEL) / 2))
