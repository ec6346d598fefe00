"""Owns the files that the authors of CIFAR and SVHN published: fetched where they are missing, compared, read.
Refuses to read a byte as anything before the MD5 of its file matched; the bytes read are the very ones compared.
"""

import codecs
import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.canonical import Split
from harness.data.download import fetch
from harness.data.sources import SPLITS, check_images, check_labels
from harness.datasets import Dataset
from variants.fields import UsageError

# All that CIFAR's pickles ask for.
ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


class ArraysOnly(pickle.Unpickler):
    """Makes arrays, and refuses to find anything that could be run."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ARRAYS[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def checked_bytes(path: Path, md5: str) -> bytes:
    """The whole file, if it is the published one."""
    content = path.read_bytes()
    check_md5(content, path, md5)
    return content


def check_md5(content: bytes, path: Path, md5: str) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise UsageError(
            f"{path} is cut off or not the file that was published: its MD5 is {found} instead of {md5}\n"
            f"remove it, and the same command fetches what is missing"
        )


def read_cifar(data_dir: Path, dataset: Dataset) -> tuple[Split, Split]:
    """From the unpacked files where all of them lie there, else from the archive; nothing is unpacked to the disk."""
    from torchvision import datasets

    source = {"c10": datasets.CIFAR10, "c100": datasets.CIFAR100}[dataset.name]
    sums = dict([*source.train_list, *source.test_list])
    folder, archive = data_dir / source.base_folder, data_dir / source.filename
    if all((folder / name).is_file() for name in sums):
        files = ((folder / name, (folder / name).read_bytes()) for name in sums)
    else:
        if not archive.is_file():
            fetch(source.url, archive, source.tgz_md5)
        files = _packed(archive, source.tgz_md5, {f"{source.base_folder}/{name}" for name in sums})
    batches = {path.name: _batch(content, path, sums[path.name], dataset) for path, content in files}
    if missing := sums.keys() - batches.keys():
        raise UsageError(f"{archive} lacks {', '.join(sorted(missing))}")
    train, test = ([batches[name] for name, _ in files] for files in (source.train_list, source.test_list))
    return _joined(train), _joined(test)


def _packed(archive: Path, md5: str, names: set[str]) -> Iterator[tuple[Path, bytes]]:
    content = checked_bytes(archive, md5)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as members:
        for member in members:
            packed = members.extractfile(member) if member.name in names else None
            if packed is not None:
                yield archive / member.name, packed.read()


def _batch(content: bytes, path: Path, md5: str, dataset: Dataset) -> Split:
    """One file: images as rows of red, green and blue planes; the finer labels where there are two kinds."""
    check_md5(content, path, md5)
    try:
        entry = ArraysOnly(io.BytesIO(content), encoding="latin1").load()
        labels = np.asarray(entry.get("labels", entry.get("fine_labels")))
        images = entry["data"].reshape(-1, 3, dataset.image_size, dataset.image_size).transpose(0, 2, 3, 1)
    except MemoryError:
        raise
    except Exception as error:  # a pickle fails in many ways
        raise UsageError(f"{path} cannot be read as a CIFAR file: {type(error).__name__}: {error}") from None
    check_images(images, path, dataset.image_size)
    check_labels(labels, path, len(images), dataset.num_classes)
    return Split(images, labels.astype(np.int64))


def _joined(parts: list[Split]) -> Split:
    return Split(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def read_svhn(data_dir: Path, dataset: Dataset) -> tuple[Split, Split]:
    """`{train,test}_32x32.mat`."""
    from torchvision.datasets import SVHN

    splits = []
    for name in SPLITS:
        url, filename, md5 = SVHN.split_list[name]
        path = data_dir / filename
        if not path.is_file():
            fetch(url, path, md5)
        splits.append(_svhn_split(checked_bytes(path, md5), path, dataset))
    return splits[0], splits[1]


def _svhn_split(content: bytes, path: Path, dataset: Dataset) -> Split:
    """32 x 32 x 3 x N, and labels in which 10 means the digit 0."""
    from scipy.io import loadmat

    try:
        arrays = loadmat(io.BytesIO(content), variable_names=("X", "y"))
        images, labels = arrays["X"], arrays["y"]
    except MemoryError:
        raise
    except Exception as error:  # a broken .mat fails in many ways
        raise UsageError(f"{path} cannot be read as an SVHN file: {type(error).__name__}: {error}") from None
    if images.ndim != 4:
        raise UsageError(f"{path} holds images of shape {images.shape}; 32 x 32 x 3 x N is needed")
    images, labels = np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.reshape(-1)
    check_images(images, path, dataset.image_size)
    if labels.dtype.kind in "iu":  # the file counts 1 to 10
        labels = np.where(labels == 10, 0, labels)
    check_labels(labels, path, len(images), dataset.num_classes)
    return Split(images, labels.astype(np.int64))
