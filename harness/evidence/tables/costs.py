"""The tables of costs: what each variant costs to run, and what harness.bench measured of this suite's own speed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.datasets import DATASETS, title
from harness.evidence.cells import Cell, Costs, Evidence, changed_fields_of, cost_of_cell, grouped
from harness.evidence.quality import finite
from harness.evidence.tables.results import cell_columns
from harness.evidence.writing import HOLE, Columns, Table, sentences, whole
from harness.records.benchmarks import Comparison, read_comparisons
from harness.records.read import Run

# --- variants --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CostLine:
    """A variant at one shape of data, which some data sets share."""

    variant: str
    pixels: int | None
    classes: int | None
    datasets: tuple[str, ...]
    values: Mapping[str, float | None]


def cost_lines(cells: Sequence[Cell], costs: Costs) -> list[CostLine]:
    """Of the catalogue and of each altered variant that was run, data set by data set. Two lines of one variant and
    shape differ in what they cost."""
    shapes = {name: (dataset.image_size, dataset.num_classes) for name, dataset in DATASETS.items()}
    found = [CostLine(variant, *shapes[name], (name,), values) for (variant, name), values in costs.items()]
    found = sorted([*found, *(_of_cell(cell, costs) for cell in cells)], key=lambda one: _place(one.datasets[0]))
    alike = grouped(found, lambda one: (one.variant, one.pixels, one.classes, *one.values.values()))
    return [replace(of[0], datasets=tuple(dict.fromkeys(one.datasets[0] for one in of))) for of in alike.values()]


def _of_cell(cell: Cell, costs: Costs) -> CostLine:
    shape, label = cell.setting("variant") or {}, ", ".join((cell.variant, *changed_fields_of(cell.overrides)))
    pixels, classes = shape.get("image_size"), shape.get("num_classes")
    return CostLine(label, pixels, classes, (cell.dataset,), cost_of_cell(cell, costs))


def _place(dataset: str) -> tuple[int, str]:
    """The known ones as they are listed, then a person's own."""
    known = list(DATASETS)
    return known.index(dataset) if dataset in known else len(known), dataset


def cost_table(evidence: Evidence) -> Table:
    columns: Columns[CostLine] = {
        "variant": lambda line: line.variant,
        "pixels": lambda line: str(line.pixels or HOLE),
        "classes": lambda line: str(line.classes or HOLE),
        "data sets": lambda line: ", ".join(map(title, line.datasets)),
        "params": lambda line: whole(line.values["params"]),
        "params without head": lambda line: whole(line.values["params_without_head"]),
        "MACs": lambda line: whole(line.values["macs"]),
        "MACs without head": lambda line: whole(line.values["macs_without_head"]),
        "attention share of MACs (%)": _attention_share,
        "activations without head": lambda line: whole(line.values["activations_without_head"]),
    }
    caption = sentences(
        "What each variant costs at each shape of data. MACs (multiply-accumulates; FLOPs = 2 x MACs) are those of one "
        "image and include the attention products. Activations are the outputs of layers and products, counted with "
        "explicit attention.",
        "Variants of the catalogue were counted without a run, others are as their runs recorded them."
        if evidence.costs
        else "",
        evidence.source,
    )
    return Table.of("cost", columns, sorted(cost_lines(evidence.cells, evidence.costs), key=_order), caption)


def _order(line: CostLine) -> tuple:
    return _place(line.datasets[0]), line.values["params"] or 0, line.variant, line.datasets


def _attention_share(line: CostLine) -> str:
    macs, attention = line.values["macs"], line.values["attention_macs"]
    return f"{100 * attention / macs:.1f}" if macs and attention is not None else HOLE


# --- seeds trained as one --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedsLine:
    """Seeds of a cell that one process trained together from beginning to end, with nobody beside them."""

    cell: Cell
    device: str
    seeds: int
    minutes: float  # of all, evaluation included


def seeds_lines(cells: Sequence[Cell]) -> list[SeedsLine]:
    lines = []
    for cell in cells:
        for seeds, runs in grouped(cell.runs, trained_together).items():
            seconds = [finite(runs[0].result.get(name)) for name in ("train_seconds", "eval_seconds")]
            if seeds and None not in seconds:
                device = str(runs[0].result["sessions"][0].get("device_name"))
                lines.append(SeedsLine(cell, device, len(seeds), sum(s or 0.0 for s in seconds) / 60))
    return lines


def trained_together(run: Run) -> tuple[int, ...]:
    """No seed where times of several processes are mixed, somebody else computed there, or batches came in parts."""
    sessions = run.result.get("sessions") or ()
    if len(sessions) != 1 or sessions[0].get("shared_device") is True or "accumulate" in sessions[0]:
        return ()
    return tuple(sessions[0].get("seeds", ()))


def seeds_table(evidence: Evidence) -> Table:
    columns: Columns[SeedsLine] = {
        **cell_columns(lambda line: line.cell),
        "device": lambda line: line.device,
        "seeds at once": lambda line: str(line.seeds),
        "minutes for all": lambda line: f"{line.minutes:.1f}",
        "seeds per hour": lambda line: f"{60 * line.seeds / line.minutes:.1f}",
    }
    caption = sentences(
        "What seeds cost that were trained as one (harness.sweep --seeds-at-once), evaluation included. No other table "
        "shows times of these runs.",
        evidence.source,
    )
    return Table.of("seeds-at-once", columns, seeds_lines((*evidence.cells, *evidence.validation)), caption)


# --- benchmarks ------------------------------------------------------------------------------------------------------

Measured = Sequence[tuple[str, Sequence[Comparison]]]  # by device
OnDevice = tuple[str, Comparison]

TRAINING = {
    "step (ms)": ("step_ms", 1.0),
    "FLOPs floor (ms)": ("flops_floor_ms", 1.0),
    "bytes floor (ms)": ("bytes_floor_ms", 1.0),
    "share of the bound (%)": ("share_of_bound", 100.0),
    "FLOP utilisation (%)": ("model_flop_utilisation", 100.0),
    "pipeline (% of an epoch)": ("pipeline_share", 100.0),
    "peak memory (MB)": ("peak_memory_bytes", 1e-6),
    "J per 1,000 images": ("joules_per_1000_images", 1.0),
    "compiling (s)": ("compile_seconds", 1.0),
}


def read_measured(folder: Path) -> Measured:
    return [read_comparisons(path) for path in sorted(folder.glob("*.json"))]


def benchmark_table(measured: Measured) -> Table:
    columns: Columns[OnDevice] = {
        "device": lambda pair: pair[0],
        "benchmark": lambda pair: pair[1].name,
        "unit": lambda pair: pair[1].unit,
        "ours": lambda pair: _speed(pair[1].ours),
        "baseline": lambda pair: _speed(pair[1].baseline),
        "times as fast": lambda pair: _ratio(pair[1]),
        "rounds": lambda pair: str(pair[1].rounds),
        "goal": lambda pair: HOLE if pair[1].goal is None else ratio_text(pair[1].goal),
        "reached": lambda pair: {None: HOLE, True: "yes", False: "no"}[pair[1].reached],
        "against": lambda pair: pair[1].baseline_name,
    }
    caption = (
        "Ours against a baseline, timed in turn in one process: the median over the rounds of how many times as fast "
        "ours was, with the slowest and fastest round. Speeds are medians; more is better. A goal is what this project "
        f"had set itself, {HOLE} where it had set none. Measured with python -m harness.bench."
    )
    rows = [(device, one) for device, comparisons in measured for one in comparisons]
    return Table.of("benchmarks", columns, rows, caption, too_wide_for_print=("against",))


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(one: Comparison) -> str:
    return f"{ratio_text(one.ratio)} ({ratio_text(one.ratio_low)} to {ratio_text(one.ratio_high)})"


def ratio_text(value: float) -> str:
    """Thousandths near 1, where they decide."""
    return f"{value:.3f}" if value < 2 else f"{value:.1f}"


def training_table(measured: Measured) -> Table:
    """What the steps of harness.bench train cost, and how far that is from what the device could do."""
    columns: Columns[OnDevice] = {
        "device": lambda pair: pair[0],
        "training": lambda pair: pair[1].name.removeprefix("train "),
        **{head: _fact(*column) for head, column in TRAINING.items()},
    }
    caption = (
        "A training step beside its two floors: its FLOPs over the measured matrix rate of the device, and an estimate "
        "of the bytes it must move over the measured bandwidth; the slower one is the bound. "
        f"{HOLE} was not measured, or cannot be."
    )
    rows = [(device, one) for device, comparisons in measured for one in comparisons if "step_ms" in one.facts]
    return Table.of("training-speed", columns, rows, caption)


def _fact(name: str, factor: float) -> Callable[[OnDevice], str]:
    def write(pair: OnDevice) -> str:
        value = pair[1].facts.get(name)
        return HOLE if value is None else f"{factor * value:,.1f}"

    return write
