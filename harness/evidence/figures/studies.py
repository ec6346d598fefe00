"""The figures of a study: its effects with their intervals, and accuracy along what it scales or along the two factors
of its grid.
"""

import math
from collections.abc import Iterable
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from harness.evidence.effects import BETTER, WORSE, Effect, Line
from harness.evidence.figures.drawing import (
    BLUE,
    COLUMN_IN,
    Looks,
    Plan,
    add_legend,
    keep_accuracies,
    panels,
    shortened,
    styles,
)
from harness.evidence.findings import Finding
from harness.statistics.intervals import LEVEL, mean_interval

LONGEST_LABEL = 26

# What accuracy is drawn over on a logarithmic axis: the recipe's field, the axis's label, and what a tick shows.
SCALED = {
    "train_share": ("share of the training images (%),\nas many steps whatever the share", 100),
    "epochs": ("epochs", 1),
}


def study_figures(finding: Finding) -> list[Plan]:
    """A grid that is drawn over epochs is not drawn from level to level as well."""
    found = [Plan(f"forest-{finding.name}", forest_data(finding), draw_forest, "no seed is on two sides")]
    for kind, data_of in (("scaling", scaling_data), ("interaction", interaction_data)):
        if data := data_of(finding):
            return [*found, Plan(f"{kind}-{finding.name}", data, draw_along, "no cell has a finished run")]
    return found


def _split(finding: Finding) -> str:
    return "validation" if finding.study.holdout else "test"


# --- effects ---------------------------------------------------------------------------------------------------------


def forest_data(finding: Finding) -> dict[str, Any]:
    """A row for each comparison, in the order of the study."""
    effects = [effect for effect in finding.effects if effect.difference.mean is not None]
    against = list(dict.fromkeys(effect.against for effect in effects))
    base = against[0] if len(against) == 1 else "the first level of each factor"
    return {
        "title": finding.title,
        "x_label": f"points of {_split(finding)} accuracy against {shortened(base, 30)}",
        "rows": [_row(effect) for effect in effects],
    }


def _row(effect: Effect) -> dict[str, Any]:
    d = effect.difference
    clear = effect.verdict in (BETTER, WORSE)
    return {"label": effect.label, "mean": d.mean, "half": d.half, "n": d.n, "clear": clear}


def draw_forest(data: dict[str, Any], looks: Looks) -> Figure:
    rows = data["rows"]
    figure, (axes,) = panels(1, 1, (COLUMN_IN, 1.05 + 0.2 * len(rows)))
    marker: dict[str, Any] = {"fmt": "o", "color": BLUE, "markersize": 4.5, "elinewidth": 1.1, "capsize": 2}
    beside: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "va": "center", "fontsize": 6.5}
    for clear, face in ((True, BLUE), (False, "white")):
        chosen = [
            (row["mean"], place, row["half"] or math.nan) for place, row in enumerate(rows) if row["clear"] == clear
        ]
        if chosen:
            means, places, halves = zip(*chosen)
            axes.errorbar(means, places, xerr=halves, markerfacecolor=face, **marker)
    for place, row in enumerate(rows):
        axes.annotate(f"n = {row['n']}", (1.01, place), **beside)
    axes.axvline(0, color="#000000", linewidth=0.6)
    axes.set_yticks(range(len(rows)), [shortened(row["label"], LONGEST_LABEL) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.margins(x=0.08)
    figure.suptitle(fill(data["title"], 52), fontsize=8)
    key = f"bar: {LEVEL:.0%} t-interval, paired by seed; filled: Holm p ≤ .05"
    figure.supxlabel(f"{data['x_label']}\n{key}", fontsize=7)
    return figure


# --- accuracy along one factor ---------------------------------------------------------------------------------------


def scaling_data(finding: Finding) -> dict[str, Any] | None:
    """None for a study that is not about a budget or a share: two of its rows have the same."""
    lines = [line for line in finding.lines if not line.same_as]
    for name, (label, unit) in SCALED.items():
        places = [(line.row.variant, unit * getattr(line.config.recipe, name)) for line in lines]
        values = sorted({x for _, x in places})
        if finding.study.kind != "table" and len(values) > 1 and len(set(places)) == len(places):
            ticks = [[x, f"{x:g}"] for x in values]
            return _along(finding, zip(places, lines), x_label=label, legend="", ticks=ticks, log=True)
    return None


def interaction_data(finding: Finding) -> dict[str, Any] | None:
    """The first factor's levels are lines, the second's are places; None for a study without two factors."""
    if finding.study.kind != "grid" or len(finding.study.factors) != 2:
        return None
    levels = finding.levels[1]
    placed = [((line.row.levels[0], levels.index(line.row.levels[1])), line) for line in finding.lines]
    ticks = [[x, text] for x, text in enumerate(levels)]
    legend, label = finding.study.factors
    return _along(finding, placed, x_label=label, legend=legend, ticks=ticks, log=False)


def _along(finding: Finding, placed: Iterable[tuple[tuple[str, float], Line]], **axis: Any) -> dict[str, Any]:
    """Of the lines that were run, each with the name of its series and its place on the axis."""
    points: dict[str, list[dict[str, Any]]] = {}
    for (name, x), line in placed:
        if line.scores:
            mean, half, n = mean_interval(list(line.scores.values()))
            points.setdefault(name, []).append({"x": x, "mean": mean, "half": half, "n": n})
    lines = [{"name": name, "points": sorted(of, key=lambda point: point["x"])} for name, of in points.items()]
    return {"title": finding.title, "y_label": f"{_split(finding)} accuracy (%)", **axis, "lines": lines}


def draw_along(data: dict[str, Any], looks: Looks) -> Figure:
    names = [line["name"] for line in data["lines"]]
    figure, (axes,) = panels(1, 1, (COLUMN_IN, 2.6))
    own = styles((name, "published") for name in names)  # a variant keeps the colour that it has elsewhere
    handles = []
    for place, line in enumerate(data["lines"]):
        shift = (place - (len(names) - 1) / 2) * min(0.08, 0.4 / len(names))  # beside each other, not on each other
        look, points = own[line["name"], "published"], line["points"]
        places = [point["x"] * (1 + shift / 2) if data["log"] else point["x"] + shift for point in points]
        means = [point["mean"] for point in points]
        halves = [math.nan if point["half"] is None else point["half"] for point in points]
        marker: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": 4, "capsize": 2}
        handles.append(axes.errorbar(places, means, yerr=halves, elinewidth=0.9, linewidth=0.9, **marker))
    if data["log"]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([x for x, _ in data["ticks"]], [shortened(text, 14) for _, text in data["ticks"]])
    keep_accuracies(axes)
    axes.set(xlabel=data["x_label"], ylabel=f"{data['y_label']}\n{_counted(data)}")
    figure.suptitle(fill(data["title"], 52), fontsize=8)
    if len(names) > 1:
        add_legend(figure, handles, names, data["legend"], handlelength=2.4)
    return figure


def _counted(data: dict[str, Any]) -> str:
    n = sorted({point["n"] for line in data["lines"] for point in line["points"]})
    interval = "" if n == [1] else f"mean, {LEVEL:.0%} t-interval, "  # one seed has none
    return f"{interval}n = {' to '.join(map(str, dict.fromkeys((n[0], n[-1]))))}"
