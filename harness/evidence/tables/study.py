"""The tables of a study: what each row changes, what that does to accuracy, how sure this is and what it costs. A grid
also has tables of its cells, of the gaps between its models, and of where its variance lies.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.datasets import title
from harness.evidence.cells.groups import commonest_device, count
from harness.evidence.findings.best import best_of, best_sentence
from harness.evidence.findings.changed import changes, changes_text
from harness.evidence.findings.conclusions import conclusions
from harness.evidence.findings.effects import Effect, effects_of
from harness.evidence.findings.forms import planned_on
from harness.evidence.findings.gaps import Gap, gaps_of
from harness.evidence.findings.grids import Share, shared_seeds, shares_of
from harness.evidence.findings.instances import Instance, Line
from harness.evidence.tables.captions import different_data, flag, made_with
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
)
from harness.statistics.improvement import probability_of_improvement
from harness.statistics.intervals import ALPHA, LEVEL
from harness.statistics.power import MOST_SEEDS, WANTED

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


def study_tables(instance: Instance) -> list[Table]:
    """The one with the effects first."""
    effects = effects_of(instance)
    if instance.study.kind != "grid":
        return [_rows(instance, effects)]
    return [_main_effects(instance, effects), _cells(instance), *_gaps(instance), *_variance(instance)]


def _table(instance: Instance, suffix: str, columns: Mapping[str, Callable], items: Sequence, **more: Any) -> Table:
    return Table.of(f"study-{instance.name}{suffix}", columns, items, too_wide_for_print=TOO_WIDE, **more)


def _pairs(effect: Effect) -> str:
    d = effect.difference
    return f"{d.n} ({d.dropped} unpaired)" if d.n and d.dropped else str(d.n)


def _sign_flip(effect: Effect) -> str:
    d = effect.difference
    smallest = "" if d.smallest_sign_flip_p is None else f" ({p_value(d.smallest_sign_flip_p)})"
    return f"{p_value(d.sign_flip_p)}{smallest}"


def _seeds(effect: Effect) -> str:
    seeds = effect.seeds_to_resolve
    return f"{MOST_SEEDS:,}+" if effect.beyond_reach else HOLE if seeds is None else f"{seeds:,}"


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
    group = line.group
    return spread(list(line.scores.values()), len(group.failed)) + flag(group) if group else HOLE


def _costs(device: str | None) -> Columns[Line]:
    """Minutes of the runs on this device alone."""

    def time(line: Line) -> str:
        here = line.group and device and line.group.timed_device == device
        return mean_minutes(line.group.timed("train_seconds", 1 / 60)) if line.group and here else HOLE

    return {
        "params (M)": lambda line: scaled(line.group and line.group.cost("params"), 1e6),
        "MACs (G)": lambda line: scaled(line.group and line.group.cost("macs"), 1e9),
        "minutes": time,
    }


def _best(instance: Instance, columns: Mapping[str, Callable]) -> tuple[frozenset[tuple[int, int]], str]:
    """The cell that is bold, if any, and the caption's sentence on it."""
    best = best_of([None if line.same_as else line.scores for line in instance.lines])
    bold = frozenset() if best.row is None else frozenset({(best.row, [*columns].index(ACCURACY))})
    return bold, best_sentence({ACCURACY: best})


# --- rows against the base -------------------------------------------------------------------------------------------


def _rows(instance: Instance, effects: Sequence[Effect]) -> Table:
    base, device = instance.base, commonest_device(instance.groups)
    of_row = {effect.label: effect for effect in effects}

    def of_effect(head: str) -> Callable[[Line], str]:
        def write(line: Line) -> str:
            if line.label in of_row:
                return EFFECT[head](of_row[line.label])
            if head != "verdict":
                return HOLE
            return "base" if line is base else f"same cell as {line.same_as}"

        return write

    columns: Columns[Line] = {
        "row": lambda line: line.label,
        "changed": lambda line: HOLE if line is base else changes_text(changes(base.config, line.config)),
        ACCURACY: _accuracy,
        **{head: of_effect(head) for head in EFFECT},
        IMPROVEMENT: lambda line: _improvement(base, line),
        **_costs(device),
    }
    bold, on_bold = _best(instance, columns)
    caption = sentences(
        _judged(instance, f": {MEANS}."),
        f"Effects are differences from {base.label}, paired by seed, {_tested(effects)}",
        on_bold,
        _made(instance),
    )
    on_wide = sentences(
        ON_TESTS,
        f"Probability of improvement: how often a run of the row beats one of {base.label}, a tie counting half, with "
        "its bootstrap interval where that has any width.",
        _on_minutes(device),
    )
    told = {"caption": caption, "on_wide": on_wide, "conclusions": tuple(conclusions(instance))}
    return _table(instance, "", columns, instance.lines, bold=bold, **told)


def _improvement(base: Line, line: Line) -> str:
    """Between independent runs: those whose seed the other side lacks count too."""
    if line is base or line.same_as or min(len(line.scores), len(base.scores)) < 2:
        return HOLE
    sides = (list(line.scores.values()), list(base.scores.values()))
    found = probability_of_improvement(*sides, seed=0, resamples=RESAMPLES)
    low, high = found.interval or (0.0, 0.0)
    return f"{found.probability:.2f} ({low:.2f} to {high:.2f})" if low < high else f"{found.probability:.2f}"


# --- grids -----------------------------------------------------------------------------------------------------------


def _main_effects(instance: Instance, effects: Sequence[Effect]) -> Table:
    columns: Columns[Effect] = {
        "level": lambda effect: effect.label,
        "changed": lambda effect: _changed_by_level(instance, effect),
        "against": lambda effect: effect.against,
        **EFFECT,
        "averaged over": lambda effect: effect.averaged_over or HOLE,
    }
    caption = sentences(
        _judged(instance, "."),
        "Each effect is that of a level against the first level of its factor, averaged over the levels of the other "
        f"factors at which both were run, paired by seed, {_tested(effects)}",
        _made(instance),
    )
    told = {"caption": caption, "on_wide": ON_TESTS, "conclusions": tuple(conclusions(instance))}
    return _table(instance, "", columns, effects, **told)


def _changed_by_level(instance: Instance, effect: Effect) -> str:
    """What the level changes where every other factor is at its first one."""
    base, factors = instance.lines[0], instance.study.factors
    for line in instance.lines:
        pairs = zip(factors, line.row.levels, base.row.levels)
        if [f"{factor}={own}" for factor, own, first in pairs if own != first] == [effect.label]:
            return changes_text(changes(base.config, line.config))
    return HOLE


def _cells(instance: Instance) -> Table:
    device = commonest_device(instance.groups)
    levels = [lambda line, place=place: line.row.levels[place] for place in range(len(instance.study.factors))]
    columns: Columns[Line] = {
        **dict(zip(instance.study.factors, levels)),
        ACCURACY: _accuracy,
        "epochs": lambda line: str(line.config.recipe.epochs),
        **_costs(device),
    }
    bold, on_bold = _best(instance, columns)
    caption = sentences(_judged(instance, f": {MEANS}."), on_bold, _made(instance))
    return _table(instance, "-cells", columns, instance.lines, caption=caption, bold=bold, on_wide=_on_minutes(device))


def _variance(instance: Instance) -> list[Table]:
    shares = shares_of(instance)
    columns: Columns[Share] = {
        "source": lambda share: share.source,
        "share of the variance (%)": lambda share: f"{100 * share.found:.1f}",
        "of noise alone (%)": lambda share: f"{100 * share.by_chance:.1f}",
    }
    caption = sentences(
        _judged(instance, ": the sources of its variance, as shares of the sum of squares over"),
        f"{count(len(shared_seeds(instance)), 'seed')} in each cell of the grid. Beside it what noise alone would give "
        "each source: a share that is no larger shows no effect.",
        _made(instance),
    )
    return [_table(instance, "-variance", columns, shares, caption=caption)] if shares else []


def _gaps(instance: Instance) -> list[Table]:
    gaps = gaps_of(instance)
    columns: Columns[Gap] = {
        "from": lambda gap: gap.first,
        "to": lambda gap: gap.second,
        "gap (points)": lambda gap: difference(gap.whole.mean or 0.0, gap.whole.half),
        "of the model": lambda gap: difference(gap.model.mean or 0.0, gap.model.half),
        "of the recipe": lambda gap: difference(gap.recipe.mean or 0.0, gap.recipe.half),
        "seeds": lambda gap: str(gap.whole.n),
    }
    caption = sentences(
        _judged(instance, ": from one model under its own recipe to another under its own"),
        "(the common one where none was published). The model's part is the change of model, averaged over the two",
        "recipes; the rest is the recipe's, its budget included. By seed, mean ± half-width of the t-interval.",
        _made(instance),
    )
    return [_table(instance, "-gaps", columns, gaps, caption=caption)] if gaps else []


# --- captions --------------------------------------------------------------------------------------------------------


def _judged(instance: Instance, end: str) -> str:
    """What the study asks, how it was run, and on which images it is judged."""
    study, lines = instance.study, instance.lines
    planned = [planned_on(line.row, instance.dataset, None, study.holdout) for line in lines]
    shorter = any(one and one.config.recipe.epochs != line.config.recipe.epochs for one, line in zip(planned, lines))
    split, share = "Test", ""
    if study.holdout:
        split, share = "Validation", f", a holdout of {study.holdout:.0%} of the training images"
    return sentences(
        study.question,
        "The study's quick form." if instance.quick else "",
        f"On {instance.moved_to} instead of what the study plans." if instance.moved_to else "",
        f"Every row was given {instance.passes} instead of those that the study plans." if shorter else "",
        f"{split} accuracy on {title(instance.dataset)} after the last planned epoch{share}{end}",
    )


def _tested(effects: Sequence[Effect]) -> str:
    """The end of a sentence on effects: how they were tested. What has no p is no part of the family."""
    comparisons = sum(effect.holm_p is not None for effect in effects)
    if not comparisons:
        return "in points. Nothing is tested: no two seeds are on both sides of any comparison."
    family = "one comparison" if comparisons == 1 else f"{comparisons} comparisons"
    return (
        f"in points with their {LEVEL:.0%} t-interval. Holm p: paired t-test, adjusted for the {family} of this "
        f"table; better or worse where it is at most {ALPHA:.2g}, undecided where there is no test."
    )


def _made(instance: Instance) -> str:
    digests = {digest for group in instance.groups for digest in group.data_digests}
    absent = len(instance.study.rows) - len(instance.lines)
    return sentences(
        made_with(instance.groups),
        "The training step was compiled." if instance.compile else "",
        f"{count(absent, 'row')} of the study cannot be run on so few epochs." if absent else "",
        f"The runs saw {len(digests)} different copies of the data." if len(digests) > 1 else "",
        different_data(instance.groups),
        f"{HOLE} marks what is missing.",
    )


def _on_minutes(device: str | None) -> str:
    return f"Minutes are for training only, of runs alone on {device}." if device else ""
