"""The tables of a study: what each row changes, what that does to accuracy, how sure this is and what it costs. A grid
also has tables of its cells, of the gaps between its models, and of where its variance lies.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from harness.datasets import title
from harness.evidence.captions import best_sentence, conclusions, different_data, flag, made_with
from harness.evidence.cells import commonest_device, count
from harness.evidence.effects import Effect, Gap, Line, Share
from harness.evidence.findings import Finding, changes_text
from harness.evidence.writing import (
    HOLE,
    Columns,
    Table,
    difference,
    mean_minutes,
    p_value,
    scaled,
    sentences,
    spread,
    whole,
)
from harness.statistics.intervals import ALPHA, LEVEL
from harness.statistics.paired import MOST_SEEDS, WANTED, probability_of_improvement

RESAMPLES = 2000  # of the interval beside a probability of improvement: two digits need no more
ACCURACY = "accuracy (%)"
SIGN_FLIP, RESOLVING = "sign-flip p (smallest)", "seeds to resolve"
IMPROVEMENT = "probability of improvement"
TOO_WIDE = ("p", SIGN_FLIP, RESOLVING, IMPROVEMENT, "minutes")
MEANS = f"mean ± half-width of the {LEVEL:.0%} t-interval (number of seeds)"
ON_TESTS = (
    "p: the t-test before that adjustment; beside it an exact sign-flip test with the smallest p that so few pairs can "
    f"give. Seeds to resolve: how many a test of this row alone would need for {100 * WANTED:.0f} % power, if the "
    "measured difference were the true one."
)


def study_tables(finding: Finding) -> list[Table]:
    """The one with the effects first."""
    if finding.study.kind != "grid":
        return [_rows(finding)]
    return [_main_effects(finding), _cells(finding), *_gaps(finding), *_variance(finding)]


def _table(finding: Finding, suffix: str, columns: Mapping[str, Callable], items: Sequence, **more: Any) -> Table:
    return Table.of(f"study-{finding.name}{suffix}", columns, items, too_wide_for_print=TOO_WIDE, **more)


def _pairs(effect: Effect) -> str:
    d = effect.difference
    return f"{d.n} ({d.dropped} unpaired)" if d.n and d.dropped else str(d.n)


def _sign_flip(effect: Effect) -> str:
    d = effect.difference
    smallest = "" if d.smallest_sign_flip_p is None else f" ({p_value(d.smallest_sign_flip_p)})"
    return f"{p_value(d.sign_flip_p)}{smallest}"


def _seeds(effect: Effect) -> str:
    return f"{MOST_SEEDS:,}+" if effect.beyond_reach else whole(effect.seeds_to_resolve)


EFFECT: Columns[Effect] = {
    "effect (points)": lambda effect: difference(effect.difference.mean, effect.difference.half),
    "pairs": _pairs,
    "p": lambda effect: p_value(effect.difference.t_p),
    "Holm p": lambda effect: p_value(effect.holm_p),
    SIGN_FLIP: _sign_flip,
    RESOLVING: _seeds,
    "verdict": lambda effect: effect.verdict,
}


def _accuracy(line: Line) -> str:
    cell = line.cell
    return spread(list(line.scores.values()), len(cell.failed)) + flag(cell) if cell else HOLE


def _costs(device: str | None) -> Columns[Line]:
    """Minutes of the runs on this device alone."""

    def time(line: Line) -> str:
        here = line.cell and device and line.cell.timed_device == device
        return mean_minutes(line.cell.timed("train_seconds", 1 / 60)) if line.cell and here else HOLE

    return {
        "params (M)": lambda line: scaled(line.cell and line.cell.cost("params"), 1e6),
        "MACs (G)": lambda line: scaled(line.cell and line.cell.cost("macs"), 1e9),
        "minutes": time,
    }


def _best(finding: Finding, columns: Mapping[str, Callable]) -> tuple[frozenset[tuple[int, int]], str]:
    """The cell that is bold, if any, and the caption's sentence on it."""
    best = finding.best
    bold = frozenset() if best.row is None else frozenset({(best.row, [*columns].index(ACCURACY))})
    return bold, best_sentence({ACCURACY: best})


# --- rows against the base -------------------------------------------------------------------------------------------


def _rows(finding: Finding) -> Table:
    base, device = finding.base, commonest_device(finding.cells)
    of_row = {effect.label: effect for effect in finding.effects}

    def of_effect(head: str, line: Line) -> str:
        if line.label in of_row:
            return EFFECT[head](of_row[line.label])
        if head != "verdict":
            return HOLE
        return "base" if line is base else f"same cell as {line.same_as}"

    columns: Columns[Line] = {
        "row": lambda line: line.label,
        "changed": lambda line: HOLE if line is base else changes_text(base.config, line.config),
        ACCURACY: _accuracy,
        **{head: partial(of_effect, head) for head in EFFECT},
        IMPROVEMENT: lambda line: _improvement(base, line),
        **_costs(device),
    }
    bold, on_bold = _best(finding, columns)
    caption = sentences(
        _judged(finding, f": {MEANS}."),
        f"Effects are differences from {base.label}, paired by seed, {tested(finding.effects)}",
        on_bold,
        _made(finding),
    )
    on_wide = sentences(
        ON_TESTS,
        f"Probability of improvement: how often a run of the row beats one of {base.label}, a tie counting half, with "
        "its bootstrap interval where that has any width.",
        _on_minutes(device),
    )
    told = {"caption": caption, "on_wide": on_wide, "conclusions": tuple(conclusions(finding))}
    return _table(finding, "", columns, finding.lines, bold=bold, **told)


def _improvement(base: Line, line: Line) -> str:
    """Between independent runs: those whose seed the other side lacks count too."""
    if line is base or line.same_as or min(len(line.scores), len(base.scores)) < 2:
        return HOLE
    sides = (list(line.scores.values()), list(base.scores.values()))
    found = probability_of_improvement(*sides, seed=0, resamples=RESAMPLES)
    low, high = found.interval or (0.0, 0.0)
    return f"{found.probability:.2f} ({low:.2f} to {high:.2f})" if low < high else f"{found.probability:.2f}"


# --- grids -----------------------------------------------------------------------------------------------------------


def _main_effects(finding: Finding) -> Table:
    columns: Columns[Effect] = {
        "level": lambda effect: effect.label,
        "changed": lambda effect: _changed_by_level(finding, effect),
        "against": lambda effect: effect.against,
        **EFFECT,
        "averaged over": lambda effect: effect.averaged_over or HOLE,
    }
    caption = sentences(
        _judged(finding, "."),
        "Each effect is that of a level against the first level of its factor, averaged over the levels of the other "
        f"factors at which both were run, paired by seed, {tested(finding.effects)}",
        _made(finding),
    )
    told = {"caption": caption, "on_wide": ON_TESTS, "conclusions": tuple(conclusions(finding))}
    return _table(finding, "", columns, finding.effects, **told)


def _changed_by_level(finding: Finding, effect: Effect) -> str:
    """What the level changes where every other factor is at its first one."""
    base, factors = finding.lines[0], finding.study.factors
    for line in finding.lines:
        pairs = zip(factors, line.row.levels, base.row.levels)
        if [f"{factor}={own}" for factor, own, first in pairs if own != first] == [effect.label]:
            return changes_text(base.config, line.config)
    return HOLE


def _cells(finding: Finding) -> Table:
    device = commonest_device(finding.cells)
    levels = [lambda line, place=place: line.row.levels[place] for place in range(len(finding.study.factors))]
    columns: Columns[Line] = {
        **dict(zip(finding.study.factors, levels)),
        ACCURACY: _accuracy,
        "epochs": lambda line: str(line.config.recipe.epochs),
        **_costs(device),
    }
    bold, on_bold = _best(finding, columns)
    caption = sentences(_judged(finding, f": {MEANS}."), on_bold, _made(finding))
    return _table(finding, "-cells", columns, finding.lines, caption=caption, bold=bold, on_wide=_on_minutes(device))


def _variance(finding: Finding) -> list[Table]:
    columns: Columns[Share] = {
        "source": lambda share: share.source,
        "share of the variance (%)": lambda share: f"{100 * share.found:.1f}",
        "of noise alone (%)": lambda share: f"{100 * share.by_chance:.1f}",
    }
    caption = sentences(
        _judged(finding, ": the sources of its variance, as shares of the sum of squares over"),
        f"{count(len(finding.shared_seeds), 'seed')} in each cell of the grid. Beside it what noise alone would give "
        "each source: a share that is no larger shows no effect.",
        _made(finding),
    )
    return [_table(finding, "-variance", columns, finding.shares, caption=caption)] if finding.shares else []


def _gaps(finding: Finding) -> list[Table]:
    columns: Columns[Gap] = {
        "from": lambda gap: gap.first,
        "to": lambda gap: gap.second,
        "gap (points)": lambda gap: difference(gap.whole.mean, gap.whole.half),
        "of the model": lambda gap: difference(gap.model.mean, gap.model.half),
        "of the recipe": lambda gap: difference(gap.recipe.mean, gap.recipe.half),
        "seeds": lambda gap: str(gap.whole.n),
    }
    caption = sentences(
        _judged(finding, ": from one model under its own recipe to another under its own"),
        "(the common one where none was published). The model's part is the change of model, averaged over the two",
        "recipes; the rest is the recipe's, its budget included. By seed, mean ± half-width of the t-interval.",
        _made(finding),
    )
    return [_table(finding, "-gaps", columns, finding.gaps, caption=caption)] if finding.gaps else []


# --- captions --------------------------------------------------------------------------------------------------------


def _judged(finding: Finding, end: str) -> str:
    """What the study asks, how it was run, and on which images it is judged."""
    study = finding.study
    split, share = "Test", ""
    if study.holdout:
        split, share = "Validation", f", a holdout of {study.holdout:.0%} of the training images"
    return sentences(
        study.question,
        "The study's quick form." if finding.quick else "",
        f"On {finding.moved_to} instead of what the study plans." if finding.moved_to else "",
        f"Every row was given {finding.budget} instead of those that the study plans."
        if finding.epochs is not None
        else "",
        f"{split} accuracy on {title(finding.dataset)} after the last planned epoch{share}{end}",
    )


def tested(effects: Sequence[Effect]) -> str:
    """The end of a sentence on effects: how they were tested. What has no p is no part of the family."""
    comparisons = sum(effect.holm_p is not None for effect in effects)
    if not comparisons:
        return "in points. Nothing is tested: that takes two seeds on both sides, with differences that are not equal."
    family = "one comparison" if comparisons == 1 else f"{comparisons} comparisons"
    return (
        f"in points with their {LEVEL:.0%} t-interval. Holm p: paired t-test, adjusted for the {family} of this "
        f"table; better or worse where it is at most {ALPHA:.2g}, undecided where there is no test."
    )


def _made(finding: Finding) -> str:
    digests = {digest for cell in finding.cells for digest in cell.data_digests}
    absent = len(finding.study.rows) - len(finding.lines)
    return sentences(
        made_with(finding.cells),
        "The training step was compiled." if finding.setting[2] else "",
        f"{count(absent, 'row')} of the study cannot be run on so few epochs." if absent else "",
        f"The runs saw {len(digests)} different copies of the data." if len(digests) > 1 else "",
        different_data(finding.cells),
        f"{HOLE} marks what is missing.",
    )


def _on_minutes(device: str | None) -> str:
    return f"Minutes are for training only, of runs alone on {device}." if device else ""
