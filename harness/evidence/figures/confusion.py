"""Owns the confusion matrices of a data set: of the images of each class, the share taken for each other class.
Refuses to hide rare mistakes: the colours follow the square root of the share.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.datasets import title
from harness.evidence.cells import Cell
from harness.evidence.figures.style import COLUMN_IN, Style, in_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PANELS = 4
EVERY_TICK = 20  # with more classes, not each has a tick
SHARES = (0, 1, 5, 20, 50, 100)  # percent, marked on the bar of colours


def confusion_data(groups: Sequence[Cell], dataset: str) -> dict[str, Any]:
    """Of the first groups that have predictions; all runs of a group in one matrix."""
    known = [(group, quality) for group in groups if group.dataset == dataset and (quality := group.quality)]
    panels = [
        {"row": list(group.row), "n": quality.n, "share": shares(quality.confusion_KK).round(4).tolist()}
        for group, quality in known[:MOST_PANELS]
    ]
    return {"title": title(dataset), "of": len(known), "panels": panels}


def shares(confusion_KK: np.ndarray) -> np.ndarray:
    """Each row in percent of its images; a class without an image has a row of zeros."""
    images_K1 = confusion_KK.sum(1, keepdims=True)
    return 100 * confusion_KK / np.maximum(images_K1, 1)


def draw_confusion(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    panels = data["panels"]
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(COLUMN_IN, {1: 3.1, 2: 1.95}[across] * down + 0.75))
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    colors = ScalarMappable(PowerNorm(0.5, 0, 100), "Blues")
    for place, (axes, panel) in enumerate(zip(grid, panels)):
        last = place + across >= len(panels)  # of its column, whatever stands below it
        axes.imshow(panel["share"], cmap=colors.cmap, norm=colors.norm, interpolation="nearest")
        axes.set_title(in_lines(panel["row"], 52 if across == 1 else 24), fontsize=7)
        axes.grid(False)
        ticks = _ticks(len(panel["share"]))
        axes.set(xticks=ticks, yticks=ticks, xlabel="predicted class" if last else "")
        axes.tick_params(labelbottom=last)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    left_out = f", first {len(panels)} of {data['of']} cells" if data["of"] > len(panels) else ""
    figure.suptitle(f"{data['title']}{left_out}", fontsize=8)
    figure.supylabel("true class", fontsize=8)
    bar = figure.colorbar(colors, ax=list(grid), location="bottom", ticks=SHARES, aspect=40, shrink=0.9)
    bar.set_label("share of the true class's images (%)", fontsize=8)
    bar.minorticks_off()
    return figure


def _ticks(classes: int) -> list[int]:
    step = 1 if classes <= EVERY_TICK else EVERY_TICK
    return list(range(0, classes, step))
