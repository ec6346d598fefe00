"""Owns accuracy against what it costs: parameters, MACs, minutes, energy; one panel for each data set, with its front.
Refuses to put times or energies of two devices into one figure.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.datasets import title
from harness.evidence.cells import Cell, commonest_device, count, datasets_of
from harness.evidence.figures.style import COLUMN_IN, LEGEND_LINE_IN, PAGE_IN, Style, legend_columns, shortened
from harness.statistics.intervals import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "params": "parameters (millions)",
    "macs": "MACs per image (billions)",
    "time": "training minutes",
    "energy": "GPU energy of a run (Wh)",
}
COUNTED = {"params": 1e6, "macs": 1e9}
MEASURED = {"time": ("train_seconds", 1 / 60), "energy": ("energy_joules", 1 / 3600)}  # on one device alone
FRONT = {"color": "#888888", "linewidth": 0.8, "zorder": 1}


def tradeoff_data(groups: Sequence[Cell], against: str) -> dict[str, Any]:
    field = MEASURED[against][0] if against in MEASURED else ""
    device = commonest_device(groups, field) if field else None
    panels = []
    for dataset in datasets_of(groups):
        here = [group for group in groups if group.dataset == dataset]
        points = [point for group in here if (point := _point(group, against, device))]
        if points:
            panels.append({"title": title(dataset), "points": points, "front": pareto_front(points)})
    elsewhere = sum(1 for group in groups if device and group.timed(field) and group.timed_device != device)
    heading = f"on {device}" + (f"; {count(elsewhere, 'cell')} measured elsewhere left out" if elsewhere else "")
    return {"x_label": AXES[against], "heading": heading if device else "", "panels": panels}


def _point(group: Cell, against: str, device: str | None) -> dict[str, Any] | None:
    if against in MEASURED:
        values = group.timed(*MEASURED[against]) if group.timed_device == device else []
        x = mean_interval(values)[0] if values else None
    else:
        cost = group.cost(against)
        x = None if cost is None else cost / COUNTED[against]
    if not x or x < 0 or not group.accuracies:
        return None
    mean, half, n = mean_interval(group.accuracies)
    return {"row": list(group.row), "x": x, "mean": mean, "half": half, "n": n}


def pareto_front(points: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Cost and mean of those points that no other equals or beats in both, cheapest first."""
    front: list[list[float]] = []
    for point in sorted(points, key=lambda point: (point["x"], -point["mean"])):
        if not front or point["mean"] > front[-1][1]:
            front.append([point["x"], point["mean"]])
    return front


def draw_tradeoff(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure

    panels = data["panels"]
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    width = {1: COLUMN_IN, 2: 5.0}.get(across, PAGE_IN)
    rows = sorted({tuple(point["row"]) for panel in panels for point in panel["points"]})
    fronts = any(len(panel["front"]) > 1 for panel in panels)
    columns = legend_columns((shortened(", ".join(row)) for row in rows), width)
    legend_rows = -(-(len(rows) + fronts) // columns) + bool(data["heading"])
    figure = Figure(figsize=(width, 2.3 * down + 0.2 + LEGEND_LINE_IN * legend_rows))
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, panel in zip(grid, panels):
        _panel(axes, panel, looks)
        axes.set_xlabel(data["x_label"])
    for axes in grid[::across]:
        axes.set_ylabel("test accuracy (%), 95% interval")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    _legend(figure, rows, looks, columns, data["heading"], fronts)
    return figure


def _panel(axes: "Axes", panel: dict[str, Any], looks: dict[tuple[str, str], Style]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for point in panel["points"]:
        look = looks[tuple(point["row"])]
        axes.errorbar(point["x"], point["mean"], yerr=point["half"], capsize=2, elinewidth=0.9, **look.markers)
    if len(panel["front"]) > 1:
        axes.step(*zip(*panel["front"]), where="post", **FRONT)
    lowest, highest = min(p["x"] for p in panel["points"]), max(p["x"] for p in panel["points"])
    axes.set_xscale("log")
    space = 1.7 if highest > 2 * lowest else 2.3  # so wide that two of 1, 2, 5, 10 are on the axis wherever it lies
    axes.set_xlim(lowest / space, highest * space)
    decades = highest / lowest > 30
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, -1), min(top, 101))  # two seeds can have an interval wider than what accuracies there are
    axes.set_title(panel["title"])


def _legend(
    figure: "Figure", rows: list, looks: dict[tuple[str, str], Style], columns: int, heading: str, fronts: bool
) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **looks[row].markers) for row in rows] + [Line2D([], [], **FRONT)] * fronts
    labels = [shortened(", ".join(row)) for row in rows] + ["Pareto front of the means"] * fronts
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, "handletextpad": 0.2}
    figure.legend(handles, labels, title=heading or None, title_fontsize=7, **place)
