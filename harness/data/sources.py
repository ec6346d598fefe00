"""Owns reading each kind of copy of a data set: plain arrays, torchvision's own files, scikit-learn's digits.
Refuses to guess: a file that is not what it should be is named and not used.
"""

import zipfile
from pathlib import Path

import numpy as np

from harness.data.canonical import Split
from harness.datasets import Dataset
from variants.fields import UsageError

SPLITS = ("train", "test")


def find_arrays(folder: Path) -> bool:
    return (folder / "train_images.npy").is_file()


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
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read as an array: {str(error).splitlines()[0]}") from None
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{path} cannot be read as an array: it is an archive of several")
    return array


def check_images(images: np.ndarray, path: Path, image_size: int) -> None:
    wanted = (image_size, image_size, 3)
    if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.uint8 or len(images) == 0:
        shape = "N x " + " x ".join(map(str, wanted))
        raise UsageError(f"{path} holds {images.dtype} of shape {images.shape}; uint8 of shape {shape} is needed")


def check_labels(labels: np.ndarray, path: Path, count: int, num_classes: int) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(f"{path} holds {labels.dtype} of shape {labels.shape}; one whole number an image is needed")
    if len(labels) != count:
        raise UsageError(f"{path} holds {len(labels)} labels for {count} images")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UsageError(f"{path} holds labels {labels.min()} to {labels.max()}; 0 to {num_classes - 1} are possible")


def read_cifar(data_dir: Path, dataset: Dataset) -> tuple[Split, Split]:
    """torchvision's CIFAR files, downloaded where they are missing; torchvision checks every file's MD5."""
    from torchvision import datasets

    source = {"c10": datasets.CIFAR10, "c100": datasets.CIFAR100}[dataset.name]
    sets = [source(str(data_dir), train=name == "train", download=True) for name in SPLITS]
    train, test = (Split(np.asarray(s.data), np.asarray(s.targets, np.int64)) for s in sets)
    return train, test


def read_svhn(data_dir: Path, dataset: Dataset) -> tuple[Split, Split]:
    """`{train,test}_32x32.mat`, downloaded and checked where they are missing; in them 10 means the digit 0."""
    from torchvision.datasets import SVHN
    from torchvision.datasets.utils import download_url

    splits = []
    for name in SPLITS:
        url, filename, md5 = SVHN.split_list[name]
        path = data_dir / filename
        if not path.is_file():
            partial = data_dir / "partial"  # an interrupted download never gets the name of a whole one
            download_url(url, str(partial), filename, md5)
            (partial / filename).replace(path)
        splits.append(read_svhn_file(path, dataset))
    return splits[0], splits[1]


def read_svhn_file(path: Path, dataset: Dataset) -> Split:
    from scipy.io import loadmat

    try:
        content = loadmat(path)
        images, labels = content["X"], content["y"]
    except Exception as error:  # a broken .mat fails in many ways
        raise UsageError(f"{path} cannot be read as an SVHN file: {type(error).__name__}: {error}") from None
    if images.ndim != 4:
        raise UsageError(f"{path} holds images of shape {images.shape}; 32 x 32 x 3 x N is needed")
    images, labels = np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.reshape(-1)
    check_images(images, path, dataset.image_size)
    if labels.dtype.kind in "iu":  # the file counts 1 to 10
        labels = labels.astype(np.int64) % 10
    check_labels(labels, path, len(images), dataset.num_classes)
    return Split(images, labels)


def read_digits(dataset: Dataset) -> tuple[Split, Split]:
    """scikit-learn's 1,797 handwritten digits at their native 8 x 8, grey in three channels. A fifth is the test split:
    those that come first in canonical order, that is, a fixed and arbitrary choice."""
    from sklearn.datasets import load_digits

    from harness.data.canonical import canonical

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # type: ignore[attr-defined]
    whole = canonical(Split(np.repeat(grey[..., None], 3, axis=-1), bunch.target.astype(np.int64)))  # type: ignore[attr-defined]
    return whole.part(slice(dataset.test_count, None)), whole.part(slice(dataset.test_count))
