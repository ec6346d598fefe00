"""Owns accuracy along one factor of a study: over passes or the share of the images, or from level to level of a grid.
Refuses to join what was not run: a line skips the cells that it has not.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.evidence.figures.forest import wrapped
from harness.evidence.figures.style import COLUMN_IN, LEGEND_LINE_IN, Style, legend_columns, shortened, styles
from harness.evidence.findings import Finding
from harness.statistics.intervals import LEVEL, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What accuracy is drawn over on a logarithmic axis: the recipe's field, the axis's label, and what a tick shows.
SCALED = {
    "train_share": ("share of the training images (%),\nas many steps whatever the share", 100),
    "epochs": ("passes over the training images", 1),
}


def scaling_data(instance: Finding) -> dict[str, Any] | None:
    """None for a study that is not about a budget or a share: two of its rows have the same."""
    lines = [line for line in instance.lines if not line.same_as]
    for name, (label, unit) in SCALED.items():
        places = [(line.row.variant, unit * getattr(line.config.recipe, name)) for line in lines]
        values = sorted({x for _, x in places})
        if instance.study.kind != "table" and len(values) > 1 and len(set(places)) == len(places):
            return _data(instance, list(zip(places, lines)), label, {x: f"{x:g}" for x in values}, log=True)
    return None


def interaction_data(instance: Finding) -> dict[str, Any] | None:
    """The first factor's levels are lines, the second's are places; None for a study without two factors."""
    if instance.study.kind != "grid" or len(instance.study.factors) != 2:
        return None
    levels = instance.levels(1)
    placed = [((line.row.levels[0], levels.index(line.row.levels[1])), line) for line in instance.lines]
    return _data(instance, placed, instance.study.factors[1], dict(enumerate(levels)), log=False)


def _data(instance: Finding, placed: Sequence, x_label: str, ticks: dict[Any, str], log: bool) -> dict[str, Any]:
    """`placed` are the lines of the study with their place: the name of a series, and where on the axis."""
    points: dict[str, list[dict[str, Any]]] = {}
    for (name, x), line in placed:
        if line.scores:
            mean, half, n = mean_interval(list(line.scores.values()))
            points.setdefault(name, []).append({"x": x, "mean": mean, "half": half, "n": n})
    split = "validation" if instance.split == "val" else "test"
    return {
        "title": instance.title,
        "x_label": x_label,
        "y_label": f"{split} accuracy (%)",
        "legend": "" if log else instance.study.factors[0],
        "ticks": [[x, text] for x, text in ticks.items()],
        "log": log,
        "lines": [{"name": name, "points": sorted(of, key=lambda point: point["x"])} for name, of in points.items()],
    }


def draw_along(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure

    names = [line["name"] for line in data["lines"]]
    columns = legend_columns(map(shortened, names), COLUMN_IN)
    legend_rows = -(-len(names) // columns) + 1 if len(names) > 1 else 0
    figure = Figure(figsize=(COLUMN_IN, 2.5 + LEGEND_LINE_IN * legend_rows))
    axes = figure.subplots()
    own = styles((name, "published") for name in names)  # a variant keeps the colour that it has elsewhere
    for place, line in enumerate(data["lines"]):
        shift = (place - (len(names) - 1) / 2) * min(0.08, 0.4 / len(names))  # beside each other, not on each other
        _draw_line(axes, line, own[line["name"], "published"], shift, data["log"])
    _set_axes(axes, data)
    figure.suptitle(wrapped(data["title"]), fontsize=8)
    if len(names) > 1:
        title = data["legend"] or None
        figure.legend(loc="outside lower center", ncols=columns, title=title, title_fontsize=7, handlelength=2.4)
    return figure


def _draw_line(axes: "Axes", line: dict[str, Any], look: Style, shift: float, log: bool) -> None:
    points = line["points"]
    places = [point["x"] * (1 + shift / 2) if log else point["x"] + shift for point in points]
    halves = [math.nan if point["half"] is None else point["half"] for point in points]
    drawn: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": 4, "capsize": 2}
    means = [point["mean"] for point in points]
    axes.errorbar(places, means, yerr=halves, elinewidth=0.9, linewidth=0.9, label=shortened(line["name"]), **drawn)


def _set_axes(axes: "Axes", data: dict[str, Any]) -> None:
    from matplotlib.ticker import NullLocator

    if data["log"]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([x for x, _ in data["ticks"]], [shortened(text, 14) for _, text in data["ticks"]])
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1), min(high, 101))  # two seeds can have an interval wider than what accuracies there are
    axes.set_xlabel(data["x_label"])
    axes.set_ylabel(f"{data['y_label']}\n{counted(data)}")


def counted(data: dict[str, Any]) -> str:
    n = sorted({point["n"] for line in data["lines"] for point in line["points"]})
    interval = "" if n == [1] else f"mean, {LEVEL:.0%} t-interval, "  # one seed has none
    return f"{interval}n = {' to '.join(map(str, dict.fromkeys((n[0], n[-1]))))}"
