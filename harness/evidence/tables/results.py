"""The tables of results: the main one has a row for each variant and recipe, the long one has a row for each cell, and
one sets the numbers that others printed beside ours, each under the same recipe and budget."""

from collections.abc import Callable, Sequence

from harness.datasets import title
from harness.evidence.captions import best_sentence, different_data, flag, made_with
from harness.evidence.cells import (
    Cell,
    Costs,
    Evidence,
    Row,
    cost_of_cell,
    cost_of_plain,
    count,
    datasets_of,
    grouped,
    in_order,
    rows_of,
)
from harness.evidence.effects import best_of
from harness.evidence.findings import planned_on
from harness.evidence.published import Pair, compared
from harness.evidence.quality import finite
from harness.evidence.writing import (
    HOLE,
    Columns,
    Item,
    Table,
    half_width,
    joined,
    mean,
    mean_difference,
    mean_minutes,
    scaled,
    sentences,
    signed,
    spread,
    whole,
)
from harness.statistics.intervals import LEVEL
from harness.study import Study


def main_table(evidence: Evidence, study: Study) -> Table:
    datasets, rows = datasets_of(evidence.cells, study), rows_of(evidence.cells, study)
    devices = sorted({cell.timed_device or "" for cell in evidence.cells if cell.timed("train_seconds")})
    heads = [f"minutes per run, {device}" for device in devices] if len(devices) > 1 else ["minutes per run"]
    columns: Columns[Row] = {
        "variant": lambda row: row.variant,
        "recipe": lambda row: row.recipe,
        "epochs": lambda row: _epochs(row, datasets),
        "params (M)": lambda row: scaled(_cost(row, datasets, evidence.costs, "params"), 1e6),
        "MACs (G)": lambda row: scaled(_cost(row, datasets, evidence.costs, "macs"), 1e9),
        **{f"{title(name)} (%)": lambda row, name=name: accuracy(row.on.get(name)) for name in datasets},
        **{head: lambda row, on=device: _minutes(row, datasets, on) for head, device in zip(heads, devices or [""])},
        "device": lambda row: devices_of(row.cells),
    }
    best = {
        name: best_of([row.on[name].by_seed("test") if name in row.on else None for row in rows]) for name in datasets
    }
    bold = {(of.row, [*columns].index(f"{title(name)} (%)")) for name, of in best.items() if of.row is not None}
    told = best_sentence({title(name): of for name, of in best.items()})
    return Table.of("main", columns, rows, _caption(evidence, study, datasets, told), bold=frozenset(bold))


def accuracy(cell: Cell | None) -> str:
    return spread(cell.accuracies, len(cell.failed)) + flag(cell) if cell else HOLE


def _epochs(row: Row, datasets: Sequence[str]) -> str:
    """Those of its runs, or those that are planned where there is none."""
    epochs = [row.on[name].epochs for name in datasets if name in row.on]
    if not epochs and row.planned and (config := planned_on(row.planned, datasets[0], None, 0.0)[0]):
        epochs = [config.recipe.epochs]
    return joined(map(whole, epochs), " / ")


def _cost(row: Row, datasets: Sequence[str], costs: Costs, name: str) -> float | None:
    """On the first data set where it is known: of its runs there, else of the variant as the catalogue has it."""
    settings = [cell.overrides for cell in row.cells] or [row.planned.settings if row.planned else ()]
    for dataset in datasets:
        cell = row.on.get(dataset)
        known = cost_of_cell(cell, costs) if cell else cost_of_plain(costs, row.variant, settings[0], dataset)
        if (value := known.get(name)) is not None:
            return value
    return None


def _minutes(row: Row, datasets: Sequence[str], device: str) -> str:
    """One text for each data set; a cell that ran elsewhere, or not alone, has no time here."""
    cells = [cell if (cell := row.on.get(name)) and cell.timed_device == device else None for name in datasets]
    texts = [mean_minutes(cell.timed("train_seconds", 1 / 60)) if cell else HOLE for cell in cells]
    return " / ".join(texts) if set(texts) != {HOLE} else HOLE


def devices_of(cells: Sequence[Cell]) -> str:
    """Their names may hold commas."""
    return joined(sorted({name for cell in cells for name in cell.devices}), " and ")


def _caption(evidence: Evidence, study: Study, datasets: Sequence[str], told_of_best: str) -> str:
    order = ", ".join(map(title, datasets))
    on = grouped(evidence.cells, lambda cell: cell.dataset)
    copies = {name: len(set().union(*(cell.data_digests for cell in on.get(name, ())))) for name in datasets}
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
        *(f"Runs on {title(name)} saw {n} different copies of the data." for name, n in copies.items() if n > 1),
    )


def cell_columns(cell_of: Callable[[Item], Cell]) -> Columns[Item]:
    """The first columns of a table with a row for each cell."""
    return {
        "variant": lambda item: cell_of(item).row[0],
        "recipe": lambda item: cell_of(item).row[1],
        "data set": lambda item: title(cell_of(item).dataset),
    }


# --- every cell ------------------------------------------------------------------------------------------------------


def cells_table(evidence: Evidence, study: Study) -> Table:
    columns: Columns[Cell] = {
        **cell_columns(lambda cell: cell),
        "n": lambda cell: str(len(cell.accuracies)),
        "failed": lambda cell: str(len(cell.failed)),
        "accuracy (%)": lambda cell: mean(cell.accuracies),
        "± (%)": lambda cell: half_width(cell.accuracies),
        "best test epoch (%)": lambda cell: mean(cell.measured("best_test_accuracy", 100)),
        "best - last (%)": lambda cell: mean_difference(gains(cell)),
        "NLL": lambda cell: mean(cell.measured("test_nll"), ".3f"),
        "epochs": lambda cell: whole(cell.epochs),
        "images seen": lambda cell: mean(cell.measured("images_seen"), ",.0f"),
        "train minutes": lambda cell: mean(cell.timed("train_seconds", 1 / 60)),
        "images/s": lambda cell: mean(cell.timed("images_per_second"), ",.0f"),
        "peak memory (MB)": lambda cell: mean(cell.timed("peak_memory_bytes", 1e-6), ",.0f"),
        "precision": lambda cell: str(cell.setting("precision") or HOLE),
        "compiled": lambda cell: "yes" if cell.setting("compile") else "no",
        "device": lambda cell: devices_of([cell]),
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


def gains(cell: Cell) -> list[float]:
    """By how much the best epoch is above the last."""
    return [best - last for last, best in last_and_best(cell)]


# --- the numbers that others printed ----------------------------------------------------------------------------------


def published_table(evidence: Evidence) -> Table:
    pairs = compared(evidence.cells)
    columns: Columns[Pair] = {
        "source": lambda pair: pair.published.source,
        "printed": lambda pair: pair.published.printed or HOLE,
        "variant": _variant,
        "data set": lambda pair: title(pair.published.dataset),
        "published (%)": lambda pair: f"{pair.published.accuracy:.2f}" if pair.published.accuracy else "none published",
        "ours (%)": lambda pair: accuracy(pair.cell),
        "difference": lambda pair: HOLE if pair.difference is None else signed(pair.difference),
        "epochs, published / ours": lambda pair: f"{pair.published.epochs} / {whole(pair.cell and pair.cell.epochs)}",
        "verdict": lambda pair: pair.verdict,
        "note": lambda pair: pair.published.note or HOLE,
        "run ids": _run_ids,
    }
    ours = [pair.cell for pair in pairs if pair.cell]
    caption = sentences(
        "Published accuracy, the day on which it was first printed, and ours under the published recipe and budget: "
        "mean ± half-width of the 95% t-interval (number of seeds). Reached: our mean is at least the published "
        "number; missed: it is not; open: no finished run. Most sources give their best test epoch, we give the last. "
        "S1 trained in fp16, the others in fp32; RECIPES.md lists what else deviates.",
        made_with(ours, "n", "epochs"),
        evidence.source,
        different_data(ours),
    )
    return Table.of("published", columns, pairs, caption, too_wide_for_print=("run ids",))


def _variant(pair: Pair) -> str:
    note = pair.cell.note if pair.cell else ""
    return f"{pair.published.variant} [{note}]" if note else pair.published.variant


def _run_ids(pair: Pair) -> str:
    runs = pair.cell.runs if pair.cell else ()
    return ", ".join(run.config.get("run_id") or run.folder.name for run in runs) or HOLE
