"""What a run trains with, as one object: the model and its average, the optimiser, the data on the device, and the two
functions that take the time, compiled if the config says so. A benchmark builds the same object without a record.
"""

import contextlib
import copy
import functools
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from harness.config import RunConfig
from harness.data.augment.mixing import Mix, mix_images
from harness.data.load import ImageData, Split
from harness.data.pipeline import Batch, DeviceSplit, Scaling, Share, scaling, to_device, training_batches
from harness.data.resident import residency
from harness.recipes import Recipe
from harness.training.device import autocast, gradient_scaler, synchronise, takes_graph
from harness.training.evaluate import Given, judged
from harness.training.optimiser import make_optimiser
from harness.training.signals import at_once
from harness.training.together import StackedSeeds
from harness.training.world import ALONE, World
from variants.fields import UsageError
from variants.weights import digest_of, path_of, start, tensors_of

WARM_STEPS = 3  # compiling; where the loss by itself becomes a graph, running as that will, and recording it


def derive(purpose: str, *parts: int) -> int:
    """A 63-bit seed. The same purpose and parts give the same seed everywhere; nothing else enters."""
    text = ":".join([purpose, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def data_generator(seed: int, epoch: int) -> np.random.Generator:
    """Draws an epoch's order, augmentation and mixing: the same for every variant, recipe and device."""
    return np.random.default_rng(derive("data", seed, epoch))


def starting_from(configs: Sequence[RunConfig], place: Path) -> list[RunConfig]:
    """The same runs from weights on disk."""
    if any(getattr(config.variant, "pretrained", False) for config in configs):
        raise UsageError("variant.pretrained=true starts from timm's weights: leave out that or --weights")
    path = path_of(place)
    start = {"weights": str(path), "weights_digest": digest_of(tensors_of(path))}
    started = [replace(config, **start) for config in configs]
    return [replace(config, overrides=(*config.overrides, f"weights={config.origin}")) for config in started]


def build_model(config: RunConfig, device: torch.device) -> nn.Module:
    """The variant, initialised by a seed that no data depends on, or from weights where it starts from some."""
    torch.manual_seed(derive("init", config.seed))
    model = config.variant.module()
    if config.weights_digest:
        start(model, config.weights, config.weights_digest)
    return model.to(device)


@dataclass(frozen=True)
class Stepping:
    """How steps are computed; their results do not depend on it but for rounding, and dropout's numbers."""

    graph: bool = True  # a GPU's step as one CUDA graph
    accumulate: int = 1  # parts of a batch, one after the other
    resident: str = "auto"  # where the images are kept; see harness/data/resident.py
    world: World = ALONE


PLAIN = Stepping()


class Training:
    """Everything that a training step or an evaluation needs. A checkpoint holds its model, optimiser, average and
    scaler. With several seeds `config` is that of any of them."""

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        train_split: DeviceSplit,
        eval_split: DeviceSplit,
        scale: Scaling,
        stepping: Stepping = PLAIN,
    ):
        self.config, self.model, self.stepping, self.world = config, model, stepping, stepping.world
        self.seeds = model.seeds if isinstance(model, StackedSeeds) else (config.seed,)
        self.failures: dict[int, str] = {}  # why a seed, by its place, is no longer trained
        self.train_split, self.eval_split, self.scale = train_split, eval_split, scale
        self.device = train_split.labels.device
        self.average = Average(model, config.recipe.ema) if config.recipe.ema else None
        self.judged = self.average.model if self.average else model
        self.optimiser = make_optimiser(model, config.recipe)
        self.scaler = gradient_scaler(self.device, config.precision)
        self.steps_per_epoch = -(-len(train_split) // config.recipe.batch_size)
        self.whole_batch = min(config.recipe.batch_size, len(train_split))
        self.share, self.pieces = Share(self.world.rank, self.world.size), self.world.size * stepping.accumulate
        can = self.world.size == 1 and takes_graph(self.device, config.precision)
        self.is_graph = stepping.graph and can  # the whole step, on a GPU
        self.graph_seconds: float | None = None  # of recording it
        self.averaging: Any = self.world.averaging(model)  # computes the model
        self.forward = compiled_forward(self.judged, config)
        self.compiled_loss: Any = None
        if config.compile:
            # Where the whole step is no graph, on a GPU the loss is: a small ViT's is hundreds of short kernels. The
            # next call overwrites what it returns, gradients too, so it is read at once; a batch's parts add up their
            # gradients, and evaluation keeps its results: no graph.
            is_alone = self.device.type == "cuda" and not self.is_graph and self.pieces == 1
            mode = "reduce-overhead" if is_alone else "default"
            self.compiled_loss = torch.compile(seeds_loss, dynamic=False, mode=mode)

    def loss_of(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """One short batch an epoch is not worth a compilation."""
        is_short = len(batch) < self.whole_batch // self.pieces
        compute = seeds_loss if self.compiled_loss is None or is_short else self.compiled_loss
        loss, sums = compute(self.averaging, replace(batch, images=self.scale(batch.images)), self.config.recipe)
        if batch.weight == 1:
            return loss, sums
        return loss * batch.weight, sums * (batch.weight > 0)  # here: each weight would be compiled for

    def parts(self, batch: Batch) -> Iterator[tuple[Batch, contextlib.AbstractContextManager[Any]]]:
        """What of a batch is computed at once, each part inside of what it comes with: gradients are averaged over the
        processes with the last."""
        parts = batch.parts(self.stepping.accumulate)
        for part in parts:
            alone = self.world.size == 1 or part is parts[-1]
            yield part, contextlib.nullcontext() if alone else self.averaging.no_sync()

    def batches(self, split: DeviceSplit, epoch: int, done: int = 0) -> Iterator[Batch]:
        """Each seed has its own order, augmentation and mixing; the first ones are left out where they are done."""
        drawn = (data_generator(seed, epoch) for seed in self.seeds)
        return training_batches(split, self.config.recipe, self.scale, *drawn, share=self.share, done=done)

    def whole_example(self) -> Batch:
        """A whole batch, to warm up with."""
        split, count = self.train_split, self.whole_batch
        return next(self.batches(DeviceSplit(split.images[:count], split.labels[:count]), 0))

    def go_uncompiled(self) -> None:
        self.compiled_loss, self.forward = None, self.judged
        self.model.zero_grad(set_to_none=True)

    @property
    def evaluated_with(self) -> Given:
        return Given(self.judged, self.forward, self.eval_split, self.scale, self.config.precision, self.world)


def prepared(
    config: RunConfig, model: nn.Module, data: ImageData, splits: tuple[Split, Split], stepping: Stepping = PLAIN
) -> Training:
    """`splits`: trained on, evaluated on; brought to the model's device, or kept for it."""
    device = next(model.parameters()).device
    stepping = replace(stepping, resident=residency(splits, device, stepping.resident))
    with at_once():
        train_split, eval_split = (to_device(split, device, stepping.resident) for split in splits)
    return Training(config, model, train_split, eval_split, scaling(data, config.recipe, device), stepping)


def seeds_loss(model: nn.Module, batch: Batch, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """`batch_loss`, of several seeds with a number for each."""
    if not isinstance(model, StackedSeeds):
        return batch_loss(model, batch, recipe)

    def of_seed(own: Any, images: torch.Tensor, labels: torch.Tensor, *mix: torch.Tensor) -> Any:
        return batch_loss(own, Batch(images, labels, Mix(*mix) if mix else None, batch.partners), recipe)

    return model.each(of_seed, batch.images, batch.labels, *(batch.mix or ()))


def batch_loss(model: Any, batch: Batch, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss to descend, and this batch's sums over images (loss, correct) for the record.

    A mixed image counts for each of its two labels by their share.
    """
    images, first = batch.images if batch.mix is None else mix_images(batch.images, batch.mix), batch.partners
    logits = model(images[first:])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    smoothing, guess, own = smoothing_of(recipe, logits.shape[1]), logits.argmax(dim=1), batch.labels[first:]
    losses = F.cross_entropy(logits, own, reduction="none", label_smoothing=smoothing)
    correct = (guess == own).double()
    if batch.mix is not None:
        other, share = batch.labels.roll(1)[first:], batch.mix.label_weight[first:]
        other_losses = F.cross_entropy(logits, other, reduction="none", label_smoothing=smoothing)
        losses = share * losses + (1 - share) * other_losses
        correct = share * correct + (1 - share) * (guess == other).double()
    counted = losses.detach().double().sum(), correct.sum()
    return losses.mean(), torch.stack(counted)


def smoothing_of(recipe: Recipe, classes: int) -> float:
    """As PyTorch takes it, which spreads it over all classes, the true one included."""
    return recipe.label_smoothing * (classes / max(1, classes - 1) if recipe.smoothing_over == "others" else 1)


class Average:
    """Exponential moving average of the weights; short at first, so that it forgets the start."""

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = copy.deepcopy(model).requires_grad_(False), decay

    def weight(self, step: int) -> float:
        """Of the weights after this step."""
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, model: nn.Module, weight: float | torch.Tensor) -> None:
        mine, theirs = ([p.detach() for p in one.parameters()] for one in (self.model, model))
        if isinstance(weight, float):
            torch._foreach_lerp_(mine, theirs, weight)
        else:  # which lies on the device: lerp takes none for all
            changes = torch._foreach_sub(theirs, mine)
            torch._foreach_mul_(changes, weight)
            torch._foreach_add_(mine, changes)
        for mine, theirs in zip(self.model.buffers(), model.buffers()):  # a batch norm's statistics
            mine.copy_(theirs)


def compiled_forward(model: nn.Module, config: RunConfig) -> Any:
    """The model for whole batches of an evaluation; the model itself if nothing is to be compiled."""
    if not config.compile:
        return model
    forget_compiled_for_others(config.cell_id, config.dataset, next(model.parameters()).device)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(model, dynamic=False)


@functools.lru_cache(maxsize=1)
def forget_compiled_for_others(cell_id: str, dataset: str, device: torch.device) -> None:
    """PyTorch compiles a function for a few shapes a process and then stops: a sweep has many cells. A second call in a
    row for the same cell, which comes with another seed, does nothing: that cell's code is used again."""
    torch._dynamo.reset()


def warm_up(training: Training) -> float | None:
    """Compiles for a whole batch and for the evaluation, so that no epoch's time holds compilation; the weights and
    statistics stay as they were. Returns the seconds, or None where nothing is compiled."""
    config, model = training.config, training.model
    if not config.compile:
        return None
    start_s = time.perf_counter()
    before = copy.deepcopy(model.state_dict())
    model.train()
    try:
        for _ in range(WARM_STEPS):
            for part, together in training.parts(training.whole_example()):
                with together, autocast(training.device, config.precision):
                    loss, _ = training.loss_of(part)
                    loss.sum().backward()
            model.zero_grad(set_to_none=True)
        judged(*training.evaluated_with)
    finally:
        model.load_state_dict(before)
    synchronise(training.device)
    return time.perf_counter() - start_s
