"""The one order into which every copy of a data set is brought, and the digest that tells copies apart."""

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Images N x H x W x 3 (uint8) and their labels N (int64)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, index: slice | np.ndarray) -> "Split":
        return Split(self.images[index], self.labels[index])


def image_hashes(images: np.ndarray) -> np.ndarray:
    """SHA-256 of each image's bytes, as an array that sorts."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.array([hashlib.sha256(row.tobytes()).hexdigest() for row in rows])


def canonical(split: Split) -> Split:
    """Sorted by the SHA-256 of the image's bytes, then by label: the same for every copy, whatever its order was."""
    return split.part(np.lexsort((split.labels, image_hashes(split.images))))


def digest(train: Split, test: Split) -> str:
    """One number for all bytes of a data set in canonical order."""
    total = hashlib.sha256()
    for split in (train, test):
        total.update(str(split.images.shape).encode())
        total.update(np.ascontiguousarray(split.images))  # type: ignore[arg-type]
        total.update(split.labels.astype("<i8").tobytes())
    return total.hexdigest()
