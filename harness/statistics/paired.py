"""Owns two treatments over the same seeds: differences, their interval, their p values, and Holm's adjustment of many.
Refuses to pair what has no partner, and to decide from one pair.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.statistics.intervals import mean_interval, sample_spread

MOST_FLIPPED = 20  # 2^19 sums; above, Student's t needs no companion
ROUNDING = 1e-9  # of the largest difference: a spread below it is the floating point's, and so is one below FLOOR
FLOOR = sys.float_info.min  # where the precision of numbers ends


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
    n = len(differences)
    if n == 0:
        return Paired(0, dropped, None, None, None, None, None, None)
    mean, half, _ = mean_interval(differences)
    if without_spread(differences):
        half = None if n == 1 or mean else 0.0
    spread = 0.0 if n > 1 and without_spread(differences) else sample_spread(differences)
    p, flipped = paired_t_p(differences), sign_flip_p(differences)
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
