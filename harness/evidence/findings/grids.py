"""Owns what a grid of factors found: the effect of each level, and on what the variance falls.
Refuses to fill a hole: an effect is averaged over the cells and seeds that both of its sides have, and says which.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import fsum, prod

import numpy as np

from harness.evidence.findings.instances import Instance
from harness.statistics.paired import Paired, of_differences
from harness.statistics.variance import variance_shares

Levels = tuple[str, ...]
Scores = Mapping[int, float]  # accuracy in percent by seed


@dataclass(frozen=True)
class MainEffect:
    factor: str
    level: str
    base: str
    averaged_over: str  # the other factors, with their levels where not all of them were run on both sides
    difference: Paired


@dataclass(frozen=True)
class Share:
    source: str
    found: float  # of the total sum of squares
    by_chance: float  # what noise alone would give: the share of the degrees of freedom


def cells_of_grid(instance: Instance) -> dict[Levels, Scores]:
    """Of the rows that were run."""
    return {line.row.levels: line.scores for line in instance.lines if line.scores}


def levels_of(instance: Instance, factor: int) -> list[str]:
    """In the order of the study; the base's first."""
    return list(dict.fromkeys(line.row.levels[factor] for line in instance.lines))


def main_effects(instance: Instance) -> list[MainEffect]:
    return [
        _main_effect(instance, index, level)
        for index in range(len(instance.study.factors))
        for level in levels_of(instance, index)[1:]
    ]


def _main_effect(instance: Instance, index: int, level: str) -> MainEffect:
    cells, factors, base = cells_of_grid(instance), instance.study.factors, levels_of(instance, index)[0]
    at_base = [line.row.levels for line in instance.lines if line.row.levels[index] == base]
    pairs = {
        levels[:index] + levels[index + 1 :]: (cells[levels], partner)
        for levels in at_base
        if levels in cells and (partner := cells.get((*levels[:index], level, *levels[index + 1 :])))
    }
    sides = [set(side) for pair in pairs.values() for side in pair]
    complete = sorted(set.intersection(*sides)) if sides else []
    differences = [fsum(b[seed] - a[seed] for a, b in pairs.values()) / len(pairs) for seed in complete]
    paired = of_differences(differences, dropped=len(set().union(*sides)) - len(complete))
    others = " and ".join(factors[:index] + factors[index + 1 :])
    which = "" if len(pairs) == len(at_base) else f" ({'; '.join(', '.join(levels) for levels in pairs)})"
    return MainEffect(factors[index], level, base, f"{others}{which}" if others and pairs else "", paired)


def shares_of(instance: Instance) -> list[Share]:
    """Of the factors, their interactions and the seeds; none unless every cell has two seeds that all cells share."""
    factors, seeds = instance.study.factors, shared_seeds(instance)
    levels = [levels_of(instance, factor) for factor in range(len(factors))]
    sizes = [*map(len, levels), len(seeds)]
    if len(factors) < 2 or min(sizes) < 2:
        return []
    cells = cells_of_grid(instance)
    values = [cells[of_cell][seed] for of_cell in product(*levels) for seed in seeds]
    found = variance_shares(np.array(values).reshape(sizes))
    if found is None:
        return []
    degrees = {axes: prod(sizes[axis] - 1 for axis in axes) for axes in found.effects}
    total = prod(sizes) - 1
    named = {axes: " × ".join(factors[axis] for axis in axes) for axes in found.effects}
    shares = [Share(named[axes], part, degrees[axes] / total) for axes, part in found.effects.items()]
    return [*shares, Share("seeds", found.residual, 1 - sum(degrees.values()) / total)]


def shared_seeds(instance: Instance) -> list[int]:
    """Those of every combination of levels; a combination that is not there has none."""
    cells = cells_of_grid(instance)
    combinations = product(*(levels_of(instance, factor) for factor in range(len(instance.study.factors))))
    return sorted(set.intersection(*(set(cells.get(levels, ())) for levels in combinations)))
