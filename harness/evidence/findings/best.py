"""Owns which cell of a column is bold: the best mean, where paired tests tell it from every other row of the column.
Refuses to call anything best that was run once, that ties, or that shares too few seeds with one of its rivals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.evidence.writing import joined
from harness.statistics.intervals import ALPHA
from harness.statistics.paired import holm, paired

BySeed = Mapping[int, float]

RULE = (
    "Bold: the best mean of its column, where paired t-tests by seed tell it from every other row "
    f"(p ≤ {ALPHA:.2g} after Holm's adjustment for these comparisons)."
)


@dataclass(frozen=True)
class Best:
    row: int | None = None  # the row to be bold
    undecided: bool = False  # there are rivals, and no test against at least one of them


def best_of(column: Sequence[BySeed | None]) -> Best:
    """`column` has the accuracies of each row by seed; a row without runs takes no part."""
    means = {row: sum(of.values()) / len(of) for row, of in enumerate(column) if of}
    if len(means) < 2:
        return Best()
    first = max(means, key=lambda row: means[row])
    rivals = [paired(column[row] or {}, column[first] or {}) for row in means if row != first]
    p_values = [rival.t_p for rival in rivals]
    if any(p is None for p in p_values):
        return Best(undecided=True)
    # The means are over all seeds, the tests over those that both rows have: they must point the same way.
    ahead = all((rival.mean or 0) > 0 for rival in rivals)
    clear = all(p is not None and p <= ALPHA for p in holm(p_values))
    return Best(row=first if ahead and clear else None)


def best_sentence(columns: Mapping[str, Best]) -> str:
    """The rule, and the columns where there is no test to apply it to."""
    undecided = [name for name, best in columns.items() if best.undecided]
    why = "some rows share fewer than two seeds with the best, or differ from it by the same on every seed"
    return f"{RULE} Undecided for {joined(undecided)}: {why}." if undecided else RULE
