"""Owns the figure of a study's effects: a line for each comparison, its interval, and whether it is distinguishable.
Refuses to sort by size: rows stand as in the study, so that nothing looks like a ranking.
"""

from typing import TYPE_CHECKING, Any

from harness.evidence.effects import BETTER, WORSE, Effect
from harness.evidence.figures.style import COLUMN_IN, Style, shortened
from harness.evidence.findings import Finding
from harness.statistics.intervals import LEVEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOR = "#0072B2"
LONGEST_LABEL = 26


def forest_data(instance: Finding) -> dict[str, Any]:
    effects = [effect for effect in instance.effects if effect.difference.mean is not None]
    against = dict.fromkeys(effect.against for effect in effects)
    split = "validation" if instance.split == "val" else "test"
    base = next(iter(against)) if len(against) == 1 else "the first level of each factor"
    return {
        "title": instance.title,
        "x_label": f"points of {split} accuracy against {shortened(base, 30)}",
        "rows": [_row(effect) for effect in effects],
    }


def _row(effect: Effect) -> dict[str, Any]:
    d = effect.difference
    clear = effect.verdict in (BETTER, WORSE)
    return {"label": effect.label, "mean": d.mean, "half": d.half, "n": d.n, "clear": clear}


def draw_forest(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure

    rows = data["rows"]
    figure = Figure(figsize=(COLUMN_IN, 1.05 + 0.2 * len(rows)))
    axes = figure.subplots()
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    axes.axvline(0, color="#000000", linewidth=0.6)
    axes.set_yticks(range(len(rows)), [shortened(row["label"], LONGEST_LABEL) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.margins(x=0.08)
    figure.suptitle(wrapped(data["title"]), fontsize=8)
    key = f"bar: {LEVEL:.0%} t-interval, paired by seed; filled: Holm p ≤ .05"
    figure.supxlabel(f"{data['x_label']}\n{key}", fontsize=7)
    return figure


def _draw_row(axes: "Axes", place: int, row: dict[str, Any]) -> None:
    face = COLOR if row["clear"] else "white"
    looks: dict[str, Any] = {
        "color": COLOR,
        "markerfacecolor": face,
        "markersize": 4.5,
        "elinewidth": 1.1,
        "capsize": 2,
    }
    axes.errorbar(row["mean"], place, xerr=row["half"], fmt="o", **looks)
    axes.annotate(f"n = {row['n']}", (1.01, place), xycoords=axes.get_yaxis_transform(), va="center", fontsize=6.5)


def wrapped(title: str, most: int = 52) -> str:
    """On two lines where one is too long, broken at the comma nearest to the end of the first."""
    if len(title) <= most:
        return title
    head, comma, tail = title[:most].rpartition(", ")
    return f"{head},\n{tail}{title[most:]}" if comma else title
