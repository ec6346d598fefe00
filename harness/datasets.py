"""Owns what is known of each data set before a byte of it is read: sizes, classes, scaling, what may be done to it.
Refuses to open files.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from variants.fields import UsageError, near_matches


@dataclass(frozen=True)
class Dataset:
    name: str
    title: str
    image_size: int
    num_classes: int
    flips: bool  # a mirrored image is still a likely image of its class
    policy: str  # whose AutoAugment policy
    train_count: int
    test_count: int
    mean: tuple[float, float, float] | None = None  # None: computed from the training images
    std: tuple[float, float, float] | None = None


EMBEDDED = "digits"  # comes with scikit-learn; a cell takes seconds

DATASETS = {
    "c10": Dataset(
        "c10", "CIFAR-10", 32, 10, True, "cifar", 50_000, 10_000, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    ),
    "c100": Dataset(
        "c100", "CIFAR-100", 32, 100, True, "cifar", 50_000, 10_000, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    ),
    "svhn": Dataset(
        "svhn", "SVHN", 32, 10, False, "svhn", 73_257, 26_032, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
    ),
    EMBEDDED: Dataset(EMBEDDED, "digits", 8, 10, False, "svhn", 1_437, 360),
}


@dataclass(frozen=True)
class Known:
    """What tells a whole copy from a part of it, and from one with other images or labels."""

    train_per_class: tuple[int, ...]
    test_per_class: tuple[int, ...]
    digest: str | None = None  # in canonical order, of the copy that was seen here
    images_digest: str | None = None  # of its images without the labels
    # Of train and test, by class: the mean of red, green, blue, the upper half, the left half. For copies that are as
    # good as the one that was seen, but not the same to the byte.
    class_means: tuple[tuple[tuple[float, ...], ...], ...] | None = None


KNOWN = {
    # 121 images of the copy that was seen here were JPEGs once, so the published files have another digest.
    "c10": Known(
        (5_000,) * 10,
        (1_000,) * 10,
        "2c4e656b3852344fc1a1869d970c556d30a5e9b3fd33790292ceda035fd296e5",
        "234e28f2e0bbcc53d22ca652fe6759500315512c84e4ddabbd911a9a0887fd38",
        (
            (
                (134.04, 142.88, 150.17, 152.94, 142.39),
                (120.15, 115.91, 114.04, 128.05, 116.79),
                (124.76, 125.33, 108.13, 121.84, 119.42),
                (126.35, 116.39, 105.96, 114.17, 116.21),
                (120.26, 118.63, 96.44, 109.50, 111.94),
                (127.48, 118.48, 106.22, 113.70, 116.96),
                (119.86, 111.79, 88.03, 105.95, 106.55),
                (128.00, 122.37, 106.31, 121.07, 119.24),
                (125.01, 133.98, 141.44, 152.55, 133.75),
                (127.16, 123.76, 121.91, 145.36, 124.43),
            ),
            (
                (136.12, 145.86, 154.53, 155.31, 145.68),
                (120.02, 115.92, 114.35, 128.61, 117.44),
                (124.93, 126.22, 109.20, 122.43, 120.16),
                (125.81, 116.09, 106.08, 113.88, 116.65),
                (118.58, 117.14, 94.51, 108.02, 109.87),
                (129.88, 121.01, 108.41, 116.61, 119.30),
                (121.11, 112.78, 88.23, 107.04, 107.45),
                (128.80, 123.28, 108.51, 123.82, 120.71),
                (126.13, 133.78, 140.96, 153.05, 134.01),
                (128.86, 125.02, 123.76, 146.43, 125.31),
            ),
        ),
    ),
    "c100": Known(
        (500,) * 100,
        (100,) * 100,
        "53fdd5be2619ae6f0c97ec749f36c6425647fa183eaaf83f026c58681afd1ffb",
        "7923b6503f18c31dd81691b263b0812243ad5706ed06be61c9cb0b58a6c1ea55",
    ),
    # No copy was seen here: the published files have their MD5.
    "svhn": Known(
        (4_948, 13_861, 10_585, 8_497, 7_458, 6_882, 5_727, 5_595, 5_045, 4_659),
        (1_744, 5_099, 4_149, 2_882, 2_523, 2_384, 1_977, 2_019, 1_660, 1_595),
    ),
}


def check_name(name: str) -> None:
    if name.startswith("folder:") and re.sub(r"@\d*$", "", Path(name[7:]).name) in ("", ".", ".."):
        raise UsageError(
            f"data set {name!r}: the runs are named after the folder, which has no name here; write it out"
        )
    if name not in DATASETS and not name.startswith("folder:"):
        raise UsageError(
            f"unknown data set {name!r}: {near_matches(name, DATASETS)}\n"
            "also possible: folder:PATH for class folders under PATH/train and PATH/test (or PATH/val)"
        )


def title(name: str) -> str:
    return DATASETS[name].title if name in DATASETS else name
