"""Reading the data sets that have a name: CIFAR and SVHN by torchvision, which downloads and checks them, or from plain
arrays; scikit-learn's digits."""

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np

from harness.data.canonical import Split, canonical
from harness.datasets import EMBEDDED, Dataset
from variants.fields import UsageError

Source = tuple[Split, Split, list[str]]  # train, test, names of the classes

SPLITS = ("train", "test")
DIGITS = [str(digit) for digit in range(10)]
PUBLISHED = {
    "c10": "cifar-10-python.tar.gz",
    "c100": "cifar-100-python.tar.gz",
    "svhn": "train_32x32.mat and test_32x32.mat",
}
SILENCE_S = 30.0  # a server that sends nothing for so long is given up


def read(dataset: Dataset, data_dir: Path) -> Source:
    if dataset.name == EMBEDDED:
        return *read_digits(dataset), DIGITS
    folder = data_dir / dataset.name
    if not find_arrays(folder):
        return read_published(dataset, data_dir)
    train, test = read_arrays(folder, dataset)
    check_counts(folder, dataset, train, test)
    return train, test, _class_names(folder, dataset)


# --- the published files ---------------------------------------------------------------------------------------------


def read_published(dataset: Dataset, data_dir: Path) -> Source:
    """CIFAR's files are pickles: torchvision compares the MD5 of each before it unpickles it."""
    with contextlib.suppress(RuntimeError):  # not all there, or with another MD5
        return by_torchvision(dataset.name, data_dir, download=False)
    from filelock import FileLock

    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f".{dataset.name}.lock"), _given_up_after(SILENCE_S):
            return by_torchvision(dataset.name, data_dir, download=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise UsageError(_missing(dataset, data_dir, error)) from None


def by_torchvision(name: str, data_dir: Path, download: bool) -> Source:
    from torchvision import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about pickles as old as these
        if name == "svhn":
            halves = [datasets.SVHN(data_dir, split, download=download) for split in SPLITS]
            train, test = (Split(half.data.transpose(0, 2, 3, 1), half.labels.astype(np.int64)) for half in halves)
            return train, test, DIGITS
        kind = {"c10": datasets.CIFAR10, "c100": datasets.CIFAR100}[name]
        halves = [kind(data_dir, split == "train", download=download) for split in SPLITS]
        train, test = (Split(half.data, np.array(half.targets, np.int64)) for half in halves)
        return train, test, halves[0].classes


@contextlib.contextmanager
def _given_up_after(silence_s: float) -> Iterator[None]:
    """torchvision's own requests would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(silence_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _missing(dataset: Dataset, data_dir: Path, error: Exception) -> str:
    return (
        f"{dataset.name} is not in {data_dir}/, or damaged there, and could not be downloaded ({_reason(error)}). "
        f"Ways to provide it:\n"
        f"  connect to the network and run the same command again,\n"
        f"  copy {PUBLISHED[dataset.name]} into {data_dir}/ (torchvision's layout),\n"
        f"  put plain arrays into {data_dir}/{dataset.name}/: train_images.npy, train_labels.npy, test_images.npy, "
        f"test_labels.npy (uint8, N x {dataset.image_size} x {dataset.image_size} x 3),\n"
        f"  or name the folder that has them: --data-dir DIR"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return f"no connection: {error.reason}"
    if isinstance(error, RuntimeError):  # torchvision's "File not found or corrupted."
        return "what came does not have the published checksum"
    return (str(error).splitlines() or [type(error).__name__])[0]


# --- plain arrays ----------------------------------------------------------------------------------------------------


def find_arrays(folder: Path) -> bool:
    """One of the files is enough: what lacks is then missed by name, and nothing is downloaded instead."""
    return folder.is_dir() and any(name in os.listdir(folder) for name in ("train_images.npy", "test_images.npy"))


def read_arrays(folder: Path, dataset: Dataset) -> tuple[Split, Split]:
    """`{train,test}_{images,labels}.npy` in one folder."""
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


def check_images(images: np.ndarray, path: Path, side: int) -> None:
    if images.shape[1:] != (side, side, 3) or images.dtype != np.uint8 or len(images) == 0:
        found = f"{images.dtype} of shape {images.shape}"
        raise UsageError(f"{path} holds {found}; uint8 of shape N x {side} x {side} x 3 is needed")


def check_labels(labels: np.ndarray, path: Path, count: int, num_classes: int) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(f"{path} holds {labels.dtype} of shape {labels.shape}; one whole number an image is needed")
    if len(labels) != count:
        raise UsageError(f"{path} holds {len(labels)} labels for {count} images")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(f"{path} holds labels {labels.min()} to {labels.max()}; 0 to {num_classes - 1} are possible")


def check_counts(folder: Path, dataset: Dataset, train: Split, test: Split) -> None:
    for name, split, wanted in (("train", train, dataset.train_count), ("test", test, dataset.test_count)):
        if len(split) != wanted:
            raise UsageError(
                f"{folder} is not the whole {dataset.title}: its {name} split has {len(split):,} images instead of "
                f"{wanted:,}\na part of it or a variant is a data set of its own: folder:PATH (PATH/train/CLASS/..., "
                f"PATH/test/CLASS/...)"
            )


def _class_names(folder: Path, dataset: Dataset) -> list[str]:
    """Those of `classes.txt`, a line each, if it is there and has as many."""
    path = folder / "classes.txt"
    names = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    names = [name for name in names if name]
    return names if len(names) == dataset.num_classes else [str(label) for label in range(dataset.num_classes)]


# --- the embedded digits ---------------------------------------------------------------------------------------------


def read_digits(dataset: Dataset) -> tuple[Split, Split]:
    """scikit-learn's 1,797 handwritten digits at their native 8 x 8, grey in three channels. A fifth is the test split:
    those that come first in canonical order, that is, a fixed and arbitrary choice."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # type: ignore[attr-defined]
    whole = canonical(Split(np.repeat(grey[..., None], 3, axis=-1), bunch.target.astype(np.int64)))  # type: ignore[attr-defined]
    return whole.part(slice(dataset.test_count, None)), whole.part(slice(dataset.test_count))
