"""What several test files need: made-up images, in memory, as plain arrays or as folders, and variants cut short."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.load import Split
from variants.catalog import CATALOG
from variants.config import ViTConfig


def of_one_block(name: str, pixels: int = 32) -> list[str]:
    """Settings for a variant of one block, where the depth is ours to set: each further one is like it. It is resized
    to few pixels if at all, and no wider than most."""
    config = CATALOG[name]
    changes = [f"variant.resize={pixels}"] if config.resize else []
    changes += ["variant.depth=1"] if isinstance(config, ViTConfig) else []
    return changes + (["variant.width=192", "variant.mlp_width=384"] if getattr(config, "width", 0) > 384 else [])


def random_split(count: int, size: int = 32, classes: int = 10, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Split(images, np.arange(count, dtype=np.int64) % classes)


def write_arrays(folder: Path, train: Split, test: Split) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in {"train": train, "test": test}.items():
        np.save(folder / f"{name}_images.npy", split.images)
        np.save(folder / f"{name}_labels.npy", split.labels.astype(np.uint8))


def image_folder(path: Path, size=12, test="test", classes=("ant", "bee", "cow"), nested: bool = False) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), (test, 2)):
        for name in classes:
            folder = path / split / name / ("images" if nested else "")
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{i}.png")


class Runs:
    """What a pickle can do to whoever reads it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
