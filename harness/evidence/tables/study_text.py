"""Owns how a study's tables write an effect, an accuracy, a cost, and what their captions say of the test and the runs.
Refuses to compute: effects, bold and shares are given to it.
"""

from collections.abc import Iterable

from harness.datasets import title
from harness.evidence.cells import count
from harness.evidence.effects import Best, Effect, Line, best_of
from harness.evidence.findings import Finding, planned_on
from harness.evidence.tables.captions import different_data, made_with, sentences
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import DAGGER, difference, minutes, p_value, scaled, spread
from harness.statistics.intervals import ALPHA, LEVEL, mean_interval
from harness.statistics.paired import MOST_SEEDS, WANTED

ACCURACY = "accuracy (%)"
SIGN_FLIP, RESOLVING = "sign-flip p (smallest)", "seeds to resolve"
EFFECT = ("effect (points)", "pairs", "p", "Holm p", SIGN_FLIP, RESOLVING, "verdict")
COST = ("params (M)", "MACs (G)", "minutes")
IMPROVEMENT = "probability of improvement"
TOO_WIDE = ("p", SIGN_FLIP, RESOLVING, IMPROVEMENT, "minutes")


def effect_cells(effect: Effect) -> tuple[str, ...]:
    d = effect.difference
    pairs = f"{d.n} ({d.dropped} unpaired)" if d.n and d.dropped else str(d.n)
    smallest = "" if d.smallest_sign_flip_p is None else f" ({p_value(d.smallest_sign_flip_p)})"
    flipped = f"{p_value(d.sign_flip_p)}{smallest}"
    return (
        *(difference(d.mean, d.half), pairs, p_value(d.t_p), p_value(effect.holm_p), flipped),
        *(_seeds(effect), effect.verdict),
    )


def _seeds(effect: Effect) -> str:
    seeds = effect.seeds_to_resolve
    return f"{MOST_SEEDS:,}+" if effect.beyond_reach else HOLE if seeds is None else f"{seeds:,}"


def accuracy_cell(line: Line) -> str:
    if line.cell is None:
        return HOLE
    flag = f" {DAGGER}" if len(line.cell.data_digests) > 1 else ""
    return spread(list(line.scores.values()), len(line.cell.failed)) + flag


def cost_cells(line: Line, device: str | None) -> tuple[str, ...]:
    if line.cell is None:
        return tuple(HOLE for _ in COST)
    times = line.cell.timed("train_seconds", 1 / 60) if device and line.cell.timed_device == device else []
    time = minutes(mean_interval(times)[0]) if times else HOLE
    return scaled(line.cell.cost("params"), 1e6), scaled(line.cell.cost("macs"), 1e9), time


def best_in(instance: Finding) -> Best:
    return best_of([None if line.same_as else line.scores for line in instance.lines])


def bold_in(instance: Finding, columns: tuple[str, ...]) -> frozenset[tuple[int, int]]:
    row = instance.best.row
    return frozenset() if row is None else frozenset({(row, columns.index(ACCURACY))})


# --- captions --------------------------------------------------------------------------------------------------------


def asked(instance: Finding) -> str:
    lines = instance.lines
    planned = [planned_on(line.row, instance.dataset, None, instance.study.holdout) for line in lines]
    shorter = any(one and one.recipe.epochs != line.config.recipe.epochs for one, line in zip(planned, lines))
    return sentences(
        instance.study.question,
        "The study's quick form." if instance.quick else "",
        f"On {instance.moved_to} instead of what the study plans." if instance.moved_to else "",
        f"Every row was given {instance.budget} instead of those that the study plans." if shorter else "",
    )


def judged(instance: Finding) -> str:
    share = f", a holdout of {instance.study.holdout:.0%} of the training images" if instance.study.holdout else ""
    split = "Validation" if share else "Test"
    return f"{split} accuracy on {title(instance.dataset)} after the last planned pass{share}"


MEANS = f"mean ± half-width of the {LEVEL:.0%} t-interval (number of seeds)"


def tested(effects: Iterable[Effect]) -> str:
    """The end of a sentence on effects: how they were judged. What has no p is no part of the family."""
    comparisons = sum(effect.holm_p is not None for effect in effects)
    if not comparisons:
        return "in points. Nothing is tested: no two seeds are on both sides of any comparison."
    family = "one comparison" if comparisons == 1 else f"{comparisons} comparisons"
    return (
        f"in points with their {LEVEL:.0%} t-interval. Holm p: paired t-test, adjusted for the {family} of this "
        f"table; better or worse where it is at most {ALPHA:.2g}, undecided where there is no test."
    )


ON_TESTS = (
    "p: the t-test before that adjustment; beside it an exact sign-flip test with the smallest p that so few pairs can "
    f"give. Seeds to resolve: how many a test of this row alone would need for {100 * WANTED:.0f} % power, if the "
    "measured difference were the true one."
)


def made(instance: Finding) -> list[str]:
    digests = {digest for group in instance.cells for digest in group.data_digests}
    absent = len(instance.study.rows) - len(instance.lines)
    return [
        made_with(instance.cells),
        "The training step was compiled." if instance.compile else "",
        f"{count(absent, 'row')} of the study cannot be run on so few passes." if absent else "",
        f"The runs saw {len(digests)} different copies of the data." if len(digests) > 1 else "",
        *different_data(instance.cells),
        f"{HOLE} marks what is missing.",
    ]


def on_minutes(device: str | None) -> str:
    return f"Minutes are for training only, of runs alone on {device}." if device else ""


def study_table(name: str, columns: tuple[str, ...], rows: list, caption: str, **rest) -> Table:
    return Table(f"study-{name}", columns, tuple(rows), caption, tuple(c for c in TOO_WIDE if c in columns), **rest)
