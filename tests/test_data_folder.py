"""Image folders: read as they are distributed, and refused by name when something in them is not an image of theirs."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data.load import dataset_facts, load
from tests.copies import image_folder
from variants.fields import UsageError


@pytest.mark.parametrize(("test", "nested"), [("test", False), ("val", True)])
def test_image_folders(tmp_path, test, nested):
    image_folder(tmp_path, test=test, nested=nested)
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
    with pytest.raises(UsageError, match=r"wide\.png is 20 x 12"):
        load(f"folder:{tmp_path}", tmp_path)
    assert load(f"folder:{tmp_path}@16", tmp_path).train.images.shape == (13, 16, 16, 3)


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(UsageError, match="class folders"):
        dataset_facts(f"folder:{tmp_path}/nowhere", tmp_path)
    image_folder(tmp_path / "a")
    (tmp_path / "a" / "test" / "cow").rename(tmp_path / "a" / "test" / "pig")
    with pytest.raises(UsageError, match="same 3 class folders"):
        dataset_facts(f"folder:{tmp_path}/a", tmp_path)


@pytest.mark.parametrize("place", ["", "train", "train/bee", "test"])
def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch, place):
    """Made up, since who runs the tests may be allowed everything."""
    path, real = tmp_path / "set", os.scandir
    image_folder(path)

    def scandir(folder):
        if Path(folder) == path / place:
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    for ask in (dataset_facts, load):
        with pytest.raises(UsageError, match=f"^{path / place} cannot be read: Permission denied$"):
            ask(f"folder:{path}", tmp_path)


def annotate(path: Path, names: dict[str, str]) -> None:
    """val/ as Tiny-ImageNet has it: one folder of images and a file that names their classes."""
    shutil.rmtree(path / "test")
    (path / "val" / "images").mkdir(parents=True)
    for i, name in enumerate(names):
        Image.new("RGB", (12, 12), (i, 0, 0)).save(path / "val" / "images" / Path(name).name)
    lines = [f"{name}\t{wnid}\t0\t0\t62\t62\n" for name, wnid in names.items()]
    (path / "val" / "val_annotations.txt").write_text("".join(lines))


def test_tiny_imagenet_as_it_is_distributed(tmp_path):
    """Hidden folders are no classes."""
    image_folder(tmp_path, nested=True)
    (tmp_path / "train" / ".cache").mkdir()
    annotate(tmp_path, {"a.png": "cow", "b.png": "ant", "c.png": "bee"})
    data = load(f"folder:{tmp_path}", tmp_path)
    label_of = {int(image[0, 0, 0]): int(label) for image, label in zip(data.test.images, data.test.labels)}
    assert label_of == {0: 2, 1: 0, 2: 1} and len(data.train) == 12


# What is done to a good folder, the words of the refusal, and the check without which it would be let in.


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((12, 12), 40_000, np.uint16)).save(path / "train" / "ant" / "0.png")


def not_a_number(path: Path) -> None:
    Image.fromarray(np.full((12, 12), np.nan, np.float32)).save(path / "train" / "ant" / "deep.tif")


def image_from_elsewhere(path: Path) -> None:
    Image.new("RGB", (12, 12)).save(path.parent / "private.png")
    (path / "train" / "ant" / "7.png").symlink_to(path.parent / "private.png")


def class_from_elsewhere(path: Path) -> None:
    (path / "train" / "cow").rename(path.parent / "cow")
    (path / "train" / "cow").symlink_to(path.parent / "cow")


def link_to_nothing(path: Path) -> None:
    (path / "test" / "bee" / "7.png").symlink_to("gone.png")


def annotation_that_climbs(path: Path) -> None:
    Image.new("RGB", (12, 12)).save(path.parent / "private.png")
    annotate(path, {"a.png": "ant", "b.png": "bee", "../../../private.png": "cow"})


def cut_off(path: Path) -> None:
    image = path / "train" / "ant" / "0.png"
    image.write_bytes(image.read_bytes()[:200])


def no_image(path: Path) -> None:
    (path / "train" / "ant" / "0.png").write_bytes(b"no image")


def empty_file(path: Path) -> None:
    (path / "train" / "ant" / "0.png").write_bytes(b"")


def empty_class(path: Path) -> None:
    for image in (path / "test" / "cow").iterdir():
        image.unlink()


def empty_annotated_class(path: Path) -> None:
    annotate(path, {"a.png": "ant", "b.png": "bee"})


DEPTH, LINKS = ("harness.data.folder.DEEP", ("none",)), ("harness.data.folder.check_links", lambda path: None)
BAD_FOLDERS = {
    sixteen_bits: (r"ant/0\.png has pixels of kind I;16", DEPTH),
    not_a_number: (r"deep\.tif has pixels of kind F", DEPTH),
    image_from_elsewhere: (r"ant/7\.png leads out of .*private\.png", LINKS),
    class_from_elsewhere: (r"train/cow leads out of ", LINKS),
    link_to_nothing: (r"bee/7\.png is a link to .*gone\.png", LINKS),
    annotation_that_climbs: (r"names \.\./\.\./\.\./private\.png, which is not a file of", None),
    cut_off: (r"ant/0\.png cannot be decoded", None),
    no_image: (r"ant/0\.png cannot be decoded", None),
    empty_file: (r"ant/0\.png cannot be decoded", None),
    empty_class: (r"test/cow holds no image", None),
    empty_annotated_class: (r"val_annotations\.txt gives no image to class cow", None),
}


@pytest.mark.parametrize("spoil", BAD_FOLDERS, ids=lambda f: f.__name__)
def test_bad_folders_are_refused_and_only_by_their_check(tmp_path, monkeypatch, tried, spoil):
    path = tmp_path / "set"
    image_folder(path)
    assert len(load(f"folder:{path}", tmp_path).train) == 12
    load.cache_clear()
    spoil(path)
    words, check = BAD_FOLDERS[spoil]
    with pytest.raises(UsageError, match=words):
        load(f"folder:{path}", tmp_path)
    if check:
        monkeypatch.setattr(*check)
        load(f"folder:{path}", tmp_path)
    kind = f"image folder: {spoil.__name__.replace('_', ' ')}"
    tried("bad data", {kind: 1}, {f"without {check[0].removeprefix('harness.data.')}": 1} if check else {})


def test_the_folder_itself_may_be_a_link_and_links_within_it_stay(tmp_path):
    image_folder(tmp_path / "disk" / "set")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    (tmp_path / "here").symlink_to(tmp_path / "data" / "set")
    (tmp_path / "disk" / "set" / "train" / "ant" / "again.png").symlink_to("0.png")
    for path in (tmp_path / "data" / "set", tmp_path / "here"):
        assert len(load(f"folder:{path}", tmp_path).train) == 13
