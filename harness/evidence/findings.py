"""Which runs answer which study, and what they found: a study's rows with their cells, on one data set, at one budget,
in one precision. A run belongs to a row if every field that can change its result is the row's; names do not count."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from harness.config import RATES, RunConfig, plan_id
from harness.datasets import DATASETS, title
from harness.evidence.cells import Cell, Evidence
from harness.evidence.effects import (
    Best,
    Choice,
    Effect,
    Gap,
    Grid,
    Line,
    Share,
    base_of,
    best_of,
    choices_of,
    effects_of,
    gaps_of,
    shares_of,
)
from harness.evidence.writing import HOLE
from harness.studies import STUDIES
from harness.study import Row, Study, changed_fields
from variants.catalog import CATALOG
from variants.fields import UsageError

Pair = tuple[str, str]  # variant and recipe
Setting = tuple[str, bool]  # precision, and whether the step was compiled


@dataclass(frozen=True)
class Finding:
    """A study as it was run: the rows that its budget allows, in its order, holes included. What it found is computed
    once, whoever asks."""

    study_name: str
    study: Study
    quick: bool  # the study's small form
    moved_to: str  # the variant or recipe that took the place of the planned one, if any did
    dataset: str
    epochs: int | None  # none: every row at the epochs that it plans
    precision: str
    compile: bool
    lines: tuple[Line, ...]
    name: str = ""  # of its files: the study's, with what tells it from the study's other findings

    @property
    def split(self) -> str:
        return "val" if self.study.holdout else "test"

    @cached_property
    def base(self) -> Line:
        return base_of(self.lines)

    @property
    def cells(self) -> list[Cell]:
        return [line.cell for line in self.lines if line.cell and not line.same_as]

    @cached_property
    def plan_ids(self) -> set[str]:
        """Of the rows that were run."""
        return {line.plan_id for line in self.lines if line.scores}

    @property
    def setting(self) -> tuple[str, str, bool]:
        return self.dataset, self.precision, self.compile

    @property
    def budget(self) -> str:
        found = sorted({line.config.recipe.epochs for line in self.lines})
        return "1 epoch" if found == [1] else f"{' to '.join(map(str, dict.fromkeys((found[0], found[-1]))))} epochs"

    @property
    def shortened(self) -> bool:
        """Whether rows were given other epochs than the study plans for them."""
        planned = [planned_on(line.row, self.dataset, None, self.study.holdout) for line in self.lines]
        return any(one and one.recipe.epochs != line.config.recipe.epochs for one, line in zip(planned, self.lines))

    @property
    def title(self) -> str:
        name = f"{self.study_name} (quick form)" if self.quick else self.study_name
        judged = "validation images" if self.split == "val" else ""
        made = (judged, self.moved_to, self.budget, self.precision, "compiled" if self.compile else "")
        return ", ".join([f"{name} on {title(self.dataset)}", *filter(None, made)])

    # --- what it found

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.study.factors, self.lines)

    def levels(self, factor: int) -> list[str]:
        """In the order of the study; the base's first."""
        return self.grid.levels[factor]

    @cached_property
    def effects(self) -> list[Effect]:
        return effects_of(self.study, self.lines)

    @cached_property
    def shares(self) -> list[Share]:
        return shares_of(self.grid) if self.study.kind == "grid" else []

    @cached_property
    def shared_seeds(self) -> list[int]:
        return self.grid.shared_seeds if self.study.kind == "grid" else []

    @cached_property
    def gaps(self) -> list[Gap]:
        return gaps_of(self.grid)

    @cached_property
    def choices(self) -> list[Choice]:
        return choices_of(self.study, self.lines)

    @cached_property
    def best(self) -> Best:
        return best_of([None if line.same_as else line.scores for line in self.lines])


def findings(evidence: Evidence, studies: Mapping[str, Study] = STUDIES) -> list[Finding]:
    """Every study of which enough was run, in the order of the studies; linear in the runs."""
    tested, validated = Index(evidence.cells), Index(evidence.validation)
    found: list[Finding] = []
    for name, study in studies.items():
        forms = _forms(name, study, studies.values(), tested.pairs | validated.pairs)
        of_study = [one for form in forms for one in _of_form(form, validated if form.study.holdout else tested)]
        found += _named(_largest(of_study))
    return [one for one in found if not (one.quick and _is_within_another(one, found))]


def beside_studies(evidence: Evidence, shown: str, found: Sequence[Finding]) -> Evidence:
    """Without the cells that were run for other studies than `shown` alone: they have tables of their own."""
    planned = {row.name for row in STUDIES[shown].rows}
    theirs = {id(cell) for one in found if one.study_name != shown for cell in one.cells}
    parts: dict[bool, list[Cell]] = {True: [], False: []}
    for cell in evidence.cells:
        parts[id(cell) in theirs and (cell.variant, cell.recipe) not in planned].append(cell)
    return replace(evidence, cells=tuple(parts[False]), elsewhere=tuple(parts[True]))


# --- the forms in which a study may have been run --------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """As planned, small, or on another variant or recipe than planned."""

    study_name: str
    study: Study
    quick: bool = False
    moved_to: str = ""


def _forms(name: str, study: Study, named: Collection[Study], seen: Iterable[Pair]) -> Iterator[Form]:
    """As planned first: what two forms have in common is the planned one's. A small form may have a name of its own."""
    yield Form(name, study)
    if study.quick and study.quick not in named:
        yield Form(name, study.quick, quick=True)
    yield from _moved(name, study, seen)


def _moved(name: str, study: Study, seen: Iterable[Pair]) -> Iterator[Form]:
    """What `harness.sweep --variants X --recipes Y` makes of a study whose rows all have one variant, or one recipe."""
    if study.kind == "table":
        return
    alone = [len({getattr(row, what) for row in study.rows}) == 1 for what in ("variant", "recipe")]
    own = [study.base.variant, study.base.name[1].split(", ")[0]]
    # a person's own file is not run to make a table
    known = (pair for pair in seen if pair[0] in CATALOG or pair[0].startswith("timm:"))
    for pair in sorted({tuple(word if one else "" for word, one in zip(pair, alone)) for pair in known}):
        if words := [word for word, planned in zip(pair, own) if word and word != planned]:
            variants, recipes = ([word] if word else None for word in pair)
            moved = study.narrowed(variants, recipes)
            if study.kind != "changes" or not _is_a_row_of(moved.base, study):
                yield Form(name, moved, moved_to=" ".join(words))


def _is_a_row_of(row: Row, study: Study) -> bool:
    """Such a row is no other base: compact-cls is the study of poolings' own change of compact."""
    base, *rows = (planned_on(one, study.datasets[0], None, study.holdout) for one in (row, *study.rows))
    return base is not None and any(one and one.plan_id == base.plan_id for one in rows)


def planned_on(row: Row, dataset: str, epochs: int | None, holdout: float) -> RunConfig | None:
    """None for a row that cannot be run like this: more warm restarts than epochs, say."""
    return _resolved(replace(row, label="", levels=()), dataset, epochs, holdout)


@cache  # many studies have the same base, and each form is looked for at every budget
def _resolved(row: Row, dataset: str, epochs: int | None, holdout: float) -> RunConfig | None:
    try:
        return row.resolve(DATASETS[dataset], epochs=epochs, holdout=holdout)
    except UsageError:
        return None


# --- the runs of a form ----------------------------------------------------------------------------------------------


class Index:
    """The cells by what a study can say of them, so that a row finds its runs without a search."""

    def __init__(self, cells: Iterable[Cell]):
        self.cells: dict[str, dict[Setting, Cell]] = {}  # by plan
        self.epochs: dict[str, set[int]] = {}  # by data set
        self.pairs: set[Pair] = set()
        for cell in cells:
            if plan := _plan_of(cell):
                setting = str(cell.setting("precision")), bool(cell.setting("compile"))
                self.cells.setdefault(plan, {}).setdefault(setting, cell)
                self.epochs.setdefault(cell.dataset, set()).update([cell.epochs] if cell.epochs else [])
                self.pairs.add((cell.variant, cell.recipe_name))

    def settings(self, plans: Iterable[str]) -> list[Setting]:
        return sorted({setting for plan in plans for setting in self.cells.get(plan, {})})


def _plan_of(cell: Cell) -> str | None:
    """None for a record that lacks a field: it can be shown, but nobody can say what was run."""
    try:
        return plan_id(cell.all_runs[0].config)
    except (KeyError, TypeError, AttributeError):
        return None


PlannedRow = tuple[Row, RunConfig, str]  # with its plan


def _of_form(form: Form, index: Index) -> Iterator[Finding]:
    for dataset in (known for known in DATASETS if known in index.epochs):
        for epochs in (None, *sorted(index.epochs[dataset])):
            rows = _rows(form, dataset, epochs, index)
            for setting in index.settings(plan for _, _, plan in rows):
                lines = _lines(rows, index, setting, "val" if form.study.holdout else "test")
                how = form.study_name, form.study, form.quick, form.moved_to
                found = Finding(*how, dataset, epochs, *setting, lines)
                if _answers(found):
                    yield found


def _rows(form: Form, dataset: str, epochs: int | None, index: Index) -> list[PlannedRow]:
    """The rows that can be run like this; none where one is missing without which this is no run of the study.

    That is its base, and every row of a study that was moved: two cells of another study may happen to be two of it.
    """
    rows: list[PlannedRow] = []
    for row in form.study.rows:
        config = planned_on(row, dataset, epochs, form.study.holdout)
        plan = config and config.plan_id
        needed = form.moved_to or (row is form.study.base and form.study.kind != "table")
        if needed and plan not in index.cells:
            return []
        if config and plan:
            rows.append((row, config, plan))
    return rows


def _lines(rows: Sequence[PlannedRow], index: Index, setting: Setting, split: str) -> tuple[Line, ...]:
    lines: list[Line] = []
    first: dict[str, str] = {}  # the label under which a cell came up
    for label, (row, config, plan) in zip(_labels([row for row, *_ in rows]), rows):
        cell = index.cells.get(plan, {}).get(setting)
        scores = cell.by_seed(split) if cell else {}
        lines.append(Line(label, row, config, plan, cell, scores, first.get(plan, "")))
        first.setdefault(plan, label)
    return tuple(lines)


def _labels(rows: Sequence[Row]) -> list[str]:
    """Variant and recipe where a row has no label; its settings too where those alone do not tell the rows apart."""
    short = [row.label or f"{row.variant} {row.name[1].split(', ')[0]}" for row in rows]
    return short if len(set(short)) == len(rows) else [row.title for row in rows]


def _answers(found: Finding) -> bool:
    """Whether so much was run that the study is answered: a few cells of one may have been run for another.

    Of changes, each is an answer by itself. Of a table or grid half is needed, and all of it on a data set that the
    study does not plan; so is all of a study that was moved to another variant or recipe. What failed was run.
    """
    rows, kind = len({line.plan_id for line in found.lines}), found.study.kind
    run = len({line.plan_id for line in found.lines if line.tried})
    unplanned = kind != "changes" and found.dataset not in found.study.datasets
    needed = rows if found.moved_to or unplanned else 2 if kind == "changes" else max(2, rows / 2)
    return run >= needed and run > 1 and (kind == "table" or bool(found.lines[0].scores))


def _largest(found: Sequence[Finding]) -> list[Finding]:
    """Without those whose every cell another one has: the budget of one row is found again as a budget of all."""
    kept: list[Finding] = []
    for one in sorted(found, key=lambda one: -len(one.plan_ids)):
        if not any(one.plan_ids <= other.plan_ids and one.setting == other.setting for other in kept):
            kept.append(one)
    chosen = {id(one) for one in kept}
    return [one for one in found if id(one) in chosen]


def _is_within_another(small: Finding, found: Sequence[Finding]) -> bool:
    """A study's small form whose cells are those of a study in its own right is shown there."""
    return any(small.plan_ids <= one.plan_ids and small.setting == one.setting for one in found if not one.quick)


def _named(found: Sequence[Finding]) -> list[Finding]:
    """The study's name, and whatever is not the same in all of its findings."""
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


# --- what a row changes, as a machine states it ----------------------------------------------------------------------

MOST_FIELDS = 3  # a row that differs in more is another model or recipe: no list explains it


@dataclass(frozen=True)
class Change:
    """A field with the value that it had and the one that it has; a hole where a config has no such field."""

    field: str
    before: Any
    after: Any

    @property
    def text(self) -> str:
        gone, new = (_only_in(*pair) for pair in ((self.before, self.after), (self.after, self.before)))
        if bool(gone) != bool(new):  # of two lists, what one has and the other has not
            return f"{self.field} {'without' if gone else 'with'} {', '.join(gone or new)}"
        return f"{self.field}: {_text(self.before)} → {_text(self.after)}"


def changes(before: RunConfig, after: RunConfig) -> list[Change]:
    """The fields in which two resolved configs differ. A rate that the recipe sets is the variant's too: once."""
    names = changed_fields(before, after)
    twice = {f"recipe.{rate}" for rate in RATES if f"variant.{rate}" in names}
    return [Change(name, _value(before, name), _value(after, name)) for name in names if name not in twice]


def changes_text(found: list[Change]) -> str:
    if len(found) > MOST_FIELDS:
        return f"in {len(found)} fields"
    return "; ".join(change.text for change in found) or HOLE


def _value(config: RunConfig, path: str) -> Any:
    part, dot, name = path.partition(".")
    return getattr(getattr(config, part), name, HOLE) if dot else config.plan[part]


def _only_in(one: Any, other: Any) -> list[str]:
    both = isinstance(one, tuple) and isinstance(other, tuple)
    return [str(member) for member in one if member not in other] if both else []


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
