"""Owns what harness.bench measured, by device, and its tables: every comparison, and the floors under a training step.
Refuses to hide a goal that was missed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.evidence.writing.table import HOLE, Table
from harness.records.benchmarks import Comparison, read_comparisons

Measured = Sequence[tuple[str, Sequence[Comparison]]]  # by device

COLUMNS = ("device", "benchmark", "unit", "ours", "baseline", "times as fast", "rounds", "goal", "reached", "against")
CAPTION = (
    "Ours against a baseline, timed in turn in one process: the median over the rounds of how many times as fast ours "
    "was, with the lowest and highest round. Speeds are medians; more is better. A goal is what this project had set "
    f"itself, {HOLE} where it had set none. Measured with python -m harness.bench."
)
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
TRAINING_CAPTION = (
    "A training step beside its two floors: its FLOPs over the measured matrix rate of the device, and an estimate of "
    "the bytes it must move over the measured bandwidth; the slower one is the bound. "
    f"{HOLE} was not measured, or cannot be."
)


def read_measured(folder: Path) -> Measured:
    return [read_comparisons(path) for path in sorted(folder.glob("*.json"))]


def benchmark_table(measured: Measured) -> Table:
    rows = [_cells(device, one) for device, comparisons in measured for one in comparisons]
    return Table("benchmarks", COLUMNS, tuple(rows), CAPTION, too_wide_for_print=("against",))


def _cells(device: str, one: Comparison) -> tuple[str, ...]:
    goal = HOLE if one.goal is None else ratio_text(one.goal)
    reached = {None: HOLE, True: "yes", False: "no"}[one.reached]
    spread = f"{ratio_text(one.ratio)} ({ratio_text(one.ratio_low)} to {ratio_text(one.ratio_high)})"
    speeds = (f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}" for speed in (one.ours, one.baseline))
    return device, one.name, one.unit, *speeds, spread, str(one.rounds), goal, reached, one.baseline_name


def ratio_text(value: float) -> str:
    """Thousandths near 1, where they decide."""
    return f"{value:.3f}" if value < 2 else f"{value:.1f}"


def training_table(measured: Measured) -> Table:
    """What the steps of harness.bench train cost, and how far that is from what the device could do."""
    rows = [
        (device, one.name.removeprefix("train "), *(_fact(one.facts, *column) for column in TRAINING.values()))
        for device, comparisons in measured
        for one in comparisons
        if "step_ms" in one.facts
    ]
    return Table("training-speed", ("device", "training", *TRAINING), tuple(rows), TRAINING_CAPTION)


def _fact(facts: dict[str, Any], name: str, factor: float) -> str:
    value = facts.get(name)
    return HOLE if value is None else f"{factor * value:,.1f}"
