"""What a report writes: every table and figure there is, the text that the paper takes from the records, the results in
a README, and the paper as a PDF where a LaTeX is installed.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.evidence.cells.groups import Evidence, Group
from harness.evidence.cells.rows import rows_of
from harness.evidence.figures.cells import cell_figures
from harness.evidence.figures.costs import benchmark_figures, cost_figures
from harness.evidence.figures.drawing import Plan, styles, write_plans
from harness.evidence.figures.studies import study_figures
from harness.evidence.findings.instances import Instance
from harness.evidence.prose import macros_text, studies_text
from harness.evidence.tables.costs import Measured, benchmark_table, cost_table, training_table
from harness.evidence.tables.main import cells_table, main_table
from harness.evidence.tables.published import published_table
from harness.evidence.tables.quality import quality_tables
from harness.evidence.tables.study import study_tables
from harness.evidence.writing import WRITTEN_BY, Table, escape_markdown
from harness.records.write import write_atomically
from harness.study import Study
from variants.fields import UsageError

# --- tables ----------------------------------------------------------------------------------------------------------


def all_tables(
    evidence: Evidence,
    study: Study,
    measured: Measured = (),
    studied: Sequence[Instance] = (),
    beside: Evidence | None = None,
) -> list[Table]:
    """The main table first, of what stands `beside` the studies; the others show every cell there is.

    Benchmarks only where some were measured, studies only where they were run.
    """
    runs = [main_table(beside or evidence, study), cells_table(evidence, study), cost_table(evidence)]
    runs += [published_table(evidence), *quality_tables(evidence, study)]
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


def _remove_stale(folder: Path, written: list[Table]) -> list[str]:
    """Removes tables of studies that the records no longer hold: those whose Markdown says that we wrote it."""
    names, lines = {table.name for table in written}, []
    for path in sorted(folder.glob("study-*.md")):
        if path.stem not in names and path.read_bytes().startswith(f"<!-- {WRITTEN_BY} -->".encode()):
            for suffix in ("md", "tex", "csv"):
                path.with_suffix(f".{suffix}").unlink(missing_ok=True)
            lines.append(f"tables/{path.stem}: removed, it was made of other records")
    return lines


# --- figures ---------------------------------------------------------------------------------------------------------

MOST_ROWS = 24  # of the main table: nobody can tell a hundred lines apart


def all_figures(
    evidence: Evidence, study: Study, measured: Measured = (), studied: Sequence[Instance] = ()
) -> list[Plan]:
    groups, validation = (_first_rows(groups, study) for groups in (evidence.groups, evidence.validation))
    found = [*cell_figures(groups, validation), *cost_figures(groups, evidence.costs, study.datasets[0])]
    found += [figure for instance in studied for figure in study_figures(instance)]
    return found + benchmark_figures(measured)


def _first_rows(groups: Sequence[Group], study: Study) -> list[Group]:
    rows = [row for row in rows_of(groups, study) if row.on]
    return [group for row in rows[:MOST_ROWS] for group in row.groups]


def write_figures(plans: Sequence[Plan], evidence: Evidence, folder: Path) -> list[str]:
    """One line of text for each figure, and one where not all rows of the main table are shown."""
    lines = write_plans(plans, styles(group.row for group in (*evidence.groups, *evidence.validation)), folder)
    rows = len({group.row for group in evidence.groups})
    more = [f"figures show the first {MOST_ROWS} of {rows} rows of the main table"] if rows > MOST_ROWS else []
    return [*lines, *more]


# --- text ------------------------------------------------------------------------------------------------------------


def write_text(said: Mapping[str, str], studied: Sequence[Instance], folder: Path) -> list[str]:
    """The paper's macros, and its part on the studies with those figures that are there."""
    figures = [path.stem for path in (folder / "figures").glob("*.pdf")]
    texts = {"numbers": macros_text(said), "studies": studies_text(studied, figures)}
    for name, text in texts.items():
        write_atomically(folder / f"{name}.tex", text.encode())
    return [f"{name}.tex" for name in texts]


BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def read_parts(path: Path) -> tuple[str, str]:
    """What stands in a README before and after the results, marker lines included."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--readme {path}: {getattr(error, 'strerror', None) or error}") from None
    begins, ends = ([i for i, line in enumerate(lines) if line.strip() == mark] for mark in (BEGIN, END))
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise UsageError(f"--readme {path}: one line {BEGIN} and after it one line {END} are needed")
    return "".join(lines[: begins[0] + 1]), "".join(lines[ends[0] :])


def write_results(path: Path, table: Table, told: Sequence[Sequence[str]] = ()) -> None:
    """The table, and below it a line for each study: where it was run, and what it found."""
    before, after = read_parts(path)
    lines = [f"* Study {escape_markdown(' '.join(sentence.strip() for sentence in study))}\n" for study in told]
    studies = "".join([*lines, "\n"]) if lines else ""
    content = f"{before}<!-- {WRITTEN_BY} -->\n\n{table.to_markdown()}\n{studies}{after}"
    write_atomically(path, content.encode())


# --- the PDF ---------------------------------------------------------------------------------------------------------

COMMANDS = {
    "latexmk": ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"],
    "pdflatex": ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"],
    "tectonic": ["tectonic", "--untrusted"],
}
REPEATS = {"pdflatex": 3}  # for its references; the others repeat by themselves
LIMIT_S = 300
TEMPLATE = Path(__file__).resolve().parents[2] / "paper" / "main.tex"


def find_latex() -> str | None:
    return next((name for name in COMMANDS if shutil.which(name)), None)


def typeset(folder: Path) -> str:
    """Builds folder/main.pdf; one line of text on what came of it. main.tex is put there if it is missing."""
    source = folder / "main.tex"
    if not source.exists():
        shutil.copyfile(TEMPLATE, source)
    latex = find_latex()
    if latex is None:
        return f"{source}: not typeset, none of {', '.join(COMMANDS)} is installed; any LaTeX with booktabs will do"
    with tempfile.TemporaryDirectory() as build:
        for path in folder.iterdir():  # what TeX leaves beside its result must not lie in the paper's folder
            if path.name != "main.pdf":
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, Path(build) / path.name)
        for _ in range(REPEATS.get(latex, 1)):
            _run([*COMMANDS[latex], "main.tex"], Path(build), source)
        shutil.copyfile(Path(build) / "main.pdf", folder / "main.pdf")
    return f"main.pdf (typeset by {latex})"


def _run(command: list[str], build: Path, source: Path) -> None:
    fixed = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}  # no date of today in the file
    try:
        done = subprocess.run(
            command, cwd=build, env=os.environ | fixed, capture_output=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"{source}: {command[0]} was not done after {LIMIT_S} s") from None
    if done.returncode or not (build / "main.pdf").exists():
        raise UsageError(f"{source}: {command[0]} cannot typeset it: {_reason(build, done.stdout)}")


def _reason(build: Path, output: bytes) -> str:
    """TeX's first error message, with the line that it is about."""
    log = build / "main.log"
    lines = (log.read_bytes() if log.exists() else output).decode("utf-8", "replace").splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("!")), None)
    if first is None:
        return lines[-1] if lines else "no reason given"
    where = next((line for line in lines[first:] if line.startswith("l.")), "")
    return f"{lines[first].lstrip('! ')} {where}".strip()
