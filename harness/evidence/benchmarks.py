"""Owns what is shown of harness.bench: a table of every comparison, and a bar of how many times as fast each was.
Refuses to put two devices into one panel, and to hide a goal that was missed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.evidence.style import PAGE_IN, Style, shortened
from harness.evidence.table import HOLE, Table
from harness.records.benchmarks import Comparison, read_comparisons

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
MET, MISSED, FREE = "#009E73", "#D55E00", "#0072B2"


def read_measured(folder: Path) -> Measured:
    return [read_comparisons(path) for path in sorted(folder.glob("*.json"))]


def benchmark_table(measured: Measured) -> Table:
    rows = [_cells(device, one) for device, comparisons in measured for one in comparisons]
    return Table("benchmarks", COLUMNS, tuple(rows), CAPTION, too_wide_for_print=("against",))


def _cells(device: str, one: Comparison) -> tuple[str, ...]:
    goal = HOLE if one.goal is None else _ratio(one.goal)
    reached = {None: HOLE, True: "yes", False: "no"}[one.reached]
    spread = f"{_ratio(one.ratio)} ({_ratio(one.ratio_low)} to {_ratio(one.ratio_high)})"
    speeds = (f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}" for speed in (one.ours, one.baseline))
    return device, one.name, one.unit, *speeds, spread, str(one.rounds), goal, reached, one.baseline_name


def _ratio(value: float) -> str:
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


def benchmark_data(measured: Measured) -> dict[str, Any]:
    fields = ("name", "baseline_name", "ratio", "ratio_low", "ratio_high", "goal", "reached")
    panels = [
        {"device": device, "bars": [{name: getattr(one, name) for name in fields} for one in comparisons]}
        for device, comparisons in measured
        if comparisons
    ]
    return {"panels": panels}


def draw_benchmarks(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure

    panels = data["panels"]
    counts = [len(panel["bars"]) for panel in panels]
    figure = Figure(figsize=(PAGE_IN, sum(0.6 + 0.24 * count for count in counts)))
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[count + 1.5 for count in counts]).ravel()
    for axes, panel in zip(grid, panels):
        _panel(axes, panel)
    grid[-1].set_xlabel("times as fast as the baseline (1 = equally fast); bar: median, line: lowest to highest round")
    return figure


def _panel(axes: Any, panel: dict[str, Any]) -> None:
    bars = panel["bars"]
    places = range(len(bars))
    colors = [{None: FREE, True: MET, False: MISSED}[bar["reached"]] for bar in bars]
    spread = [[bar["ratio"] - bar["ratio_low"] for bar in bars], [bar["ratio_high"] - bar["ratio"] for bar in bars]]
    axes.barh(places, [bar["ratio"] for bar in bars], height=0.65, color=colors, xerr=spread, error_kw={"lw": 0.8})
    for place, bar in zip(places, bars):
        word = "reached" if bar["reached"] else "missed"
        goal = "" if bar["goal"] is None else f"   goal {_ratio(bar['goal'])}: {word}"
        axes.annotate(
            f"{_ratio(bar['ratio'])}{goal}",
            (bar["ratio_high"], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.axvline(1, color="#000000", linewidth=0.6, linestyle=":")
    axes.set_yticks(places, [shortened(bar["name"], 40) for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.4 * max(bar["ratio_high"] for bar in bars) + 0.5)
    axes.grid(False, axis="y")
    axes.set_title(panel["device"])
