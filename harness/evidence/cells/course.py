"""Owns what the epochs of a cell's runs come to: curves over its seeds, and where each run first reached a target.
Refuses to keep epochs: one run is read at a time, and what stays is as large as one curve.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.evidence.cells.numbers import finite
from harness.records.read import Run

LADDER = (50, 60, 70, 80, 85, 90, 94, 95)  # target accuracies, percent
LOW_LADDER = (10, 20, 30, 40)  # for a data set on which nothing reaches the first of the others
SCALES = {"test_accuracy": 100, "test_loss": 1, "val_accuracy": 100, "val_loss": 1, "train_loss": 1}

Curve = tuple[np.ndarray, np.ndarray]  # passes, and a value at each


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
    curves: dict[str, list[Curve]] = {name: [] for name in SCALES}
    arrivals = []
    for run in runs:  # one at a time: the epochs of all seeds at once would fill the memory
        if epochs := _epochs(run):
            arrivals.append(_arrivals(epochs))
            passes = np.array([line["epoch"] for line in epochs], int)
            for name, scale in SCALES.items():
                curves[name].append(_curve(passes, [line.get(name) for line in epochs], scale))
    return Course(len(arrivals), {name: _series(seeds) for name, seeds in curves.items()}, arrivals)


def _epochs(run: Run) -> list[dict[str, Any]]:
    try:
        return [line for line in run.epochs() if _is_pass(line.get("epoch"))]
    except (OSError, ValueError, AttributeError) as error:
        print(f"{run.folder}: its curve cannot be read: {type(error).__name__}: {error}", file=sys.stderr)
        return []


def _is_pass(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _curve(passes: np.ndarray, values: list[Any], scale: float) -> Curve:
    """Where there is a value, and what it is there."""
    if not set(map(type, values)) <= {float, type(None)}:  # of which NumPy knows what to make
        values = [finite(value) for value in values]
    found = np.array(values, float)
    there = np.isfinite(found)
    return passes[there], found[there] * scale


def _series(seeds: Sequence[Curve]) -> Series:
    if not seeds:
        return Series(*(np.array([], kind) for kind in (int, float, float, float)))
    values = np.concatenate([curve for _, curve in seeds])
    epoch, place, times = np.unique(np.concatenate([at for at, _ in seeds]), return_inverse=True, return_counts=True)
    low, high = np.full(epoch.size, np.inf), np.full(epoch.size, -np.inf)
    np.minimum.at(low, place, values)
    np.maximum.at(high, place, values)
    shared = times == len(seeds)
    means = np.bincount(place, values, epoch.size)[shared] / len(seeds)  # added in the order of the seeds
    return Series(epoch[shared], means, low[shared], high[shared])


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
