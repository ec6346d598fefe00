"""Owns telling a whole copy of a known data set from a part of it, or from one whose labels or images were changed.
Refuses by name, and says which part differs; where little is known, says so of a copy that is let in.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

from harness.data.canonical import Split
from harness.datasets import KNOWN, Dataset
from variants.fields import UsageError

MEANS_APART = 0.02  # of 255: a few images that were once a JPEG move a class by less, ten exchanged labels by more


def check_known(dataset: Dataset, train: Split, test: Split, digest: str, data_dir: Path) -> None:
    """Splits in canonical order against what is known of them; the digest alone says so in nearly every case."""
    known = KNOWN.get(dataset.name)
    if known is None or digest == known.digest:
        return
    where = data_dir / dataset.name
    parts = {"train": (train, known.train_per_class), "test": (test, known.test_per_class)}
    for name, (split, counts) in parts.items():
        if problem := _other_counts(split, counts):
            raise _refusal(dataset, where, f"its {name} split {problem}")
    if known.digest is None:
        _note(f"{where} cannot be compared with the published files, only its numbers of images are right")
        return
    if images_digest(train, test) == known.images_digest:
        raise _refusal(dataset, where, "the images are right, the labels are not")
    means = (class_means(train), class_means(test))
    if not known.class_means or not all(np.allclose(*pair, 0, MEANS_APART) for pair in zip(means, known.class_means)):
        raise _refusal(dataset, where, "the numbers of images are right, the images or their labels are not")
    _note(f"{where} is no copy that is known, its classes look right on average")


def _note(text: str) -> None:
    print(f"note: {text}; its digest goes into the record", file=sys.stderr, flush=True)


def _other_counts(split: Split, counts: tuple[int, ...]) -> str | None:
    if len(split) != sum(counts):
        return f"has {len(split):,} images instead of {sum(counts):,}"
    found = np.bincount(split.labels, minlength=len(counts))
    wrong = np.flatnonzero(found != counts)
    if not len(wrong):
        return None
    first, others = wrong[0], f", and {len(wrong) - 1} more classes are off" if len(wrong) > 1 else ""
    return f"has {found[first]:,} images of class {first} instead of {counts[first]:,}{others}"


def _refusal(dataset: Dataset, where: Path, problem: str) -> UsageError:
    return UsageError(
        f"{where} is not the whole {dataset.title}: {problem}\n"
        f"copy it again, or remove {where} and let the same command fetch the published files\n"
        f"a part of it or a variant is a data set of its own: folder:PATH (PATH/train/CLASS/..., PATH/test/CLASS/...)"
    )


def images_digest(train: Split, test: Split) -> str:
    """In canonical order: that of equal images cannot be told, and does not matter here."""
    total = hashlib.sha256()
    for split in (train, test):
        total.update(np.ascontiguousarray(split.images))  # type: ignore[arg-type]
    return total.hexdigest()


def class_means(split: Split) -> np.ndarray:
    """Of each class: red, green, blue, the upper half and the left half, on a scale of 0 to 255. The halves tell an
    image that lies on its side or its back."""
    rows = []
    for label in range(int(split.labels.max()) + 1):
        images = split.images[split.labels == label]
        upper, left = images[:, : images.shape[1] // 2], images[:, :, : images.shape[2] // 2]
        rows.append([*images.mean(axis=(0, 1, 2), dtype=float), upper.mean(dtype=float), left.mean(dtype=float)])
    return np.array(rows)
