"""Owns the bias of selection: how much a paper gains by printing its best test epoch in place of its last.
Refuses to print the gain as an accuracy of ours: it is what nothing here is chosen by.
"""

from harness.datasets import title
from harness.evidence.cells import Cell, Evidence, count, in_order
from harness.evidence.quality import finite
from harness.evidence.tables.captions import made_with, sentences
from harness.evidence.writing.table import Table
from harness.evidence.writing.text import half_width, mean, mean_difference, signed
from harness.statistics.intervals import LEVEL, mean_interval
from harness.study import Study

COLUMNS = (
    *("variant", "recipe", "data set", "runs", "last epoch (%)", "best test epoch (%)"),
    *("best - last (points)", "± (points)", "largest (points)"),
)


def selection_table(evidence: Evidence, study: Study) -> Table:
    known = [(group, pairs) for group in in_order(evidence.cells, study) if (pairs := _pairs(group))]
    gains = [best - last for _, pairs in known for last, best in pairs]
    caption = sentences(
        "What one gains by printing the best test epoch, as most papers do: the test set has then chosen the epoch and "
        "judges its own choice. Every other table here prints the last planned epoch. Means over the runs, "
        f"± half-width of the {LEVEL:.0%} t-interval.",
        _overall(gains),
        made_with([group for group, _ in known], "n"),
        evidence.source,
    )
    return Table("selection-bias", COLUMNS, tuple(_cells(*pair) for pair in known), caption)


def _pairs(group: Cell) -> list[tuple[float, float]]:
    """Last and best epoch of each run that has both, in percent."""
    pairs = ([finite(run.result.get(name)) for name in ("test_accuracy", "best_test_accuracy")] for run in group.runs)
    return [(100 * last, 100 * best) for last, best in pairs if last is not None and best is not None]


def _cells(group: Cell, pairs: list[tuple[float, float]]) -> tuple[str, ...]:
    last, best = (list(values) for values in zip(*pairs))
    gains = [best - last for last, best in pairs]
    numbers = (mean(last), mean(best), mean_difference(gains), half_width(gains), signed(max(gains)))
    return (*group.row, title(group.dataset), str(len(pairs)), *numbers)


def _overall(gains: list[float]) -> str:
    if not gains:
        return ""
    average = mean_interval(gains)[0]
    return f"Over all {count(len(gains), 'run')}: {signed(average)} points on average, {signed(max(gains))} at most."
