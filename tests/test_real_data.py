"""The real CIFAR arrays, where this checkout has them under data/: they are what the published facts say."""

from pathlib import Path

import numpy as np
import pytest

from harness.data.canonical import image_hashes
from harness.data.load import channel_statistics, load

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


def test_cifar100_duplicates():
    """26 pairs of identical images, 10 of them across train and test."""
    if not (DATA / "c100").is_dir() and not (DATA / FOLDERS["c100"]).is_dir():
        pytest.skip("no c100 under data/")
    data = load("c100", DATA)
    train, test = image_hashes(data.train.images), image_hashes(data.test.images)
    across = len(np.intersect1d(train, test))
    pairs = 60_000 - len(np.unique(np.concatenate([train, test])))
    assert (across, pairs) == (10, 26)
