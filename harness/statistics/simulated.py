"""Owns made-up studies whose truth is known, and how often the statistics of this room say it.
Refuses formulas of its own: what is judged is what the tables and comparisons call.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.statistics.intervals import ALPHA, bca_interval, mean_interval
from harness.statistics.paired import holm, paired_t_p, smallest_p
from harness.statistics.power import power

BCA_RESAMPLES = 1000
SEED_SPREAD = 1.0  # what all cells of one seed share (data order): pairing takes it away

Interval = Callable[[Sequence[float]], tuple[float, float | None, int]]
Test = Callable[[Sequence[float]], float | None]


@dataclass(frozen=True)
class Cell:
    """One made-up cell: its effect over the baseline's true mean, and its own noise (points of accuracy)."""

    effect: float
    noise: float


BASELINE = Cell(0.0, 0.3)
CELLS = (
    *(Cell(0.0, 0.2), Cell(0.0, 0.4), Cell(0.0, 1.0)),
    *(Cell(0.5, 0.3), Cell(0.5, 0.6), Cell(1.0, 0.3), Cell(1.0, 0.6)),
)


@dataclass
class Tally:
    """How often something held. None of the parts is independent of the others: cells of a study share seeds."""

    held: int = 0
    of: int = 0

    def add(self, held: bool) -> None:
        self.held += bool(held)
        self.of += 1

    @property
    def share(self) -> float:
        return self.held / self.of


@dataclass
class Found:
    """What the simulated studies showed."""

    studies: int
    seeds: int
    draw: int
    mean_covered: Tally = field(default_factory=Tally)
    difference_covered: Tally = field(default_factory=Tally)
    bca_covered: Tally = field(default_factory=Tally)
    any_false: Tally = field(default_factory=Tally)  # studies of nulls alone, adjusted by Holm
    any_false_unadjusted: Tally = field(default_factory=Tally)
    seen: list[Tally] = field(default_factory=lambda: [Tally() for _ in CELLS])  # p <= .05 before Holm
    half_paired: float = 0.0  # sums over all differences, for the gain of pairing
    half_unpaired: float = 0.0

    @property
    def pairing_gain(self) -> float:
        """How much shorter the interval of a difference is by pairing: unpaired over paired."""
        return self.half_unpaired / self.half_paired if self.half_paired else math.nan

    @property
    def smallest_sign_flip_p(self) -> float:
        return smallest_p(self.seeds)


def simulate(
    studies: int, seeds: int, draw: int = 0, interval: Interval = mean_interval, test: Test = paired_t_p
) -> Found:
    """Half of the work are studies with effects, half the same studies with every effect taken out.

    `interval` and `test` are there for a test to plant wrong ones.
    """
    found = Found(studies, seeds, draw)
    rng = np.random.default_rng(draw)
    for number in range(studies):
        scores_CS = _scores(rng, seeds)
        _judge_means(found, scores_CS, number, interval)
        _judge_differences(found, scores_CS, interval, test)
        _judge_family(found, _scores(rng, seeds, effects=0.0), test)
    return found


def _scores(rng: np.random.Generator, seeds: int, effects: float = 1.0) -> np.ndarray:
    """Baseline first; a cell's scores are its effect, what its seeds share with the other cells', and its own noise."""
    cells = (BASELINE, *CELLS)
    noise_CS = rng.normal(size=(len(cells), seeds)) * np.array([[cell.noise] for cell in cells])
    effect_C1 = effects * np.array([[cell.effect] for cell in cells])
    return effect_C1 + SEED_SPREAD * rng.normal(size=seeds) + noise_CS


def _judge_means(found: Found, scores_CS: np.ndarray, number: int, interval: Interval) -> None:
    for cell, scores in zip((BASELINE, *CELLS), scores_CS):
        mean, half, _ = interval(scores.tolist())
        found.mean_covered.add(half is not None and abs(mean - cell.effect) <= half)
    low, high = bca_interval(scores_CS[0], (found.draw, number), BCA_RESAMPLES) or (math.nan, math.nan)
    found.bca_covered.add(low <= BASELINE.effect <= high)


def _judge_differences(found: Found, scores_CS: np.ndarray, interval: Interval, test: Test) -> None:
    baseline_half = interval(scores_CS[0].tolist())[1] or 0.0
    for cell, scores, seen in zip(CELLS, scores_CS[1:], found.seen):
        differences = (scores - scores_CS[0]).tolist()
        mean, half, _ = interval(differences)
        found.difference_covered.add(half is not None and abs(mean - cell.effect) <= half)
        seen.add(_rejects(test(differences)))
        found.half_paired += half or 0.0
        found.half_unpaired += math.hypot(baseline_half, interval(scores.tolist())[1] or 0.0)


def _judge_family(found: Found, scores_CS: np.ndarray, test: Test) -> None:
    p_values = [test(differences) for differences in (scores_CS[1:] - scores_CS[0]).tolist()]
    found.any_false.add(any(map(_rejects, holm(p_values))))
    found.any_false_unadjusted.add(any(map(_rejects, p_values)))


def _rejects(p: float | None) -> bool:
    return p is not None and p <= ALPHA


def predicted_power(cell: Cell, seeds: int) -> float:
    """Of the paired t-test: a difference has the noise of both cells and none of what their seeds share."""
    return power(seeds, cell.effect, math.hypot(BASELINE.noise, cell.noise))


@dataclass(frozen=True)
class Goal:
    name: str
    share: float
    low: float
    high: float

    @property
    def reached(self) -> bool:
        return self.low <= self.share <= self.high


def goals(found: Found) -> list[Goal]:
    """BCa has none: at few seeds it is known to be short, and is shown as measured."""
    return [
        Goal("the t-interval of a mean covers the truth", found.mean_covered.share, 0.93, 0.97),
        Goal("the t-interval of a paired difference covers the truth", found.difference_covered.share, 0.93, 0.97),
        Goal("any false finding among all nulls, after Holm", found.any_false.share, 0.0, 0.06),
    ]
