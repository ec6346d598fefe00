"""Owns the list of figures: from what data each is drawn, how, under which name, and why one is not.
Refuses to keep a figure of an earlier run that the records no longer support, and to touch a file that is not ours.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.evidence import study_figures
from harness.evidence.benchmarks import Measured, benchmark_data, draw_benchmarks
from harness.evidence.calibration import draw_reliability, reliability_data
from harness.evidence.confusion import confusion_data, draw_confusion
from harness.evidence.curves import curves_data, draw_curves
from harness.evidence.digest import data_digest, pdf_bytes, png_bytes, read_digest
from harness.evidence.groups import Evidence, Group
from harness.evidence.instances import Instance
from harness.evidence.robustness import draw_robustness, robustness_data
from harness.evidence.rows import datasets_of, rows_of
from harness.evidence.sizes import draw_sizes, sizes_data
from harness.evidence.style import RC, styles
from harness.evidence.tradeoffs import AXES, draw_tradeoff, tradeoff_data
from harness.records.write import write_atomically
from harness.study import Study

FIXED_NAMES = (*(f"accuracy-vs-{against}" for against in AXES), "model-size", "benchmarks")
OF_A_DATASET: dict[str, tuple[Callable[..., dict[str, Any]], Callable[..., Any], str, str]] = {
    "reliability": (reliability_data, draw_reliability, "panels", "has predictions"),
    "confusion": (confusion_data, draw_confusion, "panels", "has predictions"),
    "robustness": (robustness_data, draw_robustness, "lines", "was tested on corrupted images"),
}
PREFIXES = ("curves-", *(f"{name}-" for name in OF_A_DATASET), *study_figures.PREFIXES)
MOST_ROWS = 24


@dataclass(frozen=True)
class Plan:
    name: str
    data: dict[str, Any]
    draw: Callable[..., Any]
    lacking: str = ""  # why it cannot be drawn


def shown_groups(groups: Sequence[Group], study: Study) -> list[Group]:
    """Those of the first rows of the main table: no one can tell apart a hundred lines."""
    rows = [row for row in rows_of(groups, study) if row.on]
    return [group for row in rows[:MOST_ROWS] for group in row.groups]


def plans(evidence: Evidence, study: Study, measured: Measured = (), studied: Sequence[Instance] = ()) -> list[Plan]:
    groups = shown_groups(evidence.groups, study)
    validation = shown_groups(evidence.validation, study)
    found = []
    for dataset in datasets_of((*groups, *validation)):
        tested = any(group.dataset == dataset and group.runs for group in groups)
        data = curves_data(*((groups, dataset, "test") if tested else (validation, dataset, "val")))
        lacking = "" if data["lines"] else "no finished run has epochs"
        found.append(Plan(f"curves-{slug(dataset)}", data, draw_curves, lacking))
    for dataset in datasets_of(groups):
        for name, (data_of, draw, parts, need) in OF_A_DATASET.items():
            data = data_of(groups, dataset)
            lacking = "" if data[parts] else f"no finished run {need}"
            found.append(Plan(f"{name}-{slug(dataset)}", data, draw, lacking))
    needs = {"params": "a parameter count", "macs": "a MAC count", "time": "a time of its own"}
    for against, need in {**needs, "energy": "an energy of its own"}.items():
        data = tradeoff_data(groups, against)
        lacking = "" if data["panels"] else f"no finished run has a test accuracy and {need}"
        found.append(Plan(f"accuracy-vs-{against}", data, draw_tradeoff, lacking))
    data = sizes_data(groups)
    found.append(Plan("model-size", data, draw_sizes, "" if data["bars"] else "no run recorded a parameter count"))
    found += [Plan(*figure) for instance in studied for figure in study_figures.study_figures(instance)]
    if measured:
        data = benchmark_data(measured)
        found.append(Plan("benchmarks", data, draw_benchmarks, "" if data["panels"] else "nothing was measured"))
    return found


def write_figures(
    evidence: Evidence, study: Study, folder: Path, measured: Measured = (), studied: Sequence[Instance] = ()
) -> list[str]:
    """Writes each figure as PDF and PNG; one line of text for each figure written, skipped or removed."""
    planned = plans(evidence, study, measured, studied)
    wanted = [plan for plan in planned if not plan.lacking]
    skipped = [f"figures/{plan.name}: skipped, {plan.lacking}" for plan in planned if plan.lacking]
    lines = _draw_all(wanted, evidence, folder) if wanted else []
    rows = len({group.row for group in evidence.groups})
    if rows > MOST_ROWS:
        lines.append(f"figures show the first {MOST_ROWS} of {rows} rows of the main table")
    return lines + skipped + remove_stale(folder, {plan.name for plan in wanted})


def _draw_all(wanted: list[Plan], evidence: Evidence, folder: Path) -> list[str]:
    import matplotlib

    looks = styles(group.row for group in (*evidence.groups, *evidence.validation))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a person's own matplotlibrc must not reach the files
        matplotlib.use("Agg")
        matplotlib.rcParams.update(RC)
        for plan in wanted:
            figure, digest = plan.draw(plan.data, looks), data_digest(plan.data)
            write_atomically(folder / f"{plan.name}.pdf", pdf_bytes(figure, digest))
            write_atomically(folder / f"{plan.name}.png", png_bytes(figure, digest))
    return [f"figures/{plan.name}.pdf .png" for plan in wanted]


def remove_stale(folder: Path, written: Iterable[str]) -> list[str]:
    """Removes figures of ours that were not written this time: those whose PNG carries our digest."""
    written, lines = set(written), []
    for png in sorted(folder.glob("*.png")):
        ours = png.stem in FIXED_NAMES or png.stem.startswith(PREFIXES)
        if ours and png.stem not in written and read_digest(png) is not None:
            png.with_suffix(".pdf").unlink(missing_ok=True)
            png.unlink()
            lines.append(f"figures/{png.stem}: removed, it was drawn from other records")
    return lines


def slug(dataset: str) -> str:
    """A file name; two folders whose names differ only in what a file name cannot hold stay apart."""
    plain = dataset.replace("folder:", "folder-")
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", plain)
    return safe if safe == plain else f"{safe}-{hashlib.sha256(dataset.encode()).hexdigest()[:6]}"
