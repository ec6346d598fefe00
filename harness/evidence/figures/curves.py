"""Owns the learning curves of one data set: accuracy and loss against passes, one line a group, a band over its seeds.
Refuses to draw a failed run, and passes at which not every seed was evaluated.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.datasets import title
from harness.evidence.cells import Cell
from harness.evidence.figures.style import LEGEND_LINE_IN, PAGE_IN, Style, legend_columns, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves_data(groups: Sequence[Cell], dataset: str, split: str = "test") -> dict[str, Any]:
    """Plain data of the figure, for its digest and for drawing it."""
    names = {"accuracy": f"{split}_accuracy", "loss": f"{split}_loss", "train_loss": "train_loss"}
    lines = []
    for group in (group for group in groups if group.dataset == dataset and group.runs):
        series = {kind: group.curves.series[name].to_plain() for kind, name in names.items()}
        if any(part["epoch"] for part in series.values()):
            lines.append({"row": list(group.row), "n": group.curves.n, **series})
    return {"title": title(dataset), "split": split, "lines": lines}


def draw_curves(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    labels = [shortened(", ".join(line["row"])) for line in data["lines"]]
    columns = legend_columns(labels, PAGE_IN)
    legend_rows = -(-len(labels) // columns)
    figure = Figure(figsize=(PAGE_IN, 2.6 + LEGEND_LINE_IN * legend_rows))
    left, right = figure.subplots(1, 2)
    for place, line in enumerate(data["lines"]):
        share = (place + 0.5) / len(data["lines"])
        look = looks[tuple(line["row"])]
        _line(right, line["train_loss"], look.color, linewidth=0.7, alpha=0.4, linestyle=look.line)
        for axes, series in ((left, line["accuracy"]), (right, line["loss"])):
            _band(axes, series, look.color)
            _line(axes, series, look.color, markevery=_spaced(len(series["epoch"]), share), **look.lines)
    split = {"val": "validation"}.get(data["split"], data["split"])
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    passes = "passes over the training images"
    left.set(xlabel=passes, ylabel=f"{split} accuracy (%)", title=f"{data['title']} (bands: lowest to highest seed)")
    right.set(xlabel=passes, ylabel="loss", title=f"{split} loss (thin and pale: training loss)")
    used = [looks[tuple(line["row"])] for line in data["lines"]]
    handles = [Line2D([], [], color=look.color, **look.lines) for look in used]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.8)
    return figure


def _spaced(points: int, share: float) -> list[int]:
    """Where a line has its markers: a few, at other places than its neighbours have theirs."""
    gap = max(1.0, points / 5)
    return sorted({min(points - 1, int((i + share) * gap)) for i in range(5)}) if points else []


def _line(axes: "Axes", series: dict[str, list[Any]], color: str, **looks: Any) -> None:
    axes.plot(series["epoch"], series["mean"], color=color, **looks)


def _band(axes: "Axes", series: dict[str, list[Any]], color: str) -> None:
    if series["low"] != series["high"]:
        axes.fill_between(series["epoch"], series["low"], series["high"], color=color, alpha=0.18, linewidth=0)
