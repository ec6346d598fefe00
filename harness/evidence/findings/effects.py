"""Owns what a study found: each row against the base, paired by seed, with Holm over all comparisons of one instance.
Refuses a verdict that the corrected test does not give, and to compare a cell with itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.evidence.findings.grids import main_effects
from harness.evidence.findings.instances import Instance, Line
from harness.statistics.intervals import ALPHA
from harness.statistics.paired import Paired, holm, paired
from harness.statistics.power import seeds_needed

BETTER, WORSE, NEITHER, UNDECIDED = "better", "worse", "not distinguishable", "undecided"
NOT_RUN = "not run"


@dataclass(frozen=True)
class Effect:
    """One comparison of a study's family."""

    label: str
    against: str
    difference: Paired  # points of accuracy, this minus what it is compared with
    averaged_over: str = ""  # in a grid: the other factors
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

    @property
    def seeds_to_resolve(self) -> int | None:
        """If the true difference and spread were those measured, and this were the only comparison."""
        return seeds_needed(self.difference.mean or 0.0, self.difference.spread or 0.0)

    @property
    def beyond_reach(self) -> bool:
        """A difference so small beside its spread that more seeds would be needed than anybody trains."""
        return bool(self.difference.mean and self.difference.spread) and self.seeds_to_resolve is None


def effects_of(instance: Instance) -> list[Effect]:
    """In the order of the study; a row without runs is in it, and takes no part in the correction."""
    return _corrected(_of_grid(instance) if instance.study.kind == "grid" else _of_rows(instance))


def _of_rows(instance: Instance) -> list[Effect]:
    base = instance.base
    rows = [line for line in instance.lines if line is not base and not line.same_as]
    return [
        Effect(line.label, base.label, paired(base.scores, line.scores), line=line, tried=bool(line.tried))
        for line in rows
    ]


def _of_grid(instance: Instance) -> list[Effect]:
    """A level is tried where any cell of it is."""
    factors = instance.study.factors
    tried = {pair for line in instance.lines if line.tried for pair in zip(factors, line.row.levels)}
    return [
        Effect(
            *(f"{one.factor}={one.level}", f"{one.factor}={one.base}", one.difference, one.averaged_over),
            tried=(one.factor, one.level) in tried,
        )
        for one in main_effects(instance)
    ]


def _corrected(effects: Sequence[Effect]) -> list[Effect]:
    adjusted = holm([one.difference.t_p for one in effects])
    return [replace(one, holm_p=p) for one, p in zip(effects, adjusted)]
