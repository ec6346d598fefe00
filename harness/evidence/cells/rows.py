"""Owns the order of a table: the rows and data sets of a study first, holes included, then whatever else was found.
Refuses to drop a planned row because nothing was run for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.evidence.cells.groups import Group
from harness.study import Study


@dataclass(frozen=True)
class Row:
    """One line of the main table: a variant under a recipe, on every data set where it was run."""

    variant: str
    recipe: str
    on: dict[str, Group]

    @property
    def groups(self) -> list[Group]:
        return list(self.on.values())


def datasets_of(groups: Iterable[Group], study: Study | None = None) -> list[str]:
    planned = list(study.datasets) if study else []
    return planned + sorted({group.dataset for group in groups} - set(planned))


def cells_of(groups: Sequence[Group], study: Study) -> list[Group]:
    """The groups in the order of a long table: row by row, data set by data set."""
    datasets = datasets_of(groups, study)
    return [row.on[name] for row in rows_of(groups, study) for name in datasets if name in row.on]


def rows_of(groups: Sequence[Group], study: Study) -> list[Row]:
    found: dict[tuple[str, str], dict[str, Group]] = {}
    labels: dict[tuple[str, str], set[tuple[str, str]]] = {}  # without notes -> with notes
    for group in sorted(groups, key=lambda group: group.row):
        found.setdefault(group.row, {})[group.dataset] = group
        labels.setdefault((group.variant, group.recipe), set()).add(group.row)
    rows = []
    for planned in study.rows:
        for label in sorted(labels.get(planned.name, {planned.name})):
            rows.append(Row(*label, found.pop(label, {})))
    return rows + [Row(*label, on) for label, on in found.items()]
