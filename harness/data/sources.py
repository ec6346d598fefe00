"""Owns what images and labels have to be, and reading those that come as arrays: plain files, scikit-learn's digits.
Refuses to guess: a file that is not what it should be is named and not used.
"""

import os
from pathlib import Path

import numpy as np

from harness.data.canonical import Split
from harness.data.links import check_links
from harness.datasets import Dataset
from variants.fields import UsageError

SPLITS = ("train", "test")


def find_arrays(folder: Path) -> bool:
    """One of the two is enough: what lacks is then missed by name, and nothing is fetched instead. PermissionError for
    a folder of which nobody can tell."""
    try:
        there = os.listdir(folder)
    except PermissionError:
        raise
    except OSError:
        return False
    return any(f"{name}_images.npy" in there for name in SPLITS)


def read_arrays(folder: Path, dataset: Dataset) -> tuple[Split, Split]:
    """`{train,test}_{images,labels}.npy` in one folder."""
    check_links(folder)
    splits = []
    for name in SPLITS:
        images_path, labels_path = folder / f"{name}_images.npy", folder / f"{name}_labels.npy"
        images, labels = _load_array(images_path), _load_array(labels_path)
        check_images(images, images_path, dataset.image_size)
        check_labels(labels, labels_path, len(images), dataset.num_classes)
        splits.append(Split(np.asarray(images), labels.astype(np.int64)))
    return splits[0], splits[1]


def _load_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"{path} is missing") from None
    except Exception as error:  # a broken header fails in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} cannot be read as an array: {reason}") from None
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{path} cannot be read as an array: it is an archive of several")
    return array


def check_images(images: np.ndarray, path: Path, image_size: int) -> None:
    wanted = (image_size, image_size, 3)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.uint8 or len(images) == 0:
        shape = "N x " + " x ".join(map(str, wanted))
        raise UsageError(f"{path} holds {_described(images)}; uint8 of shape {shape} is needed")


def _described(array: np.ndarray) -> str:
    broken = sum(int(np.sum(~np.isfinite(part))) for part in array) if array.dtype.kind in "fc" and array.ndim else 0
    return f"{array.dtype} of shape {array.shape}" + (f", {broken:,} of them NaN or infinite" if broken else "")


def check_labels(labels: np.ndarray, path: Path, count: int, num_classes: int) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(f"{path} holds {_described(labels)}; one whole number an image is needed")
    if len(labels) != count:
        raise UsageError(f"{path} holds {len(labels)} labels for {count} images")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(f"{path} holds labels {labels.min()} to {labels.max()}; 0 to {num_classes - 1} are possible")


def read_digits(dataset: Dataset) -> tuple[Split, Split]:
    """scikit-learn's 1,797 handwritten digits at their native 8 x 8, grey in three channels. A fifth is the test split:
    those that come first in canonical order, that is, a fixed and arbitrary choice."""
    from sklearn.datasets import load_digits

    from harness.data.canonical import canonical

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # type: ignore[attr-defined]
    whole = canonical(Split(np.repeat(grey[..., None], 3, axis=-1), bunch.target.astype(np.int64)))  # type: ignore[attr-defined]
    return whole.part(slice(dataset.test_count, None)), whole.part(slice(dataset.test_count))
