"""What the predictions, the epochs and the corrupted images of a cell's runs add up to: calibration and confusion
matrix, learning curves and time to a target, robustness. One run is read at a time, and only sums are kept."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.records.read import Run
from harness.statistics.images import Bins, calibration_bins, class_accuracy, confusion

Predictions = dict[str, np.ndarray]

LARGEST = 1e300  # a whole number of JSON may have more digits than a float


def finite(value: Any) -> float | None:
    """The number, or None for what a record holds instead of one; a yes or no is none, though Python adds it up."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) < LARGEST else None


# --- predictions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
    calibration_errors: list[float]  # one a run, percent
    overconfidence: list[float]  # one a run: mean confidence minus accuracy, points
    bins: Bins  # of all runs
    confusion_KK: np.ndarray  # true class x predicted class, images of all runs

    @property
    def n(self) -> int:
        return len(self.calibration_errors)

    @property
    def class_accuracy_K(self) -> np.ndarray:
        """Over all runs, which saw the same images."""
        return class_accuracy(self.confusion_KK)


def quality_of(runs: Sequence[Run]) -> Quality | None:
    """Of the runs whose predictions are there; none where no run has any."""
    found = [parts for run in runs if (parts := _sums_of(run))]
    if not found:
        return None
    errors = [100 * bins.calibration_error for bins, _ in found]
    over = [100 * bins.overconfidence for bins, _ in found]
    (bins, confusion_KK), *rest = found
    for more, more_KK in rest:
        bins, confusion_KK = bins + more, confusion_KK + more_KK
    return Quality(errors, over, bins, confusion_KK)


def predictions_of(run: Run) -> tuple[Predictions | None, str]:
    """The predictions of a run, or why there are none."""
    try:
        found = run.predictions()
    except FileNotFoundError:
        return None, "there is no predictions.npz"
    except (OSError, ValueError) as error:
        return None, str(error)
    if not found["labels"].shape == found["predicted"].shape == found["confidence"].shape:
        return None, "labels, predictions and confidences differ in number"
    return (found, "") if found["labels"].size else (None, "predictions.npz holds no image")


def _sums_of(run: Run) -> tuple[Bins, np.ndarray] | None:
    """A run without predictions is a hole, which the table's n shows; one whose predictions are broken is named."""
    if not (run.folder / "predictions.npz").exists():
        return None
    found, reason = predictions_of(run)
    try:
        if found:
            return _sums(found, (run.config.get("variant") or {}).get("num_classes"))
    except (ValueError, TypeError) as error:
        reason = str(error)
    print(f"{run.folder}: its predictions cannot be used: {reason}", file=sys.stderr)
    return None


def _sums(found: Predictions, classes: int | None) -> tuple[Bins, np.ndarray]:
    confidence_N = found["confidence"]
    if not isinstance(classes, int):
        raise ValueError("config.json has no variant.num_classes")
    if not ((confidence_N >= 0) & (confidence_N <= 1)).all():
        raise ValueError("a confidence is outside 0 to 1")
    matrix_KK = confusion(found["labels"], found["predicted"], classes)
    return calibration_bins(confidence_N, found["labels"] == found["predicted"]), matrix_KK


# --- epochs ----------------------------------------------------------------------------------------------------------

LADDER = (50, 60, 70, 80, 85, 90, 94, 95)  # target accuracies, percent
LOW_LADDER = (10, 20, 30, 40)  # for a data set on which nothing reaches the first of the others
SCALES = {"test_accuracy": 100, "test_loss": 1, "val_accuracy": 100, "val_loss": 1, "train_loss": 1}

Series = dict[str, list[Any]]  # epoch, mean, low and high over the seeds, at the epochs where every seed has a value


@dataclass(frozen=True)
class Reached:
    """What it took a run to reach a target for the first time."""

    images: float | None
    seconds: float | None  # of training: evaluation and compilation excluded


@dataclass(frozen=True)
class Curves:
    n: int  # runs whose epochs could be read
    series: dict[str, Series]  # of each name in SCALES
    reached: list[dict[int, Reached]]  # of each run, by target


def curves_of(runs: Sequence[Run]) -> Curves:
    values: dict[str, list[dict[int, float]]] = {name: [] for name in SCALES}
    reached = []
    for run in runs:
        if epochs := epochs_of(run):
            reached.append(_targets(epochs))
            for name, scale in SCALES.items():
                pairs = ((line["epoch"], finite(line.get(name))) for line in epochs)
                values[name].append({epoch: value * scale for epoch, value in pairs if value is not None})
    return Curves(len(reached), {name: _series(seeds) for name, seeds in values.items()}, reached)


def epochs_of(run: Run) -> list[dict[str, Any]]:
    try:
        return [line for line in run.epochs() if _is_epoch(line.get("epoch"))]
    except (OSError, ValueError) as error:
        print(f"{run.folder}: its curve cannot be read: {type(error).__name__}: {error}", file=sys.stderr)
        return []


def _is_epoch(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _series(seeds: Sequence[Mapping[int, float]]) -> Series:
    epochs = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not epochs:
        return {"epoch": [], "mean": [], "low": [], "high": []}
    values_SE = np.array([[of[epoch] for epoch in epochs] for of in seeds])
    over_S = {"mean": values_SE.mean(0), "low": values_SE.min(0), "high": values_SE.max(0)}
    return {"epoch": epochs, **{name: values_E.tolist() for name, values_E in over_S.items()}}


def _targets(epochs: Sequence[dict[str, Any]]) -> dict[int, Reached]:
    found: dict[int, Reached] = {}
    waiting = sorted((*LOW_LADDER, *LADDER), reverse=True)
    spent: float | None = 0.0
    for line in epochs:
        seconds = finite(line.get("seconds"))
        spent = None if spent is None or seconds is None else spent + seconds  # an epoch without a time: no sum after
        accuracy = finite(line.get("test_accuracy")) or 0.0
        while waiting and accuracy >= waiting[-1] / 100:  # not 100 x accuracy, which may be below in binary
            found[waiting.pop()] = Reached(finite(line.get("images_seen")), spent)
    return found


# --- corrupted images ------------------------------------------------------------------------------------------------

ByKind = Mapping[str, list[float]]  # accuracy, 0 to 1, at each strength, weakest first


@dataclass(frozen=True)
class Robustness:
    """Of the runs of a cell that were tested on corrupted images."""

    clean: list[float]  # accuracy of each run on the clean test set
    corrupted: list[float]  # and on the corrupted ones: every kind weighs the same, however many strengths it has
    by_kind: ByKind  # mean over the runs, of what all of them saw


def robustness_of(runs: Sequence[Run]) -> Robustness | None:
    pairs = ((finite(run.result.get("test_accuracy")), _by_kind(run)) for run in runs)
    tested = [(accuracy, kinds) for accuracy, kinds in pairs if accuracy is not None and kinds is not None]
    if not tested:
        return None
    clean, every = [accuracy for accuracy, _ in tested], [kinds for _, kinds in tested]
    corrupted = [sum(sum(at) / len(at) for at in kinds.values()) / len(kinds) for kinds in every]
    shared = [kind for kind in every[0] if len({len(kinds.get(kind, [])) for kinds in every}) == 1]
    means = {kind: [sum(at) / len(every) for at in zip(*(kinds[kind] for kinds in every))] for kind in shared}
    return Robustness(clean, corrupted, means)


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


def mean_corruption_error(own: ByKind, reference: ByKind) -> float | None:
    """In percent (Hendrycks and Dietterich 2019); none where the reference makes no error or saw other corruptions."""
    if {kind: len(at) for kind, at in own.items()} != {kind: len(at) for kind, at in reference.items()}:
        return None
    errors, theirs = ({kind: sum(1 - at for at in of[kind]) for kind in reference} for of in (own, reference))
    if not reference or min(theirs.values()) <= 0:
        return None
    return 100 * sum(errors[kind] / theirs[kind] for kind in reference) / len(reference)
