"""The runs of a study in a fixed order, each with its number and its whole configuration, whatever has been trained."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from harness.config import RunConfig
from harness.datasets import Dataset
from harness.study import EPOCHS, Row, Study
from variants.fields import UsageError


@dataclass(frozen=True)
class PlannedRun:
    """`plan_id` is what all seeds of its cell have in common on any device."""

    number: int
    row: Row
    config: RunConfig
    plan_id: str
    task: int  # what `--cell` takes: the number, or of seeds trained at once that of their group

    @property
    def cell(self) -> str:
        return f"{self.row.title}, {self.config.dataset_name}"

    @property
    def title(self) -> str:
        return f"{self.cell} seed {self.config.seed}"


def plan(study: Study, facts: Mapping[str, Dataset], epochs: int | None = None) -> list[PlannedRun]:
    """Seed by seed, so that a table of one seed is complete early. Two rows that mean the same run give one."""
    if epochs is not None and len({row.set_to(EPOCHS) for row in study.rows}) > 1:
        raise UsageError("this study varies the number of epochs itself: leave out --epochs")
    cells = {}
    for row, dataset in product(study.rows, study.datasets):
        config = row.resolve(facts[dataset], epochs=epochs, holdout=study.holdout)
        cells[row, dataset] = config, config.plan_id
    runs: dict[tuple[str, int], PlannedRun] = {}
    for seed, row, dataset in product(study.seeds, study.rows, study.datasets):
        config, plan_id = cells[row, dataset]
        run = PlannedRun(len(runs), row, replace(config, seed=seed), plan_id, task=len(runs))
        runs.setdefault((plan_id, seed), run)
    return list(runs.values())


def seeds_together(runs: Sequence[PlannedRun], count: int) -> list[list[PlannedRun]]:
    """So many seeds of a cell at once, in the order in which their first ones come."""
    groups: list[list[PlannedRun]] = []
    open_at: dict[str, list[PlannedRun]] = {}
    for run in runs:
        group = open_at.get(run.config.cell_id)
        if group is None or len(group) == count:
            open_at[run.config.cell_id] = group = []
            groups.append(group)
        group.append(run)
    return groups


def in_tasks(runs: Sequence[PlannedRun], count: int) -> list[PlannedRun]:
    """The same runs, each with the number of its group of so many seeds: whatever is done, a job array's stay."""
    groups = enumerate(seeds_together(runs, count))
    return sorted((replace(run, task=n) for n, group in groups for run in group), key=lambda run: run.number)


def on_device(planned: Iterable[PlannedRun], precision: Any, compiles: bool) -> list[PlannedRun]:
    """The same runs with what the device decides; only now is each one's run id settled."""
    return [replace(run, config=replace(run.config, precision=precision, compile=compiles)) for run in planned]


def about(seconds: float) -> str:
    """As coarse as a guess is."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 10 else f"{count:,.0f} {unit}"
    return f"{seconds:.0f} s"
