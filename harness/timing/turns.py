"""What all benchmarks share: several ways of doing one thing take turns, so that whatever slows the machine meets all
of them; a comparison is the median of the paired ratios with their spread. Also the goals, the configs that a command
line asks for, and made-up data.
"""

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.config import RunConfig, resolve
from harness.data.load import ImageData, Split
from harness.datasets import DATASETS, Dataset
from harness.records.benchmarks import Comparison
from harness.training.device import choose, defaults, keep_freed_memory, synchronise
from harness.training.progress import duration
from variants.catalog import check_known
from variants.fields import UsageError, near_matches

OURS = "ours"
LEAST_S = 0.05  # of repeated work, so that the clock's own grain does not count
HALF = (0.5, 0.5, 0.5)

# The least ratios that this project set itself, by kind of device and name of the comparison. What misses one is shown
# as missed: a goal is not lowered to what was measured.
GOALS = {
    ("cpu", "pipeline s1"): 25.0,
    ("cpu", "loop compact s2 batch 256"): 1 / 1.03,  # an epoch takes at most 1.03 of the same steps on staged tensors
    ("cpu", "body patch2 batch 64"): 1.0,
    ("cuda", "body patch2 batch 64"): 1.0,
    ("cpu", "start"): 1 / 0.3,
    ("cpu", "beside 2 busy processes"): 1 / 2.5,  # a run takes at most 2.5 times as long as alone
    ("cpu", "report 1000 against 10 s"): 1.0,
    ("cuda", "train vanilla s1 batch 128"): 10.0,
}


@dataclass(frozen=True)
class Way:
    """`once` does the thing and returns its seconds; `amount`: how much of the unit it does in them."""

    once: Callable[[], float]
    amount: float = 1.0


@dataclass(frozen=True)
class Rounds:
    """Seconds of each way, one a round."""

    ways: Mapping[str, Way]
    seconds: Mapping[str, list[float]]

    def median_s(self, way: str) -> float:
        return statistics.median(self.seconds[way])

    def speed(self, way: str) -> float:
        return self.ways[way].amount / self.median_s(way)

    def compare(
        self,
        name: str,
        unit: str,
        ways: tuple[str, str],
        device_type: str = "cpu",
        facts: dict[str, Any] | None = None,
    ) -> Comparison:
        """The first of the two ways against the second, with the goal for a comparison of that name."""
        ours, baseline = ways
        share = self.ways[ours].amount / self.ways[baseline].amount
        ratios = [share * b / a for a, b in zip(self.seconds[ours], self.seconds[baseline], strict=True)]
        return Comparison(
            name=name,
            unit=unit,
            ours=self.speed(ours),
            baseline=self.speed(baseline),
            baseline_name=baseline,
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            rounds=len(ratios),
            goal=GOALS.get((device_type, name)),
            facts=facts or {},
        )


def take_turns(ways: Mapping[str, Way], rounds: int) -> Rounds:
    """Each way once a round, every other round in the opposite order; a first round warms up and does not count.
    Each round is reported on stderr: some take minutes."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    start_s = time.monotonic()
    for turn in range(rounds + 1):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            elapsed_s = ways[name].once()
            if turn:
                seconds[name].append(elapsed_s)
        left_s = (time.monotonic() - start_s) / (turn + 1) * (rounds - turn)
        done = f"round {turn} of {rounds}" if turn else "warmed up"
        print(f"{done}, about {duration(left_s)} left", file=sys.stderr)
    return Rounds(ways, seconds)


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """The seconds of `work`, the device's own included."""
    synchronise(device)
    start_s = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start_s


def timed(work: Callable[[], Any], device: torch.device, amount: float = 1.0) -> Way:
    return Way(lambda: seconds_of(work, device), amount)


def repeated(work: Callable[[], Any], device: torch.device, amount: float) -> Way:
    """Work so short that it is done as many times in a row as fill LEAST_S; the first two compile and warm up."""
    once = timed(work, device).once
    once()
    once()
    count = max(1, round(LEAST_S / max(once(), 1e-9)))
    return Way(lambda: sum(once() for _ in range(count)), count * amount)


# --- what is measured -------------------------------------------------------------------------------------------------


def configured(
    args: Namespace, variants: list[str], recipe: str = "common", batch_size: int | None = None
) -> tuple[torch.device, list[RunConfig]]:
    """Everything checked before the first clock starts."""
    if args.dataset not in DATASETS:
        raise UsageError(f"unknown data set {args.dataset!r}: {near_matches(args.dataset, DATASETS)}")
    device = choose(args.device)
    for name in variants:
        check_known(name)
    keep_freed_memory(device)  # the baselines in this process have it too
    asked = {"precision": None, "compile": None, "set": (), **vars(args)}
    precision, compiled = defaults(device)
    chosen = {
        "precision": asked["precision"] or precision,
        "compile": compiled if asked["compile"] is None else asked["compile"] == "on",
        "settings": asked["set"],
        "batch_size": batch_size,
    }
    return device, [resolve(name, DATASETS[args.dataset], recipe, **chosen) for name in variants]


def titled(name: str, config: RunConfig) -> str:
    """A benchmark's name with all that is not the default: another setting is another benchmark."""
    shape = [] if config.dataset == "c10" else [config.dataset]
    own = [text for text in config.overrides if not text.startswith("batch_size=")]
    return ", ".join((name, *shape, *own))


def made_up(dataset: Dataset, count: int, tests: int = 64) -> ImageData:
    """Noise in a real data set's shape: what a step costs does not depend on what the images show."""
    rng = np.random.default_rng(0)
    shape = (max(count, tests), dataset.image_size, dataset.image_size, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    labels = rng.integers(dataset.num_classes, size=len(images))
    train, test = Split(images[:count], labels[:count]), Split(images[:tests], labels[:tests])
    return ImageData(dataset, train, test, "made up", HALF, HALF)
