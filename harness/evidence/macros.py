"""Owns the numbers that the paper's prose names: one LaTeX macro each, computed from records, recipes and constants.
Refuses to write prose: it says values, and sentences only where a sentence depends on what was found.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from harness.augmentations import CORRUPTION_NAMES, CORRUPTION_STRENGTHS
from harness.evidence.cells import Cell, Evidence, count, datasets_of, rows_of
from harness.evidence.effects import BETTER, WORSE
from harness.evidence.findings import Finding
from harness.evidence.tables.captions import made_with
from harness.evidence.tables.reproduced import COLUMNS as PUBLISHED_COLUMNS
from harness.evidence.tables.reproduced import published_table
from harness.evidence.writing.table import WRITTEN_BY, escape_latex
from harness.evidence.writing.text import devices_text
from harness.recipes import RECIPES
from harness.statistics.images import CALIBRATION_BINS
from harness.statistics.intervals import LEVEL
from harness.statistics.simulated import Found, simulate
from harness.study import Study
from variants.catalog import CATALOG

SIMULATED_STUDIES, SIMULATED_SEEDS = 2000, 5  # as `python -m harness.simulate` has them


def macros(
    evidence: Evidence, study: Study, instances: Sequence[Finding], drawn: Sequence[Cell] | None = None
) -> dict[str, str]:
    """Name -> text, not yet escaped. `drawn`: the groups that the figures show, where that is not all."""
    made = made_with(evidence.cells if drawn is None else drawn)
    return {**_method(study), **_simulation(), **_records(evidence, study), "madeWith": made, **_found(instances)}


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
        "commonPasses": str(common.epochs),
        "commonBatch": str(common.batch_size),
        "commonMix": f"{common.mix_prob:.0%}",
        "commonDecay": f"{common.weight_decay:g}",
        "levelPercent": f"{LEVEL:.0%}",
        "calibrationBins": str(CALIBRATION_BINS),
        "corruptionKinds": str(len(CORRUPTION_NAMES)),
        "corruptionStrengths": str(CORRUPTION_STRENGTHS),
    }


def _simulation() -> dict[str, str]:
    found = _simulated()
    return {
        "simStudies": f"{found.studies:,}",
        "simSeeds": str(found.seeds),
        "simCoverage": f"{found.share('mean_covered'):.2%}",
        "simPairedCoverage": f"{found.share('difference_covered'):.2%}",
        "simFamilyError": f"{found.share('any_false'):.2%}",
    }


@cache
def _simulated() -> Found:
    return simulate(SIMULATED_STUDIES, SIMULATED_SEEDS, goals_only=True)


def _records(evidence: Evidence, study: Study) -> dict[str, str]:
    numbers = [dict(zip(PUBLISHED_COLUMNS, row)) for row in published_table(evidence).rows]
    verdicts = [number["verdict"] for number in numbers if not number["published (%)"].startswith("none")]
    judged = {name: sum(verdict.startswith(name) for verdict in verdicts) for name in ("reached", "missed", "open")}
    devices = devices_text(sorted({name for group in evidence.cells for name in group.devices if group.runs}))
    return {
        "runsDone": str(sum(len(group.runs) for group in evidence.cells)),
        "devices": devices,
        "publishedTotal": str(sum(judged.values())),
        **{f"published{name.capitalize()}": str(number) for name, number in judged.items()},
        "resultsSummary": _summary(evidence, study),
    }


def _summary(evidence: Evidence, study: Study) -> str:
    datasets = datasets_of((), study)
    planned = [row.name for row in study.rows]
    seeds = [
        len(group.accuracies)
        for row in rows_of(evidence.cells, study)
        if (row.variant, row.recipe) in planned
        for group in row.cells
        if group.dataset in datasets
    ]
    some, whole = sum(n > 0 for n in seeds), sum(n >= len(study.seeds) for n in seeds)
    plan = f"The main table plans {count(len(planned) * len(datasets), 'cell')}. "
    if not some:
        return f"{plan}None has a finished run yet; runs at other budgets stand below the planned rows."
    return f"{plan}{_of(some)} at least one finished run, {_of(whole)[0].lower()}{_of(whole)[1:]} all of its seeds."


def _of(number: int) -> str:
    return "None has" if number == 0 else "One has" if number == 1 else f"{number} have"


def _found(instances: Sequence[Finding]) -> dict[str, str]:
    """Quick forms check the way and what is held out is for choosing: no findings. A row not run is no comparison."""
    full = [one for one in instances if not one.quick and not one.study.holdout]
    run = [effect for one in full for effect in one.effects if effect.difference.n]
    decided = sum(effect.verdict in (BETTER, WORSE) for effect in run)
    single = sum(effect.difference.n == 1 for effect in run)
    alone = "has one seed and decides" if single == 1 else "have one seed and decide"
    studies = len({one.study_name for one in full})
    text = (
        f"{count(studies, 'study').replace('studys', 'studies')} with {count(len(run), 'comparison')} "
        f"{'has' if studies == 1 else 'have'} been run so far; {decided} of these can be told from chance"
        + (f", {single} {alone} nothing." if single else ".")
    )
    return {"abstractFinding": text if full else "No study of single ingredients has been run yet."}
