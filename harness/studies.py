"""Owns the grids of cells by name: which variants, under which recipes, on which data sets, with which seeds.
Refuses to train or to read results; planning needs neither torch nor data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.recipes import PUBLISHED


@dataclass(frozen=True)
class Cell:
    """One square of a table, for one seed."""

    variant: str
    recipe: str
    dataset: str
    seed: int


@dataclass(frozen=True)
class Study:
    """Rows are (variant, recipe) pairs, cheapest first; columns are data sets; each square has every seed."""

    rows: tuple[tuple[str, str], ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]

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
            wanted_recipes = tuple(recipes or dict.fromkeys(recipe for _, recipe in rows))
            wanted = tuple(variants or dict.fromkeys(variant for variant, _ in rows))
            grid = [(v, r) for r in wanted_recipes for v in wanted if r != "published" or v in PUBLISHED]
            rows = tuple(sorted(grid, key=lambda row: rows.index(row) if row in rows else len(rows)))
        return Study(rows, tuple(datasets or self.datasets), tuple(self.seeds if seeds is None else seeds))

    def cells(self) -> list[Cell]:
        """Seed by seed, cheapest rows first, so that a complete one-seed table stands early."""
        return [
            Cell(variant, recipe, dataset, seed)
            for seed in self.seeds
            for variant, recipe in self.rows
            for dataset in self.datasets
        ]


STUDIES = {
    "main": Study(
        rows=(
            ("compact", "published"),
            ("compact", "common"),
            ("vanilla", "published"),
            ("timm", "common"),
            ("vanilla", "common"),
            ("patch2", "published"),
            ("patch2", "common"),
        ),
        datasets=("c10", "c100", "svhn"),
        seeds=(0, 1, 2, 3, 4),
    ),
    "quick": Study(
        rows=(("compact", "quick"), ("timm", "quick"), ("vanilla", "quick"), ("patch2", "quick")),
        datasets=("digits",),
        seeds=(0, 1),
    ),
}
