"""Owns the benchmark of the input pipeline: a recipe's batches, augmented and scaled, from here and from torchvision.
Refuses to train on them.
"""

from collections import deque

import numpy as np
import torch

from harness.data.load import ImageData
from harness.data.pipeline import scaling, to_device, training_batches
from harness.recipe import Recipe
from harness.records.benchmarks import Comparison
from harness.timing.conventional import Images, loader, transforms
from harness.timing.goals import goal
from harness.timing.turns import take_turns, timed

OURS = "ours"


def conventional_images(data: ImageData, recipe: Recipe) -> Images:
    transform = transforms(recipe, data.dataset.image_size, data.mean, data.std)
    return Images(data.train.images, data.train.labels, transform)


def compare_pipelines(
    name: str, recipe: Recipe, data: ImageData, device: torch.device, workers: int, rounds: int
) -> Comparison:
    """One pass over the images each; torchvision's workers are running when its clock starts."""
    split, scale, rng = to_device(data.train, device), scaling(data, recipe, device), np.random.default_rng(0)
    theirs = loader(conventional_images(data, recipe), recipe, data.dataset.num_classes, workers)
    baseline = f"torchvision on PIL images, {workers} workers"
    ways = {
        OURS: timed(lambda: deque(training_batches(split, recipe, scale, rng), maxlen=0), device),
        baseline: timed(lambda: deque(theirs, maxlen=0), device),
    }
    timings, title = take_turns(ways, rounds), f"pipeline {name}"
    amounts = dict.fromkeys(ways, float(len(split)))
    facts = {"images": len(split), "batch_size": recipe.batch_size, "augment": list(recipe.augment)}
    return timings.compare(title, "images/s", amounts, (OURS, baseline), goal(device.type, title), facts)
