"""Owns the way from a data set's name to its arrays in canonical order.
Refuses to go on without data: one message names the ways to provide them.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data import folder, originals, sources
from harness.data.canonical import Split, canonical, digest
from harness.data.download import DownloadError
from harness.data.known import check_known
from harness.data.memory import check_memory, too_little
from harness.datasets import DATASETS, EMBEDDED, Dataset, check_name
from variants.fields import UsageError

PUBLISHED = ("c10", "c100", "svhn")  # as files that can be fetched


@dataclass(frozen=True)
class ImageData:
    """A whole data set in memory, each split in canonical order."""

    dataset: Dataset
    train: Split
    test: Split
    classes: list[str]
    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """What may not be read is named: it is there, and fetching would not help."""
    try:
        yield
    except PermissionError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from None


@_readable()
def dataset_facts(name: str, data_dir: Path) -> Dataset:
    """What can be known without reading images."""
    check_name(name)
    return DATASETS[name] if name in DATASETS else folder.facts(name)


@functools.lru_cache(maxsize=4)  # the cells of a sweep share their data
@_readable()
def load(name: str, data_dir: Path) -> ImageData:
    dataset = dataset_facts(name, data_dir)
    published = name in PUBLISHED and not sources.find_arrays(data_dir / name)
    check_memory(dataset, published)
    try:
        train, test, classes = _published(dataset, data_dir) if published else _read(dataset, data_dir)
        train, test = canonical(train), canonical(test)
    except MemoryError:
        raise too_little(dataset, published, None) from None  # a limit that no file of the system tells
    total = digest(train, test)
    if not published:  # those were compared with their MD5 before they were read
        check_known(dataset, train, test, total, data_dir)
    mean, std = dataset.mean, dataset.std
    if mean is None or std is None:
        mean, std = channel_statistics(train.images)
    return ImageData(dataset, train, test, classes, total, mean, std)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale 0 to 1, rounded as published ones are."""
    counts = np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])
    shares, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ levels
    std = np.sqrt(shares @ levels**2 - mean**2)
    return tuple(round(float(m), 4) for m in mean), tuple(max(round(float(s), 4), 1e-4) for s in std)


def _read(dataset: Dataset, data_dir: Path) -> tuple[Split, Split, list[str]]:
    if dataset.name.startswith("folder:"):
        return folder.read(dataset)
    if dataset.name == EMBEDDED:
        return *sources.read_digits(dataset), [str(digit) for digit in range(10)]
    arrays = data_dir / dataset.name
    return *sources.read_arrays(arrays, dataset), _class_names(arrays, dataset)


def _published(dataset: Dataset, data_dir: Path) -> tuple[Split, Split, list[str]]:
    try:
        splits = (originals.read_svhn if dataset.name == "svhn" else originals.read_cifar)(data_dir, dataset)
    except PermissionError:
        raise
    except (DownloadError, OSError) as error:  # no network, a checksum that does not match, a full disk
        raise UsageError(missing(dataset, data_dir, error)) from None
    return *splits, _class_names(data_dir / dataset.name, dataset)


def _class_names(folder: Path, dataset: Dataset) -> list[str]:
    path = folder / "classes.txt"
    names = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    names = [name for name in names if name]
    return names if len(names) == dataset.num_classes else [str(label) for label in range(dataset.num_classes)]


def missing(dataset: Dataset, data_dir: Path, error: Exception) -> str:
    files = {
        "c10": "cifar-10-python.tar.gz",
        "c100": "cifar-100-python.tar.gz",
        "svhn": "train_32x32.mat and test_32x32.mat",
    }[dataset.name]
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"{dataset.name} is not in {data_dir}/ and could not be downloaded ({reason}). Ways to provide it:\n"
        f"  connect to the network and run the same command again (it goes on where it was, and is checked),\n"
        f"  copy {files} into {data_dir}/ (torchvision's layout),\n"
        f"  put plain arrays into {data_dir}/{dataset.name}/: train_images.npy, train_labels.npy, test_images.npy, "
        f"test_labels.npy (uint8, N x {dataset.image_size} x {dataset.image_size} x 3),\n"
        f"  or name the folder that has them: --data-dir DIR"
    )
