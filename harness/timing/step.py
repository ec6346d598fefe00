"""Owns the benchmark of training: an epoch of the real loop against the conventional loop, and against the same steps
on batches that already lie on the device, which leaves the loop's own overhead.
Refuses a loop of its own for what it calls ours: that is harness.training.loop.
"""

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.config import RunConfig
from harness.counting.cost import Cost
from harness.data.load import ImageData
from harness.data.pipeline import Batch, DeviceSplit, Scaling, scaling, to_device, training_batches
from harness.recipe import Recipe, shortened
from harness.records.benchmarks import Comparison
from harness.timing.conventional import Loop, loader
from harness.timing.floors import bandwidth, floors, matrix_rate, step_flops
from harness.timing.goals import goal
from harness.timing.pipeline import OURS, conventional_images
from harness.timing.turns import Rounds, take_turns, timed, titled
from harness.training import device as devices
from harness.training.device import Meter
from harness.training.loop import Epoch, train
from harness.training.optimiser import clip_gradients, learning_rate, make_optimiser, set_rate
from harness.training.setup import Training, build_model, warm_up

STAGED, PIPELINE = "the same steps on staged batches", "the input pipeline alone"


@dataclass
class Ours:
    """The real loop, an epoch whenever it is asked for one; evaluation is not in its seconds."""

    epochs: Iterator[Epoch]
    device: torch.device
    joules: float | None = 0.0
    images: int = 0

    def epoch(self) -> float:
        meter = Meter(self.device)
        line = next(self.epochs).line
        used = meter.joules()
        self.joules = None if used is None or self.joules is None else self.joules + used
        self.images = line["images_seen"]
        return line["seconds"]


def compare_training(
    config: RunConfig, cost: Cost, data: ImageData, device: torch.device, workers: int, rounds: int
) -> list[Comparison]:
    recipe = config.recipe
    model = build_model(config, device)
    plain = copy.deepcopy(model)
    split, few = to_device(data.train, device), to_device(data.test, device)
    scale = scaling(data, recipe, device)
    devices.forget_peak_memory(device)
    longer = replace(config, recipe=shortened(recipe, rounds + 2))
    training = Training(longer, model, split, few, scale)
    compile_s = warm_up(training)
    ours = Ours(train(training), device)
    ours.epoch()
    facts: dict[str, Any] = {"compile_seconds": compile_s, "peak_memory_bytes": devices.peak_memory_bytes(device)}
    batches = loader(conventional_images(data, recipe), recipe, data.dataset.num_classes, workers)
    conventional = f"the conventional loop, {workers} workers"
    ways = {
        OURS: ours.epoch,
        STAGED: timed(Staged(config, training).epoch, device),
        conventional: timed(Loop(plain, recipe, batches, device).epoch, device),
        PIPELINE: timed(lambda: drain(split, recipe, scale), device),
    }
    timings = take_turns(ways, rounds)
    facts |= measured_facts(config, cost, device, timings, len(split), ours)
    amounts = dict.fromkeys(ways, float(len(split)))
    name = titled(f"{config.variant_name} {config.recipe_source} batch {recipe.batch_size}", config)
    return [
        timings.compare(title, "images/s", amounts, (OURS, baseline), goal(device.type, title), extra)
        for title, baseline, extra in ((f"train {name}", conventional, facts), (f"loop {name}", STAGED, {}))
    ]


def drain(split: DeviceSplit, recipe: Recipe, scale: Scaling) -> None:
    deque(training_batches(split, recipe, scale, np.random.default_rng(0)), maxlen=0)


class Staged:
    """The steps of the real loop and nothing else: no pipeline, no totals, no progress."""

    def __init__(self, config: RunConfig, training: Training):
        self.config, self.model, self.training, self.device = config, training.model, training, training.device
        batches = training_batches(training.train_split, config.recipe, training.scale, np.random.default_rng(0))
        self.batches: list[Batch] = list(batches)
        self.optimiser = make_optimiser(training.model, config.recipe)
        self.scaler = devices.gradient_scaler(self.device, config.precision)

    def epoch(self) -> None:
        recipe = self.config.recipe
        self.model.train()
        for step, batch in enumerate(self.batches):
            set_rate(self.optimiser, learning_rate(recipe, step, len(self.batches)))
            with devices.autocast(self.device, self.config.precision):
                loss, _ = self.training.loss_of(batch)
            self.scaler.scale(loss).backward()  # type: ignore[union-attr]  # a tensor's product is a tensor
            self.scaler.unscale_(self.optimiser)
            if recipe.clip:
                weights = list(self.model.parameters())
                norm = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
                clip_gradients(weights, recipe, norm)
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self.optimiser.zero_grad(set_to_none=True)
            if self.training.average is not None:
                self.training.average.update(self.model, step)


def measured_facts(
    config: RunConfig, cost: Cost, device: torch.device, timings: Rounds, images: int, ours: Ours
) -> dict[str, Any]:
    """How far from what the device could do."""
    size, epoch_s = config.recipe.batch_size, timings.median_s(OURS)
    step_s = epoch_s * size / images
    flops, bound = step_flops(config, cost), floors(config, cost, device)
    rate = matrix_rate(device, config.precision)
    return {
        "images": images,
        "step_ms": 1000 * step_s,
        "flops_floor_ms": None if bound.flops_s is None else 1000 * bound.flops_s,
        "bytes_floor_ms": None if bound.bytes_s is None else 1000 * bound.bytes_s,
        "share_of_bound": None if bound.bound_s is None else bound.bound_s / step_s,
        "model_flop_utilisation": None if flops is None else flops / step_s / rate,
        "matrix_tflops": rate / 1e12,
        "bandwidth_gb_per_s": bandwidth(device) / 1e9,
        "pipeline_share": timings.median_s(PIPELINE) / epoch_s,
        "joules_per_1000_images": 1000 * ours.joules / ours.images if ours.joules is not None else None,
        "precision": config.precision,
        "compile": config.compile,
    }
