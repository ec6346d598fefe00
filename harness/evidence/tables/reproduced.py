"""Owns published against reproduced: each published number beside ours under the same recipe and as many passes.
Refuses to compare a shortened or altered run with a published number, and to call a miss anything else.
"""

from collections.abc import Sequence

from harness.datasets import title
from harness.evidence.cells import Cell, Evidence
from harness.evidence.published import PUBLISHED_NUMBERS, Published
from harness.evidence.tables.captions import different_data, flag, made_with, sentences
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import signed, spread, whole
from harness.statistics.intervals import mean_interval

COLUMNS = (
    *("source", "variant", "data set", "published (%)", "ours (%)", "difference", "passes, published / ours"),
    *("verdict", "note", "run ids"),
)


def published_table(evidence: Evidence, numbers: Sequence[Published] = PUBLISHED_NUMBERS) -> Table:
    by_key: dict[tuple[str, str, str], list[Cell]] = {}
    for group in evidence.cells:
        by_key.setdefault((group.variant, group.recipe, group.dataset), []).append(group)
    rows, shown = [], list[Cell]()
    for number in numbers:
        candidates = by_key.get((number.variant, number.recipe, number.dataset), [])
        same = [group for group in candidates if group.epochs == number.passes]
        shown += same
        rows += [_row(number, group) for group in same] or [_row(number, None)]
    caption = sentences(
        "Published accuracy and ours under the published recipe with as many passes: mean ± half-width of the 95% "
        "t-interval (number of seeds). Reached: our mean is at least the published number; missed: it is not; open: no "
        "finished run. Most sources print the best of their test epochs, we print the last. S1 trained in fp16, the "
        "others in fp32; RECIPES.md lists what else deviates.",
        made_with(shown, "n", "passes"),
        evidence.source,
        *different_data(shown),
    )
    return Table("published", COLUMNS, tuple(rows), caption, ("run ids",))


def _row(number: Published, group: Cell | None) -> tuple[str, ...]:
    values = group.accuracies if group else []
    variant = f"{number.variant} [{group.note}]" if group and group.note else number.variant
    difference, verdict = _verdict(number.accuracy, values)
    ours = spread(values, len(group.failed)) + flag(group) if group else HOLE
    published = "none published" if number.accuracy is None else f"{number.accuracy:.2f}"
    passes = f"{number.passes} / {whole(group.epochs) if group else HOLE}"
    ids = ", ".join(run.config.get("run_id") or run.folder.name for run in group.runs) if group else ""
    return (
        *(number.source, variant, title(number.dataset), published, ours, difference, passes),
        *(verdict, number.note or HOLE, ids or HOLE),
    )


def _verdict(published: float | None, values: Sequence[float]) -> tuple[str, str]:
    """Difference and verdict. Rounded before it is judged, so that 100 x .7725 does not miss 77.25."""
    if not values:
        return HOLE, "open"
    if published is None:
        return HOLE, HOLE
    difference = round(mean_interval(values)[0] - published, 6)
    return signed(difference), "reached" if difference >= 0 else "missed"
