"""Owns time to accuracy: how many images, and how many minutes, until the test accuracy first reaches a target.
Refuses to choose anything by it, to average seeds that never arrived, and to print minutes of a shared device.
"""

from collections.abc import Sequence

from harness.datasets import title
from harness.evidence.cells import Cell, Evidence, in_order
from harness.evidence.quality import LADDER, LOW_LADDER
from harness.evidence.tables.captions import made_with, sentences
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import minutes, scaled
from harness.statistics.intervals import mean_interval
from harness.study import Study

MOST_TARGETS = 4  # of one data set


def targets_table(evidence: Evidence, study: Study) -> Table:
    groups = [group for group in in_order(evidence.cells, study) if group.curves.n]
    reached: dict[str, set[int]] = {}
    for group in groups:
        reached.setdefault(group.dataset, set()).update(*group.curves.reached)
    targets = sorted({target for found in reached.values() for target in chosen(found)})
    columns = [name for target in targets for name in (f"{target}% (M)", f"{target}% (min)")]
    rows = [_cells(group, targets) for group in groups]
    caption = sentences(
        "Millions of images seen (M), and minutes of training (min), until the test accuracy first reaches a target: "
        "means over the seeds that reach it, with how many of them where not all do. The test accuracy is looked at "
        "after each pass, so that a target counts as reached at the end of one; it is monitored, and nothing is chosen "
        "by it. "
        "Minutes where all seeds of a cell ran alone on one device. "
        f"Targets: up to {MOST_TARGETS} for each data set, evenly from those that at least one run on it reaches.",
        *(f"No run on {title(name)} reaches {min(LOW_LADDER)}%." for name, found in reached.items() if not found),
        made_with(groups),
        evidence.source,
    )
    return Table("targets", ("variant", "recipe", "data set", *columns, "device"), tuple(rows), caption)


def chosen(reached: set[int]) -> list[int]:
    """Evenly from the ladder, from the lowest to the highest reached; low ones only where there is nothing else."""
    steps = [t for t in LADDER if t in reached] or [t for t in LOW_LADDER if t in reached]
    if len(steps) <= MOST_TARGETS:
        return steps
    return [steps[round(i * (len(steps) - 1) / (MOST_TARGETS - 1))] for i in range(MOST_TARGETS)]


def _cells(group: Cell, targets: Sequence[int]) -> tuple[str, ...]:
    texts = (text for target in targets for text in _arrival(group, target))
    return (*group.row, title(group.dataset), *texts, group.timed_device or HOLE)


def _arrival(group: Cell, target: int) -> tuple[str, str]:
    """Images and minutes."""
    arrivals = group.curves.reached
    there = [run[target] for run in arrivals if target in run]
    images = [arrival.images for arrival in there if arrival.images is not None]
    seconds = [arrival.seconds for arrival in there if group.timed_device and arrival.seconds is not None]
    some = "" if len(there) == len(arrivals) else f" ({len(there)} of {len(arrivals)})"
    time = minutes(mean_interval(seconds)[0] / 60) if seconds else HOLE
    return scaled(mean_interval(images)[0] if images else None, 1e6) + some, time
