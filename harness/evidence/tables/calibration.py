"""Owns the table of how far a model may be believed: NLL, calibration error, the worst and the best class.
Refuses a cell of which no run left its predictions.
"""

import numpy as np

from harness.datasets import title
from harness.evidence.cells import Cell, Evidence, count, in_order
from harness.evidence.quality import Quality
from harness.evidence.tables.captions import different_data, flag, made_with, sentences
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import mean, mean_difference, spread
from harness.statistics.images import CALIBRATION_BINS
from harness.statistics.intervals import LEVEL
from harness.study import Study

COLUMNS = (
    *("variant", "recipe", "data set", "NLL", "calibration error (%)", "confidence - accuracy (points)"),
    *("worst class (%)", "best class (%)", "n"),
)


def calibration_table(evidence: Evidence, study: Study) -> Table:
    groups = in_order(evidence.cells, study)
    known = [(group, quality) for group in groups if (quality := group.quality)]
    without = sum(1 for group in groups if group.runs) - len(known)
    caption = sentences(
        "How far a model's confidence may be believed. Calibration error: |accuracy - confidence| in "
        f"{CALIBRATION_BINS} bins of equal width, by their share of the images, for each run; mean ± half-width of the "
        f"{LEVEL:.0%} t-interval. Confidence above accuracy (+) is over-confidence. Classes by their number, with "
        "their accuracy. Means over n runs with predictions; NLL over all runs.",
        f"Without predictions, and left out: {count(without, 'cell')}." if without else "",
        made_with([group for group, _ in known], "n"),
        evidence.source,
        *different_data([group for group, _ in known]),
    )
    return Table("calibration", COLUMNS, tuple(_cells(*pair) for pair in known), caption)


def _cells(group: Cell, quality: Quality) -> tuple[str, ...]:
    worst, best = _extreme_classes(quality.class_accuracy_K)
    error = spread(quality.calibration_errors).rpartition(" (")[0] + flag(group)
    nll = mean(group.measured("test_nll"), ".3f")
    over = mean_difference(quality.overconfidence)
    return (*group.row, title(group.dataset), nll, error, over, worst, best, str(quality.n))


def _extreme_classes(accuracy_K: np.ndarray) -> tuple[str, str]:
    """The worst and the best class with an image; of equals, the first."""
    if np.isnan(accuracy_K).all():
        return HOLE, HOLE
    chosen = (int(find(accuracy_K)) for find in (np.nanargmin, np.nanargmax))
    worst, best = (f"{accuracy_K[label]:.2f} (class {label})" for label in chosen)
    return worst, best
