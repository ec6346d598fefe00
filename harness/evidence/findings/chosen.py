"""Owns what a grid that is judged on held-out images chooses for each of its variants: the best of its cells.
Refuses to choose on test images, and before every cell has a seed that all have: each variant gets the same trials.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum

from harness.evidence.findings.grids import shared_seeds
from harness.evidence.findings.instances import Instance, Line
from harness.statistics.paired import Paired, paired


@dataclass(frozen=True)
class Choice:
    """Of one variant. The lead says how clear the choice was; a choice is no finding, and has no test."""

    variant: str
    best: Line
    mean: float  # percent, over the seeds that all cells share
    next: Line
    lead: Paired  # points before the next
    cells: int


def choices_of(instance: Instance) -> list[Choice]:
    """In the order of the study; of two cells that are as good the earlier one."""
    if instance.split != "val" or instance.study.kind != "grid" or not (seeds := shared_seeds(instance)):
        return []
    of_variant: dict[str, list[Line]] = {}
    for line in instance.lines:
        if not line.same_as:
            of_variant.setdefault(line.config.variant_name, []).append(line)
    return [_choice(name, lines, seeds) for name, lines in of_variant.items() if len(lines) > 1]


def _choice(variant: str, lines: Iterable[Line], seeds: list[int]) -> Choice:
    scores = {line.label: {seed: line.scores[seed] for seed in seeds} for line in lines}
    best, after, *_ = sorted(lines, key=lambda line: -fsum(scores[line.label].values()))
    own = scores[best.label]
    return Choice(variant, best, fsum(own.values()) / len(own), after, paired(scores[after.label], own), len(scores))
