"""Owns how a gap between two published models falls on model and recipe, where each was trained under both recipes.
Refuses a pair of which one of the four cells is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from harness.evidence.findings.grids import cells_of_grid, levels_of
from harness.evidence.findings.instances import Instance
from harness.recipes import PUBLISHED
from harness.statistics.paired import Paired, of_differences

FACTORS = ("variant", "recipe")
WITHOUT = "common"  # what a model is trained with that was published with no recipe


@dataclass(frozen=True)
class Gap:
    """From the first to the second, each under its own recipe; model and recipe add up to the whole, seed by seed."""

    first: str
    second: str
    whole: Paired
    model: Paired  # the change of model, averaged over the two recipes
    recipe: Paired


def gaps_of(instance: Instance) -> list[Gap]:
    """Of each pair of models in the study; none in a study of other factors."""
    if instance.study.factors != FACTORS:
        return []
    cells = cells_of_grid(instance)
    own = {name: PUBLISHED.get(name, WITHOUT) for name in levels_of(instance, 0)}
    found = (_gap(cells, pair, (own[pair[0]], own[pair[1]])) for pair in combinations(own, 2))
    return [gap for gap in found if gap]


def _gap(
    cells: Mapping[tuple[str, ...], Mapping[int, float]], models: tuple[str, str], recipes: tuple[str, str]
) -> Gap | None:
    corners = [cells.get((model, recipe), {}) for model in models for recipe in recipes]
    seeds = sorted(set.intersection(*(set(corner) for corner in corners)))
    if not seeds:
        return None
    whole, model = [], []
    for seed in seeds:
        aa, ab, ba, bb = (corner[seed] for corner in corners)  # model and recipe: each the first's or the second's
        whole.append(bb - aa)
        model.append(((ba - aa) + (bb - ab)) / 2)
    recipe = [gap - part for gap, part in zip(whole, model)]
    first, second = (f"{name} under {own}" for name, own in zip(models, recipes))
    return Gap(first, second, of_differences(whole), of_differences(model), of_differences(recipe))
