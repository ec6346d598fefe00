"""Owns the comparison of model sizes: a bar of parameters for each variant.
Refuses a broken or logarithmic axis: bars start at zero.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.evidence.cells.groups import Group
from harness.evidence.figures.style import COLUMN_IN, Style, shortened
from harness.evidence.tables.costs import cost_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sizes_data(groups: Sequence[Group]) -> dict[str, Any]:
    """Of each variant, its shape with the fewest classes; smallest first."""
    lines = [line for line in cost_lines(groups) if line.values["params"]]
    smallest: dict[str, Any] = {}
    for line in sorted(lines, key=lambda line: (line.classes or 0, line.pixels or 0, line.values["params"])):
        bar = {"variant": line.variant, "params": line.values["params"], "classes": line.classes}
        smallest.setdefault(line.variant, bar)
    return {"bars": sorted(smallest.values(), key=lambda bar: (bar["params"], bar["variant"]))}


def draw_sizes(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure

    bars = data["bars"]
    own = {variant: look.color for (variant, _), look in looks.items()}
    colors = [own.get(bar["variant"].split(", ")[0], "#888888") for bar in bars]
    millions = [bar["params"] / 1e6 for bar in bars]
    figure = Figure(figsize=(COLUMN_IN, 0.7 + 0.24 * len(bars)))
    axes = figure.subplots()
    drawn = axes.barh(range(len(bars)), millions, height=0.65, color=colors)
    labels = [f"{value:.2f} M" if value >= 1 else f"{1000 * value:.0f} k" for value in millions]
    axes.bar_label(drawn, labels=labels, padding=3, fontsize=7)
    axes.set_yticks(range(len(bars)), [shortened(bar["variant"], 26) for bar in bars])
    axes.set_xlim(0, max(millions) * 1.28)
    axes.grid(False, axis="y")
    classes = sorted({bar["classes"] for bar in bars if bar["classes"] is not None})
    head = f", head of {' or '.join(map(str, classes))} classes" if classes else ""
    figure.supxlabel(f"parameters (millions){head}", fontsize=8)  # centred below the names too, which may be long
    return figure
