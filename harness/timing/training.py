"""Benchmarks of training: a recipe's input pipeline against torchvision's, and an epoch of the real loop against the
conventional loop and against the same steps on batches made beforehand. With the two floors under a step: its FLOPs
over the measured matrix rate, and its bytes over the measured bandwidth; whichever takes longer bounds the step.
"""

import copy
import statistics
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from harness.config import RunConfig
from harness.counting.closed_form import items, total
from harness.counting.cost import cost_of
from harness.data.load import ImageData
from harness.data.pipeline import DeviceSplit, Scaling, scaling, to_device, training_batches
from harness.datasets import DATASETS
from harness.recipes import Recipe, shortened
from harness.records.benchmarks import Comparison
from harness.records.environment import cores
from harness.timing.conventional import Loop, conventional_batches
from harness.timing.turns import OURS, Rounds, Way, configured, made_up, seconds_of, take_turns, timed, titled
from harness.training import device as devices
from harness.training.loop import train, train_seeds
from harness.training.setup import Stepping, Training, build_model, data_generator, prepared, warm_up
from harness.training.step import DivergenceError, Step
from harness.training.together import stack_models
from variants.config import ViTConfig
from variants.fields import UsageError

CIFAR = DATASETS["c10"].train_count  # images of an epoch
STAGED, PIPELINE = "the same steps on staged batches", "the input pipeline alone"


def compare_pipelines(args: Namespace) -> Iterator[Comparison]:
    """One epoch's images each; torchvision's workers are running when its clock starts."""
    device, (config,) = configured(args, ["compact"])
    recipe, workers, data = config.recipe, args.workers or cores(), made_up(DATASETS[config.dataset], args.images)
    split, scale = to_device(data.train, device), scaling(data, recipe, device)
    theirs = conventional_batches(data, recipe, workers)
    baseline = f"torchvision on PIL images, {workers} workers"
    ways = {
        OURS: timed(lambda: drain(split, recipe, scale), device, args.images),
        baseline: timed(lambda: deque(theirs, maxlen=0), device, args.images),
    }
    facts = {"images": args.images, "batch_size": recipe.batch_size, "augment": list(recipe.augment)}
    title = titled(f"pipeline {config.recipe_source}", config)
    yield take_turns(ways, args.rounds).compare(title, "images/s", OURS, baseline, facts)


def drain(split: DeviceSplit, recipe: Recipe, scale: Scaling) -> None:
    """An epoch's batches, scaled."""
    deque((scale(batch.images) for batch in training_batches(split, recipe, scale, data_generator(0, 1))), maxlen=0)


def compare_training(args: Namespace) -> Iterator[Comparison]:
    device, configs = configured(args, args.variant)
    for config in configs:
        size = config.recipe.batch_size
        steps = args.steps or (20 if device.type == "cpu" else -(-CIFAR // size))  # 20 of a GPU's take milliseconds
        data = made_up(DATASETS[config.dataset], steps * size)
        try:
            yield from _compare_loops(config, data, device, args)
        except DivergenceError as error:
            raise UsageError(f"{config.variant_name} on noise: {error}; --set recipe.lr to a lower one") from None


def _compare_loops(config: RunConfig, data: ImageData, device: torch.device, args: Namespace) -> list[Comparison]:
    rounds, workers, images = args.rounds, args.workers or cores(), len(data.train)
    recipe = shortened(config.recipe, rounds + 2)  # an epoch here, one of take_turns's warm-up
    model = build_model(config, device)
    config, splits = replace(config, recipe=recipe), (data.train, data.test)
    training = prepared(config, model, data, splits, Stepping(args.graph == "on"))
    conventional = f"the conventional loop, {workers} workers"
    loop = Loop(copy.deepcopy(model), recipe, conventional_batches(data, recipe, workers), device)
    devices.forget_peak_memory(device)
    facts: dict[str, Any] = {"compile_seconds": warm_up(training)}
    epochs, joules = train(training), []

    def ours() -> float:
        """Evaluation is not in its seconds."""
        meter = devices.Meter(device)
        line = next(epochs).line
        joules.append(meter.joules())
        return line["seconds"]

    ours()
    facts["peak_memory_bytes"] = devices.peak_memory_bytes(device)
    ways = {
        OURS: Way(ours, images),
        STAGED: timed(Staged(training).steps, device, images),
        conventional: timed(loop.epoch, device, images),
        PIPELINE: timed(lambda: drain(training.train_split, recipe, training.scale), device, images),
    }
    timings = take_turns(ways, rounds)
    per_1000_images = None if None in joules else 1000 * statistics.mean(joules) / images
    facts |= measured_facts(config, device, timings) | {"joules_per_1000_images": per_1000_images}
    facts["graph"] = training.is_graph
    name = titled(f"{config.variant_name} {config.recipe_source} batch {recipe.batch_size}", config)
    return [
        timings.compare(f"train {name}", "images/s", OURS, conventional, facts),
        timings.compare(f"loop {name}", "images/s", OURS, STAGED),
    ]


def compare_seeds(args: Namespace) -> Iterator[Comparison]:
    """An epoch of several seeds as one against their epochs one after another; evaluation is not in it."""
    device, configs = configured(args, args.variant)
    for config in configs:
        steps = args.steps or (5 if device.type == "cpu" else -(-CIFAR // config.recipe.batch_size))
        images = steps * config.recipe.batch_size
        data = made_up(DATASETS[config.dataset], images)
        runs_an_hour = 3600 * images / (CIFAR * config.recipe.epochs)  # that one second an epoch is
        longer = replace(config, recipe=shortened(config.recipe, args.rounds + 2))

        def epochs_of(seeds: int, config: RunConfig = longer, data: ImageData = data) -> Callable[[], float]:
            models = [build_model(replace(config, seed=seed), device) for seed in range(seeds)]
            model, stepping = stack_models(models, range(seeds)), Stepping(args.graph == "on")
            training = prepared(config, model, data, (data.train, data.test), stepping)
            warm_up(training)
            epochs = train_seeds(training)
            return lambda: next(epochs)[0].line["seconds"]

        counts = [1, *(n for n in args.at_once if n > 1)]
        ways = {f"{n} at once": Way(epochs_of(n), n * runs_an_hour) for n in counts}
        timings = take_turns(ways, args.rounds)
        name = titled(f"{config.variant_name} {config.recipe_source} batch {config.recipe.batch_size}", config)
        for n in counts[1:]:
            times = timings.median_s(f"{n} at once") / timings.median_s("1 at once")
            facts = {"times_of_one": times, "images": images, "compile": config.compile, "precision": config.precision}
            facts["graph"] = args.graph == "on" and devices.takes_graph(device, config.precision)
            yield timings.compare(f"seeds {name}, {n} at once", "seeds/h", f"{n} at once", "1 at once", facts)


class Staged:
    """The steps of the real loop and nothing else, on an epoch's batches made beforehand: no pipeline, no progress."""

    def __init__(self, training: Training):
        self.training, self.step = training, Step(training)
        self.batches = list(training.batches(training.train_split, 1))

    def steps(self, count: int | None = None) -> None:
        """So many, or an epoch."""
        self.training.model.train()
        for number, batch in enumerate(self.batches[:count]):
            self.step(batch, number)


def measured_facts(config: RunConfig, device: torch.device, timings: Rounds) -> dict[str, Any]:
    """How far from what the device could do; None where the variant cannot be counted."""
    images, epoch_s = round(timings.ways[OURS].amount), timings.median_s(OURS)
    step_s = epoch_s * config.recipe.batch_size / images
    flops, moved, rate = step_flops(config), step_bytes(config), matrix_rate(device, config.precision)
    flops_s, bytes_s = flops and flops / rate, moved and moved / bandwidth(device)  # None stays None
    return {
        "images": images,
        "step_ms": 1000 * step_s,
        "flops_floor_ms": flops_s and 1000 * flops_s,
        "bytes_floor_ms": bytes_s and 1000 * bytes_s,
        "share_of_bound": max(flops_s or 0, bytes_s or 0) / step_s or None,
        "model_flop_utilisation": flops_s and flops_s / step_s,
        "matrix_tflops": rate / 1e12,
        "bandwidth_gb_per_s": bandwidth(device) / 1e9,
        "pipeline_share": timings.median_s(PIPELINE) / epoch_s,
        "precision": config.precision,
        "compile": config.compile,
    }


# --- the floors under a step ------------------------------------------------------------------------------------------

TRIES = 7
MATRIX_SIDE = {"cpu": 1536, "cuda": 8192}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
PARAMETER_ACCESSES = 10  # weight read forward and backward, gradient written; then read with m, v, weight; 3 written
RESULT_ACCESSES = 5  # written and read forward, read again backward, where its gradient is written and read


def step_flops(config: RunConfig) -> float | None:
    """Forward, and twice that backward; 2 FLOPs a MAC."""
    macs = cost_of(config.variant_name, config.variant, config.dataset, check=False).macs
    return None if macs is None else 6.0 * macs * config.recipe.batch_size


def step_bytes(config: RunConfig) -> float | None:
    """The least traffic if every product is one kernel with all that is elementwise fused into it, and attention
    weights are never written. Parameters and their moments are float32."""
    if type(config.variant) is not ViTConfig:
        return None
    layers = list(items(config.variant))
    scores = config.variant.depth * config.variant.heads * config.variant.tokens**2
    results = total(layers, "activations") - scores
    width = devices.DTYPES[config.precision].itemsize
    moved_by_parameters = 4.0 * PARAMETER_ACCESSES * total(layers, "params")
    return moved_by_parameters + 1.0 * width * RESULT_ACCESSES * results * config.recipe.batch_size


@cache
def matrix_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of one large square product, the median of a few. Measured, not taken from a data sheet."""
    side, dtype = MATRIX_SIDE[device.type], devices.DTYPES[precision]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2.0 * side**3 / _median_s(lambda: a @ b, device)


@cache
def bandwidth(device: torch.device) -> float:
    """Bytes/s of a large copy, reading and writing both counted."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * source.numel() / _median_s(lambda: target.copy_(source), device)


def _median_s(work: Callable[[], Any], device: torch.device) -> float:
    seconds_of(work, device)
    return statistics.median(seconds_of(work, device) for _ in range(TRIES))
