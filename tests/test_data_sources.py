"""Where images come from: plain arrays, image folders, and CIFAR and SVHN as their authors published them, read by
torchvision. What is not what it should be is refused in a sentence, and nothing is executed."""

import hashlib
import io
import os
import pickle
import re
import shutil
import socket
import tarfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.message import Message
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from harness.data import load as loading
from harness.data.load import (
    Split,
    available_bytes,
    canonical,
    channel_statistics,
    dataset_facts,
    digest,
    image_hashes,
    load,
)
from harness.data.pipeline import to_device
from harness.datasets import DATASETS
from tests.copies import Runs, image_folder, random_split, write_arrays
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
TRAIN, TEST = random_split(60), random_split(30, seed=1)
Spoil = Callable[[Path], object]


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    load.cache_clear()


@pytest.fixture
def small(monkeypatch) -> None:
    """CIFAR-10 has as many images as TRAIN and TEST."""
    monkeypatch.setitem(DATASETS, "c10", replace(DATASETS["c10"], train_count=60, test_count=30))


def test_what_is_read_cannot_run_anything():
    """ruff forbids pickle, eval and exec, and NumPy and torch unpickle only where they are told to."""
    for path in (*ROOT.glob("harness/**/*.py"), *ROOT.glob("variants/**/*.py")):
        assert not re.search(r"allow_pickle=(?!False)|weights_only=(?!True)", path.read_text()), path


# --- plain arrays ----------------------------------------------------------------------------------------------------

FILES = {"train_images": TRAIN.images, "train_labels": TRAIN.labels, "test_images": TEST.images}


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    return lambda folder: np.save(folder / f"{name}.npy", change(FILES[name]), allow_pickle=True)


def garbled(change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        content = (folder / "test_images.npy").read_bytes()
        (folder / "test_images.npy").write_bytes(change(content))

    return spoil


def objects(folder: Path) -> None:
    np.save(folder / "train_labels.npy", np.array([Runs(folder / "ran")] * 60, object), allow_pickle=True)


# What is done to good arrays, and the words of the refusal.
BAD_ARRAYS: dict[str, tuple[Spoil, str]] = {
    "grey images": (changed("train_images", lambda a: a[..., 0]), r"train_images\.npy holds uint8 of shape"),
    "wrong type": (changed("test_images", lambda a: a.astype(float)), r"test_images\.npy holds float64 of"),
    "label count": (changed("train_labels", lambda a: a[:-1]), r"train_labels\.npy holds 59 labels for 60 images"),
    "label too large": (changed("train_labels", lambda a: a + 5), r"train_labels\.npy holds labels 5 to 14; 0 to 9"),
    "label below 0": (changed("train_labels", lambda a: a - 1), r"train_labels\.npy holds labels -1 to 8; 0 to 9"),
    "labels not whole": (changed("train_labels", lambda a: a / 2), r"train_labels\.npy holds float64 of shape \(60,\)"),
    "labels in columns": (changed("train_labels", lambda a: a[:, None]), r"train_labels\.npy holds int64 of shape"),
    "objects": (objects, r"train_labels\.npy cannot be read as an array"),
    "cut off": (garbled(lambda content: content[:-100]), r"test_images\.npy cannot be read as an array"),
    "a header of noise": (garbled(lambda content: b"\xff" + content[1:]), r"test_images\.npy cannot be read"),
    "missing file": (lambda folder: (folder / "train_images.npy").unlink(), r"train_images\.npy is missing"),
    "missing labels": (lambda folder: (folder / "train_labels.npy").unlink(), r"train_labels\.npy is missing"),
    "a part": (
        lambda folder: write_arrays(folder, TRAIN.part(slice(50)), TEST),
        r"is not the whole CIFAR-10: its train split has 50 images instead of 60(.|\n)*folder:PATH",
    ),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_bad_arrays_are_refused(tmp_path, kind):
    spoil, words = BAD_ARRAYS[kind]
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    assert len(load("c10", tmp_path).train) == 60, "the whole copy is let in"
    load.cache_clear()
    spoil(tmp_path / "c10")
    with pytest.raises(UsageError, match=words):
        load("c10", tmp_path)
    assert not (tmp_path / "c10" / "ran").exists()


def forbidden(path: object) -> Any:
    """Made up, since who runs the tests may be allowed everything."""
    raise PermissionError(13, "Permission denied", str(path))


def test_what_may_not_be_read_is_named_and_not_downloaded(tmp_path, monkeypatch):
    (tmp_path / "c10").mkdir()
    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(UsageError, match=f"^{tmp_path / 'c10'} cannot be read: Permission denied$"):
        load("c10", tmp_path)


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("test", "nested"), [("test", False), ("val", True)])
def test_image_folders(tmp_path, test, nested):
    """Hidden folders are no classes, folders within a class no images; a class may be a link."""
    image_folder(tmp_path, test=test, nested=nested)
    (tmp_path / "train" / "ant" / "x.png").mkdir()
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cow").rename(tmp_path / "elsewhere")
    (tmp_path / "train" / "cow").symlink_to(tmp_path / "elsewhere")
    data = load(f"folder:{tmp_path}", tmp_path)
    assert data.train.images.shape == (12, 12, 12, 3) and len(data.test) == 6
    facts = dataset_facts(f"folder:{tmp_path}")
    assert (facts.image_size, facts.num_classes, facts.train_count, facts.test_count) == (12, 3, 12, 6)
    first = np.asarray(Image.open(next((tmp_path / "train" / "bee").rglob("0.png"))))
    where = next(i for i, image in enumerate(data.train.images) if np.array_equal(image, first))
    assert data.train.labels[where] == 1


def test_image_folder_of_other_sizes(tmp_path):
    image_folder(tmp_path)
    Image.new("RGB", (20, 12)).save(tmp_path / "train" / "ant" / "wide.png")
    with pytest.raises(UsageError, match=r"wide\.png is 20 x 12(.|\n)*folder:PATH@12"):
        load(f"folder:{tmp_path}", tmp_path)
    assert load(f"folder:{tmp_path}@16", tmp_path).train.images.shape == (13, 16, 16, 3)


@pytest.mark.parametrize("place", ["train", "test", "train/bee", "train/bee/images"])
def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch, place):
    """Below a class too: its images must not just be missing."""
    image_folder(tmp_path, nested=True)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (forbidden if Path(path) == tmp_path / place else scandir)(path))
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in os.scandir(path)])
    for ask in (dataset_facts, lambda name: load(name, tmp_path)):
        with pytest.raises(UsageError, match=f"^{tmp_path / place} cannot be read: Permission denied$"):
            ask(f"folder:{tmp_path}")


def annotate(path: Path, names: dict[str, str]) -> None:
    """val/ as Tiny-ImageNet has it: one folder of images and a file that names their classes."""
    shutil.rmtree(path / "test")
    (path / "val" / "images").mkdir(parents=True)
    for i, name in enumerate(names):
        Image.new("RGB", (12, 12), (i, 0, 0)).save(path / "val" / "images" / name)
    lines = [f"{name}\t{wnid}\t0\t0\t62\t62\n" for name, wnid in names.items()]
    (path / "val" / "val_annotations.txt").write_text("".join(lines))


def test_tiny_imagenet_as_it_is_distributed(tmp_path):
    image_folder(tmp_path, nested=True)
    annotate(tmp_path, {"a.png": "cow", "b.png": "ant", "c.png": "bee"})
    data = load(f"folder:{tmp_path}", tmp_path)
    label_of = {int(image[0, 0, 0]): int(label) for image, label in zip(data.test.images, data.test.labels)}
    assert label_of == {0: 2, 1: 0, 2: 1} and len(data.train) == 12


def test_annotations_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    image_folder(tmp_path)
    annotate(tmp_path, {"a.png": "cow", "b.png": "ant", "c.png": "bee"})
    monkeypatch.setattr(Path, "read_text", lambda path, **_: forbidden(path))
    with pytest.raises(UsageError, match=r"val_annotations\.txt cannot be read: Permission denied$"):
        dataset_facts(f"folder:{tmp_path}")


def annotations(content: bytes) -> Spoil:
    """These lines instead of good ones, or with a `+` before them besides good ones."""

    def spoil(path: Path) -> None:
        annotate(path, {"0.png": "ant", "1.png": "bee", "2.png": "cow"})
        file = path / "val" / "val_annotations.txt"
        file.write_bytes(file.read_bytes() + content[1:] if content.startswith(b"+") else content)

    return spoil


BAD_FOLDERS: dict[str, tuple[Spoil, str]] = {
    "nowhere": (shutil.rmtree, "set/train has no class folders"),
    "other classes": (lambda path: (path / "test" / "cow").rename(path / "test" / "pig"), "the same 3 class folders"),
    "16 bits of grey": (
        lambda path: Image.fromarray(np.full((12, 12), 40_000, np.uint16)).save(path / "train" / "ant" / "0.png"),
        r"ant/0\.png has pixels of kind I;16",
    ),
    "no image": (lambda path: (path / "train" / "ant" / "0.png").write_bytes(b"\x89PNG"), r"ant/0\.png cannot be"),
    "empty class": (
        lambda path: (shutil.rmtree(path / "test" / "cow"), (path / "test" / "cow").mkdir()),
        r"test/cow holds no image",
    ),
    "empty annotated class": (
        lambda path: annotate(path, {"a.png": "ant", "b.png": "bee"}),
        r"val_annotations\.txt gives no image to class cow$",
    ),
    "unknown annotated class": (annotations(b"+3.png\tpig\n"), r"annotations\.txt gives no class of train/ to 3\.png$"),
    "no tab in one line": (annotations(b"+3.png ant\n"), r"annotations\.txt gives no class of train/ to 3\.png ant$"),
    "no tabs": (annotations(b"0.png ant\n1.png bee\n"), r"annotations\.txt gives no class of train/ to 0\.png ant$"),
    "no lines": (annotations(b"\n"), r"annotations\.txt gives no class of train/ to any image$"),
    "no UTF-8": (annotations(b"+\xff.png\t\xe9\n"), "annotations\\.txt gives no class of train/ to \ufffd\\.png$"),
}


@pytest.mark.parametrize("kind", BAD_FOLDERS)
def test_bad_folders_are_refused(tmp_path, kind):
    path = tmp_path / "set"
    image_folder(path)
    spoil, words = BAD_FOLDERS[kind]
    spoil(path)
    with pytest.raises(UsageError, match=words):
        load(f"folder:{path}", tmp_path)


def test_eight_bits_or_fewer_are_let_in(tmp_path):
    image_folder(tmp_path)
    written = {"png": "1 L LA P RGB RGBA", "jpg": "L CMYK", "bmp": "P", "webp": "RGBA", "gif": "L", "tif": "PA LAB"}
    files = [(mode, suffix) for suffix, modes in written.items() for mode in modes.split()]
    for mode, suffix in files:
        Image.new(mode, (12, 12)).save(tmp_path / "train" / "bee" / f"of-{mode}.{suffix}")
    assert len(load(f"folder:{tmp_path}", tmp_path).train) == 12 + len(files)


# --- the published files ---------------------------------------------------------------------------------------------

CIFARS: dict[str, Any] = {"c10": CIFAR10, "c100": CIFAR100}


@pytest.fixture
def offline(monkeypatch) -> None:
    def unknown(*args: Any, **options: Any) -> None:
        raise URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(urllib.request, "urlopen", unknown)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def cifar_pickle(name: str, split: Split) -> bytes:
    """One file of CIFAR, as its authors laid it out."""
    planes = np.ascontiguousarray(split.images.transpose(0, 3, 1, 2)).reshape(len(split), -1)
    return pickle.dumps({"data": planes, "labels" if name == "c10" else "fine_labels": split.labels.tolist()}, 2)


def svhn_file(split: Split) -> bytes:
    """32 x 32 x 3 x N, labels as a column in which 10 is the digit 0."""
    labels = np.where(split.labels == 0, 10, split.labels).astype(np.uint8)[:, None]
    stream = io.BytesIO()
    savemat(stream, {"X": split.images.transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
    return stream.getvalue()


def published(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """TRAIN and TEST as archive and unpacked, or for SVHN as its two files; their MD5s are now the published ones."""
    if name == "svhn":
        files, sums = {}, {}
        for split, images in (("train", TRAIN), ("test", TEST)):
            url, file, _ = SVHN.split_list[split]
            files[file] = svhn_file(images)
            sums[split] = [url, file, md5(files[file])]
        monkeypatch.setattr(SVHN, "split_list", sums)
        return files, {}
    source = CIFARS[name]
    batches = [file for file, _ in source.train_list]
    parts = [TRAIN.part(slice(i, None, len(batches))) for i in range(len(batches))]
    files = {file: cifar_pickle(name, part) for file, part in zip(batches, parts)}
    files[source.test_list[0][0]] = cifar_pickle(name, TEST)
    files[source.meta["filename"]] = pickle.dumps({source.meta["key"]: []}, protocol=2)
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(source, part, [[file, md5(files[file])] for file, _ in getattr(source, part)])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(files[source.meta["filename"]])})
    unpacked = {f"{source.base_folder}/{file}": content for file, content in files.items()}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for file, content in unpacked.items():
            member = tarfile.TarInfo(file)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(source, "tgz_md5", md5(stream.getvalue()))
    return {source.filename: stream.getvalue()}, unpacked


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


FORMS = [("c10", "archive"), ("c10", "unpacked"), ("c100", "archive"), ("c100", "unpacked"), ("svhn", "archive")]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_the_published_files_give_what_arrays_give(tmp_path, monkeypatch, recwarn, name, form):
    packed, unpacked = published(name, monkeypatch)
    lay_out(tmp_path, packed if form == "archive" else unpacked)
    data = load(name, tmp_path)
    assert data.digest == digest(canonical(TRAIN), canonical(TEST))
    for split in (data.train, data.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
    assert data.mean == DATASETS[name].mean and not recwarn.list


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_files_with_another_checksum_are_not_used(tmp_path, monkeypatch, name, form):
    """Nor unpickled before, whichever version of torchvision is installed."""
    packed, unpacked = published(name, monkeypatch)
    files = packed if form == "archive" else unpacked
    bad = next(iter(files))
    lay_out(tmp_path, files | {bad: pickle.dumps(Runs(tmp_path / "ran"), protocol=2)})
    with pytest.raises(
        UsageError, match=f"{name} is not in {tmp_path}/, or damaged there(.|\n)*--data-dir DIR"
    ) as told:
        load(name, tmp_path)
    assert all(words in str(told.value) for words in ("no connection: [", "train_images.npy", loading.PUBLISHED[name]))
    assert not (tmp_path / "ran").exists()


# --- downloads -------------------------------------------------------------------------------------------------------


@pytest.fixture
def downloads(monkeypatch) -> list[Any]:
    """What the next downloads come to, an error or nothing; the last good one leaves the files where they belong."""
    packed, _ = published("c10", monkeypatch)
    turns: list[Any] = []

    def fetched(url: str, folder: Path, filename: str, md5: str) -> None:
        time.sleep(0.1)
        assert socket.getdefaulttimeout() == loading.SILENCE_S, "a silent server would be waited for"
        if error := turns.pop(0):
            raise error
        lay_out(Path(folder), packed)

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", fetched)
    return turns


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HTTPError("http://x", 404, "Not Found", Message(), None), "HTTP Error 404: Not Found"),
        (RuntimeError("File not found or corrupted."), "what came does not have the published checksum"),
        (TimeoutError("timed out"), "timed out"),
        (OSError(28, "No space left on device"), r"\[Errno 28\] No space left on device"),
        (IncompleteRead(b""), r"IncompleteRead\(0 bytes read\)"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_a_failed_download_is_said_and_the_next_one_starts_afresh(tmp_path, downloads, error, words):
    downloads += [error, None]
    with pytest.raises(UsageError, match=rf"c10 is not in .* could not be downloaded \({words}\)(.|\n)*--data-dir"):
        load("c10", tmp_path / "data")
    assert socket.getdefaulttimeout() is None
    for _ in range(2):
        assert len(load("c10", tmp_path / "data").train) == 60
        load.cache_clear()
    assert not downloads, "it is there now"


def test_of_three_at_once_one_downloads_and_the_others_wait(tmp_path, downloads):
    downloads += [None]
    with ThreadPoolExecutor(3) as pool:
        read = pool.map(lambda _: len(loading.read_published(DATASETS["c10"], tmp_path)[0]), range(3))
    assert list(read) == [60, 60, 60]


# --- memory ----------------------------------------------------------------------------------------------------------


def test_too_little_memory(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise MemoryError

    image_folder(tmp_path)
    facts = dataset_facts(f"folder:{tmp_path}")
    monkeypatch.setattr(loading, "dataset_facts", lambda _: facts)
    for place in (Image.Image, "convert"), (loading, "canonical"), (loading, "statistics_of"):
        with monkeypatch.context() as patch:
            patch.setattr(*place, full)
            with pytest.raises(UsageError, match=r"^too little memory for .*: 18 images of 12 x 12 x 3 take 0\.00 GB"):
                load(facts.name, tmp_path)


def test_too_little_memory_on_the_device(monkeypatch):
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(UsageError, match=r"too little memory on cuda:0 for the data set: 60 images take 0\.00 GB"):
        to_device(TRAIN, torch.device("cuda:0"))


def test_memory_that_is_left(tmp_path, monkeypatch):
    """A control group may leave less than the machine; what files keep in memory is given back."""
    if available_bytes() is None:
        pytest.skip("this system does not say what is left")
    monkeypatch.setattr(loading, "CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 50\nactive_file 10\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (available_bytes() or 0) > 2**20
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_bytes() == 760


# --- the real CIFAR, where this checkout has it under data/ ----------------------------------------------------------

DATA = ROOT / "data"
# Of the arrays seen here; 121 images of CIFAR-10 were JPEGs once, so the published files have another digest.
DIGESTS = {
    "c10": "2c4e656b3852344fc1a1869d970c556d30a5e9b3fd33790292ceda035fd296e5",
    "c100": "53fdd5be2619ae6f0c97ec749f36c6425647fa183eaaf83f026c58681afd1ffb",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_real_cifar(name):
    if not (DATA / name).is_dir() and not (DATA / CIFARS[name].base_folder).is_dir():
        pytest.skip(f"no {name} under data/")
    data = load(name, DATA)
    classes = data.dataset.num_classes
    assert data.train.images.shape == (50_000, 32, 32, 3) and data.test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.train.labels).tolist() == [50_000 // classes] * classes
    mean, std = channel_statistics(data.train.images)
    assert mean == pytest.approx(data.mean, abs=2e-4) and std == pytest.approx(data.std, abs=2e-4)
    if (DATA / name / "train_images.npy").is_file():
        assert data.digest == DIGESTS[name]
    if name == "c100":  # 26 pairs of identical images, 10 of them across train and test
        train, test = image_hashes(data.train.images), image_hashes(data.test.images)
        assert len(np.intersect1d(train, test)) == 10
        assert 60_000 - len(np.unique(np.concatenate([train, test]))) == 26
