"""Owns the two tables of results: the main one (a row a variant and recipe) and the long one (a row a cell).
Refuses to judge by eye: what is bold, best.py's tests have told from the rest.
"""

from collections.abc import Mapping

from harness.datasets import title
from harness.evidence.cells import Cell, Costs, Evidence, Row, count, datasets_of, in_order, rows_of
from harness.evidence.conclusions import best_sentence
from harness.evidence.costs import cost_of_cell, cost_of_plain
from harness.evidence.effects import Best, best_of
from harness.evidence.findings import planned_on
from harness.evidence.quality import finite
from harness.evidence.tables.captions import flag, made_with, sentences
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import (
    DAGGER,
    devices_text,
    half_width,
    joined,
    mean,
    mean_difference,
    minutes,
    scaled,
    spread,
    whole,
)
from harness.statistics.intervals import LEVEL, mean_interval
from harness.study import Row as PlannedRow
from harness.study import Study

CELL_COLUMNS = (
    *("variant", "recipe", "data set", "n", "failed", "accuracy (%)", "± (%)"),
    *("best test epoch (%)", "best - last (%)", "NLL", "passes", "images seen"),
    *("train minutes", "images/s", "peak memory (MB)", "precision", "compiled", "device", "label"),
)


def main_table(evidence: Evidence, study: Study) -> Table:
    rows, planned = rows_of(evidence.cells, study), {row.name: row for row in study.rows}
    datasets = datasets_of(evidence.cells, study)
    devices = sorted({group.timed_device or "" for group in evidence.cells if group.timed("train_seconds")})
    times = [f"minutes per run, {device}" for device in devices] if len(devices) > 1 else ["minutes per run"]
    columns = ("variant", "recipe", "passes", "params (M)", "MACs (G)", *(f"{title(name)} (%)" for name in datasets))
    body = [
        (
            *_head(row, datasets, planned, evidence.costs),
            *(_accuracy(row.on.get(name)) for name in datasets),
            *(_minutes(row, datasets, device) for device in devices or [""]),
            devices_text(sorted({name for group in row.cells for name in group.devices})),
        )
        for row in rows
    ]
    best = {name: _best(rows, name) for name in datasets}
    bold = {(found.row, columns.index(f"{title(name)} (%)")) for name, found in best.items() if found.row is not None}
    caption = _caption(evidence, study, datasets, best)
    return Table("main", (*columns, *times, "device"), tuple(body), caption, bold=frozenset(bold))


def cells_table(evidence: Evidence, study: Study) -> Table:
    body = [_cell(group) for group in in_order(evidence.cells, study)]
    caption = sentences(
        "Every cell: test accuracy after the last planned pass with its interval, and beside it what the best test "
        "epoch would have printed; nothing is chosen by it. Means over n seeds.",
        made_with(evidence.cells, "device", "precision", "n", "passes", "images"),
        evidence.source,
    )
    return Table("cells", CELL_COLUMNS, tuple(body), caption)


def _head(
    row: Row, datasets: list[str], planned: Mapping[tuple[str, str], PlannedRow], costs: Costs
) -> tuple[str, ...]:
    """Of a row that nobody ran, what is planned and what its variant costs."""
    ordered = [row.on[name] for name in datasets if name in row.on]
    plan = planned.get((row.variant, row.recipe))
    settings = ordered[0].overrides if ordered else plan.settings if plan else ()
    known = [
        cost_of_cell(row.on[name], costs) if name in row.on else cost_of_plain(costs, row.variant, settings, name)
        for name in datasets
    ]
    params, macs = (
        next((value for cost in known if (value := cost.get(name)) is not None), None) for name in ("params", "macs")
    )
    passes = [group.epochs for group in ordered] or [_planned_passes(plan, datasets)]
    return row.variant, row.recipe, joined(map(whole, passes), " / "), scaled(params, 1e6), scaled(macs, 1e9)


def _planned_passes(row: PlannedRow | None, datasets: list[str]) -> int | None:
    found = planned_on(row, datasets[0], None, 0.0) if row else None
    return found.recipe.epochs if found else None


def _best(rows: list[Row], dataset: str) -> Best:
    return best_of([row.on[dataset].by_seed("test") if dataset in row.on else None for row in rows])


def _accuracy(group: Cell | None) -> str:
    if group is None:
        return HOLE
    return spread(group.accuracies, len(group.failed)) + flag(group)


def _minutes(row: Row, datasets: list[str], device: str) -> str:
    """One text for each data set of the row; a group that ran elsewhere, or not alone, has no time here."""
    texts = []
    for group in (row.on.get(name) for name in datasets):
        times = group.timed("train_seconds", 1 / 60) if group and group.timed_device == device else []
        texts.append(minutes(mean_interval(times)[0]) if times else HOLE)
    return " / ".join(texts) if set(texts) != {HOLE} else HOLE


def _caption(evidence: Evidence, study: Study, datasets: list[str], best: dict[str, Best]) -> str:
    order = ", ".join(map(title, datasets))
    interval = f"half-width of the {LEVEL:.0%} t-interval"
    told = [
        f"Test accuracy after the last planned pass: mean ± {interval} (number of seeds).",
        f"{count(len(study.seeds), 'seed')} planned for each cell; {HOLE} marks what is missing.",
        best_sentence({title(name): found for name, found in best.items()}),
        f"Parameters and MACs are those for {title(datasets[0])}, else for the row's first data set.",
        f"Minutes are for training only, in the order {order}, where all seeds of a cell ran alone on one device.",
        made_with(evidence.cells, "device", "n", "passes"),
        evidence.source,
    ]
    if any(map(flag, evidence.cells)):
        told.append(f"{DAGGER} The runs of this cell did not all see the same data (their data digests differ).")
    for name in datasets:
        digests = {digest for group in evidence.cells if group.dataset == name for digest in group.data_digests}
        if len(digests) > 1:
            told.append(f"Runs on {title(name)} saw {len(digests)} different copies of the data.")
    return sentences(*told)


def _cell(group: Cell) -> tuple[str, ...]:
    pairs = [[finite(run.result.get(name)) for name in ("best_test_accuracy", "test_accuracy")] for run in group.runs]
    gains = [100 * (best - last) for best, last in pairs if best is not None and last is not None]
    labels = sorted({run.config["label"] for run in group.all_runs if run.config.get("label")})
    return (
        *(*group.row, title(group.dataset), str(len(group.accuracies)), str(len(group.failed))),
        *(mean(group.accuracies), half_width(group.accuracies)),
        *(mean(group.measured("best_test_accuracy", 100)), mean_difference(gains)),
        *(mean(group.measured("test_nll"), ".3f"), whole(group.epochs), mean(group.measured("images_seen"), ",.0f")),
        *(mean(group.timed("train_seconds", 1 / 60)), mean(group.timed("images_per_second"), ",.0f")),
        *(mean(group.timed("peak_memory_bytes", 1e-6), ",.0f"), str(group.setting("precision") or HOLE)),
        *("yes" if group.setting("compile") else "no", devices_text(group.devices), joined(labels)),
    )
