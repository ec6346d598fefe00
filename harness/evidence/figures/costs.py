"""The figures of costs: accuracy against parameters, MACs, time and energy, the sizes of the models, and what
harness.bench measured.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.datasets import title
from harness.evidence.cells import Cell, Costs, commonest_device, count, datasets_of
from harness.evidence.figures.drawing import (
    BLUE,
    COLORS,
    COLUMN_IN,
    GRAY,
    GREEN,
    PAGE_IN,
    VERMILION,
    Looks,
    Plan,
    add_legend,
    keep_accuracies,
    panels,
    shortened,
)
from harness.evidence.tables.costs import Measured, cost_lines, ratio_text
from harness.statistics.intervals import mean_interval


def cost_figures(cells: Sequence[Cell], costs: Costs, dataset: str) -> list[Plan]:
    """`dataset`: on whose shape the sizes of the models are compared."""
    found = []
    for against, (_, need, _, _) in AXES.items():
        none = f"no finished run has a test accuracy and {need}"
        found.append(Plan(f"accuracy-vs-{against}", tradeoff_data(cells, against), draw_tradeoff, none))
    return [*found, Plan("model-size", sizes_data(cells, costs, dataset), draw_sizes, "no parameter count is known")]


def benchmark_figures(measured: Measured) -> list[Plan]:
    return [Plan("benchmarks", benchmark_data(measured), draw_benchmarks, "nothing was measured")] if measured else []


# --- accuracy against a cost -----------------------------------------------------------------------------------------

# The axis's label, what a run without a point lacks, what its numbers are divided by, and the field of the result for
# what was measured, on one device alone.
AXES = {
    "params": ("parameters (millions)", "a parameter count", 1e6, ""),
    "macs": ("MACs per image (billions)", "a MAC count", 1e9, ""),
    "time": ("training minutes", "a time of its own", 60, "train_seconds"),
    "energy": ("GPU energy of a run (Wh)", "an energy of its own", 3600, "energy_joules"),
}
FRONT = {"color": GRAY, "linewidth": 0.8, "zorder": 1}


def tradeoff_data(cells: Sequence[Cell], against: str) -> dict[str, Any]:
    """Times and energies of the commonest device alone."""
    label, _, _, field = AXES[against]
    device = commonest_device(cells, field) if field else None
    found = []
    for dataset in datasets_of(cells):
        points = [point for cell in cells if cell.dataset == dataset and (point := _point(cell, against, device))]
        if points:
            found.append({"title": title(dataset), "points": points, "front": pareto_front(points)})
    elsewhere = sum(1 for cell in cells if device and cell.timed(field) and cell.timed_device != device)
    heading = f"on {device}" + (f"; {count(elsewhere, 'cell')} measured elsewhere left out" if elsewhere else "")
    return {"x_label": label, "heading": heading if device else "", "panels": found}


def _point(cell: Cell, against: str, device: str | None) -> dict[str, Any] | None:
    _, _, unit, field = AXES[against]
    if field:
        values = cell.timed(field, 1 / unit) if cell.timed_device == device else []
        x = mean_interval(values)[0] if values else None
    else:
        x = (cell.cost(against) or 0) / unit
    if not x or x < 0 or not cell.accuracies:
        return None
    mean, half, n = mean_interval(cell.accuracies)
    return {"row": list(cell.row), "x": x, "mean": mean, "half": half, "n": n}


def pareto_front(points: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Cost and mean of those points that no other equals or beats in both, cheapest first."""
    front: list[list[float]] = []
    for point in sorted(points, key=lambda point: (point["x"], -point["mean"])):
        if not front or point["mean"] > front[-1][1]:
            front.append([point["x"], point["mean"]])
    return front


def draw_tradeoff(data: dict[str, Any], looks: Looks) -> Figure:
    """A panel for each data set."""
    number = len(data["panels"])
    across = min(number, 3)
    size_in = {1: COLUMN_IN, 2: 5.0}.get(across, PAGE_IN), 2.3 * -(-number // across) + 0.2
    figure, grid = panels(number, across, size_in)
    for axes, panel in zip(grid, data["panels"]):
        _tradeoff(axes, panel, looks)
        axes.set_xlabel(data["x_label"])
    for axes in grid[::across]:
        axes.set_ylabel("test accuracy (%), 95% interval")
    rows = sorted({tuple(point["row"]) for panel in data["panels"] for point in panel["points"]})
    handles, labels = [Line2D([], [], **looks[row].markers) for row in rows], [", ".join(row) for row in rows]
    if any(len(panel["front"]) > 1 for panel in data["panels"]):
        handles, labels = [*handles, Line2D([], [], **FRONT)], [*labels, "Pareto front of the means"]
    add_legend(figure, handles, labels, data["heading"], handletextpad=0.2)
    return figure


def _tradeoff(axes: Axes, panel: dict[str, Any], looks: Looks) -> None:
    for point in panel["points"]:
        axes.plot(point["x"], point["mean"], **looks[tuple(point["row"])].markers)
    barred = [point for point in panel["points"] if point["half"] is not None]
    x, colors = [point["x"] for point in barred], [looks[tuple(point["row"])].color for point in barred]
    ends = [[point["mean"] + side * point["half"] for point in barred] for side in (-1, 1)]
    axes.vlines(x, *ends, colors=colors, linewidth=0.9, zorder=1.9)  # all at once: an errorbar each takes far longer
    axes.scatter(x + x, ends[0] + ends[1], c=colors + colors, marker="_", s=16, linewidths=1.0, zorder=1.9)
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
    keep_accuracies(axes)
    axes.set_title(panel["title"])


# --- sizes -----------------------------------------------------------------------------------------------------------


def sizes_data(cells: Sequence[Cell], costs: Costs, dataset: str) -> dict[str, Any]:
    """Of each variant its shape on this data set, or else on the first that has it; smallest first."""
    lines = [line for line in cost_lines(cells, costs) if line.values["params"]]
    chosen: dict[str, Any] = {}
    for line in sorted(lines, key=lambda line: dataset not in line.datasets):
        shape = {"pixels": line.pixels, "classes": line.classes}
        chosen.setdefault(line.variant, {"variant": line.variant, "params": line.values["params"], **shape})
    return {"bars": sorted(chosen.values(), key=lambda bar: (bar["params"], bar["variant"]))}


def draw_sizes(data: dict[str, Any], looks: Looks) -> Figure:
    """Parameters, the smallest model on top. Dots, for the largest is hundreds of times as large."""
    bars = data["bars"]
    own = COLORS | {variant: look.color for (variant, _), look in looks.items()}
    colors = [own.get(bar["variant"].split(", ")[0], GRAY) for bar in bars]
    millions = [bar["params"] / 1e6 for bar in bars]
    figure, (axes,) = panels(1, 1, (COLUMN_IN, 0.6 + 0.2 * len(bars)))
    axes.scatter(millions, range(len(bars)), c=colors, s=28)
    for y, value in enumerate(millions):
        text = f"{value:.2f} M" if value >= 1 else f"{1000 * value:.0f} k"
        axes.annotate(text, (value, y), (6, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(bars)), [shortened(bar["variant"], 30) for bar in bars])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(min(millions) / 2, max(millions) * 6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    label = "parameters (millions)"
    for name in ("pixels", "classes"):
        sizes = sorted({bar[name] for bar in bars if bar[name] is not None})
        label += f", {' or '.join(map(str, sizes))} {name}" if sizes else ""
    figure.supxlabel(label, fontsize=8)  # centred below the names too
    return figure


# --- benchmarks ------------------------------------------------------------------------------------------------------

REACHED = {True: GREEN, False: VERMILION, None: BLUE}  # None: it has no goal


def benchmark_data(measured: Measured) -> dict[str, Any]:
    fields = ("name", "baseline_name", "ratio", "ratio_low", "ratio_high", "goal", "reached")
    bars = [(device, [{name: getattr(one, name) for name in fields} for one in found]) for device, found in measured]
    return {"panels": [{"device": device, "bars": of} for device, of in bars if of]}


def draw_benchmarks(data: dict[str, Any], looks: Looks) -> Figure:
    """A panel for each device."""
    counts = [len(panel["bars"]) for panel in data["panels"]]
    height_in = sum(0.6 + 0.24 * count for count in counts)
    figure, grid = panels(len(counts), 1, (PAGE_IN, height_in), height_ratios=[count + 1.5 for count in counts])
    for axes, panel in zip(grid, data["panels"]):
        _benchmarks(axes, panel)
    told = "times as fast as the baseline (1 = equally fast); bar: median, line: slowest to fastest round"
    figure.supxlabel(told, fontsize=8)
    return figure


def _benchmarks(axes: Axes, panel: dict[str, Any]) -> None:
    bars = panel["bars"]
    places = range(len(bars))
    colors = [REACHED[bar["reached"]] for bar in bars]
    spread = [[bar["ratio"] - bar["ratio_low"] for bar in bars], [bar["ratio_high"] - bar["ratio"] for bar in bars]]
    axes.barh(places, [bar["ratio"] for bar in bars], height=0.65, color=colors, xerr=spread, error_kw={"lw": 0.8})
    beside: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
    for place, bar in zip(places, bars):
        word = "reached" if bar["reached"] else "missed"
        goal = "" if bar["goal"] is None else f"   goal {ratio_text(bar['goal'])}: {word}"
        axes.annotate(f"{ratio_text(bar['ratio'])}{goal}", (bar["ratio_high"], place), **beside)
    axes.axvline(1, color="#000000", linewidth=0.6, linestyle=":")
    axes.set_yticks(places, [shortened(bar["name"], 40) for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.4 * max(bar["ratio_high"] for bar in bars) + 0.5)
    axes.grid(False, axis="y")
    axes.set_title(panel["device"])
