"""Image folders as data sets: PATH/train/CLASS/... and PATH/test/CLASS/... (or PATH/val): which files they hold, and
how one of them becomes pixels."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.datasets import Dataset
from variants.fields import UsageError, first_line

ANNOTATIONS = "val_annotations.txt"
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
    train, test = listed(path)
    side, classes = size or _first_side(train), tuple(_class_names(path / "train"))
    counts = len(train), len(test)
    return Dataset(name, path.name, side, len(classes), True, "cifar", *counts, classes=classes)


def _first_side(files: Files) -> int:
    """The width of the first image that is none of the broken ones, which are named later."""
    for path, _ in files:
        with contextlib.suppress(BrokenImageError), opened(path) as image:
            return image.width
    raise UsageError(f"none of the {len(files):,} training images, {files[0][0]} the first, can be decoded")


def listed(path: Path) -> list[Files]:
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
    """Every file with the suffix of an image, at any depth, in a fixed order; none that is hidden, as what macOS and
    Jupyter leave beside images."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


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


class BrokenImageError(UsageError):
    """A file that is no image, or none whose pixels can be had whole."""


def decoded(path: Path, side: int, resize: bool) -> np.ndarray:
    """side x side x 3."""
    with opened(path) as image:
        if image.size != (side, side) and not resize:
            raise UsageError(
                f"{path} is {image.width} x {image.height}, the first image {side} pixels wide; all must be square and "
                f"equal\nor give a size: folder:PATH@{side} crops and resizes while decoding"
            )
        # A JPEG that is far larger is decoded at half, quarter or eighth size, which is faster; what is left is at
        # least twice as large as needed, as in Pillow's own thumbnails.
        image.draft(None, (2 * side, 2 * side))
        pixels = image.convert("RGB")
        return np.asarray(pixels if pixels.size == (side, side) else square(pixels, side))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    content = path.read_bytes()  # a disk that fails is an OSError, and the image not broken
    with _decodable(path), Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith(("I", "F")):  # 16 or 32 bits of grey, or fractions: Pillow cuts them off at 255
            raise BrokenImageError(f"{path} has pixels of kind {image.mode}; eight bits a channel are needed")
        yield image


@contextlib.contextmanager
def _decodable(path: Path) -> Iterator[None]:
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # a broken image fails in many ways
        why = "no format that is known" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise BrokenImageError(f"{path} cannot be decoded as an image: {why}") from None


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
