"""Owns reading the predictions and epochs of all cells before a table asks for them: the most of a report's work.
Refuses to read what nothing shows, and to complain in another order than that of the cells.
"""

import io
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr

from harness.evidence.cells.course import Course, course_of
from harness.evidence.cells.groups import Group
from harness.evidence.cells.quality import Quality, quality_of
from harness.evidence.processes import Processes
from harness.records.read import Run

FEWEST, AT_ONCE = 40, 4  # cells: below, starting a process takes as long


def begin_reading(groups: Sequence[Group], processes: Processes) -> Callable[[], None]:
    """What it returns waits until everything is read."""
    found = processes.each(_read, [group.runs for group in groups], FEWEST, AT_ONCE)

    def finish() -> None:
        for group, (quality, course, complaints) in zip(groups, found):
            vars(group).update(quality=quality, course=course)  # where the cached properties look
            sys.stderr.write(complaints)

    return finish


def _read(runs: Sequence[Run]) -> tuple[Quality | None, Course, str]:
    complaints = io.StringIO()
    with redirect_stderr(complaints):
        return quality_of(runs), course_of(runs), complaints.getvalue()
