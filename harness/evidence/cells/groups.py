"""Owns the way from runs to groups: all seeds of one cell, under a label that no other group of the data set has.
Refuses to average, to let a run count twice, and to put runs judged on validation beside those judged on test.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.evidence.cells.catalogue import Costs
from harness.evidence.cells.course import Course, course_of
from harness.evidence.cells.names import Name, name_of
from harness.evidence.cells.numbers import finite
from harness.evidence.cells.quality import Quality, quality_of
from harness.records.read import Run, load_runs


@dataclass(frozen=True)
class Group:
    """The seeds of one cell."""

    variant: str
    recipe_name: str
    overrides: tuple[str, ...]
    note: str  # what tells it from another group of the same label: precision, compilation, ...
    dataset: str
    runs: tuple[Run, ...]  # done, by seed
    failed: tuple[Run, ...]

    @property
    def recipe(self) -> str:
        return ", ".join((self.recipe_name, *self.overrides))

    @property
    def row(self) -> tuple[str, str]:
        """What the group is called in every table and figure: variant and recipe."""
        return self.variant, f"{self.recipe} [{self.note}]" if self.note else self.recipe

    @property
    def all_runs(self) -> tuple[Run, ...]:
        return (*self.runs, *self.failed)

    def measured(self, name: str, scale: float = 1.0) -> list[float]:
        """A field of the result over the runs that are done; what was not measured is left out."""
        values = (finite(run.result.get(name)) for run in self.runs)
        return [value * scale for value in values if value is not None]

    @cached_property
    def accuracies(self) -> list[float]:
        """Test accuracy after the last planned epoch, in percent."""
        return self.measured("test_accuracy", 100)

    @cached_property
    def quality(self) -> Quality | None:
        """What the predictions of its runs add up to: read once, whoever asks."""
        return quality_of(self.runs)

    @cached_property
    def course(self) -> Course:
        """What the epochs of its runs come to: read once, whoever asks."""
        return course_of(self.runs)

    def setting(self, name: str) -> Any:
        """A field of the configuration outside variant and recipe: one cell has one value."""
        return self.all_runs[0].config.get(name)

    @property
    def passes(self) -> int | None:
        return (self.setting("recipe") or {}).get("epochs")

    @cached_property
    def devices(self) -> list[str]:
        return sorted({device_of(run) for run in self.all_runs})

    @cached_property
    def timed_device(self) -> str | None:
        """The one device whose times may be shown: every run alone on it. Otherwise none."""
        names = {device_of(run) for run in self.runs}
        alone = not any(run.result.get("shared_device") for run in self.runs)
        return names.pop() if len(names) == 1 and alone else None

    def timed(self, name: str, scale: float = 1.0) -> list[float]:
        return self.measured(name, scale) if self.timed_device else []

    @cached_property
    def data_digests(self) -> set[str]:
        return {digest for run in self.runs if (digest := run.env.get("data_digest"))}

    def cost(self, name: str) -> float | None:
        return next((value for run in self.all_runs if (value := finite(run.cost.get(name))) is not None), None)


@dataclass(frozen=True)
class Evidence:
    """What some folders hold."""

    folders: tuple[Path, ...]
    groups: tuple[Group, ...]
    validation: tuple[Group, ...]  # runs with a holdout: they never looked at test
    elsewhere: tuple[Group, ...] = ()  # shown by the studies that they were run for, and only there
    costs: Costs = field(default_factory=dict)  # of the catalogue's variants, whether or not they were run

    @property
    def source(self) -> str:
        """One sentence for a caption: where the numbers come from, and what was left out of them."""
        where = ", ".join(folder.as_posix() for folder in self.folders) or "no folder"
        done = sum(len(group.runs) for group in (*self.groups, *self.elsewhere))
        failed = sum(len(group.failed) for group in (*self.groups, *self.elsewhere))
        held_out = sum(len(group.all_runs) for group in self.validation)
        rest = f"; {count(held_out, 'run')} with a holdout left out" if held_out else ""
        studies = f"; {count(len(self.elsewhere), 'cell')} shown with their studies alone" if self.elsewhere else ""
        return f"From {where}: {count(done, 'run')} done, {failed} failed{rest}{studies}."


def read_evidence(folders: Iterable[Path], costs: Costs | None = None) -> Evidence:
    folders = tuple(dict.fromkeys(folders))
    runs = unique([run for folder in folders for run in load_runs([folder]) if usable(run)])
    judged_on_val = [bool(run.config.get("holdout")) or run.result.get("split") == "val" for run in runs]
    groups = [_group([run for run, val in zip(runs, judged_on_val) if val == wanted]) for wanted in (False, True)]
    return Evidence(folders, tuple(groups[0]), tuple(groups[1]), costs=costs or {})


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def device_of(run: Run) -> str:
    return str(run.env.get("device_name") or run.env.get("device") or "unknown")


def dataset_of(run: Run) -> str:
    """A folder's own name, as in the run's identity: where a copy lies is no part of what was run."""
    name = run.config["dataset"]
    return f"folder:{Path(name[7:]).name}" if name.startswith("folder:") else name


def usable(run: Run) -> bool:
    """Says on stderr which record lacks what a table needs."""
    kinds = {"cell_id": str, "variant_name": str, "dataset": str, "recipe_name": str, "seed": int, "recipe": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(run.config.get(name), kind)]
    if wrong:
        print(f"skipped {run.folder}: config.json has no usable {', '.join(wrong)}", file=sys.stderr)
    return not wrong


def unique(runs: Sequence[Run]) -> list[Run]:
    """Of each cell and seed the first run that is done; a failed one only where none is."""
    first: dict[tuple[str, int], Run] = {}
    for run in sorted(runs, key=lambda run: not run.ok):
        kept = first.setdefault((run.config["cell_id"], run.config["seed"]), run)
        if kept is not run:
            print(f"left out {run.folder}: the same cell and seed as {kept.folder}", file=sys.stderr)
    return list(first.values())


def _group(runs: Sequence[Run]) -> list[Group]:
    cells: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.config["cell_id"], run.config["seed"])):
        cells.setdefault(run.config["cell_id"], []).append(run)
    named: dict[tuple[Any, ...], list[list[Run]]] = {}
    for members in cells.values():
        named.setdefault(_label(members), []).append(members)
    groups = []
    for (variant, recipe, overrides), namesakes in sorted(named.items()):
        for members, note in zip(namesakes, _notes(namesakes)):
            done = tuple(run for run in members if run.ok)
            failed = tuple(run for run in members if not run.ok)
            groups.append(Group(variant, recipe, overrides, note, dataset_of(members[0]), done, failed))
    return sorted(groups, key=lambda group: (group.row, group.dataset))


def _label(members: Sequence[Run]) -> Name:
    """The same fields may have been set in different words (1e-3 or 0.001): the plainest count."""
    told = {str(run.config.get("overrides")): run.config for run in members}
    return min(map(name_of, told.values()), key=lambda name: (len(name[2]), name))


def _notes(namesakes: Sequence[Sequence[Run]]) -> list[str]:
    """For each of the cells that share a label, what differs where two of them meet on one data set; else nothing."""
    meeting: dict[str, list[int]] = {}
    for index, members in enumerate(namesakes):
        meeting.setdefault(dataset_of(members[0]), []).append(index)
    clashes = [indices for indices in meeting.values() if len(indices) > 1]
    if not clashes:
        return [""] * len(namesakes)
    fields = [_identity(members[0]) for members in namesakes]
    varying = {name for at in clashes for name in fields[at[0]] if len({fields[i].get(name) for i in at}) > 1}
    notes = [", ".join(_value_text(name, own.get(name)) for name in sorted(varying)) for own in fields]
    if any(len({notes[i] for i in at}) < len(at) for at in clashes):  # they differ in nothing that the records show
        tails = [members[0].config["cell_id"].rsplit("-", 1)[-1] for members in namesakes]
        notes = [", ".join(filter(None, pair)) for pair in zip(notes, tails)]
    return notes


def _identity(run: Run) -> dict[str, str]:
    """The fields that set cells apart, as text: tuples and lists of a record cannot be compared as set members."""
    own = {name: run.config.get(name) for name in ("precision", "compile", "semantics", "variant_type", "holdout")}
    for part in ("recipe", "variant"):
        own |= {f"{part}.{name}": value for name, value in (run.config.get(part) or {}).items()}
    return {name: str(value) for name, value in own.items()}


def _value_text(name: str, value: str | None) -> str:
    if name == "precision":
        return str(value)
    if name == "compile":
        return "compiled" if value == "True" else "not compiled"
    return f"{name.rpartition('.')[2]}={value}"


def commonest_device(groups: Sequence[Group], field: str = "train_seconds") -> str | None:
    """The device on which most groups have a time; of equals, the first by name."""
    counted = Counter(group.timed_device for group in groups if group.timed(field))
    return min(counted, key=lambda name: (-counted[name], str(name))) if counted else None
