"""Owns how the variance of a balanced two-way grid falls on its factors, their interaction and the seeds.
Refuses grids with holes, and grids without replicates: there interaction and noise are one.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shares:
    """Of the total sum of squares (eta squared); they add up to 1.

    Noise alone gives each part about its degrees of freedom over the total's: a small share is no effect.
    """

    first: float
    second: float
    interaction: float
    residual: float


def variance_shares(values_ABR: np.ndarray) -> Shares | None:
    """Level of factor A x level of factor B x replicate; none where all values are equal."""
    values_ABR = np.asarray(values_ABR, float)
    if values_ABR.ndim != 3 or min(values_ABR.shape) < 2 or not np.isfinite(values_ABR).all():
        raise ValueError("a full grid is needed: at least two levels of each factor, two replicates, no hole")
    deviations = values_ABR - values_ABR.mean()
    total = (deviations**2).sum()
    if np.ptp(values_ABR) == 0:
        return None
    cells_AB = deviations.mean(2)
    a, b = cells_AB.mean(1, keepdims=True), cells_AB.mean(0, keepdims=True)
    parts = (a, b, cells_AB - a - b, deviations - cells_AB[:, :, None])
    weights = (values_ABR.size / part.size for part in parts)
    return Shares(*(float(weight * (part**2).sum() / total) for weight, part in zip(weights, parts)))
