"""Image folders: read as they are distributed, and refused by name when something in them is not an image of theirs."""

import os
import shutil
import struct
import zlib
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


def png(path: Path, depth: int, color: int, channels: int, pixels: bytes) -> None:
    """Pillow writes no colours of 16 bits."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + pixels * channels * 12 for _ in range(12))
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 12, 12, depth, color, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts.items()))


def tiff(path: Path, bits: int, pixels: bytes, planes: int = 1) -> None:
    """RGB, uncompressed; with 3 planes the channels one after the other."""
    plane = pixels * (432 // planes)
    values = 8 + 2 + 12 * 10 + 4  # where those begin that no tag has room for
    starts = [values + 30 + len(plane) * i for i in range(planes)]
    tags = [(256, 3, 1, 12), (257, 3, 1, 12), (258, 3, 3, values), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, planes, values + 6 if planes > 1 else starts[0]), (277, 3, 1, 3), (278, 3, 1, 12)]
    tags += [(279, 4, planes, values + 18 if planes > 1 else len(plane)), (284, 3, 1, 2 if planes > 1 else 1)]
    header = b"II*\0" + struct.pack("<IH", 8, 10) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    lists = struct.pack("<3H", *[bits] * 3) + struct.pack(f"<{2 * planes}I", *starts, *[len(plane)] * planes)
    path.write_bytes(header + lists.ljust(30, b"\0") + plane * planes)


def sixteen_bit_colors(path: Path) -> None:
    png(path / "train" / "ant" / "0.png", 16, 2, 3, b"\x01\x2c")  # 300, which Pillow makes 1


def sixteen_bit_colors_and_alpha(path: Path) -> None:
    png(path / "train" / "ant" / "0.png", 16, 6, 4, b"\x01\x2c")


def sixteen_bit_grey_and_alpha(path: Path) -> None:
    png(path / "train" / "ant" / "0.png", 16, 4, 2, b"\x01\x2c")


def sixteen_bit_tiff(path: Path) -> None:
    tiff(path / "train" / "ant" / "deep.tif", 16, b"\x2c\x01")


def sixteen_bit_planes(path: Path) -> None:
    """Of which Pillow takes every other byte."""
    tiff(path / "train" / "ant" / "deep.tif", 16, b"\x2c\x01", planes=3)


def portable_pixmap(path: Path) -> None:
    (path / "train" / "ant" / "deep.ppm").write_bytes(b"P6\n12 12\n65535\n" + b"\x01\x2c" * 432)


def portable_pixmap_in_words(path: Path) -> None:
    (path / "train" / "ant" / "deep.ppm").write_bytes(b"P3\n12 12\n1023\n" + b"300 " * 432)


def another_format(path: Path) -> None:
    """Whose depth is nowhere told, JPEG 2000 and AVIF among them."""
    Image.new("RGB", (12, 12)).save(path / "train" / "ant" / "0.png", "TGA")


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


def annotation_of_another_encoding(path: Path) -> None:
    annotate(path, {"a.png": "ant", "b.png": "bee", "c.png": "cow"})
    (path / "val" / "val_annotations.txt").write_bytes("a.png\tant\né.png\tbee\n".encode("latin-1"))


DEPTH, LINKS = ("harness.data.folder._deep", lambda image: None), ("harness.data.folder.check_links", lambda path: None)
BAD_FOLDERS = {
    sixteen_bits: (r"ant/0\.png has pixels of kind I;16", DEPTH),
    not_a_number: (r"deep\.tif has pixels of kind F", DEPTH),
    sixteen_bit_colors: (r"ant/0\.png has pixels of kind RGB;16B; eight bits a channel are needed", DEPTH),
    sixteen_bit_colors_and_alpha: (r"ant/0\.png has pixels of kind RGBA;16B", DEPTH),
    sixteen_bit_grey_and_alpha: (r"ant/0\.png has pixels of kind LA;16B", DEPTH),
    sixteen_bit_tiff: (r"deep\.tif has pixels of kind RGB;16", DEPTH),
    sixteen_bit_planes: (r"deep\.tif has pixels of kind RGB;16", DEPTH),
    portable_pixmap: (r"deep\.ppm has pixels of kind RGB up to 65535", DEPTH),
    portable_pixmap_in_words: (r"deep\.ppm has pixels of kind RGB up to 1023", DEPTH),
    another_format: (r"ant/0\.png is TGA by its content; BMP, GIF, ", ("harness.data.folder.FORMATS", {"PNG", "TGA"})),
    image_from_elsewhere: (r"ant/7\.png leads out of .*private\.png", LINKS),
    class_from_elsewhere: (r"train/cow leads out of ", LINKS),
    link_to_nothing: (r"bee/7\.png is a link to .*gone\.png", LINKS),
    annotation_that_climbs: (r"names \.\./\.\./\.\./private\.png, which is not a file of", None),
    cut_off: (r"ant/0\.png cannot be decoded", None),
    no_image: (r"ant/0\.png cannot be decoded", None),
    empty_file: (r"ant/0\.png cannot be decoded", None),
    empty_class: (r"test/cow holds no image", None),
    empty_annotated_class: (r"val_annotations\.txt gives no image to class cow", None),
    annotation_of_another_encoding: (r"val_annotations\.txt is not UTF-8 in line 2", None),
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


def test_eight_bits_or_fewer_are_let_in(tmp_path):
    image_folder(tmp_path)
    folder = tmp_path / "train" / "bee"
    written = {"png": "1 L LA P RGB RGBA", "jpg": "L RGB CMYK", "bmp": "1 L P RGB RGBA", "webp": "L RGB RGBA"}
    written |= {"gif": "1 L P RGB RGBA", "ppm": "1 L RGB RGBA", "tif": "1 L LA P PA RGB RGBA CMYK YCbCr LAB"}
    for suffix, modes in written.items():
        for mode in modes.split():
            Image.new(mode, (12, 12)).save(folder / f"of-{mode}.{suffix}")
    png(folder / "made.png", 8, 6, 4, b"\x01")
    tiff(folder / "made.tif", 8, b"\x01")
    tiff(folder / "planes.tif", 8, b"\x01", planes=3)
    (folder / "made.ppm").write_bytes(b"P6\n12 12\n100\n" + b"\x01" * 432)
    (folder / "words.ppm").write_bytes(b"P3\n12 12\n255\n" + b"1 " * 432)
    bitmap = (12, 12, 1, 16, 3, 288, 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F)  # 5, 6 and 5 bits, to Pillow BGR;16
    header = struct.pack("<2sIIII", b"BM", 354, 0, 66, 40) + struct.pack("<iiHHIIiiIIIII", *bitmap)
    (folder / "made.bmp").write_bytes(header + bytes(288))
    assert len(load(f"folder:{tmp_path}", tmp_path).train) == 12 + 36 + 6


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """1,500 folders, each in the one before; taken away step by step, since shutil.rmtree calls itself for each."""
    image_folder(tmp_path)
    monkeypatch.chdir(tmp_path / "train" / "ant")
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    yield tmp_path
    for path in Path().iterdir():
        path.unlink()
    for _ in range(1500):
        os.chdir("..")
        os.rmdir("d")


def test_folders_nested_deeper_than_calls_can_be(deep):
    Image.new("RGB", (12, 12)).save("deep.png")
    assert len(load(f"folder:{deep}", deep).train) == 13
    load.cache_clear()
    os.symlink("/", "out")
    with pytest.raises(UsageError, match="leads out of "):
        load(f"folder:{deep}", deep)
