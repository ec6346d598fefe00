"""Owns the folder that a report writes: tables in three forms, and what the paper's prose takes from the records.
Refuses to compute; and it never touches a file that it does not write itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.evidence.cells import Evidence
from harness.evidence.findings import Finding
from harness.evidence.macros import macros_text
from harness.evidence.sections import studies_text
from harness.evidence.tables.benchmarks import Measured, benchmark_table, training_table
from harness.evidence.tables.calibration import calibration_table
from harness.evidence.tables.costs import cost_table
from harness.evidence.tables.main import cells_table, main_table
from harness.evidence.tables.reproduced import published_table
from harness.evidence.tables.robustness import robustness_table
from harness.evidence.tables.selection import selection_table
from harness.evidence.tables.study import study_tables
from harness.evidence.tables.targets import targets_table
from harness.evidence.writing.table import WRITTEN_BY, Table
from harness.records.write import write_atomically
from harness.study import Study


def all_tables(
    evidence: Evidence,
    study: Study,
    measured: Measured = (),
    studied: Sequence[Finding] = (),
    beside: Evidence | None = None,
) -> list[Table]:
    """The main table first, of what stands `beside` the studies; the others show every cell there is.

    Benchmarks only where some were measured, studies only where they were run.
    """
    runs = [main_table(beside or evidence, study), cells_table(evidence, study), cost_table(evidence)]
    runs += [published_table(evidence)]
    runs += [of(evidence, study) for of in (calibration_table, selection_table, targets_table, robustness_table)]
    runs += [table for instance in studied for table in study_tables(instance)]
    return runs + ([benchmark_table(measured), training_table(measured)] if measured else [])


def write_tables(tables: list[Table], folder: Path) -> list[str]:
    """One line of text for each table."""
    for table in tables:
        markdown = f"<!-- {WRITTEN_BY} -->\n\n{table.to_markdown()}"
        for suffix, text in {"md": markdown, "tex": table.to_latex(), "csv": table.to_csv()}.items():
            write_atomically(folder / f"{table.name}.{suffix}", text.encode())
        if not table.rows:  # which says something in a listing, and nothing on paper
            (folder / f"{table.name}.tex").unlink()
    return [f"tables/{table.name}.md .tex .csv" for table in tables] + _remove_stale(folder, tables)


def write_text(said: Mapping[str, str], studied: Sequence[Finding], folder: Path) -> list[str]:
    """The paper's macros, and its part on the studies with those figures that are there."""
    figures = [path.stem for path in (folder / "figures").glob("*.pdf")]
    texts = {"numbers": macros_text(said), "studies": studies_text(studied, figures)}
    for name, text in texts.items():
        write_atomically(folder / f"{name}.tex", text.encode())
    return [f"{name}.tex" for name in texts]


def _remove_stale(folder: Path, written: list[Table]) -> list[str]:
    """Removes tables of studies that the records no longer hold: those whose Markdown says that we wrote it."""
    names, lines = {table.name for table in written}, []
    for path in sorted(folder.glob("study-*.md")):
        if path.stem not in names and path.read_bytes().startswith(f"<!-- {WRITTEN_BY} -->".encode()):
            for suffix in ("md", "tex", "csv"):
                path.with_suffix(f".{suffix}").unlink(missing_ok=True)
            lines.append(f"tables/{path.stem}: removed, it was made of other records")
    return lines
