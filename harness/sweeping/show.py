"""Owns how studies, plans and where they stand are shown on a terminal.
Refuses to read records and to guess: what nobody knows is called unknown.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tabulate import tabulate

from harness.study import Study
from harness.sweeping.plan import Planned
from harness.sweeping.remaining import Remaining
from harness.sweeping.standing import STATES, Standing

MOST_NAMED = 20  # failed cells; the rest is counted


def about(seconds: float) -> str:
    """As coarse as a guess is."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 10 else f"{count:,.0f} {unit}"
    return f"{seconds:.0f} s"


def listing(studies: Mapping[str, Study]) -> str:
    """Every study with its cells, its small form's cells and its question."""
    rows = [
        [name, len(study.cells()), len(study.quick.cells()) if study.quick else "", study.question]
        for name, study in studies.items()
    ]
    return tabulate(
        rows, headers=["study", "cells", "--quick", "question"], colalign=("left", "right", "right", "left")
    )


def plan_lines(cells: Sequence[Planned], guess: Callable[[Planned], float | None]) -> list[str]:
    """A line for each row and data set, with the number of its first cell that is to be trained."""
    first: dict[str, Planned] = {}
    for cell in cells:
        first.setdefault(cell.plan_id, cell)
    lines = []
    for cell in first.values():
        seconds = guess(cell)
        time = "unknown" if seconds is None else f"about {about(seconds)} for each seed"
        lines.append(f"  {cell.number:>5}  {cell.where}: {time}")
    return lines


def status_text(cells: Sequence[Standing], left: Remaining) -> str:
    parts = [_table(cells, left), *_running(cells), *_failed(cells), _left(cells, left)]
    return "\n".join(parts)


def _table(cells: Sequence[Standing], left: Remaining) -> str:
    """A line for each row of the study, over its data sets and seeds."""
    rows: dict[str, list[Standing]] = {}
    for cell in cells:
        rows.setdefault(cell.cell.row.title, []).append(cell)
    lines = [[title, *_counts(of_row), _time(of_row, left)] for title, of_row in rows.items()]
    lines.append(["all", *_counts(cells), _time(cells, left)])
    align = ("left", *["right"] * (len(STATES) + 1))
    return tabulate(lines, headers=["row", *STATES, "time left"], colalign=align, disable_numparse=True)


def _counts(cells: Sequence[Standing]) -> list[str]:
    found = Counter(cell.state for cell in cells)
    return [str(found[state] or "-") for state in STATES]


def _time(cells: Sequence[Standing], left: Remaining) -> str:
    seconds = [left.seconds[cell.cell.number] for cell in cells if cell.cell.number in left.seconds]
    known = [s for s in seconds if s is not None]
    if not known:
        return "unknown" if seconds else "-"
    return about(sum(known)) + (" and more" if len(known) < len(seconds) else "")


def _running(cells: Sequence[Standing]) -> list[str]:
    return [
        f"running: {cell.cell.title}, {cell.epochs} of {cell.cell.config.recipe.epochs} passes, {cell.folder}"
        for cell in cells
        if cell.state == "running"
    ]


def _failed(cells: Sequence[Standing]) -> list[str]:
    failed = [cell for cell in cells if cell.state == "failed"]
    lines = [f"failed: cell {cell.cell.number}, {cell.cell.title}: {cell.reason}" for cell in failed[:MOST_NAMED]]
    return lines + ([f"failed: {len(failed) - MOST_NAMED} more"] if len(failed) > MOST_NAMED else [])


def _left(cells: Sequence[Standing], left: Remaining) -> str:
    count = len(left.seconds)
    if not count:
        return "all done"
    unknown = f" and {left.unknown} of which nothing is known" if left.unknown else ""
    if left.unknown == count:
        return f"{count} to go, how long is unknown"
    now = sum(cell.state == "running" for cell in cells)
    shared = f", about {about(left.total / now)} as {now} go on at once" if now > 1 else ""
    return f"{count} to go: about {about(left.total)} one after another{shared}{unknown}, at the pace of {left.device}"
