"""Arrays that are not what their name says are refused by name, and so is a data set that the memory does not hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import load as loading
from harness.data import memory, originals, sources
from harness.data.canonical import Split, canonical, digest
from harness.data.known import class_means, images_digest
from harness.data.load import load
from harness.data.pipeline import to_device
from harness.data.sources import read_arrays
from harness.datasets import DATASETS, KNOWN, Known
from tests.copies import image_folder, publish_svhn, random_split, svhn_file, write_arrays
from variants.fields import UsageError

TRAIN, TEST = random_split(60), random_split(30, seed=1)
FILES = {"train_images": TRAIN.images, "train_labels": TRAIN.labels, "test_images": TEST.images}


def known(exactly: bool = True) -> Known:
    """What there is to know of TRAIN and TEST; not exactly: as another copy, whose bytes nobody here has seen."""
    train, test = canonical(TRAIN), canonical(TEST)
    in_train, in_test = (tuple(np.bincount(split.labels, minlength=10).tolist()) for split in (train, test))
    means = tuple(tuple(map(tuple, class_means(split).tolist())) for split in (train, test))
    all_bytes, images = (digest(train, test), images_digest(train, test)) if exactly else ("other", "other")
    return Known(in_train, in_test, all_bytes, images, means)


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        np.save(folder / f"{name}.npy", change(FILES[name]), allow_pickle=True)

    return spoil


def cut_off(folder: Path) -> None:
    path = folder / "test_images.npy"
    path.write_bytes(path.read_bytes()[:500])


def gone(folder: Path) -> None:
    (folder / "train_images.npy").unlink()


def archive(folder: Path) -> None:
    with open(folder / "train_labels.npy", "wb") as file:
        np.savez(file, a=TRAIN.labels)


def truncated(folder: Path) -> None:
    write_arrays(folder, TRAIN.part(slice(50)), TEST)


def linked(folder: Path) -> None:
    path = folder / "train_images.npy"
    path.rename(folder.parent / "private.npy")
    path.symlink_to(folder.parent / "private.npy")


def not_a_number(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float32)
    array.flat[:3] = np.nan, np.inf, -np.inf
    return array


def exchanged(labels: np.ndarray) -> np.ndarray:
    labels = labels.copy()
    labels[[0, 1]] = labels[[1, 0]]
    return labels


WHOLE, LINKS = "harness.data.load.check_known", "harness.data.sources.check_links"
IMAGES, LABELS = "harness.data.sources.check_images", "harness.data.sources.check_labels"
# What is done to good arrays, the words of the refusal, and the check without which they would be let in.
BAD_ARRAYS: dict[str, tuple[Callable[[Path], None], str, str | None]] = {
    "wrong shape": (changed("train_images", lambda a: a[:, :16]), r"train_images\.npy holds uint8 of shape", IMAGES),
    "grey images": (changed("train_images", lambda a: a[..., 0]), r"train_images\.npy holds uint8 of shape", IMAGES),
    "wrong type": (changed("test_images", lambda a: a.astype(float)), r"test_images\.npy holds float64 of", IMAGES),
    "NaN": (changed("train_images", not_a_number), r"train_images\.npy .* 3 of them NaN or infinite", IMAGES),
    "no images": (changed("train_images", lambda a: a[:0]), r"train_images\.npy holds uint8 of shape \(0,", None),
    "label count": (changed("train_labels", lambda a: a[:-1]), r"train_labels\.npy holds 59 labels for 60", None),
    "label too large": (changed("train_labels", lambda a: a + 5), r"train_labels\.npy holds labels 5 to 14", LABELS),
    "label below 0": (changed("train_labels", lambda a: a - 1), r"train_labels\.npy holds labels -1 to 8", LABELS),
    "labels not whole": (changed("train_labels", lambda a: a / 2), r"train_labels\.npy holds float64", LABELS),
    "NaN as label": (changed("train_labels", not_a_number), r"train_labels\.npy .* 3 of them NaN", LABELS),
    "objects": (changed("train_labels", lambda a: a.astype(object)), r"train_labels\.npy cannot be read", None),
    "cut-off file": (cut_off, r"test_images\.npy cannot be read", None),
    "missing file": (gone, r"train_images\.npy is missing", None),
    "archive": (archive, r"train_labels\.npy cannot be read as an array: it is an archive", None),
    "link out of the folder": (linked, r"train_images\.npy leads out of .*private\.npy", LINKS),
    "truncated copy": (truncated, "not the whole CIFAR-10: its train split has 50 images instead of 60", WHOLE),
    "empty class": (
        changed("train_labels", lambda a: np.where(a == 3, 4, a)),
        "its train split has 0 images of class 3 instead of 6, and 1 more classes are off",
        WHOLE,
    ),
    "shuffled labels": (changed("train_labels", lambda a: a[::-1]), "images are right, the labels are not", WHOLE),
    "two labels exchanged": (changed("train_labels", exchanged), "images are right, the labels are not", WHOLE),
    "images in another order": (
        changed("train_images", lambda a: a[::-1]),
        "images are right, the labels are not",
        WHOLE,
    ),
    "negatives": (changed("test_images", lambda a: 255 - a), "the images or their labels are not", WHOLE),
    "blue for red": (changed("train_images", lambda a: a[..., ::-1]), "the images or their labels are not", WHOLE),
    "upside down": (changed("train_images", lambda a: a[:, ::-1]), "the images or their labels are not", WHOLE),
    "lying down": (changed("test_images", lambda a: a.swapaxes(1, 2)), "the images or their labels are not", WHOLE),
}


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_bad_arrays_are_refused_and_only_by_their_check(tmp_path, monkeypatch, tried, kind):
    spoil, words, check = BAD_ARRAYS[kind]
    monkeypatch.setitem(KNOWN, "c10", known())
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    assert len(load("c10", tmp_path).train) == 60, "the whole copy is let in"
    load.cache_clear()
    spoil(tmp_path / "c10")
    with pytest.raises(UsageError, match=words):
        load("c10", tmp_path)
    if check:
        if check not in (WHOLE, LINKS):
            monkeypatch.delitem(KNOWN, "c10")
        monkeypatch.setattr(check, lambda *args: None)
        load("c10", tmp_path)
    tried("bad data", {f"arrays: {kind}": 1}, {f"without {check.split('.')[-1]}": 1} if check else {})


@pytest.mark.parametrize("kind", ["shuffled labels", "negatives", "blue for red", "upside down", "lying down"])
def test_another_copy_is_let_in_by_what_its_classes_look_like(tmp_path, monkeypatch, tried, kind):
    """The published CIFAR-10 differs in 121 images from the one whose digest is known."""
    monkeypatch.setitem(KNOWN, "c10", known(exactly=False))
    nearly = TRAIN.images.copy()
    nearly[::10, 0, 0, 0] ^= 1
    write_arrays(tmp_path / "c10", Split(nearly, TRAIN.labels), TEST)
    load("c10", tmp_path)
    load.cache_clear()
    BAD_ARRAYS[kind][0](tmp_path / "c10")
    with pytest.raises(UsageError, match="the images or their labels are not"):
        load("c10", tmp_path)
    monkeypatch.setattr("harness.data.known.MEANS_APART", 256)
    load("c10", tmp_path)
    tried("bad data", {f"arrays of an unseen copy: {kind}": 1}, {"without the means of the classes": 1})


def test_a_copy_that_cannot_be_compared_is_let_in_with_a_note(tmp_path, monkeypatch, capsys):
    """Said once: what is loaded is kept."""
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    write_arrays(tmp_path / "svhn", TRAIN, TEST)
    monkeypatch.setitem(KNOWN, "c10", known())
    load("c10", tmp_path)
    assert capsys.readouterr().err == ""
    load.cache_clear()
    monkeypatch.setitem(KNOWN, "c10", known(exactly=False))
    monkeypatch.setitem(KNOWN, "svhn", Known((6,) * 10, (3,) * 10))
    for name, words in {"c10": "is no copy that is known", "svhn": "cannot be compared with the published"}.items():
        for _ in range(2):
            load(name, tmp_path)
        note = capsys.readouterr().err
        assert note.startswith(f"note: {tmp_path / name} {words}") and note.count("\n") == 1


def test_without_means_only_the_known_copy_is_let_in(tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "c10", replace(known(exactly=False), class_means=None))
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    with pytest.raises(UsageError, match="the images or their labels are not"):
        load("c10", tmp_path)


def test_svhn_arrays_by_their_counts_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "svhn", Known((6,) * 10, (3,) * 10))
    write_arrays(tmp_path / "svhn", TRAIN, TEST)
    assert len(load("svhn", tmp_path).train) == 60
    load.cache_clear()
    write_arrays(tmp_path / "svhn", TRAIN, TEST.part(slice(1, None)))
    with pytest.raises(UsageError, match="test split has 29 images instead of 30"):
        load("svhn", tmp_path)


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_adds_up(name):
    dataset = DATASETS[name]
    for counts, total in ((KNOWN[name].train_per_class, dataset.train_count), (KNOWN[name].test_per_class, 0)):
        assert len(counts) == dataset.num_classes and sum(counts) == (total or dataset.test_count)
    for rows, counts in zip(KNOWN[name].class_means or (), (KNOWN[name].train_per_class, KNOWN[name].test_per_class)):
        mean = np.average(np.array(rows)[:, :3], axis=0, weights=counts) / 255
        assert mean == pytest.approx(dataset.mean, abs=0.006), "those of the test split are a little off"


def test_a_made_up_part_of_a_data_set_is_told_where_to_go(tmp_path):
    """With the facts as they are."""
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    with pytest.raises(UsageError, match=r"60 images instead of 50,000(.|\n)*folder:PATH"):
        load("c10", tmp_path)


def test_data_on_another_disk_are_fine(tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "c10", known())
    write_arrays(tmp_path / "disk" / "cifar", TRAIN, TEST)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "c10").symlink_to(tmp_path / "disk" / "cifar")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    assert len(load("c10", tmp_path / "linked").train) == 60


@pytest.mark.parametrize("name", ["c10", "c100", "svhn"])
def test_missing_data_without_a_network(tmp_path, monkeypatch, name):
    """One message that names the ways to provide them."""

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(loading.originals, "read_svhn" if name == "svhn" else "read_cifar", offline)
    with pytest.raises(UsageError) as caught:
        load(name, tmp_path)
    for words in (name, "no network", "train_images.npy", "--data-dir", "torchvision"):
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["c10", "c100", "svhn"])
def test_arrays_that_may_not_be_read_are_not_fetched(tmp_path, monkeypatch, name):
    """Made up, since who runs the tests may be allowed everything."""

    def forbidden(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(originals, "fetch", None)
    monkeypatch.setattr(sources.os, "listdir", forbidden)
    with pytest.raises(UsageError, match=f"^{tmp_path / name} cannot be read: Permission denied$"):
        load(name, tmp_path)


def test_published_files_that_may_not_be_read_are_not_fetched(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.touch()
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(UsageError, match=f"^{archive} cannot be read: Permission denied$"):
        load("c10", tmp_path)


def test_a_list_of_classes_that_is_no_text(tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "c10", known())
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    (tmp_path / "c10" / "classes.txt").write_bytes(b"\xff\xfe\n" * 10)
    assert len(load("c10", tmp_path).classes) == 10


# --- memory ----------------------------------------------------------------------------------------------------------


def system(path: Path, meminfo: str = "", groups: str = "", **files: str) -> tuple[Path, Path]:
    """A made-up /proc and /sys/fs/cgroup; `files` by their paths with __ for /."""
    (path / "proc" / "self").mkdir(parents=True)
    (path / "proc" / "meminfo").write_text(meminfo)
    (path / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        file = path / "cgroup" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path / "proc", path / "cgroup"


FREE = "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n"


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (None, {}),
        (4000 * 1024, {"meminfo": FREE}),
        (4000 * 1024, {"meminfo": FREE, "groups": "0::/a\n", "a__memory.max": "max\n", "a__memory.current": "5\n"}),
        (700, {"meminfo": FREE, "groups": "0::/a\n", "a__memory.max": "1000\n", "a__memory.current": "300\n"}),
        (0, {"meminfo": FREE, "groups": "0::/a\n", "a__memory.max": "1000\n", "a__memory.current": "1300\n"}),
        (700, {"groups": "0::/a/b\n", "a__memory.max": "1000\n", "a__memory.current": "300\n"}),
        (700, {"groups": "0::/\n", "memory.max": "1000\n", "memory.current": "300\n"}),
        (
            760,  # what files keep there is given back
            {
                "groups": "0::/a\n",
                "a__memory.max": "1000\n",
                "a__memory.current": "300\n",
                "a__memory.stat": "anon 200\ninactive_file 50\nactive_file 10\n",
            },
        ),
        (
            620,  # version 1
            {
                "groups": "4:cpu,memory:/a\n0::/\n",
                "memory__a__memory.limit_in_bytes": "1000\n",
                "memory__a__memory.usage_in_bytes": "400\n",
                "memory__a__memory.stat": "inactive_file 5\ntotal_inactive_file 20\n",
                "memory__memory.limit_in_bytes": "9223372036854771712\n",
                "memory__memory.usage_in_bytes": "400\n",
            },
        ),
    ],
)
def test_memory_that_is_left(tmp_path, left, told):
    assert memory.available_bytes(*system(tmp_path, **told)) == left


def test_this_machine_says_what_is_left():
    left = memory.available_bytes()
    assert left is None or left > 2**20


def test_too_little_memory_is_said_before_any_is_taken(tmp_path, monkeypatch, tried):
    image_folder(tmp_path / "set")
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * 18 * 64 * 64 * 3 - 1)
    assert len(load(f"folder:{tmp_path}/set", tmp_path).train) == 12
    with monkeypatch.context() as inner:
        inner.setattr("harness.data.folder._decode", None)  # not even begun
        with pytest.raises(UsageError) as caught:
            load(f"folder:{tmp_path}/set@64", tmp_path)
    for words in (
        "0.00 GB are needed to read 18 images of 64 x 64 x 3",
        "0.00 GB are there",
        f"folder:{tmp_path}/set@32",
    ):
        assert words in str(caught.value)
    monkeypatch.setattr("harness.data.load.check_memory", lambda *args: None)
    assert len(load(f"folder:{tmp_path}/set@64", tmp_path).train) == 12
    tried("bad data", {"too little memory": 1}, {"without check_memory": 1})


def test_published_files_need_more_than_arrays(tmp_path, monkeypatch):
    needed = 60_000 * 32 * 32 * 3
    monkeypatch.setattr(memory, "available_bytes", lambda: 3 * needed)
    with pytest.raises(UsageError, match=r"too little memory for c10: 0\.74 GB are needed .* 0\.55 GB are there"):
        load("c10", tmp_path)
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    with pytest.raises(UsageError, match="not the whole"):
        load("c10", tmp_path)


def test_memory_that_runs_out_all_the_same(tmp_path, monkeypatch):
    """As under `ulimit -v`, which no file of the system tells."""

    def full(*args, **kwargs):
        raise MemoryError

    content = svhn_file(TRAIN)
    publish_svhn(monkeypatch, {"train": content, "test": content})
    for name in ("train", "test"):
        (tmp_path / f"{name}_32x32.mat").write_bytes(content)
    monkeypatch.setattr("scipy.io.loadmat", full)
    with pytest.raises(UsageError, match="too little memory for svhn"):
        load("svhn", tmp_path)
    write_arrays(tmp_path / "c10", TRAIN, TEST)
    monkeypatch.setattr(sources, "read_arrays", full)
    with pytest.raises(UsageError, match="too little memory for c10"):
        load("c10", tmp_path)


def test_too_little_memory_on_the_device(monkeypatch):
    def full(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(UsageError, match=r"too little memory on cuda:0 for the data set: 60 images take 0\.00 GB"):
        to_device(TRAIN, torch.device("cuda:0"))


def test_reading_alone_knows_no_counts(tmp_path):
    """What is known of a data set is asked once, of all of it."""
    write_arrays(tmp_path, TRAIN, TEST)
    assert len(read_arrays(tmp_path, DATASETS["c10"])[0]) == 60
