"""Owns image folders: PATH/train/CLASS/... and PATH/test/CLASS/... (or PATH/val), decoded once into arrays.
Refuses folders whose classes differ between the splits, links that lead out, images of other sizes unless a size is
asked for, and pixels that eight bits a channel do not hold.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.canonical import Split
from harness.data.links import check_links, entries_below
from harness.datasets import Dataset
from variants.fields import UsageError

ANNOTATIONS = "val_annotations.txt"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".tif", ".tiff"}
FORMATS = {"PNG", "JPEG", "MPO", "BMP", "WEBP", "GIF", "PPM", "TIFF"}  # those of SUFFIXES, whatever a file's name says
DEEP = ("I", "F")  # whole numbers of 16 or 32 bits and fractions, NaN among them: Pillow would cut them off at 255
BITS_PER_SAMPLE = 258  # a tag of TIFF


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
    if path.is_dir():
        check_links(path)  # first, since it looks into every folder and names one that may not be read
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
    if (folder / ANNOTATIONS).is_file():
        return _annotated_files(folder, classes)
    found = []
    for label, name in enumerate(classes):
        below = (Path(entry.path) for entry in entries_below(folder / name))
        files = sorted(path for path in below if path.suffix.lower() in SUFFIXES and path.is_file())
        if not files:
            raise UsageError(f"{folder / name} holds no image")
        found += [(path, label) for path in files]
    return found


def _annotated_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Tiny-ImageNet's way: all images in one folder, and a file that says the class of each."""
    try:
        text = (folder / ANNOTATIONS).read_text("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{folder / ANNOTATIONS} is not UTF-8 in line {line}: {error.reason}") from None
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    unknown = [line[0] for line in lines if len(line) < 2 or line[1] not in classes]
    if unknown or not lines:
        raise UsageError(f"{folder / ANNOTATIONS} gives no class of train/ to {(unknown or ['any image'])[0]}")
    if outside := [line[0] for line in lines if Path(line[0]).name != line[0]]:
        raise UsageError(f"{folder / ANNOTATIONS} names {outside[0]}, which is not a file of {folder / 'images'}")
    if empty := set(classes) - {line[1] for line in lines}:
        raise UsageError(f"{folder / ANNOTATIONS} gives no image to class {min(empty)}")
    return [(folder / "images" / line[0], classes.index(line[1])) for line in lines]


def read(dataset: Dataset) -> tuple[Split, Split, list[str]]:
    path, size = parse(dataset.name)
    train, test = _split_folders(path)
    classes = class_names(train)
    splits = [_decode(image_files(folder, classes), dataset.image_size, bool(size)) for folder in (train, test)]
    return splits[0], splits[1], classes


def _decode(files: list[tuple[Path, int]], side: int, resize: bool) -> Split:
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
    return Split(images, np.array([label for _, label in files], np.int64))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.format not in FORMATS:  # nobody here knows whether it says how deep its pixels are
                raise UsageError(f"{path} is {image.format} by its content; {', '.join(sorted(FORMATS))} are read")
            if kind := _deep(image):
                raise UsageError(f"{path} has pixels of kind {kind}; eight bits a channel are needed")
            return image.convert("RGB")
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # a broken image fails in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} cannot be decoded as an image: {reason}") from None


def _deep(image: Image.Image) -> str | None:
    """What its pixels are, if eight bits do not hold them. Asked before they are decoded: to Pillow, colours of 16 bits
    are RGB like others, and their lower halves are gone afterwards."""
    if image.mode.startswith(DEEP):
        return image.mode
    if (bits := max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,)))) > 8:
        return f"{image.mode};{bits}"
    for decoder, _, _, details in getattr(image, "tile", ()):
        raw, *more = details if isinstance(details, tuple) else (details,)
        if str(raw).endswith(";16B"):  # PNG; the BGR;16 of a BMP is 5, 6 and 5 bits
            return raw
        if decoder.startswith("ppm") and more[0] > 255:
            return f"{image.mode} up to {more[0]}"
    return None


def _square(image: Image.Image, side: int) -> Image.Image:
    """The centre square, resized."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge))
