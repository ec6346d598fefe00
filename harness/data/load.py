"""A data set by its name: what is known of it before it is read, and its images in canonical order."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data import folder, sources
from harness.data.canonical import Split, canonical, digest
from harness.datasets import DATASETS, Dataset, check_name
from variants.fields import UsageError

CGROUP = Path("/sys/fs/cgroup")


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
    try:
        yield
    except PermissionError as error:  # it is there, and fetching would not help
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
    try:
        if name in DATASETS:
            train, test, classes = sources.read(dataset, data_dir)
        else:
            train, test, classes = folder.read(dataset)
        train, test = canonical(train), canonical(test)
    except MemoryError:
        raise _too_little_memory(dataset) from None
    mean, std = dataset.mean, dataset.std
    if mean is None or std is None:
        mean, std = channel_statistics(train.images)
    return ImageData(dataset, train, test, classes, digest(train, test), mean, std)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel on the scale 0 to 1, rounded as published ones are."""
    counts = np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])
    shares, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ levels
    std = np.sqrt(shares @ levels**2 - mean**2)
    return tuple(round(float(m), 4) for m in mean), tuple(max(round(float(s), 4), 1e-4) for s in std)


def _too_little_memory(dataset: Dataset) -> UsageError:
    count, side = dataset.train_count + dataset.test_count, dataset.image_size
    return UsageError(
        f"too little memory for {dataset.name}: {count:,} images of {side} x {side} x 3 take "
        f"{count * side**2 * 3 / 1e9:.2f} GB, twice while they are sorted\n"
        f"end other programs, ask for more memory, or try a smaller data set (folder:PATH@32 resizes)"
    )


def available_bytes() -> int | None:
    """How much memory this process may still take: what the machine has left, or less where a control group (of a
    container or a batch job) has a limit. None where the system does not say."""
    left = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        left += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        own = CGROUP / Path("/proc/self/cgroup").read_text().partition("0::/")[2].strip()
        left += [_left_in(group) for group in (own, *own.parents) if (group / "memory.max").is_file()]
    return min((bytes_ for bytes_ in left if bytes_ is not None), default=None)


def _left_in(group: Path) -> int | None:
    """None without a limit. What files keep in memory is given back when it is asked for."""
    limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    if limit == "max":
        return None
    facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return max(0, int(limit) - int(used) + int(facts["active_file"]) + int(facts["inactive_file"]))
