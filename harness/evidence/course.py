"""Owns what the epochs of a cell's runs come to: curves over its seeds, and where each run first reached a target.
Refuses to keep epochs: one run is read at a time, and what stays is as large as one curve.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.evidence.numbers import finite
from harness.records.read import Run

LADDER = (50, 60, 70, 80, 85, 90, 94, 95)  # target accuracies, percent
LOW_LADDER = (10, 20, 30, 40)  # for a data set on which nothing reaches the first of the others
SCALES = {"test_accuracy": 100, "test_loss": 1, "val_accuracy": 100, "val_loss": 1, "train_loss": 1}

ValuesAt = dict[int, list[float]]  # one for each seed, by pass


@dataclass(frozen=True)
class Series:
    """Over the seeds, at the passes where every seed has a value."""

    epoch: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def to_plain(self) -> dict[str, list[Any]]:
        return {name: getattr(self, name).tolist() for name in ("epoch", "mean", "low", "high")}


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a run first reached a target."""

    images: float | None
    seconds: float | None  # of training: evaluation and compilation excluded


@dataclass(frozen=True)
class Course:
    n: int = 0  # runs whose epochs could be read
    series: dict[str, Series] = field(default_factory=dict)  # of each name in SCALES
    arrivals: list[dict[int, Arrival]] = field(default_factory=list)  # of each run: target -> arrival


def course_of(runs: Sequence[Run]) -> Course:
    values: dict[str, ValuesAt] = {name: {} for name in SCALES}
    arrivals = []
    for run in runs:  # one at a time: the epochs of all seeds at once would fill the memory
        if epochs := _epochs(run):
            arrivals.append(_arrivals(epochs))
            for name, scale in SCALES.items():
                _collect(values[name], epochs, name, scale)
    series = {name: _series(at, len(arrivals)) for name, at in values.items()}
    return Course(len(arrivals), series, arrivals)


def _epochs(run: Run) -> list[dict[str, Any]]:
    try:
        return [line for line in run.epochs() if isinstance(line.get("epoch"), int)]
    except (OSError, ValueError, AttributeError) as error:
        print(f"{run.folder}: its curve cannot be read: {type(error).__name__}: {error}", file=sys.stderr)
        return []


def _collect(at: ValuesAt, epochs: list[dict[str, Any]], name: str, scale: float) -> None:
    for line in epochs:
        if (value := finite(line.get(name))) is not None:
            at.setdefault(line["epoch"], []).append(value * scale)


def _series(at: ValuesAt, seeds: int) -> Series:
    shared = sorted(epoch for epoch, values in at.items() if len(values) == seeds)
    columns = ([of(at[epoch]) for epoch in shared] for of in (_mean, min, max))
    return Series(np.array(shared, int), *(np.array(column, float) for column in columns))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _arrivals(epochs: Sequence[dict[str, Any]]) -> dict[int, Arrival]:
    found: dict[int, Arrival] = {}
    waiting = sorted((*LOW_LADDER, *LADDER), reverse=True)
    spent: float | None = 0.0
    for line in epochs:
        seconds = finite(line.get("seconds"))
        spent = None if spent is None or seconds is None else spent + seconds  # a pass without a time: no sum after it
        accuracy = finite(line.get("test_accuracy")) or 0.0
        while waiting and accuracy >= waiting[-1] / 100:  # not 100 x accuracy, which may be below in binary
            found[waiting.pop()] = Arrival(finite(line.get("images_seen")), spent)
    return found
