"""Owns what the predictions of a cell's runs add up to: calibration bins, a confusion matrix, two numbers of each run.
Refuses to keep predictions: one run is read at a time, and only sums stay.
"""

import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.records.read import Run
from harness.statistics.images import Bins, calibration_bins, confusion

Predictions = dict[str, np.ndarray]


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
        """In percent, the mean over runs that saw the same images; NaN for a class without one."""
        images_K = self.confusion_KK.sum(1)
        right_K = 100 * self.confusion_KK.diagonal()
        return np.divide(right_K, images_K, out=np.full(images_K.size, np.nan), where=images_K > 0)


def quality_of(runs: Sequence[Run]) -> Quality | None:
    """Of the runs whose predictions are there; none where no run has any."""
    found = [parts for run in runs if (parts := _parts(run))]
    if not found:
        return None
    errors = [100 * bins.calibration_error for bins, _ in found]
    over = [100 * bins.overconfidence for bins, _ in found]
    (bins, confusion_KK), *rest = found
    for more, more_KK in rest:
        bins, confusion_KK = bins + more, confusion_KK + more_KK
    return Quality(errors, over, bins, confusion_KK.astype(np.uint32))


def predictions_of(run: Run) -> tuple[Predictions | None, str]:
    """The predictions of a run, or why there are none."""
    try:
        found = run.predictions()
        if not found["labels"].shape == found["predicted"].shape == found["confidence"].shape:
            raise ValueError("labels, predictions and confidences differ in number")
        return (found, "") if found["labels"].size else (None, "predictions.npz holds no image")
    except FileNotFoundError:
        return None, "there is no predictions.npz"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return None, str(error)


def _parts(run: Run) -> tuple[Bins, np.ndarray] | None:
    """A run without predictions is a hole, which the table's n tells; one whose predictions are broken is named."""
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
