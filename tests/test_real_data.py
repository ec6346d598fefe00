"""The real CIFAR arrays, where this checkout has them under data/: they are what the published facts say."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.canonical import Split, canonical, image_hashes
from harness.data.known import check_known, images_digest
from harness.data.load import channel_statistics, load
from harness.datasets import KNOWN
from variants.fields import UsageError

DATA = Path(__file__).resolve().parents[1] / "data"
FOLDERS = {"c10": "cifar-10-batches-py", "c100": "cifar-100-python"}


@pytest.mark.parametrize("name", FOLDERS)
def test_cifar(name):
    if not (DATA / name).is_dir() and not (DATA / FOLDERS[name]).is_dir():
        pytest.skip(f"no {name} under data/")
    data = load(name, DATA)
    classes = data.dataset.num_classes
    assert data.train.images.shape == (50_000, 32, 32, 3) and data.test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.train.labels).tolist() == [50_000 // classes] * classes
    mean, std = channel_statistics(data.train.images)
    assert mean == pytest.approx(data.mean, abs=2e-4) and std == pytest.approx(data.std, abs=2e-4)
    assert len(data.classes) == classes
    if (DATA / name / "train_images.npy").is_file():
        assert data.digest == KNOWN[name].digest and images_digest(data.train, data.test) == KNOWN[name].images_digest


def rewritten(images: np.ndarray, every: int) -> np.ndarray:
    """Some of them went through JPEG once more."""
    images = images.copy()
    for i in range(0, len(images), every):
        stream = io.BytesIO()
        Image.fromarray(images[i]).save(stream, "JPEG", quality=75)
        images[i] = np.asarray(Image.open(stream))
    return images


def test_another_copy_of_cifar10_is_told_from_one_with_wrong_labels():
    """The published files differ in 121 images from the copy whose digest is known: as many are changed here."""
    if not (DATA / "c10").is_dir():
        pytest.skip("no c10 under data/")
    data = load("c10", DATA)
    train, test = Split(rewritten(data.train.images, 500), data.train.labels), data.test
    check_known(data.dataset, canonical(train), test, "another", DATA)
    rng = np.random.default_rng(0)
    for _ in range(10):
        labels, some = train.labels.copy(), rng.choice(len(train), 50, replace=False)
        labels[some] = rng.permutation(labels[some])
        with pytest.raises(UsageError, match="the images or their labels are not"):
            check_known(data.dataset, Split(train.images, labels), test, "another", DATA)
    labels = data.train.labels.copy()
    first, second = 0, int(np.flatnonzero(labels != labels[0])[0])
    labels[[first, second]] = labels[[second, first]]
    with pytest.raises(UsageError, match="the images are right, the labels are not"):
        check_known(data.dataset, Split(data.train.images, labels), test, "another", DATA)


def test_cifar100_duplicates():
    """26 pairs of identical images, 10 of them across train and test."""
    if not (DATA / "c100").is_dir() and not (DATA / FOLDERS["c100"]).is_dir():
        pytest.skip("no c100 under data/")
    data = load("c100", DATA)
    train, test = image_hashes(data.train.images), image_hashes(data.test.images)
    across = len(np.intersect1d(train, test))
    pairs = 60_000 - len(np.unique(np.concatenate([train, test])))
    assert (across, pairs) == (10, 26)
