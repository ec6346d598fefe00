"""Owns how the variance of a balanced grid falls on its factors, their interactions and the seeds.
Refuses grids with holes, and grids without replicates: there interaction and noise are one.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

Axes = tuple[int, ...]  # the factors that act together; one alone is a main effect


@dataclass(frozen=True)
class Shares:
    """Of the total sum of squares (eta squared); they add up to 1.

    Noise alone gives each part about its degrees of freedom over the total's: a small share is no effect.
    """

    effects: dict[Axes, float]  # main effects first, then what pairs add to them, ...
    residual: float


def variance_shares(values: np.ndarray) -> Shares | None:
    """An axis for each factor, the last one for the replicates; none where all values are equal."""
    values = np.asarray(values, float)
    if values.ndim < 3 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError("a full grid is needed: at least two levels of each factor, two replicates, no hole")
    if np.ptp(values) == 0:
        return None
    deviations = values - values.mean()
    cells = deviations.mean(-1)
    parts: dict[Axes, np.ndarray] = {}
    for axes in together(cells.ndim):
        others = tuple(axis for axis in range(cells.ndim) if axis not in axes)
        smaller = (part for within, part in parts.items() if set(within) < set(axes))
        parts[axes] = cells.mean(others, keepdims=True) - sum(smaller)
    total = (deviations**2).sum()

    def share(part: np.ndarray) -> float:
        return float(values.size / part.size * (part**2).sum() / total)

    return Shares({axes: share(part) for axes, part in parts.items()}, share(deviations - cells[..., None]))


def together(factors: int) -> list[Axes]:
    """Every choice of one factor or more, the small ones first."""
    return [axes for size in range(1, factors + 1) for axes in combinations(range(factors), size)]
