"""A guess how long a run will take, for a plan or a dry run: a few real steps on this device, extrapolated. It is no
measurement, and never goes into a record.
"""

import functools
import time
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from harness.config import RunConfig, images_of
from harness.data.augment.mixing import draw_mix
from harness.data.pipeline import Batch
from harness.datasets import Dataset
from harness.recipes import Recipe
from harness.training.device import autocast, synchronise
from harness.training.optimiser import make_optimiser
from harness.training.setup import batch_loss, data_generator
from variants.timm_baseline import from_scratch

FEW = 16  # images: few enough that a large model on a CPU answers at once
SLOW_S = 0.2
STEPS = 3  # of which the fastest counts
FAILURES = (RuntimeError, ValueError, TypeError)  # of a step that fails, or a config that cannot be remembered


def seconds_of(config: RunConfig, dataset: Dataset, device: torch.device, accumulate: int = 1) -> float | None:
    """None where it cannot be measured: the run itself will say why."""
    try:
        return measured_seconds(config, dataset, device, accumulate)
    except FAILURES:
        return None


def measured_seconds(config: RunConfig, dataset: Dataset, device: torch.device, accumulate: int = 1) -> float:
    """Training and evaluation of the whole run, from batches or parts of them; compilation and data preparation are not
    in it."""
    variant, recipe = from_scratch(replace(config.variant, num_classes=10)), of_a_step(config.recipe)
    part = replace(recipe, batch_size=max(1, recipe.batch_size // accumulate))
    rate = training_rate(variant, part, config.precision, device)
    trained, evaluated = images_of(config, dataset)
    return (trained + evaluated / 3) / rate  # forward is a third of a step


def of_a_step(recipe: Recipe) -> Recipe:
    """What of a recipe a step's time depends on: recipes that differ in nothing else share one guess."""
    names = ("batch_size", "optimizer", "decay", "mix", "mix_prob", "mix_per_image")
    return replace(Recipe(), **{name: getattr(recipe, name) for name in names})


@functools.cache
def training_rate(variant: Any, recipe: Recipe, precision: str, device: torch.device) -> float:
    """Images a second of the uncompiled step, from the fastest of a few."""
    model = variant.module().to(device).train()
    optimiser = make_optimiser(model, recipe)
    few = blank_batch(variant.image_size, min(recipe.batch_size, FEW), recipe, device)
    full = blank_batch(variant.image_size, recipe.batch_size, recipe, device)
    step_seconds(model, optimiser, few, recipe, precision)
    few_s = min(step_seconds(model, optimiser, few, recipe, precision) for _ in range(STEPS))
    if few_s > SLOW_S:  # a full batch would take long and say the same
        return len(few.labels) / few_s
    return len(full.labels) / min(step_seconds(model, optimiser, full, recipe, precision) for _ in range(STEPS))


def step_seconds(
    model: nn.Module, optimiser: torch.optim.Optimizer, batch: Batch, recipe: Recipe, precision: str
) -> float:
    device = batch.labels.device
    synchronise(device)
    start_s = time.perf_counter()
    with autocast(device, precision):
        loss, _ = batch_loss(model, batch, recipe)
    loss.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    synchronise(device)
    return time.perf_counter() - start_s


def blank_batch(image_size: int, count: int, recipe: Recipe, device: torch.device) -> Batch:
    images = torch.zeros(count, 3, image_size, image_size, device=device)
    mix = None
    if recipe.mix != "none":
        mix = draw_mix(count, image_size, image_size, recipe, data_generator(0, 0)).to(device)
    return Batch(images, torch.zeros(count, dtype=torch.int64, device=device), mix)
