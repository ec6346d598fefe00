"""Owns the studies by name, as data: a table of rows, a base and its changes of one field, or a grid of factors.
Refuses to train or to read results; planning needs neither torch nor data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.config import RunConfig, resolve
from harness.datasets import Dataset
from harness.recipes import PUBLISHED

SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Row:
    """One line of a study: a cell without data set and seed."""

    variant: str
    recipe: str
    settings: tuple[str, ...] = ()  # as `harness.run --set` takes them
    label: str = ""  # what tells it from the other rows of its study
    levels: tuple[str, ...] = ()  # in a grid: its level of each factor

    @property
    def name(self) -> tuple[str, str]:
        """Variant and recipe as the tables call the group of its runs."""
        return self.variant, ", ".join((self.recipe, *sorted(self.settings)))

    def resolve(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        epochs: int | None = None,
        holdout: float = 0.0,
        precision: str = "fp32",
        compile: bool = False,
    ) -> RunConfig:
        return resolve(
            self.variant,
            dataset,
            self.recipe,
            seed=seed,
            precision=precision,
            compile=compile,
            epochs=epochs,
            holdout=holdout,
            settings=self.settings,
        )


@dataclass(frozen=True)
class Cell:
    """One square of a table, for one seed."""

    row: Row
    dataset: str
    seed: int
    holdout: float = 0.0


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

    def cells(self) -> list[Cell]:
        """Seed by seed, cheapest rows first, so that a complete one-seed table stands early."""
        return [
            Cell(row, dataset, seed, self.holdout)
            for seed in self.seeds
            for row in self.rows
            for dataset in self.datasets
        ]

    def narrowed(
        self,
        variants: Sequence[str] | None = None,
        recipes: Sequence[str] | None = None,
        datasets: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> "Study":
        """The same study for fewer, or for others: a variant or recipe that has no row here gets one."""
        rows = self.rows
        if variants or recipes:
            wanted_recipes = tuple(recipes or dict.fromkeys(row.recipe for row in rows))
            wanted = tuple(variants or dict.fromkeys(row.variant for row in rows))
            grid = [(v, r) for r in wanted_recipes for v in wanted if r != "published" or v in PUBLISHED]
            known = {(row.variant, row.recipe) for row in rows}
            rows = tuple(row for row in rows if (row.variant, row.recipe) in grid)
            rows += tuple(Row(*pair) for pair in grid if pair not in known)
        return replace(
            self,
            rows=rows,
            datasets=tuple(datasets or self.datasets),
            seeds=self.seeds if seeds is None else tuple(seeds),
        )


def changes(question: str, base: Row, settings: Mapping[str, str], **rest: object) -> Study:
    """`settings` are label -> the one setting that changes."""
    rows = [replace(base, settings=(*base.settings, one), label=label) for label, one in settings.items()]
    return Study(question, (base, *rows), kind="changes", **rest)  # type: ignore[arg-type]


STUDIES = {
    "main": Study(
        "What do the four families reach, under their own recipe and under a common one?",
        tuple(
            Row(variant, recipe)
            for variant, recipe in (
                ("compact", "published"),
                ("compact", "common"),
                ("vanilla", "published"),
                ("timm", "common"),
                ("vanilla", "common"),
                ("patch2", "published"),
                ("patch2", "common"),
            )
        ),
        datasets=("c10", "c100", "svhn"),
    ),
    "quick": Study(
        "Does the whole way work?",
        tuple(Row(variant, "quick") for variant in ("compact", "timm", "vanilla", "patch2")),
        datasets=("digits",),
        seeds=(0, 1),
    ),
    "pooling": changes(
        "Does pooling over the sequence beat a class token, and does either beat the mean?",
        Row("compact", "published", label="pool=seq"),
        {"pool=cls": "variant.pool=cls", "pool=mean": "variant.pool=mean"},
    ),
}
