"""Made-up studies whose truth is known, and how often the interval and the test of this room say it. What is judged is
what tables and comparisons call, not a formula of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.statistics.intervals import ALPHA, bca_interval, mean_interval
from harness.statistics.paired import holm, paired_t_p, power, smallest_p

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
class Count:
    """How often something held. None of the parts is independent of the others: cells of a study share seeds."""

    held: int = 0
    of: int = 0

    def add(self, held: bool) -> None:
        self.held += bool(held)
        self.of += 1

    @property
    def share(self) -> float:
        return self.held / self.of if self.of else math.nan


@dataclass
class Found:
    """What the simulated studies showed."""

    studies: int
    seeds: int
    draw: int
    mean_covered: Count = field(default_factory=Count)
    difference_covered: Count = field(default_factory=Count)
    bca_covered: Count = field(default_factory=Count)
    any_false: Count = field(default_factory=Count)  # studies of nulls alone, adjusted by Holm
    any_false_unadjusted: Count = field(default_factory=Count)
    seen: list[Count] = field(default_factory=lambda: [Count() for _ in CELLS])  # p <= .05 before Holm
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
    studies: int,
    seeds: int,
    draw: int = 0,
    interval: Interval = mean_interval,
    test: Test = paired_t_p,
    goals_only: bool = False,
) -> Found:
    """Half of the work are studies with effects, half the same studies with every effect taken out.

    `interval` and `test` are there for a test to plant wrong ones. `goals_only` leaves out the bootstrap and the power,
    which take most of the time.
    """
    found = Found(studies, seeds, draw)
    rng = np.random.default_rng(draw)
    for number in range(studies):
        scores_CS = _scores(rng, seeds)
        _judge_intervals(found, scores_CS, interval)
        if not goals_only:
            _judge_power(found, scores_CS, test)
            _judge_bca(found, scores_CS[0], number)
        _judge_family(found, _scores(rng, seeds, effects=0.0), test)
    return found


def _scores(rng: np.random.Generator, seeds: int, effects: float = 1.0) -> np.ndarray:
    """Baseline first; a cell's scores are its effect, what its seeds share with the other cells', and its own noise."""
    cells = (BASELINE, *CELLS)
    noise_CS = rng.normal(size=(len(cells), seeds)) * np.array([[cell.noise] for cell in cells])
    effect_C1 = effects * np.array([[cell.effect] for cell in cells])
    return effect_C1 + SEED_SPREAD * rng.normal(size=seeds) + noise_CS


def _judge_intervals(found: Found, scores_CS: np.ndarray, interval: Interval) -> None:
    means = [interval(scores) for scores in scores_CS.tolist()]
    differences = [interval(scores) for scores in _differences(scores_CS)]
    for cell, (mean, half, _) in zip((BASELINE, *CELLS), means):
        found.mean_covered.add(half is not None and abs(mean - cell.effect) <= half)
    for cell, own, (mean, half, _) in zip(CELLS, means[1:], differences):
        found.difference_covered.add(half is not None and abs(mean - cell.effect) <= half)
        found.half_paired += half or 0.0
        found.half_unpaired += math.hypot(means[0][1] or 0.0, own[1] or 0.0)


def _differences(scores_CS: np.ndarray) -> list[list[float]]:
    return (scores_CS[1:] - scores_CS[0]).tolist()


def _judge_power(found: Found, scores_CS: np.ndarray, test: Test) -> None:
    for differences, seen in zip(_differences(scores_CS), found.seen):
        seen.add(_rejects(test(differences)))


def _judge_bca(found: Found, baseline_S: np.ndarray, number: int) -> None:
    low, high = bca_interval(baseline_S, (found.draw, number), BCA_RESAMPLES) or (math.nan, math.nan)
    found.bca_covered.add(low <= BASELINE.effect <= high)


def _judge_family(found: Found, scores_CS: np.ndarray, test: Test) -> None:
    p_values = [test(differences) for differences in _differences(scores_CS)]
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
