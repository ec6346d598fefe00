"""What a report writes: every table and figure there is, what the paper's text takes from the records (macros for its
numbers and a part on each study), the results in a README, and the paper as a PDF where a LaTeX is installed."""

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from harness.datasets import CORRUPTION_NAMES, CORRUPTION_STRENGTHS
from harness.evidence.captions import conclusions, made_with
from harness.evidence.cells import Cell, Evidence, count, datasets_of, rows_of
from harness.evidence.effects import BETTER, WORSE
from harness.evidence.figures.cells import cell_figures
from harness.evidence.figures.costs import benchmark_figures, cost_figures
from harness.evidence.figures.drawing import Plan, styles, write_plans
from harness.evidence.figures.studies import study_figures
from harness.evidence.findings import Finding
from harness.evidence.published import compared
from harness.evidence.tables.costs import (
    Measured,
    benchmark_table,
    cost_table,
    seeds_lines,
    seeds_table,
    training_table,
)
from harness.evidence.tables.quality import quality_tables
from harness.evidence.tables.results import cells_table, devices_of, main_table, published_table
from harness.evidence.tables.study import study_tables
from harness.evidence.writing import WRITTEN_BY, Table, escape_latex, escape_markdown
from harness.recipes import RECIPES
from harness.records.write import write_atomically
from harness.statistics.images import CALIBRATION_BINS
from harness.statistics.intervals import LEVEL
from harness.statistics.simulated import simulate
from harness.study import Study
from variants.catalog import CATALOG
from variants.fields import UsageError

# --- tables ----------------------------------------------------------------------------------------------------------


def all_tables(
    evidence: Evidence,
    study: Study,
    measured: Measured = (),
    findings: Sequence[Finding] = (),
    beside: Evidence | None = None,
) -> list[Table]:
    """The main table first, of what stands `beside` the studies; the others show every cell there is.

    Benchmarks only where some were measured, studies only where they were run.
    """
    runs = [main_table(beside or evidence, study), cells_table(evidence, study), cost_table(evidence)]
    runs += [published_table(evidence), *quality_tables(evidence, study)]
    runs += [seeds_table(evidence)] if seeds_lines(evidence.cells) else []
    runs += [table for finding in findings for table in study_tables(finding)]
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
    evidence: Evidence, study: Study, measured: Measured = (), findings: Sequence[Finding] = ()
) -> list[Plan]:
    cells, validation = (_first_rows(cells, study) for cells in (evidence.cells, evidence.validation))
    found = [*cell_figures(cells, validation), *cost_figures(cells, evidence.costs, study.datasets[0])]
    found += [figure for finding in findings for figure in study_figures(finding)]
    return found + benchmark_figures(measured)


def _first_rows(cells: Sequence[Cell], study: Study) -> list[Cell]:
    rows = [row for row in rows_of(cells, study) if row.on]
    return [cell for row in rows[:MOST_ROWS] for cell in row.cells]


def write_figures(plans: Sequence[Plan], evidence: Evidence, folder: Path) -> list[str]:
    """One line of text for each figure, and one where not all rows of the main table are shown."""
    lines = write_plans(plans, styles(cell.row for cell in (*evidence.cells, *evidence.validation)), folder)
    rows = len({cell.row for cell in evidence.cells})
    more = [f"figures show the first {MOST_ROWS} of {rows} rows of the main table"] if rows > MOST_ROWS else []
    return [*lines, *more]


# --- macros ----------------------------------------------------------------------------------------------------------


def macros(
    evidence: Evidence, study: Study, findings: Sequence[Finding], drawn: Sequence[Cell] | None = None
) -> dict[str, str]:
    """Name -> text, not yet escaped. `drawn`: the cells that the figures show, where these are not all."""
    made = made_with(evidence.cells if drawn is None else drawn)
    return {**_method(study), **_simulation(), **_records(evidence, study), "madeWith": made, **_found(findings)}


def macros_text(values: Mapping[str, str]) -> str:
    lines = [rf"\newcommand{{\{name}}}{{{escape_latex(value)}}}" for name, value in values.items()]
    return "\n".join([f"% {WRITTEN_BY}", *lines]) + "\n"


def _method(study: Study) -> dict[str, str]:
    common = RECIPES["common"]
    return {
        "variantCount": str(len(CATALOG)),
        "plannedSeeds": str(len(study.seeds)),
        "commonRate": f"{common.lr:g}",
        "commonWarmup": f"{common.warmup_epochs:g}",
        "commonEpochs": str(common.epochs),
        "commonBatch": str(common.batch_size),
        "commonMix": f"{common.mix_prob:.0%}",
        "commonDecay": f"{common.weight_decay:g}",
        "levelPercent": f"{LEVEL:.0%}",
        "calibrationBins": str(CALIBRATION_BINS),
        "corruptionKinds": str(len(CORRUPTION_NAMES)),
        "corruptionStrengths": str(CORRUPTION_STRENGTHS),
    }


SIMULATED_STUDIES, SIMULATED_SEEDS = 2000, 5  # as `python -m harness.simulate` has them


@cache
def _simulation() -> dict[str, str]:
    found = simulate(SIMULATED_STUDIES, SIMULATED_SEEDS, goals_only=True)
    return {
        "simStudies": f"{found.studies:,}",
        "simSeeds": str(found.seeds),
        "simCoverage": f"{found.share('mean_covered'):.2%}",
        "simPairedCoverage": f"{found.share('difference_covered'):.2%}",
        "simFamilyError": f"{found.share('any_false'):.2%}",
    }


def _records(evidence: Evidence, study: Study) -> dict[str, str]:
    judged = Counter(pair.verdict for pair in compared(evidence.cells) if pair.published.accuracy is not None)
    return {
        "runsDone": str(sum(len(cell.runs) for cell in evidence.cells)),
        "devices": devices_of([cell for cell in evidence.cells if cell.runs]),
        "publishedTotal": str(judged.total()),
        **{f"published{verdict.capitalize()}": str(judged[verdict]) for verdict in ("reached", "missed", "open")},
        "resultsSummary": _summary(evidence, study),
    }


def _summary(evidence: Evidence, study: Study) -> str:
    datasets = datasets_of((), study)
    planned = [row.name for row in study.rows]
    seeds = [
        len(cell.accuracies)
        for row in rows_of(evidence.cells, study)
        if (row.variant, row.recipe) in planned
        for cell in row.cells
        if cell.dataset in datasets
    ]
    some, whole = sum(n > 0 for n in seeds), sum(n >= len(study.seeds) for n in seeds)
    cells = count(len(planned) * len(datasets), "cell")
    return f"The main table plans {cells}: so far {some} with at least one finished run, {whole} with all seeds."


def _found(findings: Sequence[Finding]) -> dict[str, str]:
    """Quick forms only check that a study runs, and what is held out is for choosing: neither is a finding."""
    full = [one for one in findings if not one.quick and not one.study.holdout]
    if not full:
        return {"abstractFinding": "No study of single ingredients has been run yet."}
    run = [effect for one in full for effect in one.effects if effect.difference.n]
    decided = sum(effect.verdict in (BETTER, WORSE) for effect in run)
    single = sum(effect.difference.n == 1 for effect in run)
    alone = "has one seed and decides" if single == 1 else "have one seed and decide"
    number = len({one.study_name for one in full})
    studies = "1 study" if number == 1 else f"{number} studies"
    text = (
        f"{studies} with {count(len(run), 'comparison')} {'has' if number == 1 else 'have'} been run so far; {decided} "
        f"of these can be told from chance" + (f", {single} {alone} nothing." if single else ".")
    )
    return {"abstractFinding": text}


# --- the paper's part on studies -------------------------------------------------------------------------------------


NONE_YET = "No study has been run yet."
SHOWN = {
    "forest": "Effects with their intervals",
    "interaction": "Accuracy by the levels of both factors",
    "scaling": "Accuracy along the axis of the study",
}


def studies_text(findings: Sequence[Finding], figures: Sequence[str]) -> str:
    """`figures`: the names of those that the report draws. Quick forms are left out."""
    full = [one for one in findings if not one.quick]
    parts = [f"% {WRITTEN_BY}"]
    for _, of_study in groupby(full, key=lambda one: one.study_name):
        members = list(of_study)
        parts.append(rf"\subsection*{{{escape_latex(members[0].study.question)}}}")
        for one in members:
            parts += _section(one, figures)
    return "\n\n".join(parts if full else [*parts, NONE_YET]) + "\n"


def _section(one: Finding, figures: Sequence[str]) -> list[str]:
    items = [rf"\item {escape_latex(sentence)}" for sentence in conclusions(one)]
    tables = [rf"\tableof{{{table.name}}}" for table in study_tables(one)]
    drawn = {name: what for kind, what in SHOWN.items() if (name := f"{kind}-{one.name}") in figures}
    pictures = [
        rf"\figureof{{{name}}}{{{escape_latex(f'{what}: {one.title}. {made_with(one.cells)}')}}}"
        for name, what in drawn.items()
    ]
    head = rf"\paragraph{{{escape_latex(one.title[:1].upper() + one.title[1:])}.}}"
    return [
        "\n".join([head, r"\begin{itemize}\itemsep0pt", *items, r"\end{itemize}"]),
        "\n".join([*tables, *pictures]),
    ]


def write_text(said: Mapping[str, str], findings: Sequence[Finding], folder: Path) -> list[str]:
    """The paper's macros, and its part on the studies with those figures that are there."""
    figures = [path.stem for path in (folder / "figures").glob("*.pdf")]
    texts = {"numbers": macros_text(said), "studies": studies_text(findings, figures)}
    for name, text in texts.items():
        write_atomically(folder / f"{name}.tex", text.encode())
    return [f"{name}.tex" for name in texts]


# --- a README ---------------------------------------------------------------------------------------------------------

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
        if not TEMPLATE.exists():
            return f"{source}: not typeset, since it is missing; pip installs no copy of paper/main.tex"
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
