"""Owns accuracy against what it costs: parameters, MACs, minutes; one panel for each data set.
Refuses to put times of two devices into one figure.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.datasets import title
from harness.evidence.groups import Group, count
from harness.evidence.rows import datasets_of
from harness.evidence.style import COLUMN_IN, LEGEND_LINE_IN, PAGE_IN, Style, legend_columns, shortened
from harness.statistics.intervals import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "params": "parameters (millions)",
    "macs": "MACs per image (billions)",
    "time": "training minutes",
}


def commonest_device(groups: Sequence[Group]) -> str | None:
    """The device on which most groups have a time; of equals, the first by name."""
    counted = Counter(group.timed_device for group in groups if group.timed("train_seconds"))
    return min(counted, key=lambda name: (-counted[name], str(name))) if counted else None


def tradeoff_data(groups: Sequence[Group], against: str) -> dict[str, Any]:
    device = commonest_device(groups) if against == "time" else None
    panels = []
    for dataset in datasets_of(groups):
        here = [group for group in groups if group.dataset == dataset]
        points = [point for group in here if (point := _point(group, against, device))]
        if points:
            panels.append({"title": title(dataset), "points": points})
    elsewhere = sum(1 for group in groups if device and group.timed("train_seconds") and group.timed_device != device)
    heading = f"on {device}" + (f"; {count(elsewhere, 'cell')} timed elsewhere left out" if elsewhere else "")
    return {"x_label": AXES[against], "heading": heading if device else "", "panels": panels}


def _point(group: Group, against: str, device: str | None) -> dict[str, Any] | None:
    if against == "time":
        times = group.timed("train_seconds", 1 / 60) if group.timed_device == device else []
        x = mean_interval(times)[0] if times else None
    else:
        cost = group.cost(against)
        x = None if cost is None else cost / {"params": 1e6, "macs": 1e9}[against]
    if not x or x < 0 or not group.accuracies:
        return None
    mean, half, n = mean_interval(group.accuracies)
    return {"row": list(group.row), "x": x, "mean": mean, "half": half, "n": n}


def draw_tradeoff(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure

    panels = data["panels"]
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    width = {1: COLUMN_IN, 2: 5.0}.get(across, PAGE_IN)
    rows = sorted({tuple(point["row"]) for panel in panels for point in panel["points"]})
    columns = legend_columns((shortened(", ".join(row)) for row in rows), width)
    legend_rows = -(-len(rows) // columns) + bool(data["heading"])
    figure = Figure(figsize=(width, 2.3 * down + 0.2 + LEGEND_LINE_IN * legend_rows))
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, panel in zip(grid, panels):
        _panel(axes, panel, looks)
        axes.set_xlabel(data["x_label"])
    for axes in grid[::across]:
        axes.set_ylabel("test accuracy (%), 95% interval")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _legend(figure, rows, looks, columns, data["heading"])
    return figure


def _panel(axes: "Axes", panel: dict[str, Any], looks: dict[tuple[str, str], Style]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for point in panel["points"]:
        look = looks[tuple(point["row"])]
        axes.errorbar(point["x"], point["mean"], yerr=point["half"], capsize=2, elinewidth=0.9, **look.markers)
    lowest, highest = min(p["x"] for p in panel["points"]), max(p["x"] for p in panel["points"])
    axes.set_xscale("log")
    axes.set_xlim(lowest / 1.7, highest * 1.7)
    decades = highest / lowest > 30
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, -1), min(top, 101))  # two seeds can have an interval wider than what accuracies there are
    axes.set_title(panel["title"])


def _legend(figure: "Figure", rows: list, looks: dict[tuple[str, str], Style], columns: int, heading: str) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **looks[row].markers) for row in rows]
    labels = [shortened(", ".join(row)) for row in rows]
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, "handletextpad": 0.2}
    figure.legend(handles, labels, title=heading or None, title_fontsize=7, **place)
