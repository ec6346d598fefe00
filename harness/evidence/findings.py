"""Which runs answer which study, and what they found: a study's rows with their cells, on one data set, at one budget,
in one precision. A run belongs to a row if every field that can change its result is the row's; names do not count."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import groupby
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
from harness.study import EPOCHS, Row, Study, changed_fields
from variants.catalog import CATALOG
from variants.fields import UsageError

Pair = tuple[str, str]  # variant and recipe
Setting = tuple[str, str, bool]  # data set, precision, and whether the step was compiled
Cells = Mapping[str, Cell]  # of one setting, by plan id: what a study can say of a cell


@dataclass(frozen=True)
class Finding:
    """A study as it was run: the rows that its budget allows, in its order, holes included. What it found is computed
    once, whoever asks."""

    study_name: str
    study: Study
    quick: bool  # the study's small form
    moved_to: str  # the variant or recipe that took the place of the planned one, if any did
    epochs: int | None  # none: every row at the epochs that it plans
    setting: Setting
    lines: tuple[Line, ...]
    name: str = ""  # of its files: the study's, with what tells it from the study's other findings

    @property
    def dataset(self) -> str:
        return self.setting[0]

    @property
    def compile(self) -> bool:
        return self.setting[2]

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
        dataset, precision, compiled = self.setting
        name = f"{self.study_name} (quick form)" if self.quick else self.study_name
        judged = "validation images" if self.split == "val" else ""
        made = (judged, self.moved_to, self.budget, precision, "compiled" if compiled else "")
        return ", ".join([f"{name} on {title(dataset)}", *filter(None, made)])

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
    """Every study of which enough was run, in the order of the studies."""
    tested, validated = _by_setting(evidence.cells), _by_setting(evidence.validation)
    found = []
    for name, study in studies.items():
        for setting, cells in (validated if study.holdout else tested).items():
            pairs = {(cell.variant, cell.recipe_name) for cell in cells.values()}
            seen = {cell.epochs for cell in cells.values() if cell.epochs}
            for form, quick, moved_to in _forms(study, pairs):
                for epochs in _budgets(form, setting[0], seen):
                    lines = _lines(form, setting[0], epochs, cells, whole=bool(moved_to))
                    one = Finding(name, form, quick, moved_to, epochs, setting, lines)
                    if lines and _is_answered(one) and not (moved_to and _is_a_row_of(lines[0], study)):
                        found.append(one)
    return _named(_without_parts(found))


def beside_studies(evidence: Evidence, shown: str, found: Sequence[Finding]) -> Evidence:
    """Without the cells that were run for other studies than `shown` alone: they have tables of their own."""
    planned = {row.name for row in STUDIES[shown].rows}
    theirs = {id(cell) for one in found if one.study_name != shown for cell in one.cells}
    parts: dict[bool, list[Cell]] = {True: [], False: []}
    for cell in evidence.cells:
        parts[id(cell) in theirs and (cell.variant, cell.recipe) not in planned].append(cell)
    return replace(evidence, cells=tuple(parts[False]), elsewhere=tuple(parts[True]))


# --- the runs of a study ---------------------------------------------------------------------------------------------


def _by_setting(cells: Iterable[Cell]) -> dict[Setting, dict[str, Cell]]:
    """A record that lacks a field is left out: it can be shown, but nobody can say what was run."""
    found: dict[Setting, dict[str, Cell]] = {}
    for cell in cells:
        try:
            plan = plan_id(cell.all_runs[0].config)
        except (KeyError, TypeError, AttributeError):
            continue
        if cell.dataset in DATASETS:
            setting = cell.dataset, str(cell.setting("precision")), bool(cell.setting("compile"))
            found.setdefault(setting, {}).setdefault(plan, cell)
    order = [*DATASETS]
    return {setting: found[setting] for setting in sorted(found, key=lambda one: (order.index(one[0]), one))}


def _forms(study: Study, pairs: Iterable[Pair]) -> Iterator[tuple[Study, bool, str]]:
    """A study, whether it is the small form, and to which variant or recipe it was moved. As planned first: what two
    forms have in common is the planned one's.

    Moved is what `harness.sweep --variants X --recipes Y` makes of a study whose rows all have one variant, or one
    recipe.
    """
    yield study, False, ""
    if study.quick:
        yield study.quick, True, ""
    if study.kind == "table":
        return
    planned = study.base.variant, study.base.name[1].split(", ")[0]
    alike = [len({getattr(row, what) for row in study.rows}) == 1 for what in ("variant", "recipe")]
    # a person's own file is not run to make a table
    known = [pair for pair in pairs if pair[0] in CATALOG or pair[0].startswith("timm:")]
    for words in sorted({tuple(word if one else "" for word, one in zip(pair, alike)) for pair in known}):
        if others := [word for word, own in zip(words, planned) if word and word != own]:
            variants, recipes = ([word] if word else None for word in words)
            yield study.narrowed(variants, recipes), False, " ".join(others)


def _is_a_row_of(base: Line, study: Study) -> bool:
    """No other base of a study of changes: compact-cls is what the study of poolings makes of compact."""
    planned = (planned_on(row, base.config.dataset, base.config.recipe.epochs, study.holdout) for row in study.rows)
    return study.kind == "changes" and any(one and one.plan_id == base.plan_id for one in planned)


def _budgets(study: Study, dataset: str, seen: Set[int]) -> list[int | None]:
    """The epochs that each row plans (none), and whatever else was run."""
    alike = len({(row.variant, row.recipe) for row in study.rows}) == 1 and not any(
        r.set_to(EPOCHS) for r in study.rows
    )
    if alike and (base := planned_on(study.base, dataset, None, study.holdout)):
        seen = seen - {base.recipe.epochs}  # which every row has as it is planned
    return [None, *sorted(seen)]


def planned_on(row: Row, dataset: str, epochs: int | None, holdout: float) -> RunConfig | None:
    """None for a row that cannot be run like this: more warm restarts than epochs, say."""
    return _planned(replace(row, label="", levels=()), dataset, epochs, holdout)[0]


@cache  # many studies have the same base, and each form is looked for at every budget
def _planned(row: Row, dataset: str, epochs: int | None, holdout: float) -> tuple[RunConfig | None, str]:
    """With its plan id."""
    try:
        config = row.resolve(DATASETS[dataset], epochs=epochs, holdout=holdout)
    except UsageError:
        return None, ""
    return config, config.plan_id


def _lines(study: Study, dataset: str, epochs: int | None, cells: Cells, whole: bool) -> tuple[Line, ...]:
    """The rows that can be run like this; none where one is missing without which this is no run of the study.

    That is its base, and every row where the `whole` study is needed: of a study that was moved, two cells of another
    study may happen to be two.
    """
    lines: list[Line] = []
    labels: dict[str, str] = {}  # under which a plan came up first
    for row, label in zip(study.rows, _labels(study.rows)):
        config, plan = _planned(replace(row, label="", levels=()), dataset, epochs, study.holdout)
        cell = cells.get(plan)
        if cell is None and (whole or (row is study.base and study.kind != "table")):
            return ()
        if config:
            scores = cell.by_seed("val" if study.holdout else "test") if cell else {}
            lines.append(Line(label, row, config, plan, cell, scores, labels.get(plan, "")))
            labels.setdefault(plan, label)
    return tuple(lines)


def _labels(rows: Sequence[Row]) -> list[str]:
    """Variant and recipe where a row has no label; its settings too where those alone do not tell the rows apart."""
    short = [row.label or f"{row.variant} {row.name[1].split(', ')[0]}" for row in rows]
    return short if len(set(short)) == len(rows) else [row.title for row in rows]


def _is_answered(found: Finding) -> bool:
    """Whether so much was run that the study is answered: a few cells of one may have been run for another.

    Of changes, each is an answer by itself. Of a table or grid half is needed, and all of it on a data set that the
    study does not plan; so is all of a study that was moved to another variant or recipe. What failed was run.
    """
    rows, kind = len({line.plan_id for line in found.lines}), found.study.kind
    run = len({line.plan_id for line in found.lines if line.tried})
    unplanned = kind != "changes" and found.dataset not in found.study.datasets
    needed = rows if found.moved_to or unplanned else 2 if kind == "changes" else max(2, rows / 2)
    return run >= needed and run > 1 and (kind == "table" or bool(found.lines[0].scores))


def _without_parts(found: Sequence[Finding]) -> list[Finding]:
    """Without those whose every cell another one of the study has: the budget of one row is found again as a budget of
    all. A small form whose cells are those of a study in its own right is shown there."""

    def shows(other: Finding, one: Finding) -> bool:
        return one.plan_ids <= other.plan_ids and one.setting == other.setting

    largest: list[Finding] = []
    for one in sorted(found, key=lambda one: -len(one.plan_ids)):
        if not any(one.study_name == other.study_name and shows(other, one) for other in largest):
            largest.append(one)
    full = [one for one in largest if not one.quick]
    kept = {id(one) for one in largest if not (one.quick and any(shows(other, one) for other in full))}
    return [one for one in found if id(one) in kept]


def _named(found: Sequence[Finding]) -> list[Finding]:
    """The study's name, and whatever is not the same in all of its findings."""
    named = []
    for name, group in groupby(found, key=lambda one: one.study_name):
        of_study = list(group)
        words = [
            (
                one.dataset,
                "quick" if one.quick else "",
                one.moved_to.replace(" ", "-"),
                "" if one.epochs is None else f"e{one.epochs}",
                one.setting[1],
                "compiled" if one.compile else "eager",
            )
            for one in of_study
        ]
        telling = [place for place, column in enumerate(zip(*words)) if len(set(column)) > 1]
        for one, own in zip(of_study, words):
            named.append(replace(one, name="-".join([name, *filter(None, (own[place] for place in telling))])))
    return named


# --- what a row changes, as a machine states it ----------------------------------------------------------------------

MOST_FIELDS = 3  # a row that differs in more is another model or recipe: no list explains it


def changes_text(before: RunConfig, after: RunConfig) -> str:
    """The fields in which two resolved configs differ. A rate that the recipe sets is the variant's too: once."""
    names = changed_fields(before, after)
    twice = {f"recipe.{rate}" for rate in RATES if f"variant.{rate}" in names}
    names = [name for name in names if name not in twice]
    if len(names) > MOST_FIELDS:
        return f"in {len(names)} fields"
    return "; ".join(_change(name, _value(before, name), _value(after, name)) for name in names) or HOLE


def _value(config: RunConfig, path: str) -> Any:
    """A hole where a config has no such field."""
    part, dot, name = path.partition(".")
    return getattr(getattr(config, part), name, HOLE) if dot else config.plan[part]


def _change(field: str, before: Any, after: Any) -> str:
    if isinstance(before, tuple) and isinstance(after, tuple):
        gone, new = (
            [str(member) for member in one if member not in other] for one, other in ((before, after), (after, before))
        )
        if bool(gone) != bool(new):  # what one list has and the other has not
            return f"{field} {'without' if gone else 'with'} {', '.join(gone or new)}"
    return f"{field}: {_text(before)} → {_text(after)}"


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
