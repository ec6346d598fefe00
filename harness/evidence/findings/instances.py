"""Owns which runs answer which study: its rows with their runs, on one data set, at one budget, in one precision.
Refuses to go by names: a run belongs to a row if every field that can change its result is the row's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harness.config import RunConfig, plan_id
from harness.datasets import DATASETS, title
from harness.evidence.cells.contrast import accuracy_by_seed
from harness.evidence.cells.groups import Evidence, Group
from harness.evidence.findings.forms import Form, Planned, forms_of, planned_on
from harness.studies import STUDIES
from harness.study import Row, Study

Setting = tuple[str, bool]  # precision, and whether the step was compiled


@dataclass(frozen=True)
class Line:
    """A row of a study with what was run for it."""

    label: str
    row: Row
    planned: Planned
    group: Group | None  # none: planned, and not run
    scores: dict[int, float]  # accuracy in percent by seed, on the images that the study is judged on
    same_as: str = ""  # label of an earlier row that is the same cell on this data set (no mirrored digits, say)

    @property
    def config(self) -> RunConfig:
        return self.planned.config

    @property
    def tried(self) -> set[int]:
        """The seeds of its runs, those that failed included."""
        return {*self.scores, *(run.config["seed"] for run in self.group.failed)} if self.group else set()


@dataclass(frozen=True)
class Instance:
    """A study as it was run: the rows that its budget allows, in its order, holes included."""

    study_name: str
    study: Study
    quick: bool  # the study's small form
    moved_to: str  # the variant or recipe that took the place of the planned one, if any did
    dataset: str
    epochs: int | None  # none: every row at the passes that it plans
    precision: str
    compile: bool
    lines: tuple[Line, ...]
    name: str = ""  # of its files: the study's, with what tells it from the study's other instances

    @property
    def split(self) -> str:
        return "val" if self.study.holdout else "test"

    @cached_property
    def base(self) -> Line:
        """The study's first row; in a table of rows the first one that was run."""
        return next(line for line in self.lines if line.scores)

    @property
    def groups(self) -> list[Group]:
        return [line.group for line in self.lines if line.group and not line.same_as]

    @cached_property
    def cells(self) -> set[str]:
        """Those that were run."""
        return {line.planned.plan_id for line in self.lines if line.scores}

    @property
    def setting(self) -> tuple[str, str, bool]:
        return self.dataset, self.precision, self.compile

    @property
    def passes(self) -> str:
        found = sorted({line.config.recipe.epochs for line in self.lines})
        return "1 pass" if found == [1] else f"{' to '.join(map(str, dict.fromkeys((found[0], found[-1]))))} passes"

    @property
    def title(self) -> str:
        name = f"{self.study_name} (quick form)" if self.quick else self.study_name
        judged = "validation images" if self.split == "val" else ""
        made = (judged, self.moved_to, self.passes, self.precision, "compiled" if self.compile else "")
        return ", ".join([f"{name} on {title(self.dataset)}", *filter(None, made)])


def instances(evidence: Evidence, studies: Mapping[str, Study] = STUDIES) -> list[Instance]:
    """Every study of which enough was run, in the order of the studies; linear in the runs."""
    tested, validated = Index(evidence.groups), Index(evidence.validation)
    seen, found = tested.pairs | validated.pairs, list[Instance]()
    for name, study in studies.items():
        forms = [
            (form, validated if form.study.holdout else tested) for form in forms_of(study, studies.values(), seen)
        ]
        found += _named(_whole([one for form, index in forms for one in _of_form(name, form, index)]))
    return [one for one in found if not (one.quick and _is_within_another(one, found))]


def _is_within_another(small: Instance, found: Sequence[Instance]) -> bool:
    """A study's small form whose cells are those of a study in its own right is told there."""
    return any(small.cells <= one.cells and small.setting == one.setting for one in found if not one.quick)


def beside_studies(evidence: Evidence, shown: str, studied: Sequence[Instance]) -> Evidence:
    """Without the cells that were run for other studies than `shown` alone: they have tables of their own."""
    planned = {row.name for row in STUDIES[shown].rows}
    theirs = {id(group) for one in studied if one.study_name != shown for group in one.groups}
    parts: dict[bool, list[Group]] = {True: [], False: []}
    for group in evidence.groups:
        parts[id(group) in theirs and (group.variant, group.recipe) not in planned].append(group)
    return replace(evidence, groups=tuple(parts[False]), elsewhere=tuple(parts[True]))


class Index:
    """The cells by what a study can say of them, so that a row finds its runs without a search."""

    def __init__(self, groups: Iterable[Group]):
        self.groups: dict[str, dict[Setting, Group]] = {}
        self.passes: dict[str, set[int]] = {}  # by data set
        self.pairs: set[tuple[str, str]] = set()  # variant and recipe
        for group in groups:
            if plan := _plan_of(group):
                setting = str(group.setting("precision")), bool(group.setting("compile"))
                self.groups.setdefault(plan, {}).setdefault(setting, group)
                self.passes.setdefault(group.dataset, set()).update([group.passes] if group.passes else [])
                self.pairs.add((group.variant, group.recipe_name))

    def settings(self, plans: Iterable[str]) -> list[Setting]:
        return sorted({setting for plan in plans for setting in self.groups.get(plan, {})})


def _plan_of(group: Group) -> str | None:
    """None for a record that lacks a field: it can be shown, but nobody can say what was run."""
    try:
        return plan_id(group.all_runs[0].config)
    except (KeyError, TypeError, AttributeError):
        return None


def _of_form(name: str, form: Form, index: Index) -> Iterator[Instance]:
    for dataset in (known for known in DATASETS if known in index.passes):
        for epochs in (None, *sorted(index.passes[dataset])):
            rows = _rows(form, dataset, epochs, index)
            for setting in index.settings(planned.plan_id for _, planned in rows):
                lines = _lines(rows, index, setting, "val" if form.study.holdout else "test")
                found = Instance(name, form.study, form.quick, form.moved_to, dataset, epochs, *setting, lines)
                if _answers(found):
                    yield found


def _rows(form: Form, dataset: str, epochs: int | None, index: Index) -> list[tuple[Row, Planned]]:
    """The rows that can be run like this; none where one is missing without which this is no run of the study.

    That is its base, and every row of a study that was moved: two cells of another study may happen to be two of it.
    """
    rows: list[tuple[Row, Planned]] = []
    for row in form.study.rows:
        planned = planned_on(row, dataset, epochs, form.study.holdout)
        needed = form.moved_to or (row is form.study.base and form.study.kind != "table")
        if needed and (planned is None or planned.plan_id not in index.groups):
            return []
        if planned:
            rows.append((row, planned))
    return rows


def _answers(found: Instance) -> bool:
    """Whether so much was run that the study is answered: a few cells of one may have been run for another.

    Of changes, each is an answer by itself. Of a table or grid half is needed, and all of it on a data set that the
    study does not plan; so is all of a study that was moved to another variant or recipe. What failed was run.
    """
    rows, kind = len({line.planned.plan_id for line in found.lines}), found.study.kind
    run = len({line.planned.plan_id for line in found.lines if line.tried})
    unplanned = kind != "changes" and found.dataset not in found.study.datasets
    needed = rows if found.moved_to or unplanned else 2 if kind == "changes" else max(2, rows / 2)
    return run >= needed and run > 1 and (kind == "table" or bool(found.lines[0].scores))


def _lines(rows: Sequence[tuple[Row, Planned]], index: Index, setting: Setting, split: str) -> tuple[Line, ...]:
    lines: list[Line] = []
    first: dict[str, str] = {}  # the label under which a cell came up
    for label, (row, planned) in zip(_labels([row for row, _ in rows]), rows):
        group = index.groups.get(planned.plan_id, {}).get(setting)
        scores = accuracy_by_seed(group, split) if group else {}
        lines.append(Line(label, row, planned, group, scores, first.get(planned.plan_id, "")))
        first.setdefault(planned.plan_id, label)
    return tuple(lines)


def _labels(rows: Sequence[Row]) -> list[str]:
    """Variant and recipe where a row has no label; its settings too where those alone do not tell the rows apart."""
    short = [row.label or f"{row.variant} {row.name[1].split(', ')[0]}" for row in rows]
    return short if len(set(short)) == len(rows) else [row.title for row in rows]


def _whole(found: Sequence[Instance]) -> list[Instance]:
    """Without those whose every cell another one has: the budget of one row is found again as a budget of all."""
    kept: list[Instance] = []
    for one in sorted(found, key=lambda one: -len(one.cells)):
        if not any(one.cells <= other.cells and one.setting == other.setting for other in kept):
            kept.append(one)
    chosen = {id(one) for one in kept}
    return [one for one in found if id(one) in chosen]


def _named(found: Sequence[Instance]) -> list[Instance]:
    """The study's name, and whatever is not the same in all of its instances."""
    parts = [
        [one.dataset for one in found],
        ["quick" if one.quick else "" for one in found],
        [one.moved_to.replace(" ", "-") for one in found],
        ["" if one.epochs is None else f"e{one.epochs}" for one in found],
        [one.precision for one in found],
        ["compiled" if one.compile else "eager" for one in found],
    ]
    telling = [part for part in parts if len(set(part)) > 1]
    names = ["-".join([one.study_name, *filter(None, words)]) for one, *words in zip(found, *telling)]
    return [replace(one, name=name) for one, name in zip(found, names)]
