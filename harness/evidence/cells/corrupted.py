"""Owns what the runs of a cell reached on corrupted test images, and how two such results compare.
Refuses kinds of corruption that only one side was tested on.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.cells.groups import Group
from harness.evidence.cells.numbers import finite
from harness.records.read import Run

ByKind = Mapping[str, list[float]]  # accuracy, 0 to 1, at each strength, weakest first


@dataclass(frozen=True)
class Tested:
    """A run on the clean test set and on the disturbed one."""

    clean: float
    by_kind: ByKind


def tested_runs(group: Group) -> list[Tested]:
    """Those that were tested on corrupted images."""
    pairs = ((finite(run.result.get("test_accuracy")), _by_kind(run)) for run in group.runs)
    return [Tested(clean, by_kind) for clean, by_kind in pairs if clean is not None and by_kind is not None]


def _by_kind(run: Run) -> ByKind | None:
    """Says on stderr what is there and cannot be used."""
    found = run.result.get("corruption_accuracy")
    if found is None:
        return None
    usable = isinstance(found, dict) and found and all(map(_is_accuracies, found.values()))
    if not usable:
        print(f"{run.folder}: its corruption_accuracy cannot be used", file=sys.stderr)
    return found if usable else None


def _is_accuracies(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(finite(value) is not None for value in values)


def mean_by_kind(runs: Sequence[Tested]) -> ByKind:
    """Over the runs; runs of one cell that saw different corruptions share only what all of them saw."""
    every = [run.by_kind for run in runs]
    shared = [kind for kind in every[0] if len({len(by_kind.get(kind, [])) for by_kind in every}) == 1]
    return {kind: [sum(at) / len(runs) for at in zip(*(by_kind[kind] for by_kind in every))] for kind in shared}


def errors_of(accuracies: ByKind) -> ByKind:
    return {kind: [1 - accuracy for accuracy in at] for kind, at in accuracies.items()}


def mean_accuracy(accuracies: ByKind) -> float:
    """Every kind weighs the same, however many strengths it has."""
    return sum(sum(at) / len(at) for at in accuracies.values()) / len(accuracies)


def mean_corruption_error(errors: ByKind, reference: ByKind) -> float | None:
    """In percent (Hendrycks and Dietterich 2019); none where the reference makes no error or saw other corruptions."""
    if {kind: len(at) for kind, at in errors.items()} != {kind: len(at) for kind, at in reference.items()}:
        return None
    if not reference or not all(sum(at) > 0 for at in reference.values()):
        return None
    return 100 * sum(sum(errors[kind]) / sum(reference[kind]) for kind in reference) / len(reference)
