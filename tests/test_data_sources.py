"""Plain arrays and image folders as data sets: what is not what it should be is refused in a sentence. Also memory that
is too small, and the real CIFAR where it is there."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import load as loading
from harness.data.load import (
    available_bytes,
    channel_statistics,
    dataset_facts,
    digest,
    image_hashes,
    load,
    read_arrays,
)
from harness.data.pipeline import to_device
from harness.datasets import DATASETS
from tests.copies import Runs, image_folder, random_split, write_arrays
from variants.fields import UsageError

TRAIN, TEST = random_split(60), random_split(30, seed=1)
Spoil = Callable[[Path], object]


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    load.cache_clear()


@pytest.fixture
def small(monkeypatch) -> None:
    """The named data sets have as many images as TRAIN and TEST."""
    for name in ("c10", "c100", "svhn"):
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], train_count=60, test_count=30))


# --- plain arrays ----------------------------------------------------------------------------------------------------

FILES = {"train_images": TRAIN.images, "train_labels": TRAIN.labels, "test_images": TEST.images}


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(folder: Path) -> None:
        np.save(folder / f"{name}.npy", change(FILES[name]), allow_pickle=True)

    return spoil


def cut_off(folder: Path) -> None:
    path = folder / "test_images.npy"
    path.write_bytes(path.read_bytes()[:500])


def objects(folder: Path) -> None:
    np.save(folder / "train_labels.npy", np.array([Runs(folder / "ran")] * 60, object), allow_pickle=True)


# What is done to good arrays, and the words of the refusal.
BAD_ARRAYS: dict[str, tuple[Spoil, str]] = {
    "wrong shape": (changed("train_images", lambda a: a[:, :16]), r"train_images\.npy holds uint8 of shape"),
    "grey images": (changed("train_images", lambda a: a[..., 0]), r"train_images\.npy holds uint8 of shape"),
    "wrong type": (changed("test_images", lambda a: a.astype(float)), r"test_images\.npy holds float64 of"),
    "no images": (changed("train_images", lambda a: a[:0]), r"train_images\.npy holds uint8 of shape \(0,"),
    "label count": (changed("train_labels", lambda a: a[:-1]), r"train_labels\.npy holds 59 labels for 60"),
    "label too large": (changed("train_labels", lambda a: a + 5), r"train_labels\.npy holds labels 5 to 14"),
    "label below 0": (changed("train_labels", lambda a: a - 1), r"train_labels\.npy holds labels -1 to 8"),
    "labels not whole": (changed("train_labels", lambda a: a / 2), r"train_labels\.npy holds float64"),
    "labels in columns": (changed("train_labels", lambda a: a[:, None]), r"train_labels\.npy holds int64 of"),
    "objects": (objects, r"train_labels\.npy cannot be read as an array"),
    "cut-off file": (cut_off, r"test_images\.npy cannot be read as an array"),
    "missing file": (lambda folder: (folder / "train_images.npy").unlink(), r"train_images\.npy is missing"),
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


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """A bit flipped, bytes lost or added, or cut off; as often in the header as behind it."""
    at = draw.choice([draw.randrange(128), draw.randrange(128, len(whole))])
    length = draw.randint(1, 60)
    return draw.choice(
        [
            whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :],
            whole[:at] + whole[at + length :],
            whole[:at] + draw.randbytes(length) + whole[at:],
            whole[:at],
        ]
    )


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("name", ["train_images", "train_labels"])
def test_damaged_arrays_are_refused_or_have_another_digest(tmp_path, name):
    draw, dataset, path = random.Random(name), DATASETS["c10"], tmp_path / f"{name}.npy"
    write_arrays(tmp_path, TRAIN, TEST)
    whole, kinds = path.read_bytes(), {"refused": 0, "another digest": 0}
    before = read_arrays(tmp_path, dataset)[0]
    for _ in range(200):
        path.unlink()  # the old one is still mapped
        path.write_bytes(damaged(whole, draw))
        try:
            train, test, _ = read_arrays(tmp_path, dataset)
        except UsageError as error:
            text = str(error)
            assert (str(path) in text and "\n" not in text) or "is not the whole CIFAR-10" in text
            kinds["refused"] += 1
        else:
            assert train.labels.dtype == np.int64 and 0 <= train.labels.min() <= train.labels.max() < 10
            same = np.array_equal(train.images, before.images) and np.array_equal(train.labels, before.labels)
            assert (digest(train, test) == digest(before, test)) == same
            kinds["another digest"] += not same
    assert all(kinds.values())


def forbidden(folder):
    """Made up, since who runs the tests may be allowed everything."""
    raise PermissionError(13, "Permission denied", str(folder))


def test_what_may_not_be_read_is_named_and_not_downloaded(tmp_path, monkeypatch):
    (tmp_path / "c10").mkdir()
    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(UsageError, match=f"^{tmp_path / 'c10'} cannot be read: Permission denied$"):
        load("c10", tmp_path)


@pytest.mark.usefixtures("small")
def test_names_of_classes_are_optional_and_data_may_lie_on_another_disk(tmp_path):
    write_arrays(tmp_path / "disk" / "cifar", TRAIN, TEST)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "c10").symlink_to(tmp_path / "disk" / "cifar")
    for content, classes in ((b"", "0 1 2"), (b"\xff\xfe\n", "0 1 2"), (b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n", "a b c")):
        (tmp_path / "disk" / "cifar" / "classes.txt").write_bytes(content)
        load.cache_clear()
        assert load("c10", tmp_path / "data").classes[:3] == classes.split()


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("test", "nested"), [("test", False), ("val", True)])
def test_image_folders(tmp_path, test, nested):
    """Hidden folders are no classes; a class may be a link."""
    image_folder(tmp_path, test=test, nested=nested)
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cow").rename(tmp_path / "elsewhere")
    (tmp_path / "train" / "cow").symlink_to(tmp_path / "elsewhere")
    data = load(f"folder:{tmp_path}", tmp_path)
    assert data.train.images.shape == (12, 12, 12, 3) and len(data.test) == 6 and data.classes == ["ant", "bee", "cow"]
    facts = dataset_facts(f"folder:{tmp_path}", tmp_path)
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


@pytest.mark.parametrize("place", ["train", "train/bee"])
def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch, place):
    image_folder(tmp_path)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (forbidden if Path(path) == tmp_path / place else scandir)(path))
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in os.scandir(path)])
    for ask in (dataset_facts, load):
        with pytest.raises(UsageError, match=f"^{tmp_path / place} cannot be read: Permission denied$"):
            ask(f"folder:{tmp_path}", tmp_path)


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


def first_image(content: Spoil) -> Spoil:
    return lambda path: content(path / "train" / "ant" / "0.png")


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((12, 12), 40_000, np.uint16)).save(path)


def empty_class(path: Path) -> None:
    for image in (path / "test" / "cow").iterdir():
        image.unlink()


BAD_FOLDERS: dict[str, tuple[Spoil, str]] = {
    "nowhere": (shutil.rmtree, "set/train has no class folders"),
    "other classes": (lambda path: (path / "test" / "cow").rename(path / "test" / "pig"), "the same 3 class folders"),
    "16 bits of grey": (first_image(sixteen_bits), r"ant/0\.png has pixels of kind I;16"),
    "cut off": (first_image(lambda path: path.write_bytes(path.read_bytes()[:200])), r"ant/0\.png cannot be"),
    "no image": (first_image(lambda path: path.write_bytes(b"no image")), r"ant/0\.png cannot be decoded"),
    "empty class": (empty_class, r"test/cow holds no image"),
    "empty annotated class": (
        lambda path: annotate(path, {"a.png": "ant", "b.png": "bee"}),
        r"val_annotations\.txt gives no image to class cow",
    ),
    "unknown annotated class": (
        lambda path: annotate(path, {"a.png": "ant", "b.png": "pig"}),
        r"val_annotations\.txt gives no class of train/ to b\.png",
    ),
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
    written = {"png": "1 L LA P RGB RGBA", "jpg": "L RGB CMYK", "bmp": "1 L P RGB RGBA", "webp": "L RGB RGBA"}
    written |= {"gif": "1 L P RGB RGBA", "ppm": "1 L RGB RGBA", "tif": "1 L LA P PA RGB RGBA CMYK YCbCr LAB"}
    files = [(mode, suffix) for suffix, modes in written.items() for mode in modes.split()]
    for mode, suffix in files:
        Image.new(mode, (12, 12)).save(tmp_path / "train" / "bee" / f"of-{mode}.{suffix}")
    assert len(load(f"folder:{tmp_path}", tmp_path).train) == 12 + len(files)


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_too_little_memory(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(loading, "canonical", full)
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    with pytest.raises(UsageError, match=r"too little memory for c10: 90 images of 32 x 32 x 3 take 0\.00 GB"):
        load("c10", tmp_path)


def test_too_little_memory_on_the_device(monkeypatch):
    def full(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(UsageError, match=r"too little memory on cuda:0 for the data set: 60 images take 0\.00 GB"):
        to_device(TRAIN, torch.device("cuda:0"))


def test_memory_that_is_left(tmp_path, monkeypatch):
    """A control group may leave less than the machine; what files keep in memory is given back."""
    machine = available_bytes()
    if machine is None:
        pytest.skip("this system does not say what is left")
    monkeypatch.setattr(loading, "CGROUP", tmp_path)
    assert (available_bytes() or 0) > 2**20
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 50\nactive_file 10\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (available_bytes() or 0) > 2**20
    (tmp_path / "memory.max").write_text("1000\n")
    assert available_bytes() == 760


# --- the real CIFAR, where this checkout has it under data/ ----------------------------------------------------------

DATA = Path(__file__).resolve().parents[1] / "data"
# Of the arrays seen here; 121 images of CIFAR-10 were JPEGs once, so the published files have another digest.
DIGESTS = {
    "c10": "2c4e656b3852344fc1a1869d970c556d30a5e9b3fd33790292ceda035fd296e5",
    "c100": "53fdd5be2619ae6f0c97ec749f36c6425647fa183eaaf83f026c58681afd1ffb",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_real_cifar(name):
    unpacked = {"c10": "cifar-10-batches-py", "c100": "cifar-100-python"}[name]
    if not (DATA / name).is_dir() and not (DATA / unpacked).is_dir():
        pytest.skip(f"no {name} under data/")
    data = load(name, DATA)
    classes = data.dataset.num_classes
    assert data.train.images.shape == (50_000, 32, 32, 3) and data.test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.train.labels).tolist() == [50_000 // classes] * classes
    mean, std = channel_statistics(data.train.images)
    assert mean == pytest.approx(data.mean, abs=2e-4) and std == pytest.approx(data.std, abs=2e-4)
    assert (data.classes[0], len(data.classes)) == ({"c10": "airplane", "c100": "apple"}[name], classes)
    if (DATA / name / "train_images.npy").is_file():
        assert data.digest == DIGESTS[name]
    if name == "c100":  # 26 pairs of identical images, 10 of them across train and test
        train, test = image_hashes(data.train.images), image_hashes(data.test.images)
        assert len(np.intersect1d(train, test)) == 10
        assert 60_000 - len(np.unique(np.concatenate([train, test]))) == 26
