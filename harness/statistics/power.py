"""Owns how many seeds a paired difference needs: the power of the paired t-test.
Refuses to promise: the spread that one puts in is itself measured from few seeds.
"""

import math

from harness.statistics.intervals import t_quantile

WANTED = 0.8
MOST_SEEDS = 10_000  # nobody trains more; above, the answer is none
FAR = 1e6  # spreads: nothing is missed there
NO_DISTANCE = 1e-9  # from the null; closer to it, SciPy has a power of 0 for two seeds, where it is .05


def power(seeds: int, difference: float, spread: float) -> float:
    """How often the two-sided paired t-test at .05 sees a true difference, given the true spread of differences."""
    from scipy.special import ncfdtr  # t squared is F; nctdtr has no value far out in the tail

    if seeds < 2 or spread <= 0:
        raise ValueError("a test needs two pairs and a spread")
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
