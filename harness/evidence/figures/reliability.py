"""Owns the reliability diagrams of a data set: accuracy against confidence, a diagram a cell.
Refuses to smooth: an empty bin has no point.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.datasets import title
from harness.evidence.cells import Cell
from harness.evidence.figures.style import COLUMN_IN, PAGE_IN, Style, in_lines
from harness.evidence.quality import Quality
from harness.statistics.images import CALIBRATION_BINS
from harness.statistics.intervals import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 8
FEW = 0.5  # percent of the images: in bins with fewer, accuracy says little, and no line goes through them


def reliability_data(groups: Sequence[Cell], dataset: str) -> dict[str, Any]:
    """Of the first groups that have predictions; all runs of a group in one diagram."""
    known = [(group, quality) for group in groups if group.dataset == dataset and (quality := group.quality)]
    panels = [_panel_data(*pair) for pair in known[:MOST_PANELS]]
    return {"title": title(dataset), "of": len(known), "panels": panels}


def _panel_data(group: Cell, quality: Quality) -> dict[str, Any]:
    bins = quality.bins
    filled_B = bins.images_B > 0
    images_B = bins.images_B[filled_B]
    return {
        "row": list(group.row),
        "n": quality.n,
        "error": mean_interval(quality.calibration_errors)[0],
        "bin": np.flatnonzero(filled_B).tolist(),
        "confidence": (100 * bins.confidence_B[filled_B] / images_B).tolist(),
        "accuracy": (100 * bins.right_B[filled_B] / images_B).tolist(),
        "share": (100 * images_B / images_B.sum()).tolist(),
    }


def draw_reliability(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure

    panels = data["panels"]
    across = min(2 if len(panels) <= 4 else 4, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(PAGE_IN if across == 4 else COLUMN_IN, (2.9 if across == 1 else 1.9) * down + 0.55))
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for place, (axes, panel) in enumerate(zip(grid, panels)):
        axes.tick_params(labelbottom=place + across >= len(panels))  # the last of its column, whatever stands below it
        _diagram(axes, panel, looks[tuple(panel["row"])])
        name = in_lines(panel["row"], 52 if across == 1 else 24)
        axes.set_title(f"{name}\ncalibration error {panel['error']:.1f} %", fontsize=7)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    left_out = f", first {len(panels)} of {data['of']} cells" if data["of"] > len(panels) else ""
    figure.suptitle(f"{data['title']}{left_out}", fontsize=8)
    separator = "; " if across == 4 else "\n"
    legend = f"bars: share of the images (%); pale points: below {FEW} %"
    figure.supxlabel(f"confidence (%){separator}{legend}", fontsize=8)
    figure.supylabel("test accuracy (%)", fontsize=8)
    return figure


def _diagram(axes: "Axes", panel: dict[str, Any], look: Style) -> None:
    width = 100 / CALIBRATION_BINS
    middles = [(place + 0.5) * width for place in panel["bin"]]
    axes.bar(middles, panel["share"], width=0.9 * width, color="#d0d0d0", linewidth=0)
    axes.plot([0, 100], [0, 100], color="#888888", linewidth=0.8)
    points = [*zip(panel["confidence"], panel["accuracy"], panel["share"])]
    pale: dict[str, Any] = {"linestyle": "none", "alpha": 0.4}
    for few, own in ((False, {}), (True, pale)):
        chosen = [(x, y) for x, y, share in points if (share < FEW) == few]
        if chosen:
            axes.plot(*zip(*chosen), color=look.color, clip_on=False, **(look.lines | own))
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xticks=(0, 50, 100), yticks=(0, 50, 100))
