"""The comparison of model sizes: a bar of parameters for each variant of the catalogue and each altered one that was
run. Bars start at zero, on a linear axis.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.evidence.cells import Cell, Costs
from harness.evidence.figures.style import COLORS, COLUMN_IN, Style, shortened
from harness.evidence.tables.costs import cost_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sizes_data(groups: Sequence[Cell], costs: Costs, dataset: str) -> dict[str, Any]:
    """Of each variant its shape on this data set, or else on the first that has it; smallest first."""
    lines = [line for line in cost_lines(groups, costs) if line.values["params"]]
    chosen: dict[str, Any] = {}
    for line in sorted(lines, key=lambda line: dataset not in line.datasets):
        shape = {"pixels": line.pixels, "classes": line.classes}
        chosen.setdefault(line.variant, {"variant": line.variant, "params": line.values["params"], **shape})
    return {"bars": sorted(chosen.values(), key=lambda bar: (bar["params"], bar["variant"]))}


def draw_sizes(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    bars = data["bars"]
    own = COLORS | {variant: look.color for (variant, _), look in looks.items()}
    colors = [own.get(bar["variant"].split(", ")[0], "#888888") for bar in bars]
    millions = [bar["params"] / 1e6 for bar in bars]
    figure = Figure(figsize=(COLUMN_IN, 0.6 + 0.2 * len(bars)))
    axes = figure.subplots()
    drawn = axes.barh(range(len(bars)), millions, height=0.62, color=colors, alpha=0.85)
    labels = [f"{value:.2f} M" if value >= 1 else f"{1000 * value:.0f} k" for value in millions]
    axes.bar_label(drawn, labels=labels, padding=3, fontsize=7)
    axes.set_yticks(range(len(bars)), [shortened(bar["variant"], 30) for bar in bars])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(bars) - 0.4, -0.6)  # the smallest on top
    axes.set_xlim(0, max(millions) * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(False, axis="y")
    # Centred below the names too, which may be long.
    figure.supxlabel(f"parameters (millions){_shape(bars)}", fontsize=8)
    return figure


def _shape(bars: Sequence[dict[str, Any]]) -> str:
    """At which shape of data, as far as it is one."""
    told = ""
    for name in ("pixels", "classes"):
        sizes = sorted({bar[name] for bar in bars if bar[name] is not None})
        told += f", {' or '.join(map(str, sizes))} {name}" if sizes else ""
    return told
