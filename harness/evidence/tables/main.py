"""The two tables of results: the main one has a row for each variant and recipe, the long one a row for each cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller

from harness.datasets import title
from harness.evidence.cells import (
    Cell,
    Costs,
    Evidence,
    Row,
    cost_of_cell,
    cost_of_plain,
    count,
    datasets_of,
    in_order,
    rows_of,
)
from harness.evidence.conclusions import best_sentence
from harness.evidence.effects import best_of
from harness.evidence.findings import planned_on
from harness.evidence.quality import finite
from harness.evidence.tables.captions import cell_columns, different_data, flag, made_with
from harness.evidence.writing import (
    HOLE,
    Columns,
    Table,
    devices_text,
    half_width,
    joined,
    mean,
    mean_difference,
    mean_minutes,
    scaled,
    sentences,
    spread,
    whole,
)
from harness.statistics.intervals import LEVEL
from harness.study import Row as PlannedRow
from harness.study import Study


@dataclass(frozen=True)
class Line:
    """A row of the main table, and the study's plan for it if it has one."""

    row: Row
    planned: PlannedRow | None
    datasets: Sequence[str]  # the columns of the table

    def cost(self, name: str, costs: Costs) -> float | None:
        """On the first data set where it is known: of its runs there, else of the variant as the catalogue has it."""
        settings = [cell.overrides for cell in self.row.cells] or [self.planned.settings if self.planned else ()]
        for dataset in self.datasets:
            cell = self.row.on.get(dataset)
            plain = cost_of_plain(costs, self.row.variant, settings[0], dataset)
            if (value := (cost_of_cell(cell, costs) if cell else plain).get(name)) is not None:
                return value
        return None

    @property
    def epochs(self) -> str:
        """Those of its runs, or those that are planned where there is none."""
        epochs = [self.row.on[name].epochs for name in self.datasets if name in self.row.on]
        if not epochs and self.planned and (found := planned_on(self.planned, self.datasets[0], None, 0.0)):
            epochs = [found.recipe.epochs]
        return joined(map(whole, epochs), " / ")

    def accuracy(self, dataset: str) -> str:
        cell = self.row.on.get(dataset)
        return spread(cell.accuracies, len(cell.failed)) + flag(cell) if cell else HOLE

    def by_seed(self, dataset: str) -> dict[int, float] | None:
        return self.row.on[dataset].by_seed("test") if dataset in self.row.on else None

    def minutes(self, device: str) -> str:
        """One text for each data set; a cell that ran elsewhere, or not alone, has no time here."""
        cells = [self.row.on.get(name) for name in self.datasets]
        here = [cell if cell and cell.timed_device == device else None for cell in cells]
        texts = [mean_minutes(cell.timed("train_seconds", 1 / 60)) if cell else HOLE for cell in here]
        return " / ".join(texts) if set(texts) != {HOLE} else HOLE

    @property
    def devices(self) -> str:
        return devices_text(sorted({name for cell in self.row.cells for name in cell.devices}))


def main_table(evidence: Evidence, study: Study) -> Table:
    datasets, planned = datasets_of(evidence.cells, study), {row.name: row for row in study.rows}
    rows = rows_of(evidence.cells, study)
    lines = [Line(row, planned.get((row.variant, row.recipe)), datasets) for row in rows]
    devices = sorted({cell.timed_device or "" for cell in evidence.cells if cell.timed("train_seconds")})
    heads = [f"minutes per run, {device}" for device in devices] if len(devices) > 1 else ["minutes per run"]
    columns: Columns[Line] = {
        "variant": lambda line: line.row.variant,
        "recipe": lambda line: line.row.recipe,
        "epochs": lambda line: line.epochs,
        "params (M)": lambda line: scaled(line.cost("params", evidence.costs), 1e6),
        "MACs (G)": lambda line: scaled(line.cost("macs", evidence.costs), 1e9),
        **{f"{title(name)} (%)": methodcaller("accuracy", name) for name in datasets},
        **{head: methodcaller("minutes", device) for head, device in zip(heads, devices or [""])},
        "device": lambda line: line.devices,
    }
    best = {f"{title(name)} (%)": best_of([line.by_seed(name) for line in lines]) for name in datasets}
    bold = {(found.row, [*columns].index(head)) for head, found in best.items() if found.row is not None}
    told = best_sentence({head.removesuffix(" (%)"): found for head, found in best.items()})
    return Table.of("main", columns, lines, _caption(evidence, study, datasets, told), bold=frozenset(bold))


def _caption(evidence: Evidence, study: Study, datasets: Sequence[str], told_of_best: str) -> str:
    order = ", ".join(map(title, datasets))
    digests: dict[str, set[str]] = {}
    for cell in evidence.cells:
        digests.setdefault(cell.dataset, set()).update(cell.data_digests)
    copies = {title(name): len(digests[name]) for name in datasets if len(digests.get(name, ())) > 1}
    return sentences(
        "Test accuracy after the last planned epoch: mean ± half-width of the "
        f"{LEVEL:.0%} t-interval (number of seeds). {count(len(study.seeds), 'seed')} planned for each cell; {HOLE} "
        "marks what is missing.",
        told_of_best,
        f"Parameters and MACs are those for {title(datasets[0])}, else for the row's first data set.",
        f"Minutes are for training only, in the order {order}, where all seeds of a cell ran alone on one device.",
        made_with(evidence.cells, "device", "n", "epochs"),
        evidence.source,
        different_data(evidence.cells),
        *(f"Runs on {name} saw {number} different copies of the data." for name, number in copies.items()),
    )


# --- every cell ------------------------------------------------------------------------------------------------------


def cells_table(evidence: Evidence, study: Study) -> Table:
    columns: Columns[Cell] = {
        **cell_columns(lambda cell: cell),
        "n": lambda cell: str(len(cell.accuracies)),
        "failed": lambda cell: str(len(cell.failed)),
        "accuracy (%)": lambda cell: mean(cell.accuracies),
        "± (%)": lambda cell: half_width(cell.accuracies),
        "best test epoch (%)": lambda cell: mean(cell.measured("best_test_accuracy", 100)),
        "best - last (%)": lambda cell: mean_difference([best - last for last, best in last_and_best(cell)]),
        "NLL": lambda cell: mean(cell.measured("test_nll"), ".3f"),
        "epochs": lambda cell: whole(cell.epochs),
        "images seen": lambda cell: mean(cell.measured("images_seen"), ",.0f"),
        "train minutes": lambda cell: mean(cell.timed("train_seconds", 1 / 60)),
        "images/s": lambda cell: mean(cell.timed("images_per_second"), ",.0f"),
        "peak memory (MB)": lambda cell: mean(cell.timed("peak_memory_bytes", 1e-6), ",.0f"),
        "precision": lambda cell: str(cell.setting("precision") or HOLE),
        "compiled": lambda cell: "yes" if cell.setting("compile") else "no",
        "device": lambda cell: devices_text(cell.devices),
        "label": lambda cell: joined(sorted({label for run in cell.all_runs if (label := run.config.get("label"))})),
    }
    caption = sentences(
        "Every cell: test accuracy after the last planned epoch with its interval, and beside it what the best test "
        "epoch would have given; nothing is chosen by it. Means over n seeds.",
        made_with(evidence.cells, "device", "precision", "n", "epochs", "images"),
        evidence.source,
    )
    return Table.of("cells", columns, in_order(evidence.cells, study), caption)


def last_and_best(cell: Cell) -> list[tuple[float, float]]:
    """Test accuracy after the last epoch and the best one, in percent, of each run that has both."""
    pairs = ([finite(run.result.get(name)) for name in ("test_accuracy", "best_test_accuracy")] for run in cell.runs)
    return [(100 * last, 100 * best) for last, best in pairs if last is not None and best is not None]
