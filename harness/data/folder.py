"""Image folders as data sets: PATH/train/CLASS/... and PATH/test/CLASS/... (or PATH/val), decoded once into arrays."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from harness.datasets import Dataset
from variants.fields import UsageError

ANNOTATIONS = "val_annotations.txt"
Arrays = tuple[np.ndarray, np.ndarray]  # images N x H x W x 3 (uint8) and their labels N (int64)
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
    train, test = _split_folders(path)
    classes = class_names(train)
    files = image_files(train, classes)
    return Dataset(
        name=name,
        title=path.name,
        image_size=size or _open(files[0][0]).size[0],
        num_classes=len(classes),
        flips=True,
        policy="cifar",
        train_count=len(files),
        test_count=len(image_files(test, classes)),
    )


def read(dataset: Dataset) -> tuple[Arrays, Arrays, list[str]]:
    """Train, test and the names of the classes."""
    path, size = parse(dataset.name)
    train, test = _split_folders(path)
    classes = class_names(train)
    splits = [_decode(image_files(folder, classes), dataset.image_size, bool(size)) for folder in (train, test)]
    return splits[0], splits[1], classes


def class_names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _split_folders(path: Path) -> tuple[Path, Path]:
    train = path / "train"
    if not train.is_dir() or not class_names(train):
        raise UsageError(f"{train} has no class folders; needed are PATH/train/CLASS/... and PATH/test or PATH/val")
    for name in ("test", "val", "valid"):
        if (path / name / ANNOTATIONS).is_file():
            return train, path / name
        if (path / name).is_dir() and class_names(path / name) == class_names(train):
            return train, path / name
    count = len(class_names(train))
    raise UsageError(f"{path} has neither test/ nor val/ with the same {count} class folders as train/")


def image_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Every image with its label."""
    if (folder / ANNOTATIONS).is_file():
        return _annotated_files(folder, classes)
    found = []
    for label, name in enumerate(classes):
        walk = os.walk(folder / name, onerror=_fail)
        files = [Path(parent, file) for parent, _, names in walk for file in names]
        files = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
        if not files:
            raise UsageError(f"{folder / name} holds no image")
        found += [(path, label) for path in files]
    return found


def _fail(error: OSError) -> None:
    """A folder that cannot be listed would otherwise count as an empty one."""
    raise error


def _annotated_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Tiny-ImageNet's way: all images in one folder, and a file that says the class of each."""
    text = (folder / ANNOTATIONS).read_text(encoding="utf-8", errors="replace")
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    unknown = [line[0] for line in lines if len(line) < 2 or line[1] not in classes]
    if unknown or not lines:
        raise UsageError(f"{folder / ANNOTATIONS} gives no class of train/ to {(unknown or ['any image'])[0]}")
    if empty := set(classes) - {line[1] for line in lines}:
        raise UsageError(f"{folder / ANNOTATIONS} gives no image to class {min(empty)}")
    return [(folder / "images" / line[0], classes.index(line[1])) for line in lines]


def _decode(files: list[tuple[Path, int]], side: int, resize: bool) -> Arrays:
    images = np.empty((len(files), side, side, 3), np.uint8)
    for i, (path, _) in enumerate(files):
        image = _open(path)
        if image.size != (side, side):
            if not resize:
                width, height = image.size
                raise UsageError(
                    f"{path} is {width} x {height}, the first image {side} pixels wide; all must be square and equal"
                    f"\nor give a size: folder:PATH@{side} crops and resizes while decoding"
                )
            image = _square(image, side)
        images[i] = np.asarray(image)
    return images, np.array([label for _, label in files], np.int64)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # 16 or 32 bits of grey, or fractions: Pillow cuts them off at 255
                raise UsageError(f"{path} has pixels of kind {image.mode}; eight bits a channel are needed")
            return image.convert("RGB")
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # a broken image fails in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} cannot be decoded as an image: {reason}") from None


def _square(image: Image.Image, side: int) -> Image.Image:
    """The centre square, resized."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))
