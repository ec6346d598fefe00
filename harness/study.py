"""What a study is: rows, a base and its changes of one field, or a grid of factors. Planning one needs neither torch
nor data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from harness.config import RunConfig, resolve
from harness.datasets import Dataset
from harness.recipes import PUBLISHED
from variants.fields import UsageError

SEEDS = (0, 1, 2, 3, 4)
AUGMENT, EPOCHS = "recipe.augment", "recipe.epochs"


@dataclass(frozen=True)
class Row:
    """One line of a study: a variant under a recipe with some settings, on any data set."""

    variant: str
    recipe: str
    settings: tuple[str, ...] = ()  # as `harness.run --set` takes them
    label: str = ""  # what distinguishes it from the other rows of its study
    levels: tuple[str, ...] = ()  # in a grid: its level of each factor

    @property
    def name(self) -> tuple[str, str]:
        """Variant and recipe, as its records and the tables have them."""
        recipe = "published" if PUBLISHED.get(self.variant) == self.recipe else self.recipe
        return self.variant, ", ".join((recipe, *sorted(self.settings)))

    @property
    def title(self) -> str:
        return self.label or " ".join(self.name)

    def set_to(self, path: str) -> str | None:
        """The value that this row itself sets a field to, if it does."""
        return next((text.partition("=")[2] for text in self.settings if text.startswith(f"{path}=")), None)

    def but(self, change: str = "", **fields: Any) -> "Row":
        """A copy with the words of `change`: `variant=timm`, `recipe=s1`, or a setting in place of an earlier one."""
        row = replace(self, **fields)
        for word in change.split():
            path, _, value = word.partition("=")
            if path in ("variant", "recipe"):
                row = replace(row, **{path: value})
            else:
                others = (text for text in row.settings if text.partition("=")[0] != path)
                row = replace(row, settings=(*others, word))
        return row

    def resolve(self, dataset: Dataset, *, epochs: int | None = None, **rest: Any) -> RunConfig:
        """`epochs` replaces what the row sets, and warm-up keeps its share; the rest is for `config.resolve`."""
        settings = [text for text in self.settings if epochs is None or not text.startswith(f"{EPOCHS}=")]
        settings = [_allowed(text, dataset) for text in settings]
        return resolve(self.variant, dataset, self.recipe, epochs=epochs, settings=settings, **rest)


def _allowed(setting: str, dataset: Dataset) -> str:
    """No study flips images of digits, whatever data set it is moved to."""
    path, _, steps = setting.partition("=")
    if path != AUGMENT or dataset.flips:
        return setting
    return f"{path}={','.join(step for step in steps.split(',') if step != 'flip') or 'none'}"


@dataclass(frozen=True)
class Study:
    """The first row of a study of changes or of a grid is its base. `quick` is its small form on embedded data."""

    question: str
    rows: tuple[Row, ...]
    datasets: tuple[str, ...] = ("c10",)
    seeds: tuple[int, ...] = SEEDS
    kind: str = "table"  # table | changes (each row differs from the base in one field) | grid (of factors)
    factors: tuple[str, ...] = ()  # of a grid: what each of its rows' levels is a level of
    holdout: float = 0.0
    quick: "Study | None" = field(default=None, compare=False)

    @property
    def base(self) -> Row:
        return self.rows[0]

    @property
    def run_count(self) -> int:
        return len(self.rows) * len(self.datasets) * len(self.seeds)

    def narrowed(
        self,
        variants: Sequence[str] | None = None,
        recipes: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> "Study":
        """The same study with fewer rows, or with others: a variant or recipe that has no row here gets one in a table;
        in other studies one may replace the base's."""
        if self.kind == "table":
            rows = self._with_rows_for(variants, recipes) if variants or recipes else self.rows
        else:
            rows = tuple(_moved(_moved(self.rows, "variant", variants), "recipe", recipes))
        seeds = self.seeds if seeds is None else tuple(seeds)
        return replace(self, rows=rows, datasets=tuple(datasets or self.datasets), seeds=seeds)

    def _with_rows_for(self, variants: Sequence[str] | None, recipes: Sequence[str] | None) -> tuple[Row, ...]:
        wanted = product(recipes or [row.recipe for row in self.rows], variants or [row.variant for row in self.rows])
        grid = dict.fromkeys((v, r) for r, v in wanted if r != "published" or v in PUBLISHED)
        known = {(row.variant, row.recipe) for row in self.rows}
        rows = tuple(row for row in self.rows if (row.variant, row.recipe) in grid)
        return rows + tuple(Row(*pair) for pair in grid if pair not in known)


def _moved(rows: Sequence[Row], what: str, wanted: Sequence[str] | None) -> Sequence[Row]:
    """The rows that have one of the wanted; where all rows have the same one, another may replace it."""
    having = dict.fromkeys(getattr(row, what) for row in rows)
    if not wanted or set(wanted) == set(having):
        return rows
    if len(having) == len(wanted) == 1:
        return [replace(row, **{what: wanted[0]}) for row in rows]
    if absent := [name for name in wanted if name not in having]:
        raise UsageError(
            f"this study has no row with {what} {', '.join(absent)}, only with {', '.join(having)}"
            + ("; give one name alone and it takes that place" if len(having) == 1 else "")
        )
    return [row for row in rows if getattr(row, what) in wanted]


def changes(question: str, base: Row, settings: Mapping[str, str], **rest: Any) -> Study:
    """`settings` are label -> the one setting that changes."""
    rows = (base.but(one, label=label) for label, one in settings.items())
    return Study(question, (base, *rows), kind="changes", **rest)


def grid(question: str, base: Row, factors: Mapping[str, Mapping[str, str]], **rest: Any) -> Study:
    """`factors` are name -> its levels; a level is a name -> what it changes, perhaps several fields at once."""
    rows = []
    for levels in product(*(levels.items() for levels in factors.values())):
        names = tuple(name for name, _ in levels)
        label = ", ".join(f"{factor}={name}" for factor, name in zip(factors, names))
        rows.append(base.but(" ".join(change for _, change in levels), label=label, levels=names))
    return Study(question, tuple(rows), kind="grid", factors=tuple(factors), **rest)


def changed_fields(base: RunConfig, other: RunConfig) -> list[str]:
    """The dotted fields in which two planned runs differ; a seed is no part of a plan."""
    first, second = _dotted(base.plan), _dotted(other.plan)
    absent = object()
    return sorted(name for name in first | second if first.get(name, absent) != second.get(name, absent))


def _dotted(plan: Mapping[str, Any]) -> dict[str, Any]:
    parts = {f"{part}.{name}": value for part in ("variant", "recipe") for name, value in plan[part].items()}
    return parts | {name: value for name, value in plan.items() if name not in ("variant", "recipe")}
