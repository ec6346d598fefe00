"""Owns the folder that a report writes: tables in three forms, figures in two.
Refuses to compute; and it never touches a file that it does not write itself.
"""

from pathlib import Path

from harness.evidence.benchmarks import Measured, benchmark_table, training_table
from harness.evidence.costs import cost_table
from harness.evidence.groups import Evidence
from harness.evidence.reproduced import published_table
from harness.evidence.table import WRITTEN_BY, Table
from harness.evidence.tables import cells_table, main_table
from harness.records.write import write_atomically
from harness.studies import Study


def all_tables(evidence: Evidence, study: Study, measured: Measured = ()) -> list[Table]:
    """The main table first; benchmarks only where some were measured."""
    runs = [main_table(evidence, study), cells_table(evidence, study), cost_table(evidence), published_table(evidence)]
    return runs + ([benchmark_table(measured), training_table(measured)] if measured else [])


def write_tables(tables: list[Table], folder: Path) -> list[str]:
    """One line of text for each table."""
    for table in tables:
        markdown = f"<!-- {WRITTEN_BY} -->\n\n{table.to_markdown()}"
        for suffix, text in {"md": markdown, "tex": table.to_latex(), "csv": table.to_csv()}.items():
            write_atomically(folder / f"{table.name}.{suffix}", text.encode())
    return [f"tables/{table.name}.md .tex .csv" for table in tables]
