"""Owns timing several ways of doing one thing in turn, so that whatever slows the machine meets all of them.
Refuses to average: a median, and the spread of the paired ratios, say what times are worth.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness.config import RunConfig
from harness.records.benchmarks import Comparison
from harness.training.device import synchronise
from harness.training.progress import duration

Way = Callable[[], float]  # does the thing once and returns its seconds


@dataclass(frozen=True)
class Rounds:
    """Seconds of each way, one a round."""

    seconds: dict[str, list[float]]

    def median_s(self, way: str) -> float:
        return statistics.median(self.seconds[way])

    def ratios(self, ours: str, baseline: str) -> list[float]:
        """How many times as fast ours was, round by round."""
        return [theirs / mine for mine, theirs in zip(self.seconds[ours], self.seconds[baseline], strict=True)]

    def compare(
        self,
        name: str,
        unit: str,
        amounts: Mapping[str, float],
        ways: tuple[str, str],
        goal: float | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Comparison:
        """`amounts`: how much of the unit each way did in its seconds; the ratio is that of the speeds."""
        ours, baseline = ways
        share = amounts[ours] / amounts[baseline]
        ratios = [share * ratio for ratio in self.ratios(ours, baseline)]
        return Comparison(
            name=name,
            unit=unit,
            ours=amounts[ours] / self.median_s(ours),
            baseline=amounts[baseline] / self.median_s(baseline),
            baseline_name=baseline,
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            rounds=len(ratios),
            goal=goal,
            facts=dict(facts or {}),
        )


def take_turns(ways: Mapping[str, Way], rounds: int) -> Rounds:
    """Each way once a round, every other round in the opposite order; a first round warms up and does not count.
    Each round is told on stderr: some take minutes."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    start_s = time.monotonic()
    for turn in range(rounds + 1):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            elapsed_s = ways[name]()
            if turn:
                seconds[name].append(elapsed_s)
        left_s = (time.monotonic() - start_s) / (turn + 1) * (rounds - turn)
        done = f"round {turn} of {rounds}" if turn else "warmed up"
        print(f"{done}, about {duration(left_s)} left", file=sys.stderr)
    return Rounds(seconds)


def titled(name: str, config: RunConfig) -> str:
    """A benchmark's name with all that is not the default: another setting is another benchmark."""
    shape = [] if config.dataset == "c10" else [config.dataset]
    own = [text for text in config.overrides if not text.startswith("batch_size=")]
    return ", ".join((name, *shape, *own))


def timed(work: Callable[[], Any], device: torch.device) -> Way:
    """The seconds of `work`, the device's own included."""

    def once() -> float:
        synchronise(device)
        start_s = time.perf_counter()
        work()
        synchronise(device)
        return time.perf_counter() - start_s

    return once
