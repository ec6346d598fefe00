"""A data set by its name: CIFAR and SVHN by torchvision, which downloads and checks them, or from plain arrays;
scikit-learn's digits; image folders. Whatever the copy, its images come into one canonical order."""

import contextlib
import functools
import hashlib
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np

from harness.data import folder
from harness.data.index import ImageFiles, indexed
from harness.datasets import DATASETS, EMBEDDED, Dataset, check_name
from variants.fields import UsageError, first_line

PUBLISHED = {
    "c10": "cifar-10-python.tar.gz",
    "c100": "cifar-100-python.tar.gz",
    "svhn": "train_32x32.mat and test_32x32.mat",
}
SILENCE_S = 30.0  # a server that sends nothing for so long is given up
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Split:
    """Images N x H x W x 3 (uint8) and their labels N (int64)."""

    images: Any  # an array, or the ImageFiles of a folder, which are asked as if they were one
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, index: slice | np.ndarray) -> "Split":
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class ImageData:
    """A whole data set, each split in canonical order."""

    dataset: Dataset
    train: Split
    test: Split
    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # it is there, and fetching would not help
        raise UsageError(f"{error.filename or name} cannot be read: {error.strerror or first_line(error)}") from None


def dataset_facts(name: str) -> Dataset:
    """What can be known without reading images."""
    check_name(name)
    with _readable(name):
        return DATASETS[name] if name in DATASETS else folder.facts(name)


@functools.lru_cache(maxsize=4)  # the cells of a sweep share their data
def load(name: str, data_dir: Path, skip_broken: bool = False) -> ImageData:
    """Of a folder's images that cannot be decoded, the first are named; with `skip_broken` they are no part of it."""
    dataset = dataset_facts(name)
    try:
        with _readable(name):
            if name not in DATASETS:
                return _of_folder(dataset, *indexed(dataset, data_dir, skip_broken))
            train, test = map(canonical, read(dataset, data_dir))
        mean, std = dataset.mean, dataset.std
        if mean is None or std is None:
            mean, std = channel_statistics(train.images)
        return ImageData(dataset, train, test, digest(train, test), mean, std)
    except MemoryError:
        count, side = dataset.train_count + dataset.test_count, dataset.image_size
        raise UsageError(
            f"too little memory for {name}: {count:,} images of {side} x {side} x 3 take "
            f"{count * side**2 * 3 / 1e9:.2f} GB, twice while they are sorted\n"
            f"end other programs, ask for more memory, or try a smaller data set (folder:PATH@32 resizes)"
        ) from None


def _of_folder(dataset: Dataset, splits: Sequence[tuple[ImageFiles, np.ndarray]], counts: np.ndarray) -> ImageData:
    train, test = (canonical(Split(*split)) for split in splits)
    dataset = replace(dataset, train_count=len(train), test_count=len(test))
    return ImageData(dataset, train, test, digest(train, test), *statistics_of(counts))


def image_hashes(images: Any) -> np.ndarray:
    """SHA-256 of each image's bytes, as an array that sorts."""
    if isinstance(images, ImageFiles):
        return images.hashes.view("S32")[:, 0]
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.array([hashlib.sha256(row.tobytes()).hexdigest() for row in rows])


def canonical(split: Split) -> Split:
    """Sorted by the SHA-256 of the image's bytes, then by label: the same for every copy, whatever its order was."""
    return split.part(np.lexsort((split.labels, image_hashes(split.images))))


def digest(train: Split, test: Split) -> str:
    """One number for all bytes of a data set in canonical order; of a folder for all images' hashes."""
    total = hashlib.sha256()
    for split in (train, test):
        total.update(str(split.images.shape).encode())
        content = split.images.hashes if isinstance(split.images, ImageFiles) else split.images
        total.update(np.ascontiguousarray(content))  # type: ignore[arg-type]
        total.update(split.labels.astype("<i8").tobytes())
    return total.hexdigest()


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale 0 to 1, rounded as published ones are."""
    return statistics_of(np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)]))


def statistics_of(counts: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same from 3 x 256 counts: how often each value occurs."""
    shares, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ levels
    std = np.sqrt(shares @ levels**2 - mean**2)
    return tuple(round(float(m), 4) for m in mean), tuple(max(round(float(s), 4), 1e-4) for s in std)


def read(dataset: Dataset, data_dir: Path) -> tuple[Split, Split]:
    if dataset.name == EMBEDDED:
        return read_digits(dataset)
    arrays = data_dir / dataset.name
    # One of the files is enough: what is missing is then named, and nothing is downloaded instead.
    if arrays.is_dir() and {"train_images.npy", "test_images.npy"} & set(os.listdir(arrays)):
        return read_arrays(arrays, dataset)
    return read_published(dataset, data_dir)


def read_digits(dataset: Dataset) -> tuple[Split, Split]:
    """scikit-learn's 1,797 handwritten digits at their native 8 x 8, grey in three channels. A fifth is the test split:
    those that come first in canonical order, that is, a fixed and arbitrary choice."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # type: ignore[attr-defined]
    whole = canonical(Split(np.repeat(grey[..., None], 3, axis=-1), bunch.target.astype(np.int64)))  # type: ignore[attr-defined]
    return whole.part(slice(dataset.test_count, None)), whole.part(slice(dataset.test_count))


# --- the published files ---------------------------------------------------------------------------------------------


def read_published(dataset: Dataset, data_dir: Path) -> tuple[Split, Split]:
    """CIFAR's files are pickles: torchvision compares the MD5 of each before it unpickles it."""
    with contextlib.suppress(RuntimeError):  # not all there, or with another MD5
        return by_torchvision(dataset.name, data_dir, download=False)
    from filelock import FileLock

    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / f".{dataset.name}.lock"):
            socket.setdefaulttimeout(SILENCE_S)  # torchvision's own requests would wait forever
            return by_torchvision(dataset.name, data_dir, download=True)
    except (OSError, HTTPException, RuntimeError) as error:
        side, reason = dataset.image_size, first_line(error)
        if isinstance(error, URLError) and not isinstance(error, HTTPError):
            reason = f"no connection: {error.reason}"
        elif "not found or corrupted" in reason:  # torchvision's words
            reason = "what came does not have the published checksum"
        raise UsageError(
            f"{dataset.name} is not in {data_dir}/, or damaged there, and could not be downloaded ({reason}). "
            f"Ways to provide it:\n"
            f"  connect to the network and run the same command again,\n"
            f"  copy {PUBLISHED[dataset.name]} into {data_dir}/ (torchvision's layout),\n"
            f"  put plain arrays into {data_dir}/{dataset.name}/: train_images.npy, train_labels.npy, test_images.npy, "
            f"test_labels.npy (uint8, N x {side} x {side} x 3),\n"
            f"  or name the folder that has them: --data-dir DIR"
        ) from None
    finally:
        socket.setdefaulttimeout(None)


def by_torchvision(name: str, data_dir: Path, download: bool) -> tuple[Split, Split]:
    from torchvision import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about pickles as old as these
        if name == "svhn":
            halves = [datasets.SVHN(data_dir, split, download=download) for split in ("train", "test")]
            train, test = (Split(half.data.transpose(0, 2, 3, 1), half.labels.astype(np.int64)) for half in halves)
            return train, test
        kind = {"c10": datasets.CIFAR10, "c100": datasets.CIFAR100}[name]
        halves = (kind(data_dir, train=is_train, download=download) for is_train in (True, False))
        train, test = (Split(half.data, np.array(half.targets, np.int64)) for half in halves)
        return train, test


# --- plain arrays ----------------------------------------------------------------------------------------------------


def read_arrays(arrays: Path, dataset: Dataset) -> tuple[Split, Split]:
    """`{train,test}_{images,labels}.npy` in one folder."""
    counts = {"train": dataset.train_count, "test": dataset.test_count}
    train, test = (_read_split(arrays, name, dataset, count) for name, count in counts.items())
    return train, test


def _read_split(arrays: Path, name: str, dataset: Dataset, count: int) -> Split:
    images, labels = (_load_array(arrays / f"{name}_{part}.npy") for part in ("images", "labels"))
    side, classes = dataset.image_size, dataset.num_classes
    if images.shape[1:] != (side, side, 3) or images.dtype != np.uint8:
        found = f"{images.dtype} of shape {images.shape}"
        raise UsageError(f"{arrays}/{name}_images.npy holds {found}; uint8 of N x {side} x {side} x 3 is needed")
    if len(images) != count:
        raise UsageError(
            f"{arrays} is not the whole {dataset.title}: its {name} split has {len(images):,} images instead of "
            f"{count:,}\na part of it or a variant is a data set of its own: folder:PATH (PATH/train/CLASS/..., "
            f"PATH/test/CLASS/...)"
        )
    holds = f"{arrays}/{name}_labels.npy holds"
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(f"{holds} {labels.dtype} of shape {labels.shape}; one whole number an image is needed")
    if len(labels) != count:
        raise UsageError(f"{holds} {len(labels):,} labels for {count:,} images")
    if labels.min() < 0 or labels.max() >= classes:
        raise UsageError(f"{holds} labels {labels.min()} to {labels.max()}; 0 to {classes - 1} are possible")
    return Split(np.asarray(images), labels.astype(np.int64))


def _load_array(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")  # refuses objects, which would have to be unpickled
    except FileNotFoundError:
        raise UsageError(f"{path} is missing") from None
    except Exception as error:  # a broken header fails in many ways
        raise UsageError(f"{path} cannot be read as an array: {first_line(error)}") from None


# --- memory ----------------------------------------------------------------------------------------------------------


def available_bytes() -> int | None:
    """How much memory this process may still take: what the machine has left, or less where a control group (of a
    container or a batch job) has a limit. None where the system does not say."""
    left = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        left += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        own = CGROUP / Path("/proc/self/cgroup").read_text().partition("0::/")[2].strip()
        for group in (own, *own.parents):
            limit = (group / "memory.max").read_text().strip() if (group / "memory.max").is_file() else "max"
            if limit != "max":
                used = int((group / "memory.current").read_text())
                facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                # What files keep in memory is given back when it is asked for.
                used -= int(facts["active_file"]) + int(facts["inactive_file"])
                left.append(max(0, int(limit) - used))
    return min(left, default=None)
