"""The runs of a study in a fixed order, each with its number and its whole configuration, whatever has been trained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from tabulate import tabulate

from harness.config import RunConfig
from harness.datasets import Dataset
from harness.study import EPOCHS, Row, Study
from variants.fields import UsageError

Guess = Callable[["PlannedRun"], float | None]  # seconds on this device; None where a step fails


@dataclass(frozen=True)
class PlannedRun:
    """`plan_id` is what all seeds of its cell have in common on any device."""

    number: int  # what `--cell` takes
    row: Row
    config: RunConfig
    plan_id: str

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
        runs.setdefault((plan_id, seed), PlannedRun(len(runs), row, replace(config, seed=seed), plan_id))
    return list(runs.values())


def on_device(planned: Iterable[PlannedRun], precision: str, compiles: bool) -> list[PlannedRun]:
    """The same runs with what the device decides; only now is each one's run id settled."""
    return [
        replace(run, config=replace(run.config, precision=precision, compile=compiles))  # type: ignore[arg-type]
        for run in planned
    ]


def longest_first(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The last row first, since studies list cheap rows first: a long run that starts last leaves other cores idle."""
    rows = list(dict.fromkeys(run.row for run in runs))
    return sorted(runs, key=lambda run: -rows.index(run.row))


class Guesser:
    """Guesses a run's time by trying its model on this device, once for all seeds; imports torch when first used."""

    def __init__(self, device: str, facts: dict[str, Dataset]):
        self.name, self.facts, self.known = device, facts, {}

    @cached_property
    def device(self) -> Any:
        from harness.training import device as devices

        return devices.choose(self.name)

    def device_name(self) -> str:
        from harness.training.device import describe

        return describe(self.device)["device_name"]

    def __call__(self, run: PlannedRun) -> float | None:
        from harness.training.estimate import seconds_of

        if run.plan_id not in self.known:
            self.known[run.plan_id] = seconds_of(run.config, self.facts[run.config.dataset], self.device)
        return self.known[run.plan_id]


# --- shown on a terminal ---------------------------------------------------------------------------------------------


def about(seconds: float) -> str:
    """As coarse as a guess is."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 10 else f"{count:,.0f} {unit}"
    return f"{seconds:.0f} s"


def studies_text(studies: Mapping[str, Study]) -> str:
    """Every study with its number of runs, that of its small form, and its question."""
    rows = [
        [name, study.run_count, study.quick.run_count if study.quick else "", study.question]
        for name, study in studies.items()
    ]
    headers = ["study", "runs", "--quick", "question"]
    return tabulate(rows, headers=headers, colalign=("left", "right", "right", "left"))


def plan_text(runs: Sequence[PlannedRun], guess: Guess) -> str:
    """A line for each cell, with the number of its first run."""
    first: dict[str, PlannedRun] = {}
    for run in runs:
        first.setdefault(run.plan_id, run)
    lines = []
    for run in first.values():
        seconds = guess(run)
        time = "unknown" if seconds is None else f"about {about(seconds)} for each seed"
        lines.append(f"  {run.number:>5}  {run.cell}: {time}")
    return "\n".join(lines)
