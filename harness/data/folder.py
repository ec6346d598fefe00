"""Image folders as data sets: PATH/train/CLASS/... and PATH/test/CLASS/... (or PATH/val), decoded once into arrays."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from harness.datasets import Dataset
from variants.fields import UsageError, first_line

ANNOTATIONS = "val_annotations.txt"
Arrays = tuple[np.ndarray, np.ndarray]  # images N x H x W x 3 (uint8) and their labels N (int64)
Files = list[tuple[Path, int]]  # every image with its label
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".tif", ".tiff"}


def parse(name: str) -> tuple[Path, int]:
    """`folder:PATH` or `folder:PATH@64` -> the path, and the size that images are brought to (0: as they are)."""
    text = name.removeprefix("folder:")
    path, at, size = text.rpartition("@")
    if at and size.isdigit() and int(size) > 0:
        return Path(path), int(size)
    return Path(text), 0


def facts(name: str) -> Dataset:
    """What a folder says of itself without decoding it all."""
    path, size = parse(name)
    train, test = _listed(path)
    side, classes = size or open_image(train[0][0]).size[0], tuple(_class_names(path / "train"))
    counts = len(train), len(test)
    return Dataset(name, path.name, side, len(classes), True, "cifar", *counts, classes=classes)


def read(dataset: Dataset) -> list[Arrays]:
    """Train and test."""
    path, size = parse(dataset.name)
    return [_decode(files, dataset.image_size, bool(size)) for files in _listed(path)]


def _listed(path: Path) -> list[Files]:
    """The files of train and test."""
    classes = _class_names(path / "train")
    if not classes:
        raise UsageError(f"{path}/train has no class folders: PATH/train/CLASS/... and PATH/test or val are needed")
    for test in (path / name for name in ("test", "val", "valid")):
        if (test / ANNOTATIONS).is_file() or _class_names(test) == classes:
            return [_files(folder, classes) for folder in (path / "train", test)]
    raise UsageError(f"{path} has neither test/ nor val/ with the same {len(classes)} class folders as train/")


def _class_names(folder: Path) -> list[str]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p.name for p in found if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path, classes: list[str]) -> Files:
    if (folder / ANNOTATIONS).is_file():
        return _annotated_files(folder, classes)
    found = []
    for label, name in enumerate(classes):
        files = images_under(folder / name)
        if not files:
            raise UsageError(f"{folder / name} holds no image")
        found += [(path, label) for path in files]
    return found


def images_under(folder: Path) -> list[Path]:
    """Every file with the suffix of an image, at any depth, in a fixed order."""
    walk = os.walk(folder, onerror=_fail)
    files = [Path(parent, file) for parent, _, names in walk for file in names]
    return sorted(path for path in files if path.suffix.lower() in SUFFIXES)


def _fail(error: OSError) -> None:
    """A folder that cannot be listed would otherwise count as an empty one."""
    raise error


def _annotated_files(folder: Path, classes: list[str]) -> Files:
    """Tiny-ImageNet's way: all images in one folder, and a file that says the class of each."""
    text = (folder / ANNOTATIONS).read_text(encoding="utf-8", errors="replace")
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    unknown = [line[0] for line in lines if len(line) < 2 or line[1] not in classes]
    if unknown or not lines:
        raise UsageError(f"{folder / ANNOTATIONS} gives no class of train/ to {(unknown or ['any image'])[0]}")
    if empty := set(classes) - {line[1] for line in lines}:
        raise UsageError(f"{folder / ANNOTATIONS} gives no image to class {min(empty)}")
    return [(folder / "images" / line[0], classes.index(line[1])) for line in lines]


def _decode(files: Files, side: int, resize: bool) -> Arrays:
    images = np.empty((len(files), side, side, 3), np.uint8)
    for i, (path, _) in enumerate(files):
        image = open_image(path)
        if image.size != (side, side) and not resize:
            raise UsageError(
                f"{path} is {image.width} x {image.height}, the first image {side} pixels wide; all must be square and "
                f"equal\nor give a size: folder:PATH@{side} crops and resizes while decoding"
            )
        images[i] = np.asarray(image if image.size == (side, side) else square(image, side))
    return images, np.array([label for _, label in files], np.int64)


def open_image(path: Path) -> Image.Image:
    with _decodable(path), Image.open(path) as image:
        if image.mode.startswith(("I", "F")):  # 16 or 32 bits of grey, or fractions: Pillow cuts them off at 255
            raise UsageError(f"{path} has pixels of kind {image.mode}; eight bits a channel are needed")
        return image.convert("RGB")


@contextlib.contextmanager
def _decodable(path: Path) -> Iterator[None]:
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # a broken image fails in many ways
        raise UsageError(f"{path} cannot be decoded as an image: {first_line(error)}") from None


def square(image: Image.Image, side: int) -> Image.Image:
    """The centre square, resized."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))


def any_image(path: Path, side: int) -> np.ndarray:
    """One image of any size and mode: upright, over white where it is transparent, its centre square resized; side x
    side x 3. Data sets, whose digests must stay, are read without the first two."""
    with _decodable(path), Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            raise UsageError(f"{path} has fractions for pixels; whole numbers are needed")
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
            image = Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(square(image.convert("RGB"), side))
