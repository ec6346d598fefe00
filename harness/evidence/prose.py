"""What the paper's text takes from the records: LaTeX macros for its numbers and for what was found, and a part on each
study with its conclusions, tables and figures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby

from harness.datasets import CORRUPTION_NAMES, CORRUPTION_STRENGTHS
from harness.evidence.cells import Cell, Evidence, count, datasets_of, rows_of
from harness.evidence.conclusions import conclusions
from harness.evidence.effects import BETTER, WORSE
from harness.evidence.findings import Finding
from harness.evidence.tables.captions import made_with
from harness.evidence.tables.published import compared
from harness.evidence.tables.study import study_tables
from harness.evidence.writing import WRITTEN_BY, devices_text, escape_latex
from harness.recipes import RECIPES
from harness.statistics.images import CALIBRATION_BINS
from harness.statistics.intervals import LEVEL
from harness.statistics.simulated import simulate
from harness.study import Study
from variants.catalog import CATALOG

SIMULATED_STUDIES, SIMULATED_SEEDS = 2000, 5  # as `python -m harness.simulate` has them
NONE_YET = "No study has been run yet."
SHOWN = {
    "forest": "Effects with their intervals",
    "interaction": "Accuracy by the levels of both factors",
    "scaling": "Accuracy along the axis of the study",
}


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
        "devices": devices_text(sorted({name for cell in evidence.cells for name in cell.devices if cell.runs})),
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


# --- studies ---------------------------------------------------------------------------------------------------------


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
