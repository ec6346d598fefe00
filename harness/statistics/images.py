"""What predictions on one set of images say: two models against each other, calibration, accuracy by class. Their
p values and intervals are about two trained models, not about two recipes: no seeds are in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.statistics.intervals import RESAMPLES, TAIL

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Agreement:
    """How many images both models have right, one alone, neither."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Accuracy of the second minus that of the first."""
        return (self.only_second - self.only_first) / self.n


def agreement(labels_N: np.ndarray, first_N: np.ndarray, second_N: np.ndarray) -> Agreement:
    a, b = first_N == labels_N, second_N == labels_N
    return Agreement(*(int(np.count_nonzero(both)) for both in (a & b, a & ~b, ~a & b, ~a & ~b)))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact and two-sided: the images on which one alone is right, against a fair coin; 1 where there are none."""
    from scipy.special import bdtr

    fewer = min(only_first, only_second)
    return min(1.0, 2 * float(bdtr(fewer, only_first + only_second, 0.5)))


def difference_interval(
    counts: Agreement, seed: int | Sequence[int], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile bootstrap over images of the second's accuracy minus the first's.

    An image is one of four cases, so that drawing n images with replacement is one multinomial draw: no loop over them.
    """
    cases = np.array([counts.both + counts.neither, counts.only_first, counts.only_second])
    drawn = np.random.default_rng(seed).multinomial(counts.n, cases / counts.n, size=resamples)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 1]) / counts.n, [TAIL, 1 - TAIL])
    return float(low), float(high)


@dataclass(frozen=True)
class Bins:
    """Images by their confidence, in bins of equal width: how many, and two sums over them. Those of two models add."""

    images_B: np.ndarray
    confidence_B: np.ndarray
    right_B: np.ndarray

    def __add__(self, other: "Bins") -> "Bins":
        images_B, confidence_B = self.images_B + other.images_B, self.confidence_B + other.confidence_B
        return Bins(images_B, confidence_B, self.right_B + other.right_B)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error (Guo et al. 2017): |accuracy - confidence| of each bin, by its share of images."""
        return float(np.abs(self.right_B - self.confidence_B).sum() / self.images_B.sum())

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy: what calibration error is where every bin errs to one side."""
        return float((self.confidence_B.sum() - self.right_B.sum()) / self.images_B.sum())


def calibration_bins(confidence_N: np.ndarray, correct_N: np.ndarray, bins: int = CALIBRATION_BINS) -> Bins:
    confidence_N = confidence_N.astype(float)
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)  # (0, 1/15], (1/15, 2/15], ...
    return Bins(*(np.bincount(bin_N, of_N, minlength=bins) for of_N in (None, confidence_N, correct_N.astype(float))))


def confusion(labels_N: np.ndarray, predicted_N: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix: images by true class (row) and predicted class (column)."""
    if labels_N.size and max(labels_N.max(), predicted_N.max()) >= classes:
        raise ValueError(f"a label or a prediction is outside 0 to {classes - 1}")
    pair_N = labels_N.astype(np.int64) * classes + predicted_N
    return np.bincount(pair_N, minlength=classes**2).reshape(classes, classes)


def class_accuracy(confusion_KK: np.ndarray) -> np.ndarray:
    """In percent, one for each class; NaN for a class without an image."""
    images_K = confusion_KK.sum(1)
    return np.divide(100 * confusion_KK.diagonal(), images_K, out=np.full(images_K.size, np.nan), where=images_K > 0)
