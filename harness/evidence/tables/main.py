"""The two tables of results: the main one has a row for each variant and recipe, the long one a row for each cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller

from harness.datasets import title
from harness.evidence.cells.catalogue import Costs, cost_of_plain
from harness.evidence.cells.contrast import accuracy_by_seed
from harness.evidence.cells.groups import Evidence, Group, count
from harness.evidence.cells.numbers import finite
from harness.evidence.cells.rows import Row, cells_of, datasets_of, rows_of
from harness.evidence.findings.best import best_of, best_sentence
from harness.evidence.findings.forms import planned_on
from harness.evidence.tables.captions import cell_columns, different_data, flag, made_with
from harness.evidence.tables.costs import cost_of_group
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
        settings = [group.overrides for group in self.row.groups] or [self.planned.settings if self.planned else ()]
        for dataset in self.datasets:
            group = self.row.on.get(dataset)
            plain = cost_of_plain(costs, self.row.variant, settings[0], dataset)
            if (value := (cost_of_group(group, costs) if group else plain).get(name)) is not None:
                return value
        return None

    @property
    def epochs(self) -> str:
        """Those of its runs, or those that are planned where there is none."""
        epochs = [self.row.on[name].passes for name in self.datasets if name in self.row.on]
        if not epochs and self.planned and (found := planned_on(self.planned, self.datasets[0], None, 0.0)):
            epochs = [found.config.recipe.epochs]
        return joined(map(whole, epochs), " / ")

    def accuracy(self, dataset: str) -> str:
        group = self.row.on.get(dataset)
        return spread(group.accuracies, len(group.failed)) + flag(group) if group else HOLE

    def by_seed(self, dataset: str) -> dict[int, float] | None:
        return accuracy_by_seed(self.row.on[dataset], "test") if dataset in self.row.on else None

    def minutes(self, device: str) -> str:
        """One text for each data set; a cell that ran elsewhere, or not alone, has no time here."""
        groups = [self.row.on.get(name) for name in self.datasets]
        here = [group if group and group.timed_device == device else None for group in groups]
        texts = [mean_minutes(group.timed("train_seconds", 1 / 60)) if group else HOLE for group in here]
        return " / ".join(texts) if set(texts) != {HOLE} else HOLE

    @property
    def devices(self) -> str:
        return devices_text(sorted({name for group in self.row.groups for name in group.devices}))


def main_table(evidence: Evidence, study: Study) -> Table:
    datasets, planned = datasets_of(evidence.groups, study), {row.name: row for row in study.rows}
    rows = rows_of(evidence.groups, study)
    lines = [Line(row, planned.get((row.variant, row.recipe)), datasets) for row in rows]
    devices = sorted({group.timed_device or "" for group in evidence.groups if group.timed("train_seconds")})
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
    for group in evidence.groups:
        digests.setdefault(group.dataset, set()).update(group.data_digests)
    copies = {title(name): len(digests[name]) for name in datasets if len(digests.get(name, ())) > 1}
    return sentences(
        "Test accuracy after the last planned epoch: mean ± half-width of the "
        f"{LEVEL:.0%} t-interval (number of seeds). {count(len(study.seeds), 'seed')} planned for each cell; {HOLE} "
        "marks what is missing.",
        told_of_best,
        f"Parameters and MACs are those for {title(datasets[0])}, else for the row's first data set.",
        f"Minutes are for training only, in the order {order}, where all seeds of a cell ran alone on one device.",
        made_with(evidence.groups, "device", "n", "epochs"),
        evidence.source,
        different_data(evidence.groups),
        *(f"Runs on {name} saw {number} different copies of the data." for name, number in copies.items()),
    )


# --- every cell ------------------------------------------------------------------------------------------------------


def cells_table(evidence: Evidence, study: Study) -> Table:
    columns: Columns[Group] = {
        **cell_columns(lambda group: group),
        "n": lambda group: str(len(group.accuracies)),
        "failed": lambda group: str(len(group.failed)),
        "accuracy (%)": lambda group: mean(group.accuracies),
        "± (%)": lambda group: half_width(group.accuracies),
        "best test epoch (%)": lambda group: mean(group.measured("best_test_accuracy", 100)),
        "best - last (%)": lambda group: mean_difference([best - last for last, best in last_and_best(group)]),
        "NLL": lambda group: mean(group.measured("test_nll"), ".3f"),
        "epochs": lambda group: whole(group.passes),
        "images seen": lambda group: mean(group.measured("images_seen"), ",.0f"),
        "train minutes": lambda group: mean(group.timed("train_seconds", 1 / 60)),
        "images/s": lambda group: mean(group.timed("images_per_second"), ",.0f"),
        "peak memory (MB)": lambda group: mean(group.timed("peak_memory_bytes", 1e-6), ",.0f"),
        "precision": lambda group: str(group.setting("precision") or HOLE),
        "compiled": lambda group: "yes" if group.setting("compile") else "no",
        "device": lambda group: devices_text(group.devices),
        "label": _labels,
    }
    caption = sentences(
        "Every cell: test accuracy after the last planned epoch with its interval, and beside it what the best test "
        "epoch would have given; nothing is chosen by it. Means over n seeds.",
        made_with(evidence.groups, "device", "precision", "n", "epochs", "images"),
        evidence.source,
    )
    return Table.of("cells", columns, cells_of(evidence.groups, study), caption)


def _labels(group: Group) -> str:
    return joined(sorted({run.config["label"] for run in group.all_runs if run.config.get("label")}))


def last_and_best(group: Group) -> list[tuple[float, float]]:
    """Test accuracy after the last epoch and the best one, in percent, of each run that has both."""
    pairs = ([finite(run.result.get(name)) for name in ("test_accuracy", "best_test_accuracy")] for run in group.runs)
    return [(100 * last, 100 * best) for last, best in pairs if last is not None and best is not None]
