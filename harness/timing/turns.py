"""What all benchmarks share: several ways of doing one thing take turns, so that whatever slows the machine meets all
of them; a comparison is the median of the paired ratios with their spread. Also the configs that a command line asks
for, and made-up data.
"""

import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.commands import asked_for
from harness.config import RunConfig, resolve
from harness.data.load import ImageData, Split
from harness.datasets import DATASETS, Dataset
from harness.recipes import PUBLISHED
from harness.records.benchmarks import Comparison
from harness.training.device import choose, defaults, keep_freed_memory, synchronise
from harness.training.progress import duration
from variants.catalog import check_known

OURS = "ours"
LEAST_S = 0.05  # of repeated work, so that the clock's own grain does not count
HALF = (0.5, 0.5, 0.5)


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
        self, name: str, unit: str, ours: str, baseline: str, facts: dict[str, Any] | None = None
    ) -> Comparison:
        """The way `ours` against the way `baseline`."""
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


def configured(args: Namespace, variants: Iterable[str]) -> tuple[torch.device, list[RunConfig]]:
    """Everything checked before the first clock starts."""
    device = choose(args.device)
    keep_freed_memory(device)  # the baselines in this process have it too
    precision, compiles = asked_for(args, *defaults(device))
    configs = []
    for name in variants:
        check_known(name)
        recipe = args.recipe or ("published" if name in PUBLISHED else "common")
        run = {"precision": precision, "compile": compiles, "settings": args.set, "batch_size": args.batch_size}
        configs.append(resolve(name, DATASETS[args.dataset], recipe, **run))
    return device, configs


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
