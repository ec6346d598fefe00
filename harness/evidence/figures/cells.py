"""The figures of a data set's cells: learning curves, reliability diagrams, confusion matrices, and accuracy on ever
stronger corruptions.
"""

from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.datasets import title
from harness.evidence.cells import Cell, datasets_of
from harness.evidence.figures.drawing import (
    COLUMN_IN,
    PAGE_IN,
    Looks,
    Plan,
    Style,
    add_legend,
    panels,
    shortened,
    slug,
    without_owners,
)
from harness.evidence.quality import Quality
from harness.statistics.images import CALIBRATION_BINS
from harness.statistics.intervals import mean_interval


def cell_figures(cells: Sequence[Cell], validation: Sequence[Cell]) -> list[Plan]:
    """Learning curves are those of the validation images where nothing was run that is judged on test images."""
    found = []
    for dataset in datasets_of((*cells, *validation)):
        tested = any(cell.dataset == dataset and cell.runs for cell in cells)
        data = curves_data(*((cells, dataset, "test") if tested else (validation, dataset, "val")))
        found.append(Plan(f"curves-{slug(dataset)}", data, draw_curves, "no finished run has epochs"))
    for dataset in datasets_of(cells):
        of, none = slug(dataset), "no finished run has predictions"
        found.append(Plan(f"reliability-{of}", reliability_data(cells, dataset), draw_reliability, none))
        found.append(Plan(f"confusion-{of}", confusion_data(cells, dataset), draw_confusion, none))
        none = "no finished run was tested on corrupted images"
        found.append(Plan(f"robustness-{of}", robustness_data(cells, dataset), draw_robustness, none))
    return found


def _rows_legend(figure: Figure, lines: Sequence[dict[str, Any]], looks: Looks) -> None:
    rows = [tuple(line["row"]) for line in lines]
    handles = [Line2D([], [], **looks[row].lines) for row in rows]
    add_legend(figure, handles, (", ".join(row) for row in rows), handlelength=2.8)


# --- learning curves -------------------------------------------------------------------------------------------------


def curves_data(cells: Sequence[Cell], dataset: str, split: str = "test") -> dict[str, Any]:
    names = {"accuracy": f"{split}_accuracy", "loss": f"{split}_loss", "train_loss": "train_loss"}
    lines = []
    for cell in (cell for cell in cells if cell.dataset == dataset and cell.curves.n):
        series = {kind: cell.curves.series[name] for kind, name in names.items()}
        if any(part["epoch"] for part in series.values()):
            lines.append({"row": list(cell.row), "n": cell.curves.n, **series})
    return {"title": title(dataset), "split": split, "lines": lines}


def draw_curves(data: dict[str, Any], looks: Looks) -> Figure:
    """A line for each cell, with a band from its lowest to its highest seed."""
    figure, (left, right) = panels(2, 2, (PAGE_IN, 2.6))
    for place, line in enumerate(data["lines"]):
        share = (place + 0.5) / len(data["lines"])
        look = looks[tuple(line["row"])]
        loss = line["train_loss"]
        right.plot(loss["epoch"], loss["mean"], color=look.color, linewidth=0.7, alpha=0.4, linestyle=look.line)
        for axes, series in ((left, line["accuracy"]), (right, line["loss"])):
            _curve(axes, series, look, share)
    split = "validation" if data["split"] == "val" else "test"
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epochs")
    left.set(ylabel=f"{split} accuracy (%)", title=f"{data['title']} (bands: lowest to highest seed)")
    right.set(ylabel="loss", title=f"{split} loss (thin and pale: training loss)")
    _rows_legend(figure, data["lines"], looks)
    return figure


def _curve(axes: Axes, series: dict[str, list[Any]], look: Style, share: float) -> None:
    if series["low"] != series["high"]:
        axes.fill_between(series["epoch"], series["low"], series["high"], color=look.color, alpha=0.18, linewidth=0)
    axes.plot(series["epoch"], series["mean"], markevery=_spaced(len(series["epoch"]), share), **look.lines)


def _spaced(points: int, share: float) -> list[int]:
    """Where a line has its markers: a few, at other places than its neighbours have theirs."""
    gap = max(1.0, points / 5)
    return sorted({min(points - 1, int((i + share) * gap)) for i in range(5)}) if points else []


# --- calibration -----------------------------------------------------------------------------------------------------

MOST_DIAGRAMS = 8
FEW = 0.5  # percent of the images: in bins with fewer, accuracy says little, and no line goes through them


def reliability_data(cells: Sequence[Cell], dataset: str, most: int = MOST_DIAGRAMS) -> dict[str, Any]:
    return _of_first_cells(cells, dataset, most, _diagram_data)


def _of_first_cells(
    cells: Sequence[Cell], dataset: str, most: int, described: Callable[[Quality], dict[str, Any]]
) -> dict[str, Any]:
    """Of those that have predictions; all runs of a cell in one panel."""
    known = [(cell, quality) for cell in cells if cell.dataset == dataset and (quality := cell.quality)]
    shown = [{"row": list(cell.row), "n": quality.n, **described(quality)} for cell, quality in known[:most]]
    return {"title": title(dataset), "of": len(known), "panels": shown}


def _diagram_data(quality: Quality) -> dict[str, Any]:
    """An empty bin has no point."""
    bins = quality.bins
    filled_B = bins.images_B > 0
    images_B = bins.images_B[filled_B]
    return {
        "error": mean_interval(quality.calibration_errors)[0],
        "bin": np.flatnonzero(filled_B).tolist(),
        "confidence": (100 * bins.confidence_B[filled_B] / images_B).tolist(),
        "accuracy": (100 * bins.right_B[filled_B] / images_B).tolist(),
        "share": (100 * images_B / images_B.sum()).tolist(),
    }


def draw_reliability(data: dict[str, Any], looks: Looks) -> Figure:
    across = min(2 if len(data["panels"]) <= 4 else 4, len(data["panels"]))
    figure, grid = _cell_panels(data, across, 2.9 if across == 1 else 1.9, 0.55)
    for axes, panel in zip(grid, data["panels"]):
        _diagram(axes, panel, looks[tuple(panel["row"])])
        axes.set_title(f"{axes.get_title()}\ncalibration error {panel['error']:.1f} %", fontsize=7)
    separator = "; " if across == 4 else "\n"
    legend = f"bars: share of the images (%); pale points: below {FEW} %"
    figure.supxlabel(f"confidence (%){separator}{legend}", fontsize=8)
    figure.supylabel("test accuracy (%)", fontsize=8)
    return figure


def _cell_panels(data: dict[str, Any], across: int, height_in: float, more_in: float) -> tuple[Figure, list[Axes]]:
    """A panel for each of the first cells, below its variant and recipe."""
    shown, of, names = len(data["panels"]), data["of"], data.get("names")  # names of classes push a panel to the right
    size_in = PAGE_IN if across == 4 else COLUMN_IN, height_in * -(-shown // across) + more_in
    figure, grid = panels(shown, across, size_in, sharex=True, sharey=True)
    for place, (axes, panel) in enumerate(zip(grid, data["panels"])):
        parts, width = (without_owners(part) for part in panel["row"]), 26 if across > 1 else 46 if names else 54
        name = [line for part in parts for line in wrap(part, width, max_lines=3, placeholder=" …")]
        axes.set_title("\n".join(name), fontsize=7)
        axes.tick_params(labelbottom=place + across >= shown)  # the last of its column, whatever stands below it
    figure.suptitle(data["title"] + (f", first {shown} of {of} cells" if of > shown else ""), fontsize=8)
    return figure, grid


def _diagram(axes: Axes, panel: dict[str, Any], look: Style) -> None:
    width = 100 / CALIBRATION_BINS
    sides = [(place + side) * width for place in panel["bin"] for side in (0.05, 0.05, 0.95, 0.95)]
    heights = [height for share in panel["share"] for height in (0, share, share, 0)]
    axes.fill(sides, heights, color="#d0d0d0", linewidth=0)  # all bars as one shape: a shape each takes far longer
    axes.plot([0, 100], [0, 100], color="#888888", linewidth=0.8)
    points_B2, few_B = np.array([panel["confidence"], panel["accuracy"]]).T, np.array(panel["share"]) < FEW
    for shown_B, pale in ((~few_B, {}), (few_B, {"linestyle": "none", "alpha": 0.4})):
        if shown_B.any():  # a line without a point would be given room for
            axes.plot(*points_B2[shown_B].T, clip_on=False, **(look.lines | pale))
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xticks=(0, 50, 100), yticks=(0, 50, 100))


# --- confusion -------------------------------------------------------------------------------------------------------

MOST_MATRICES = 4
EVERY_TICK = 20  # with more classes, not each has a tick
SHARES = (0, 1, 5, 20, 50, 100)  # percent, marked on the colour bar


def confusion_data(cells: Sequence[Cell], dataset: str, most: int = MOST_MATRICES) -> dict[str, Any]:
    return _of_first_cells(cells, dataset, most, _matrix_data)


def _matrix_data(quality: Quality) -> dict[str, Any]:
    """Each row in percent of its images; a class without an image has a row of zeros."""
    images_K1 = quality.confusion_KK.sum(1, keepdims=True)
    return {"share": (100 * quality.confusion_KK / np.maximum(images_K1, 1)).round(4).tolist()}


def draw_confusion(data: dict[str, Any], looks: Looks) -> Figure:
    """Colours follow the square root of the share, so that rare mistakes are seen. `names`, if there are: of the
    classes, in place of their numbers."""
    across = min(2, len(data["panels"]))
    figure, grid = _cell_panels(data, across, 3.1 if across == 1 else 1.95, 0.75)
    norm = PowerNorm(0.5, 0, 100)
    for axes, panel in zip(grid, data["panels"]):
        axes.imshow(panel["share"], cmap="Blues", norm=norm, interpolation="nearest")
        axes.grid(False)
        classes = len(panel["share"])
        ticks = list(range(0, classes, 1 if classes <= EVERY_TICK else EVERY_TICK))
        axes.set(xticks=ticks, yticks=ticks)
        if names := data.get("names"):
            axes.set_xticklabels([shortened(names[k], 14) for k in ticks], rotation=45, ha="right")
            axes.set_yticklabels([shortened(names[k], 14) for k in ticks])
    for axes in grid[-across:]:  # the last of each column
        axes.set_xlabel("predicted class")
    figure.supylabel("true class", fontsize=8)
    bar = figure.colorbar(
        ScalarMappable(norm, "Blues"), ax=figure.axes, location="bottom", ticks=SHARES, aspect=40, shrink=0.9
    )
    bar.set_label("share of the true class's images (%)", fontsize=8)
    bar.minorticks_off()
    return figure


# --- robustness ------------------------------------------------------------------------------------------------------


def robustness_data(cells: Sequence[Cell], dataset: str) -> dict[str, Any]:
    """Means over kinds and seeds; strength 0 is the clean test set."""
    lines = []
    for cell in (cell for cell in cells if cell.dataset == dataset):
        if tested := cell.robustness:
            n = len(tested.clean)
            means = [sum(tested.clean) / n, *(sum(at) / len(at) for at in zip(*tested.by_kind.values()))]
            lines.append({"row": list(cell.row), "n": n, "accuracy": [100 * mean for mean in means]})
    return {"title": title(dataset), "lines": lines}


def draw_robustness(data: dict[str, Any], looks: Looks) -> Figure:
    figure, (axes,) = panels(1, 1, (COLUMN_IN, 2.5))
    for line in data["lines"]:
        axes.plot(range(len(line["accuracy"])), line["accuracy"], **looks[tuple(line["row"])].lines)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="strength of corruption (0: none), mean over kinds", ylabel="test accuracy (%)")
    axes.set_title(data["title"])
    _rows_legend(figure, data["lines"], looks)
    return figure
