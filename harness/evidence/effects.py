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
from harness.evidence.cells import Cell, grouped
from harness.recipes import PUBLISHED
from harness.statistics.intervals import ALPHA
from harness.statistics.paired import Paired, holm, of_differences, paired, seeds_needed, variance_shares
from harness.study import Row, Study

BETTER, WORSE, NEITHER, UNDECIDED = "better", "worse", "not distinguishable", "undecided"
NOT_RUN = "not run"
WITHOUT = "common"  # what a model is trained with that was published with no recipe
ROUNDING = 6  # digits of a percentage; sums of the same accuracies in another order differ beyond

Scores = Mapping[int, float]  # accuracy in percent by seed


@dataclass(frozen=True)
class Line:
    """A row of a study with what was run for it."""

    label: str
    row: Row
    config: RunConfig
    plan_id: str
    cell: Cell | None  # none: planned, and not run
    scores: Scores  # on the images that the study is judged on
    same_as: str = ""  # label of an earlier row that is the same cell on this data set (no mirrored digits, say)

    @property
    def tried(self) -> set[int]:
        """The seeds of its runs, those that failed included."""
        return {*self.scores, *(run.config["seed"] for run in self.cell.failed)} if self.cell else set()


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


@dataclass(frozen=True)
class Share:
    source: str
    found: float  # of the total sum of squares
    by_chance: float  # what noise alone would give: the share of the degrees of freedom


@dataclass(frozen=True)
class Gap:
    """From the first to the second, each under its own recipe; model and recipe add up to the whole, seed by seed."""

    first: str
    second: str
    whole: Paired
    model: Paired  # the change of model, averaged over the two recipes
    recipe: Paired


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


@dataclass(frozen=True)
class Studied:
    """A study and those of its rows that can be run, holes included. What it found is computed once, whoever asks."""

    study: Study
    lines: tuple[Line, ...]

    @cached_property
    def base(self) -> Line:
        """The study's first row; in a table of rows the first one that was run."""
        return next(line for line in self.lines if line.scores)

    @cached_property
    def effects(self) -> list[Effect]:
        """In the order of the study; a row without runs is in it, and takes no part in the correction."""
        found = [*(self._of_levels() if self.study.kind == "grid" else self._of_rows())]
        adjusted = holm([one.difference.t_p for one in found])
        return [replace(one, holm_p=p) for one, p in zip(found, adjusted)]

    @cached_property
    def best(self) -> "Best":
        return best_of([None if line.same_as else line.scores for line in self.lines])

    def _of_rows(self) -> Iterator[Effect]:
        for line in self.lines:
            if line is not self.base and not line.same_as:
                difference = paired(self.base.scores, line.scores)
                yield Effect(line.label, self.base.label, difference, line=line, tried=bool(line.tried))

    # --- of a grid

    @cached_property
    def levels(self) -> list[list[str]]:
        """Of each factor, in the order of the study; the base's first."""
        factors = range(len(self.study.factors))
        return [list(dict.fromkeys(line.row.levels[place] for line in self.lines)) for place in factors]

    @cached_property
    def scores(self) -> dict[tuple[str, ...], Scores]:
        """Of each cell that was run, by its levels."""
        return {line.row.levels: line.scores for line in self.lines if line.scores}

    @cached_property
    def shared_seeds(self) -> list[int]:
        """Those of every combination of levels; a combination that is not there has none."""
        return sorted(set.intersection(*(set(self.scores.get(levels, ())) for levels in product(*self.levels))))

    def _of_levels(self) -> Iterator[Effect]:
        for place, (base, *others) in enumerate(self.levels):
            for level in others:
                yield self._main_effect(place, base, level)

    def _main_effect(self, place: int, base: str, level: str) -> Effect:
        """Averaged over the cells and seeds that both sides have."""
        at_base = [line.row.levels for line in self.lines if line.row.levels[place] == base]
        pairs: dict[tuple[str, ...], tuple[Scores, Scores]] = {}
        for levels in at_base:
            before, after = levels[:place], levels[place + 1 :]
            sides = self.scores.get(levels, {}), self.scores.get((*before, level, *after), {})
            if all(sides):
                pairs[before + after] = sides
        seeds = [set(side) for pair in pairs.values() for side in pair]
        complete = sorted(set.intersection(*seeds)) if seeds else []
        differences = [fsum(b[seed] - a[seed] for a, b in pairs.values()) / len(pairs) for seed in complete]
        factor, factors = self.study.factors[place], self.study.factors
        others = " and ".join(factors[:place] + factors[place + 1 :])
        which = "" if len(pairs) == len(at_base) else f" ({'; '.join(', '.join(levels) for levels in pairs)})"
        return Effect(
            f"{factor}={level}",
            f"{factor}={base}",
            of_differences(differences, dropped=len(set().union(*seeds)) - len(complete)),
            averaged_over=f"{others}{which}" if others and pairs else "",
            tried=any(line.tried for line in self.lines if line.row.levels[place] == level),
        )

    @cached_property
    def shares(self) -> list[Share]:
        """Of the factors, their interactions and the seeds; none unless every cell has two seeds that all share."""
        factors, seeds = self.study.factors, self.shared_seeds
        sizes = [*map(len, self.levels), len(seeds)]
        if len(factors) < 2 or min(sizes) < 2:
            return []
        values = [self.scores[levels][seed] for levels in product(*self.levels) for seed in seeds]
        found = variance_shares(np.array(values).reshape(sizes))
        if found is None:
            return []
        parts, residual = found
        shares = []
        for axes, part in parts.items():
            degrees = prod(sizes[axis] - 1 for axis in axes)
            shares.append(Share(" × ".join(factors[axis] for axis in axes), part, degrees / (prod(sizes) - 1)))
        return [*shares, Share("seeds", residual, 1 - sum(share.by_chance for share in shares))]

    @cached_property
    def gaps(self) -> list[Gap]:
        """Of each pair of models of which all four cells were run; none in a study of other factors."""
        if self.study.factors != ("variant", "recipe"):
            return []
        found = (self._gap(pair) for pair in combinations(self.levels[0], 2))
        return [gap for gap in found if gap]

    def _gap(self, models: tuple[str, str]) -> Gap | None:
        recipes = [PUBLISHED.get(model, WITHOUT) for model in models]
        corners = [self.scores.get((model, recipe), {}) for model in models for recipe in recipes]
        whole, model = [], []
        for seed in sorted(set.intersection(*map(set, corners))):
            aa, ab, ba, bb = (corner[seed] for corner in corners)  # model and recipe: each the first's or the second's
            whole.append(bb - aa)
            model.append(((ba - aa) + (bb - ab)) / 2)
        recipe = [gap - part for gap, part in zip(whole, model)]
        first, second = (f"{name} under {own}" for name, own in zip(models, recipes))
        return Gap(first, second, *map(of_differences, (whole, model, recipe))) if whole else None

    @cached_property
    def choices(self) -> list[Choice]:
        """Of a grid judged on held-out images: for each variant of which all cells were tried, the best one.

        In the order of the study; of two cells that are as good the earlier one. Nothing is chosen on test images.
        """
        if not self.study.holdout or self.study.kind != "grid":
            return []
        own = grouped((line for line in self.lines if not line.same_as), lambda line: line.config.variant_name)
        whole = [lines for lines in own.values() if all(line.tried for line in lines)]
        seeds = set.intersection(*(line.tried for lines in whole for line in lines)) if whole else set()
        found = (_choice(lines, seeds) for lines in whole if seeds and len(lines) > 1)
        return [choice for choice in found if choice]


def _choice(lines: Sequence[Line], seeds: set[int]) -> Choice | None:
    done = [line for line in lines if line.scores.keys() >= seeds]
    means = [round(fsum(line.scores[seed] for seed in seeds) / len(seeds), ROUNDING) for line in done]
    if not done:
        return None
    (mean, best), *others = sorted(zip(means, done), key=lambda pair: -pair[0])
    second, after = others[0] if others else (mean, None)
    failed = len(lines) - len(done)
    return Choice(best.config.variant_name, best, mean, after, mean - second, len(seeds), len(lines), failed)


# --- what is bold ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Best:
    row: int | None = None  # the row to be bold
    undecided: bool = False  # there are rivals, and no test against at least one of them


def best_of(column: Sequence[Scores | None]) -> Best:
    """The row with the best mean, where paired tests tell it from every other; a row without runs takes no part."""
    runs = {row: scores for row, scores in enumerate(column) if scores}
    if len(runs) < 2:
        return Best()
    first = max(runs, key=lambda row: sum(runs[row].values()) / len(runs[row]))
    rivals = [paired(scores, runs[first]) for row, scores in runs.items() if row != first]
    p_values = [rival.t_p for rival in rivals]
    if None in p_values:
        return Best(undecided=True)
    # The means are over all seeds, the tests over those that both rows have: they must point the same way.
    ahead = all((rival.mean or 0) > 0 for rival in rivals)
    clear = all(p is not None and p <= ALPHA for p in holm(p_values))
    return Best(row=first if ahead and clear else None)
