"""What a study found, from its rows and their accuracies by seed: each row or level against the base with Holm's
correction, how the variance of a grid falls on its factors, how a gap between two published models parts into model and
recipe, what a tuning study chooses, and which row is bold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from math import fsum, prod

import numpy as np

from harness.config import RunConfig
from harness.evidence.cells import Cell
from harness.recipes import PUBLISHED
from harness.statistics.intervals import ALPHA
from harness.statistics.paired import Paired, holm, of_differences, paired, seeds_needed, variance_shares
from harness.study import Row, Study

BETTER, WORSE, NEITHER, UNDECIDED = "better", "worse", "not distinguishable", "undecided"
NOT_RUN = "not run"

Levels = tuple[str, ...]
Scores = Mapping[int, float]  # accuracy in percent by seed


@dataclass(frozen=True)
class Line:
    """A row of a study with what was run for it."""

    label: str
    row: Row
    config: RunConfig
    plan_id: str
    cell: Cell | None  # none: planned, and not run
    scores: dict[int, float]  # accuracy in percent by seed, on the images that the study is judged on
    same_as: str = ""  # label of an earlier row that is the same cell on this data set (no mirrored digits, say)

    @property
    def tried(self) -> set[int]:
        """The seeds of its runs, those that failed included."""
        return {*self.scores, *(run.config["seed"] for run in self.cell.failed)} if self.cell else set()


def base_of(lines: Sequence[Line]) -> Line:
    """The study's first row; in a table of rows the first one that was run."""
    return next(line for line in lines if line.scores)


# --- effects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """One comparison of a study's family."""

    label: str
    against: str
    difference: Paired  # points of accuracy, this minus what it is compared with
    averaged_over: str = ""  # in a grid: the other factors, with their levels where not all were run on both sides
    line: Line | None = None  # the row of it; none for an effect averaged over rows
    holm_p: float | None = None
    tried: bool = True  # whether anybody ran it, failed runs included

    @property
    def verdict(self) -> str:
        if not self.tried:
            return NOT_RUN
        if self.holm_p is None or self.difference.mean is None:
            return UNDECIDED
        if self.holm_p > ALPHA:
            return NEITHER
        return BETTER if self.difference.mean > 0 else WORSE

    @cached_property
    def seeds_to_resolve(self) -> int | None:
        """If the true difference and spread were those measured, and this were the only comparison."""
        return seeds_needed(self.difference.mean or 0.0, self.difference.spread or 0.0)

    @property
    def beyond_reach(self) -> bool:
        """A difference so small beside its spread that more seeds would be needed than anybody trains."""
        return bool(self.difference.mean and self.difference.spread) and self.seeds_to_resolve is None


def effects_of(study: Study, lines: Sequence[Line]) -> list[Effect]:
    """In the order of the study; a row without runs is in it, and takes no part in the correction."""
    found = list(_of_grid(Grid(study.factors, lines)) if study.kind == "grid" else _of_rows(lines))
    adjusted = holm([one.difference.t_p for one in found])
    return [replace(one, holm_p=p) for one, p in zip(found, adjusted)]


def _of_rows(lines: Sequence[Line]) -> Iterator[Effect]:
    base = base_of(lines)
    for line in lines:
        if line is not base and not line.same_as:
            difference = paired(base.scores, line.scores)
            yield Effect(line.label, base.label, difference, line=line, tried=bool(line.tried))


# --- grids -----------------------------------------------------------------------------------------------------------


class Grid:
    """The accuracies of a grid of factors by its levels, holes included."""

    def __init__(self, factors: Sequence[str], lines: Sequence[Line]):
        self.factors = tuple(factors)
        self.rows = [line.row.levels for line in lines]  # those that can be run
        self.levels = [list(dict.fromkeys(levels[place] for levels in self.rows)) for place in range(len(factors))]
        self.scores: dict[Levels, Scores] = {line.row.levels: line.scores for line in lines if line.scores}
        # a level is tried where any cell of it is
        self.tried = {pair for line in lines if line.tried for pair in zip(factors, line.row.levels)}

    @property
    def shared_seeds(self) -> list[int]:
        """Those of every combination of levels; a combination that is not there has none."""
        return sorted(set.intersection(*(set(self.scores.get(levels, ())) for levels in product(*self.levels))))


def _of_grid(grid: Grid) -> Iterator[Effect]:
    """Of each level against the first one of its factor."""
    for place, (base, *others) in enumerate(grid.levels):
        for level in others:
            yield _main_effect(grid, place, base, level)


def _main_effect(grid: Grid, place: int, base: str, level: str) -> Effect:
    """Averaged over the cells and seeds that both sides have."""
    at_base = [levels for levels in grid.rows if levels[place] == base]
    pairs: dict[Levels, tuple[Scores, Scores]] = {}
    for levels in at_base:
        before, after = levels[:place], levels[place + 1 :]
        sides = grid.scores.get(levels), grid.scores.get((*before, level, *after))
        if sides[0] and sides[1]:
            pairs[before + after] = sides[0], sides[1]
    seeds = [set(side) for pair in pairs.values() for side in pair]
    complete = sorted(set.intersection(*seeds)) if seeds else []
    differences = [fsum(b[seed] - a[seed] for a, b in pairs.values()) / len(pairs) for seed in complete]
    others = " and ".join(grid.factors[:place] + grid.factors[place + 1 :])
    which = "" if len(pairs) == len(at_base) else f" ({'; '.join(', '.join(levels) for levels in pairs)})"
    factor = grid.factors[place]
    return Effect(
        f"{factor}={level}",
        f"{factor}={base}",
        of_differences(differences, dropped=len(set().union(*seeds)) - len(complete)),
        averaged_over=f"{others}{which}" if others and pairs else "",
        tried=(factor, level) in grid.tried,
    )


@dataclass(frozen=True)
class Share:
    source: str
    found: float  # of the total sum of squares
    by_chance: float  # what noise alone would give: the share of the degrees of freedom


def shares_of(grid: Grid) -> list[Share]:
    """Of the factors, their interactions and the seeds; none unless every cell has two seeds that all cells share."""
    seeds = grid.shared_seeds
    sizes = [*map(len, grid.levels), len(seeds)]
    if len(grid.factors) < 2 or min(sizes) < 2:
        return []
    values = [grid.scores[levels][seed] for levels in product(*grid.levels) for seed in seeds]
    found = variance_shares(np.array(values).reshape(sizes))
    if found is None:
        return []
    parts, residual = found
    total = prod(sizes) - 1
    shares = []
    for axes, part in parts.items():
        degrees = prod(sizes[axis] - 1 for axis in axes)
        shares.append(Share(" × ".join(grid.factors[axis] for axis in axes), part, degrees / total))
    return [*shares, Share("seeds", residual, 1 - sum(share.by_chance for share in shares))]


# --- gaps between published models -----------------------------------------------------------------------------------

WITHOUT = "common"  # what a model is trained with that was published with no recipe


@dataclass(frozen=True)
class Gap:
    """From the first to the second, each under its own recipe; model and recipe add up to the whole, seed by seed."""

    first: str
    second: str
    whole: Paired
    model: Paired  # the change of model, averaged over the two recipes
    recipe: Paired


def gaps_of(grid: Grid) -> list[Gap]:
    """Of each pair of models of which all four cells were run; none in a study of other factors."""
    if grid.factors != ("variant", "recipe"):
        return []
    found = (_gap(grid.scores, pair) for pair in combinations(grid.levels[0], 2))
    return [gap for gap in found if gap]


def _gap(scores: Mapping[Levels, Scores], models: tuple[str, str]) -> Gap | None:
    recipes = [PUBLISHED.get(model, WITHOUT) for model in models]
    corners = [scores.get((model, recipe), {}) for model in models for recipe in recipes]
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


# --- what is chosen, and what is bold --------------------------------------------------------------------------------

ROUNDING = 6  # digits of a percentage; sums of the same accuracies in another order differ beyond


@dataclass(frozen=True)
class Choice:
    """Of one variant. The lead says how clear it was; between cells picked by these numbers there is no test of it."""

    variant: str
    best: Line
    mean: float  # percent, over the seeds
    next: Line | None  # none where every other cell failed
    lead: float  # points before the next
    seeds: int  # with which all cells were tried
    cells: int
    failed: int  # of the cells: with one of the seeds at least, and so never the best


def choices_of(study: Study, lines: Sequence[Line]) -> list[Choice]:
    """Of a grid judged on held-out images: for each variant of which all cells were tried, the best one.

    In the order of the study; of two cells that are as good the earlier one. Nothing is chosen on test images.
    """
    if not study.holdout or study.kind != "grid":
        return []
    of_variant: dict[str, list[Line]] = {}
    for line in lines:
        if not line.same_as:
            of_variant.setdefault(line.config.variant_name, []).append(line)
    whole = {name: of for name, of in of_variant.items() if all(line.tried for line in of)}
    tried = [line.tried for of in whole.values() for line in of]
    seeds = sorted(set.intersection(*tried)) if tried else []
    found = (_choice(name, of, seeds) for name, of in whole.items() if seeds and len(of) > 1)
    return [choice for choice in found if choice]


def _choice(variant: str, lines: Sequence[Line], seeds: Sequence[int]) -> Choice | None:
    means = [
        (round(fsum(line.scores[seed] for seed in seeds) / len(seeds), ROUNDING), line)
        for line in lines
        if line.scores.keys() >= set(seeds)
    ]
    if not means:
        return None
    (mean, best), *others = sorted(means, key=lambda pair: -pair[0])
    after = others[0] if others else None
    lead = mean - after[0] if after else 0.0
    failed = len(lines) - len(means)
    return Choice(variant, best, mean, after[1] if after else None, lead, len(seeds), len(lines), failed)


@dataclass(frozen=True)
class Best:
    row: int | None = None  # the row to be bold
    undecided: bool = False  # there are rivals, and no test against at least one of them


def best_of(column: Sequence[Scores | None]) -> Best:
    """The row with the best mean, where paired tests tell it from every other; a row without runs takes no part."""
    means = {row: sum(of.values()) / len(of) for row, of in enumerate(column) if of}
    if len(means) < 2:
        return Best()
    first = max(means, key=lambda row: means[row])
    rivals = [paired(column[row] or {}, column[first] or {}) for row in means if row != first]
    p_values = [rival.t_p for rival in rivals]
    if any(p is None for p in p_values):
        return Best(undecided=True)
    # The means are over all seeds, the tests over those that both rows have: they must point the same way.
    ahead = all((rival.mean or 0) > 0 for rival in rivals)
    clear = all(p is not None and p <= ALPHA for p in holm(p_values))
    return Best(row=first if ahead and clear else None)
