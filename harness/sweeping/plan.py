"""Owns a study's cells in a fixed order, each with its number and its whole configuration.
Refuses to know what has been done: a cell's number is the same before, during and after.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.config import RunConfig
from harness.datasets import Dataset
from harness.study import EPOCHS, Row, Study
from variants.fields import UsageError


@dataclass(frozen=True)
class Planned:
    """One cell to be trained. `plan_id` is what all seeds of it have in common on any device."""

    number: int  # what `--cell` takes
    row: Row
    config: RunConfig
    plan_id: str

    @property
    def title(self) -> str:
        return f"{self.where} seed {self.config.seed}"

    @property
    def where(self) -> str:
        """Row and data set."""
        return f"{self.row.title}, {self.config.dataset_name}"


def plan(study: Study, facts: Mapping[str, Dataset], epochs: int | None = None) -> list[Planned]:
    """Every cell once, in the study's order, although two rows may mean the same run."""
    if epochs is not None and len({row.set_to(EPOCHS) for row in study.rows}) > 1:
        raise UsageError("this study varies the number of passes itself: leave out --epochs")
    resolved: dict[tuple[Row, str], tuple[RunConfig, str]] = {}  # seeds and settings change nothing else
    cells: dict[tuple[str, int], Planned] = {}
    for cell in study.cells():
        key = (cell.row, cell.dataset)
        if key not in resolved:
            config = cell.row.resolve(facts[cell.dataset], epochs=epochs, holdout=cell.holdout)
            resolved[key] = config, config.plan_id
        config, plan_id = resolved[key]
        config = replace(config, seed=cell.seed)
        cells.setdefault((plan_id, cell.seed), Planned(len(cells), cell.row, config, plan_id))
    return list(cells.values())


def on_device(planned: Iterable[Planned], precision: str, compiles: bool) -> list[Planned]:
    """The same cells with what the device has chosen: only now does each have its run's name."""
    return [
        replace(cell, config=replace(cell.config, precision=precision, compile=compiles))  # type: ignore[arg-type]
        for cell in planned
    ]


def dearest_first(cells: Sequence[Planned]) -> list[Planned]:
    """The last row first, since the cheap ones stand first: a long cell that begins last leaves other cores idle."""
    rows = list(dict.fromkeys(cell.row for cell in cells))
    return sorted(cells, key=lambda cell: -rows.index(cell.row))
