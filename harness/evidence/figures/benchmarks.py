"""Owns the figure of what harness.bench measured: a bar of how many times as fast each of ours was.
Refuses to put two devices into one panel, and to hide a goal that was missed.
"""

from typing import TYPE_CHECKING, Any

from harness.evidence.figures.style import PAGE_IN, Style, shortened
from harness.evidence.tables.benchmarks import Measured, ratio_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MET, MISSED, FREE = "#009E73", "#D55E00", "#0072B2"


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
    told = "times as fast as the baseline (1 = equally fast); bar: median, line: lowest to highest round"
    figure.supxlabel(told, fontsize=8)
    return figure


def _panel(axes: Any, panel: dict[str, Any]) -> None:
    bars = panel["bars"]
    places = range(len(bars))
    colors = [{None: FREE, True: MET, False: MISSED}[bar["reached"]] for bar in bars]
    spread = [[bar["ratio"] - bar["ratio_low"] for bar in bars], [bar["ratio_high"] - bar["ratio"] for bar in bars]]
    axes.barh(places, [bar["ratio"] for bar in bars], height=0.65, color=colors, xerr=spread, error_kw={"lw": 0.8})
    for place, bar in zip(places, bars):
        word = "reached" if bar["reached"] else "missed"
        goal = "" if bar["goal"] is None else f"   goal {ratio_text(bar['goal'])}: {word}"
        axes.annotate(
            f"{ratio_text(bar['ratio'])}{goal}",
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
