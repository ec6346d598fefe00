"""Owns what a grid that is judged on held-out images chooses for each of its variants: the best of its cells.
Refuses to choose on test images, and for a variant before all of its cells were tried: each gets the same trials.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from harness.evidence.findings.instances import Instance, Line

ROUNDING = 6  # digits of a percentage; sums of the same accuracies in another order differ beyond


@dataclass(frozen=True)
class Choice:
    """Of one variant. The lead says how clear it was; between cells picked by these numbers there is no test of it."""

    variant: str
    best: Line
    mean: float  # percent, over the seeds
    next: Line | None  # none where every other cell failed
    lead: float  # points before the next
    seeds: int  # with which all cells were tried
    cells: int
    failed: int  # of the cells: with one of the seeds at least, and so never the best


def choices_of(instance: Instance) -> list[Choice]:
    """In the order of the study; of two cells that are as good the earlier one."""
    if instance.split != "val" or instance.study.kind != "grid":
        return []
    of_variant: dict[str, list[Line]] = {}
    for line in instance.lines:
        if not line.same_as:
            of_variant.setdefault(line.config.variant_name, []).append(line)
    whole = {name: lines for name, lines in of_variant.items() if all(line.tried for line in lines)}
    tried = [line.tried for lines in whole.values() for line in lines]
    seeds = sorted(set.intersection(*tried)) if tried else []
    found = (_choice(name, lines, seeds) for name, lines in whole.items() if seeds and len(lines) > 1)
    return [choice for choice in found if choice]


def _choice(variant: str, lines: Sequence[Line], seeds: Sequence[int]) -> Choice | None:
    means = [
        (round(fsum(line.scores[seed] for seed in seeds) / len(seeds), ROUNDING), line)
        for line in lines
        if line.scores.keys() >= set(seeds)
    ]
    if not means:
        return None
    (mean, best), *others = sorted(means, key=lambda pair: -pair[0])
    after = others[0] if others else None
    lead = mean - after[0] if after else 0.0
    failed = len(lines) - len(means)
    return Choice(variant, best, mean, after[1] if after else None, lead, len(seeds), len(lines), failed)
