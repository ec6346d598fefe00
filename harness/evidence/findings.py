"""Which runs answer which study: a study's rows with their cells, on one data set, at one budget, in one precision. A
run belongs to a row if every field that can change its result is the row's; names do not count."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, product
from typing import Any

from harness.config import RATES, RunConfig, plan_id
from harness.datasets import DATASETS, title
from harness.evidence.cells import Cell, Evidence
from harness.evidence.effects import Line, Studied
from harness.evidence.writing import HOLE
from harness.studies import STUDIES
from harness.study import Row, Study, changed_fields
from variants.catalog import CATALOG
from variants.fields import UsageError

Setting = tuple[str, str, bool]  # data set, precision, and whether the step was compiled
Cells = Mapping[str, Cell]  # of one setting, by plan id: what a study can say of a cell


@dataclass(frozen=True)
class Finding(Studied):
    """A study as it was run."""

    study_name: str
    quick: bool  # the study's small form
    moved_to: str  # the variant or recipe that took the place of the planned one, if any did
    epochs: int | None  # that every row was given; none: those that each plans
    setting: Setting
    name: str = ""  # of its files: the study's, with what tells it from the study's other findings

    @property
    def dataset(self) -> str:
        return self.setting[0]

    @property
    def cells(self) -> list[Cell]:
        return [line.cell for line in self.lines if line.cell and not line.same_as]

    @property
    def plan_ids(self) -> set[str]:
        """Of the rows that were run."""
        return {line.plan_id for line in self.lines if line.scores}

    @property
    def budget(self) -> str:
        found = sorted({line.config.recipe.epochs for line in self.lines})
        return "1 epoch" if found == [1] else f"{' to '.join(map(str, dict.fromkeys((found[0], found[-1]))))} epochs"

    @property
    def title(self) -> str:
        dataset, precision, compiled = self.setting
        name = f"{self.study_name} (quick form)" if self.quick else self.study_name
        judged = "validation images" if self.study.holdout else ""
        made = (judged, self.moved_to, self.budget, precision, "compiled" if compiled else "")
        return ", ".join([f"{name} on {title(dataset)}", *filter(None, made)])


def findings(evidence: Evidence, studies: Mapping[str, Study] = STUDIES) -> list[Finding]:
    """Every study of which enough was run, in the order of the studies."""
    tested, validated = _by_setting(evidence.cells), _by_setting(evidence.validation)
    found = []
    for name, study in studies.items():
        for setting, cells in (validated if study.holdout else tested).items():
            budgets = [None, *sorted({cell.epochs for cell in cells.values() if cell.epochs})]
            for (form, quick, moved_to), epochs in product(_forms(study, cells.values()), budgets):
                lines = _lines(form, setting[0], epochs, cells)
                one = Finding(form, lines, name, quick, moved_to, epochs, setting)
                if _is_answered(one) and not (moved_to and _is_a_row_of(lines[0], study)):
                    found.append(one)
    return _named(_without_parts(found))


def beside_studies(evidence: Evidence, shown: str, found: Sequence[Finding]) -> Evidence:
    """Without the cells that were run for other studies than `shown` alone: they have tables of their own."""
    planned = {row.name for row in STUDIES[shown].rows}
    theirs = {id(cell) for one in found if one.study_name != shown for cell in one.cells}
    elsewhere = {id(cell) for cell in evidence.cells if (cell.variant, cell.recipe) not in planned} & theirs
    here, there = (
        tuple(cell for cell in evidence.cells if (id(cell) in elsewhere) == wanted) for wanted in (False, True)
    )
    return replace(evidence, cells=here, elsewhere=there)


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


def _forms(study: Study, cells: Iterable[Cell]) -> Iterator[tuple[Study, bool, str]]:
    """A study as it is planned, its small form, and what `harness.sweep --variants X --recipes Y` makes of it where its
    rows all have one variant, or one recipe; each with whether it is small and to what it was moved.
    """
    yield study, False, ""
    if study.quick:
        yield study.quick, True, ""
    if study.kind == "table":
        return
    planned = study.base.variant, study.base.name[1].split(", ")[0]
    alike = [len({getattr(row, what) for row in study.rows}) == 1 for what in ("variant", "recipe")]
    # a person's own file is not run to make a table
    names = {(c.variant, c.recipe_name) for c in cells if c.variant in CATALOG or c.variant.startswith("timm:")}
    for words in sorted({tuple(word if one else "" for word, one in zip(pair, alike)) for pair in names}):
        if others := [word for word, own in zip(words, planned) if word and word != own]:
            variants, recipes = ([word] if word else None for word in words)
            yield study.narrowed(variants, recipes), False, " ".join(others)


@cache  # many studies have the same base, and each form is looked for at every budget
def planned_on(row: Row, dataset: str, epochs: int | None, holdout: float) -> tuple[RunConfig | None, str]:
    """With its plan id. None for a row that cannot be run like this: more warm restarts than epochs, say."""
    try:
        config = row.resolve(DATASETS[dataset], epochs=epochs, holdout=holdout)
    except UsageError:
        return None, ""
    return config, config.plan_id


def _lines(study: Study, dataset: str, epochs: int | None, cells: Cells) -> tuple[Line, ...]:
    """The rows that can be run like this; none where the base was not, but in a table."""
    lines: list[Line] = []
    labels: dict[str, str] = {}  # under which a plan came up first
    for row, label in zip(study.rows, _labels(study.rows)):
        config, plan = planned_on(replace(row, label="", levels=()), dataset, epochs, study.holdout)
        cell = cells.get(plan)
        if cell is None and row is study.base and study.kind != "table":
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


def _is_a_row_of(base: Line, study: Study) -> bool:
    """No other base of a study of changes: compact-cls is what the study of poolings makes of compact."""
    dataset, epochs = base.config.dataset, base.config.recipe.epochs
    planned = {planned_on(row, dataset, epochs, study.holdout)[1] for row in study.rows}
    return study.kind == "changes" and base.plan_id in planned


def _without_parts(found: Sequence[Finding]) -> list[Finding]:
    """Without those whose every cell is shown elsewhere: in another one of the study (the budget of one row is found
    again as a budget of all), or, where it is a small form, in a study in its own right."""
    ranked = sorted(found, key=lambda one: (-len(one.plan_ids), bool(one.moved_to), one.quick))
    parts = {id(one) for place, one in enumerate(ranked) if any(_shows(other, one) for other in ranked[:place])}
    return [one for one in found if id(one) not in parts]


def _shows(other: Finding, one: Finding) -> bool:
    in_its_own_right = one.quick and not other.quick
    alike = one.setting == other.setting and (one.study_name == other.study_name or in_its_own_right)
    return alike and one.plan_ids <= other.plan_ids


def _named(found: Sequence[Finding]) -> list[Finding]:
    """The study's name, and whatever is not the same in all of its findings."""
    named = []
    for name, group in groupby(found, key=lambda one: one.study_name):
        of_study = list(group)
        words = [_words(one) for one in of_study]
        telling = [place for place, column in enumerate(zip(*words)) if len(set(column)) > 1]
        for one, own in zip(of_study, words):
            named.append(replace(one, name="-".join([name, *filter(None, (own[place] for place in telling))])))
    return named


def _words(one: Finding) -> tuple[str, ...]:
    dataset, precision, compiled = one.setting
    epochs = "" if one.epochs is None else f"e{one.epochs}"
    form = "quick" if one.quick else "", one.moved_to.replace(" ", "-")
    return dataset, *form, epochs, precision, "compiled" if compiled else "eager"


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
