"""Owns the list of figures: from what data each is drawn, how, under which name, and why one is not.
Refuses to keep a figure of an earlier run that the records no longer support, and to touch a file that is not ours.
"""

import hashlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.evidence.cells import Cell, Evidence, datasets_of, rows_of
from harness.evidence.figures import study as study_figures
from harness.evidence.figures.benchmarks import benchmark_data, draw_benchmarks
from harness.evidence.figures.confusion import confusion_data, draw_confusion
from harness.evidence.figures.curves import curves_data, draw_curves
from harness.evidence.figures.digest import both_bytes, data_digest, read_digest
from harness.evidence.figures.fonts import families, write_part
from harness.evidence.figures.reliability import draw_reliability, reliability_data
from harness.evidence.figures.robustness import draw_robustness, robustness_data
from harness.evidence.figures.sizes import draw_sizes, sizes_data
from harness.evidence.figures.style import RC, Style, styles
from harness.evidence.figures.tradeoffs import AXES, draw_tradeoff, tradeoff_data
from harness.evidence.findings import Finding
from harness.evidence.tables.benchmarks import Measured
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
MOST_SIGNS = 80  # of a data set in a file's name
MANY = 12  # figures: below, cutting a font takes as long

Looks = dict[tuple[str, str], Style]


@dataclass(frozen=True)
class Plan:
    name: str
    data: dict[str, Any]
    draw: Callable[..., Any]
    lacking: str = ""  # why it cannot be drawn


def shown_groups(groups: Sequence[Cell], study: Study) -> list[Cell]:
    """Those of the first rows of the main table: no one can tell apart a hundred lines."""
    rows = [row for row in rows_of(groups, study) if row.on]
    return [group for row in rows[:MOST_ROWS] for group in row.cells]


def plans(evidence: Evidence, study: Study, measured: Measured = (), studied: Sequence[Finding] = ()) -> list[Plan]:
    groups = shown_groups(evidence.cells, study)
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
    data = sizes_data(groups, evidence.costs, study.datasets[0])
    found.append(Plan("model-size", data, draw_sizes, "" if data["bars"] else "no parameter count is known"))
    found += [Plan(*figure) for instance in studied for figure in study_figures.study_figures(instance)]
    if measured:
        data = benchmark_data(measured)
        found.append(Plan("benchmarks", data, draw_benchmarks, "" if data["panels"] else "nothing was measured"))
    return found


class Figures:
    """Of what some folders hold; begun at once, so that tables can be made while they are drawn."""

    def __init__(
        self,
        evidence: Evidence,
        study: Study,
        measured: Measured = (),
        studied: Sequence[Finding] = (),
    ):
        planned = plans(evidence, study, measured, studied)
        self.wanted = [plan for plan in planned if not plan.lacking]
        self.skipped = [f"figures/{plan.name}: skipped, {plan.lacking}" for plan in planned if plan.lacking]
        self.rows = len({group.row for group in evidence.cells})
        looks = styles(group.row for group in (*evidence.cells, *evidence.validation))
        self.fonts = TemporaryDirectory(prefix="fonts-") if len(self.wanted) >= MANY else None
        part = write_part(Path(self.fonts.name)) if self.fonts else None
        self.drawn = map(drawn, [(plan, looks, part) for plan in self.wanted])

    def write(self, folder: Path) -> list[str]:
        """Each figure as PDF and PNG; one line of text for each one written, skipped or removed."""
        complaints: dict[str, None] = {}
        for plan, (pdf, png, complained) in zip(self.wanted, self.drawn):
            write_atomically(folder / f"{plan.name}.pdf", pdf)
            write_atomically(folder / f"{plan.name}.png", png)
            complaints |= dict.fromkeys(complained)
        if self.fonts:
            self.fonts.cleanup()
        for complaint in complaints:
            print(f"figures: {complaint}", file=sys.stderr)
        lines = [f"figures/{plan.name}.pdf .png" for plan in self.wanted]
        if self.rows > MOST_ROWS:
            lines.append(f"figures show the first {MOST_ROWS} of {self.rows} rows of the main table")
        return lines + self.skipped + remove_stale(folder, {plan.name for plan in self.wanted})


def drawn(work: tuple[Plan, Looks, Path | None]) -> tuple[bytes, bytes, list[str]]:
    """PDF, PNG, and what matplotlib complained of: it would say it once in each process."""
    import matplotlib

    plan, looks, part = work
    with matplotlib.rc_context(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        for kind in (UserWarning, RuntimeWarning):
            warnings.simplefilter("always", kind)
        matplotlib.rcdefaults()  # a person's own matplotlibrc must not reach the files
        matplotlib.use("Agg")
        matplotlib.rcParams.update(RC | ({"font.family": families(part)} if part else {}))
        pdf, png = both_bytes(plan.draw(plan.data, looks), data_digest(plan.data))
    return pdf, png, [str(one.message) for one in caught]


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
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", plain)[:MOST_SIGNS]
    digest = hashlib.sha256(dataset.encode(errors="surrogatepass")).hexdigest()
    return safe if safe == plain else f"{safe}-{digest[:6]}"
