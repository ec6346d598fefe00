"""Owns the figure of accuracy against the strength of the corruption.
Refuses a cell of which no run was tested on corrupted images.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.datasets import title
from harness.evidence.cells import Cell
from harness.evidence.figures.style import COLUMN_IN, LEGEND_LINE_IN, Style, legend_columns, shortened
from harness.evidence.quality import mean_by_kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def robustness_data(groups: Sequence[Cell], dataset: str) -> dict[str, Any]:
    """Means over kinds and seeds; strength 0 is the clean test set."""
    lines = []
    for group in (group for group in groups if group.dataset == dataset):
        if runs := group.corrupted:
            clean = sum(run.clean for run in runs) / len(runs)
            means = [clean, *(sum(at) / len(at) for at in zip(*mean_by_kind(runs).values()))]
            lines.append({"row": list(group.row), "n": len(runs), "accuracy": [100 * mean for mean in means]})
    return {"title": title(dataset), "lines": lines}


def draw_robustness(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    labels = [shortened(", ".join(line["row"])) for line in data["lines"]]
    columns = legend_columns(labels, COLUMN_IN)
    figure = Figure(figsize=(COLUMN_IN, 2.5 + LEGEND_LINE_IN * -(-len(labels) // columns)))
    axes = figure.subplots()
    used = [looks[tuple(line["row"])] for line in data["lines"]]
    for line, look in zip(data["lines"], used):
        axes.plot(range(len(line["accuracy"])), line["accuracy"], color=look.color, **look.lines)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="strength of corruption (0: none), mean over kinds", ylabel="test accuracy (%)")
    axes.set_title(data["title"])
    handles = [Line2D([], [], color=look.color, **look.lines) for look in used]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.8)
    return figure
