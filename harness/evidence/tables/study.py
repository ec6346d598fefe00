"""Owns the tables of a study: what each row changes, what that does to accuracy and how sure it is, at which cost;
of a grid also its cells and its variance. Refuses to judge: verdicts, shares and what is bold are given to it.
"""

from harness.evidence.cells import commonest_device, count
from harness.evidence.conclusions import best_sentence, conclusions
from harness.evidence.effects import Effect, Line
from harness.evidence.findings import Finding, changes, changes_text
from harness.evidence.tables.captions import sentences
from harness.evidence.tables.study_text import (
    ACCURACY,
    COST,
    EFFECT,
    IMPROVEMENT,
    MEANS,
    ON_TESTS,
    accuracy_cell,
    asked,
    bold_in,
    cost_cells,
    effect_cells,
    judged,
    made,
    on_minutes,
    study_table,
    tested,
)
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import difference
from harness.statistics.paired import probability_of_improvement

RESAMPLES = 2000  # of the interval beside a probability of improvement: two digits need no more


def study_tables(instance: Finding) -> list[Table]:
    """The one with the effects first."""
    if instance.study.kind != "grid":
        return [_rows(instance)]
    return [_main_effects(instance), _cells(instance), *_gaps(instance), *_variance(instance)]


# --- rows against the base -------------------------------------------------------------------------------------------


def _rows(instance: Finding) -> Table:
    effects, base = {effect.label: effect for effect in instance.effects}, instance.base
    device = commonest_device(instance.cells)
    columns = ("row", "changed", ACCURACY, *EFFECT, IMPROVEMENT, *COST)
    body = [
        (
            *(line.label, _changed(base, line), accuracy_cell(line)),
            *(effect_cells(effects[line.label]) if line.label in effects else _no_effect(base, line)),
            *(_improvement(base, line), *cost_cells(line, device)),
        )
        for line in instance.lines
    ]
    caption = sentences(
        *(asked(instance), f"{judged(instance)}: {MEANS}."),
        f"Effects are differences from {base.label}, paired by seed, {tested(effects.values())}",
        *(best_sentence({ACCURACY: instance.best}), *made(instance)),
    )
    on_wide = sentences(
        ON_TESTS,
        f"Probability of improvement: how often a run of the row beats one of {base.label}, a tie counting half, with "
        "its bootstrap interval where that has any width.",
        on_minutes(device),
    )
    told = {"on_wide": on_wide, "conclusions": tuple(conclusions(instance))}
    return study_table(instance.name, columns, body, caption, bold=bold_in(instance, columns), **told)


def _changed(base: Line, line: Line) -> str:
    return HOLE if line is base else changes_text(changes(base.config, line.config))


def _no_effect(base: Line, line: Line) -> tuple[str, ...]:
    return (*(HOLE for _ in EFFECT[1:]), "base" if line is base else f"same cell as {line.same_as}")


def _improvement(base: Line, line: Line) -> str:
    """Between independent runs: those whose seed the other side lacks count too."""
    if line is base or line.same_as or min(len(line.scores), len(base.scores)) < 2:
        return HOLE
    sides = (list(line.scores.values()), list(base.scores.values()))
    found = probability_of_improvement(*sides, seed=0, resamples=RESAMPLES)
    low, high = found.interval or (0.0, 0.0)
    return f"{found.probability:.2f} ({low:.2f} to {high:.2f})" if low < high else f"{found.probability:.2f}"


# --- grids -----------------------------------------------------------------------------------------------------------


def _main_effects(instance: Finding) -> Table:
    effects = instance.effects
    columns = ("level", "changed", "against", *EFFECT, "averaged over")
    body = [
        (
            *(effect.label, _changed_by_level(instance, effect), effect.against),
            *(*effect_cells(effect), effect.averaged_over or HOLE),
        )
        for effect in effects
    ]
    caption = sentences(
        *(asked(instance), f"{judged(instance)}."),
        "Each effect is that of a level against the first level of its factor, averaged over the levels of the other "
        f"factors at which both were run, paired by seed, {tested(effects)}",
        *made(instance),
    )
    told = {"on_wide": ON_TESTS, "conclusions": tuple(conclusions(instance))}
    return study_table(instance.name, columns, body, caption, **told)


def _changed_by_level(instance: Finding, effect: Effect) -> str:
    """What the level changes where every other factor is at its first one."""
    base, factors = instance.lines[0], instance.study.factors
    for line in instance.lines:
        pairs = zip(factors, line.row.levels, base.row.levels)
        if [f"{factor}={own}" for factor, own, first in pairs if own != first] == [effect.label]:
            return changes_text(changes(base.config, line.config))
    return HOLE


def _cells(instance: Finding) -> Table:
    device = commonest_device(instance.cells)
    columns = (*instance.study.factors, ACCURACY, "passes", *COST)
    body = [
        (*line.row.levels, accuracy_cell(line), str(line.config.recipe.epochs), *cost_cells(line, device))
        for line in instance.lines
    ]
    caption = sentences(
        *(asked(instance), f"{judged(instance)}: {MEANS}."),
        *(best_sentence({ACCURACY: instance.best}), *made(instance)),
    )
    told = {"bold": bold_in(instance, columns), "on_wide": on_minutes(device)}
    return study_table(f"{instance.name}-cells", columns, body, caption, **told)


def _variance(instance: Finding) -> list[Table]:
    shares, seeds = instance.shares, instance.shared_seeds
    body = [(share.source, f"{100 * share.found:.1f}", f"{100 * share.by_chance:.1f}") for share in shares]
    caption = sentences(
        *(asked(instance), f"{judged(instance)}: on what its variance falls, as shares of the sum of squares over"),
        f"{count(len(seeds), 'seed')} in each cell of the grid. Beside it what noise alone would give each source: a "
        "share that is no larger shows none.",
        *made(instance),
    )
    columns = ("source", "share of the variance (%)", "of noise alone (%)")
    return [study_table(f"{instance.name}-variance", columns, body, caption)] if shares else []


def _gaps(instance: Finding) -> list[Table]:
    body = [
        (
            *(gap.first, gap.second),
            *(difference(part.mean or 0.0, part.half) for part in (gap.whole, gap.model, gap.recipe)),
            str(gap.whole.n),
        )
        for gap in instance.gaps
    ]
    columns = ("from", "to", "gap (points)", "of the model", "of the recipe", "seeds")
    caption = sentences(
        *(asked(instance), f"{judged(instance)}: from one model under its own recipe to another under its own"),
        "(the common one where none was published). The model's part is the change of model, averaged over the two",
        "recipes; the rest is the recipe's, its budget included. By seed, mean ± half-width of the t-interval.",
        *made(instance),
    )
    return [study_table(f"{instance.name}-gaps", columns, body, caption)] if body else []
