"""CIFAR's and SVHN's published files: read as torchvision reads them, and not at all unless their MD5 is right."""

import contextlib
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import SVHN

from harness.data import originals
from harness.data.load import load
from harness.datasets import DATASETS
from tests.copies import (
    CIFARS,
    cifar_files,
    globals_of,
    packed,
    publish_cifar,
    publish_svhn,
    python2_pickle,
    random_split,
    svhn_file,
)
from variants.fields import UsageError

CLASSES = {"c10": 10, "c100": 100}


def splits(name: str):
    return (random_split(count, classes=CLASSES[name], seed=count) for count in (205, 110))


def unpack(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.filterwarnings("ignore:numpy.core")
@pytest.mark.filterwarnings("ignore:dtype")
@pytest.mark.parametrize("form", ["archive", "unpacked", "both"])
@pytest.mark.parametrize("name", CIFARS)
def test_cifar_is_read_as_torchvision_reads_it(tmp_path, monkeypatch, name, form):
    source, files = CIFARS[name], cifar_files(name, *splits(name))
    archive = publish_cifar(monkeypatch, name, files)
    unpack(tmp_path / "unpacked" / source.base_folder, files)
    if form == "both":
        (tmp_path / "unpacked" / source.filename).write_bytes(b"never looked at")
    if form == "archive":
        (tmp_path / "archive").mkdir()
        (tmp_path / "archive" / source.filename).write_bytes(archive)
    folder = tmp_path / ("archive" if form == "archive" else "unpacked")
    before = sorted(folder.rglob("*"))
    read = originals.read_cifar(folder, DATASETS[name])
    for split, is_train in zip(read, (True, False)):
        theirs = source(str(tmp_path / "unpacked"), train=is_train)
        assert np.array_equal(split.images, theirs.data) and split.labels.tolist() == theirs.targets
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
    assert [len(split) for split in read] == [205, 110]
    assert sorted(folder.rglob("*")) == before, "nothing is unpacked to the disk"


def test_the_made_up_pickles_are_like_the_real_ones():
    """Those ask for these three and nothing else, and were written by Python 2."""
    content = cifar_files("c10", *splits("c10"))["data_batch_1"]
    assert globals_of(content) == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert content.startswith(b"\x80\x02") and pickle.BINUNICODE not in content[:100]  # type: ignore[attr-defined]


def test_pickles_that_python_3_wrote_are_read_too(tmp_path, monkeypatch):
    files = cifar_files("c100", *splits("c100"))
    for name in ("train", "test"):
        files[name] = pickle.dumps(pickle.loads(files[name], encoding="latin1"), protocol=2)
    assert "_codecs encode" in globals_of(files["train"])
    archive = publish_cifar(monkeypatch, "c100", files)
    (tmp_path / CIFARS["c100"].filename).write_bytes(archive)
    assert len(load("c100", tmp_path).train) == 205


class Runs:
    """What a pickle can do to whoever reads it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_something_does_not(tmp_path, monkeypatch, tried):
    """Even under the right checksum."""
    files = cifar_files("c10", *splits("c10"))
    files["data_batch_3"] = pickle.dumps({"data": Runs(tmp_path / "ran"), "labels": []}, protocol=2)
    archive = publish_cifar(monkeypatch, "c10", files)
    (tmp_path / CIFARS["c10"].filename).write_bytes(archive)
    with pytest.raises(UsageError, match=r"data_batch_3 cannot be read as a CIFAR file.*it asks for (posix|nt)\.mkdir"):
        load("c10", tmp_path)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setattr(originals.ArraysOnly, "find_class", pickle.Unpickler.find_class)
    with pytest.raises(UsageError, match="data_batch_3 cannot be read"):
        load("c10", tmp_path)
    assert (tmp_path / "ran").is_dir(), "the test can see it"
    tried("bad data", {"pickle that runs something": 1}, {"with any unpickler": 1})


# What is wrong with a file, and what is left of it.
DAMAGES = {
    "truncated": lambda content: content[:-1000],
    "one bit": lambda content: content[:-500] + bytes([content[-500] ^ 1]) + content[-499:],
    "something else": lambda content: b"<html>no such page</html>",
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("form", ["archive", "unpacked"])
def test_cifar_with_another_checksum_is_refused_unread(tmp_path, monkeypatch, tried, form, damage):
    name = "c10"
    source, files = CIFARS[name], cifar_files(name, *splits(name))
    archive = publish_cifar(monkeypatch, name, files)
    if form == "archive":
        bad = tmp_path / source.filename
        bad.write_bytes(DAMAGES[damage](archive))
    else:
        unpack(tmp_path / source.base_folder, files)
        bad = tmp_path / source.base_folder / "data_batch_4"
        bad.write_bytes(DAMAGES[damage](files["data_batch_4"]))
    with monkeypatch.context() as inner:
        if form == "archive":
            inner.setattr(originals, "ArraysOnly", None)
            inner.setattr(originals, "tarfile", None)
        with pytest.raises(UsageError, match=f"{bad.name} is cut off or not the file that was published: its MD5"):
            load(name, tmp_path)
    assert bad.exists(), "what a person put there stays there"
    monkeypatch.setattr(originals, "check_md5", lambda *args: None)
    slips = False
    with contextlib.suppress(Exception):  # what is broken enough is not let in even so
        slips = len(load(name, tmp_path).train) == 205
    assert slips or damage != "longer", "nothing but the checksum sees it"
    kind = f"CIFAR {form}: {damage}"
    tried("bad data", {kind: 1}, {"without check_md5": 1} if slips else {})


def test_an_archive_whose_members_climb_out(tmp_path, monkeypatch):
    """Its names are compared and nothing of it is written."""
    source, files = CIFARS["c10"], cifar_files("c10", *splits("c10"))
    archive = packed(source.base_folder, {"../../escaped": b"x", "/escaped": b"x", **files})
    publish_cifar(monkeypatch, "c10", files)
    monkeypatch.setattr(source, "tgz_md5", originals.hashlib.md5(archive).hexdigest())
    data = tmp_path / "a" / "data"
    data.mkdir(parents=True)
    (data / source.filename).write_bytes(archive)
    assert len(load("c10", data).train) == 205
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [data / source.filename]


def test_an_archive_that_lacks_a_file(tmp_path, monkeypatch):
    source, files = CIFARS["c10"], cifar_files("c10", *splits("c10"))
    publish_cifar(monkeypatch, "c10", files)
    archive = packed(source.base_folder, {name: content for name, content in files.items() if name != "test_batch"})
    monkeypatch.setattr(source, "tgz_md5", originals.hashlib.md5(archive).hexdigest())
    (tmp_path / source.filename).write_bytes(archive)
    with pytest.raises(UsageError, match=r"cifar-10-python\.tar\.gz lacks test_batch"):
        load("c10", tmp_path)


def test_an_unpacking_that_was_interrupted_is_not_used(tmp_path, monkeypatch):
    """As torchvision leaves it: some of the files, and the archive beside them."""
    source, files = CIFARS["c10"], cifar_files("c10", *splits("c10"))
    archive = publish_cifar(monkeypatch, "c10", files)
    (tmp_path / source.filename).write_bytes(archive)
    unpack(tmp_path / source.base_folder, files)
    (tmp_path / source.base_folder / "data_batch_5").unlink()
    (tmp_path / source.base_folder / "data_batch_4").write_bytes(b"half")
    assert len(load("c10", tmp_path).train) == 205


BAD_PICKLES = {
    "no dictionary": [1, 2],
    "no data": {"labels": [1]},
    "labels missing": {"data": np.zeros((2, 3072), np.uint8)},
    "rows too short": {"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]},
    "wrong type": {"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]},
    "label too large": {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]},
}


@pytest.mark.parametrize("kind", BAD_PICKLES)
def test_a_file_of_cifar_that_holds_something_else(tmp_path, monkeypatch, kind):
    files = cifar_files("c10", *splits("c10")) | {"test_batch": python2_pickle(BAD_PICKLES[kind])}
    (tmp_path / CIFARS["c10"].filename).write_bytes(publish_cifar(monkeypatch, "c10", files))
    with pytest.raises(UsageError, match="test_batch"):
        load("c10", tmp_path)


def test_what_is_missing_is_fetched_from_where_torchvision_says(tmp_path, monkeypatch):
    source, files = CIFARS["c100"], cifar_files("c100", *splits("c100"))
    archive = publish_cifar(monkeypatch, "c100", files)
    asked = []

    def fetch(url: str, path: Path, md5: str) -> None:
        asked.append((url, path.name, md5))
        path.write_bytes(archive)

    monkeypatch.setattr(originals, "fetch", fetch)
    assert len(load("c100", tmp_path).train) == 205
    load.cache_clear()
    load("c100", tmp_path)
    assert asked == [(source.url, source.filename, source.tgz_md5)]
    assert source.url.startswith("https://") and source.url.endswith(source.filename)


# --- SVHN ------------------------------------------------------------------------------------------------------------


def test_svhn_is_read_as_torchvision_reads_it(tmp_path, monkeypatch):
    """32 x 32 x 3 x N, labels as a column in which 10 is the digit 0."""
    made = {"train": random_split(30), "test": random_split(20, seed=1)}
    files = {name: svhn_file(split) for name, split in made.items()}  # each says when it was written
    publish_svhn(monkeypatch, files)
    for name, content in files.items():
        (tmp_path / f"{name}_32x32.mat").write_bytes(content)
    for (name, split), read in zip(made.items(), originals.read_svhn(tmp_path, DATASETS["svhn"])):
        theirs = SVHN(str(tmp_path), split=name)
        assert np.array_equal(read.images.transpose(0, 3, 1, 2), theirs.data)
        assert np.array_equal(read.labels, theirs.labels)
        assert np.array_equal(read.images, split.images) and np.array_equal(read.labels, split.labels)
    data = load("svhn", tmp_path)
    assert (len(data.train), len(data.test)) == (30, 20) and data.mean == (0.4377, 0.4438, 0.4728)


@pytest.mark.parametrize("damage", DAMAGES)
def test_svhn_with_another_checksum_is_refused_unread(tmp_path, monkeypatch, tried, damage):
    """Also where it lay there already."""
    content = svhn_file(random_split(30))
    publish_svhn(monkeypatch, {"train": content, "test": content})
    (tmp_path / "train_32x32.mat").write_bytes(content)
    (tmp_path / "test_32x32.mat").write_bytes(DAMAGES[damage](content))
    with pytest.raises(UsageError, match=r"test_32x32\.mat is cut off or not the file that was published: its MD5"):
        load("svhn", tmp_path)
    monkeypatch.setattr(originals, "check_md5", lambda *args: None)
    slips = False
    with contextlib.suppress(UsageError):
        slips = len(load("svhn", tmp_path).train) == 30
    assert slips or damage != "longer", "nothing but the checksum sees it"
    tried("bad data", {f"SVHN: {damage}": 1}, {"without check_md5": 1} if slips else {})


BAD_MATS = {
    "no images": {"y": np.ones((2, 1), np.uint8)},
    "three dimensions": {"X": np.zeros((32, 32, 3), np.uint8), "y": np.ones((1, 1), np.uint8)},
    "wrong shape": {"X": np.zeros((28, 28, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)},
    "fractions": {"X": np.zeros((32, 32, 3, 2)), "y": np.ones((2, 1), np.uint8)},
    "a label of 13": {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [13]], np.uint8)},
    "text": {"X": "images", "y": "labels"},
    "a structure": {"X": {"a": 1}, "y": {"b": 2}},
}


@pytest.mark.parametrize("kind", BAD_MATS)
def test_a_file_of_svhn_that_holds_something_else(tmp_path, monkeypatch, kind):
    savemat(tmp_path / "train_32x32.mat", BAD_MATS[kind])
    shutil.copy(tmp_path / "train_32x32.mat", tmp_path / "test_32x32.mat")
    content = (tmp_path / "train_32x32.mat").read_bytes()
    publish_svhn(monkeypatch, {"train": content, "test": content})
    with pytest.raises(UsageError, match=r"train_32x32\.mat"):
        load("svhn", tmp_path)
