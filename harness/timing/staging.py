"""Owns made-up data of a real data set's shape: what a step costs does not depend on what the images show.
Refuses to be learned from.
"""

import numpy as np

from harness.data.canonical import Split
from harness.data.load import ImageData
from harness.datasets import Dataset

HALF = (0.5, 0.5, 0.5)


def made_up(dataset: Dataset, count: int) -> ImageData:
    """`count` training images of noise, and as few to evaluate as make sense."""
    rng = np.random.default_rng(0)
    shape = (count, dataset.image_size, dataset.image_size, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    labels = rng.integers(dataset.num_classes, size=count)
    train, test = Split(images, labels), Split(images[:64], labels[:64])
    return ImageData(dataset, train, test, [str(i) for i in range(dataset.num_classes)], "made up", HALF, HALF)
