"""Owns the one training loop, read from top to bottom. A variant's name appears nowhere in it.
Refuses to write files: it yields a line an epoch and leaves the rest to its caller.
"""

import copy
import functools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from harness.config import RunConfig
from harness.data.augment.mixing import mix_images
from harness.data.pipeline import Batch, DeviceSplit, Scaling, training_batches
from harness.recipe import Recipe
from harness.training.checkpoint import Keeper, Parts, Position
from harness.training.device import autocast, gradient_scaler, synchronise
from harness.training.evaluate import Evaluation, evaluate
from harness.training.optimiser import clip_gradients, learning_rate, make_optimiser, set_rate
from harness.training.progress import Progress
from harness.training.seeds import data_generator, derive
from harness.training.watch import Watch

WARM_STEPS = 3  # the first compiles, the second runs as the graph will, the third records it


@dataclass(frozen=True)
class Epoch:
    """What one pass left: the line for the record, and the predictions on the evaluated split."""

    line: dict[str, Any]
    evaluation: Evaluation


def train(
    config: RunConfig,
    model: nn.Module,
    compute: "Compute",
    train_split: DeviceSplit,
    eval_split: DeviceSplit,
    scale: Scaling,
    progress: Progress,
    keeper: Keeper | None = None,
) -> Iterator[Epoch]:
    """Trains `model` in place, from where `keeper` found it, and yields after every pass, evaluated."""
    recipe, device, split_name = config.recipe, train_split.labels.device, "val" if config.holdout else "test"
    optimiser, scaler = make_optimiser(model, recipe), gradient_scaler(device, config.precision)
    steps_per_epoch = -(-len(train_split) // recipe.batch_size)
    torch.manual_seed(derive("dropout", config.seed))
    weights = [p for p in model.parameters() if p.requires_grad]
    parts = Parts(model, optimiser, compute.average.model if compute.average else None, scaler)
    at = keeper.restored(parts) if keeper else Position()
    progress.begin((at.epoch - 1) * len(train_split) + at.batches * recipe.batch_size)
    watch = Watch(recipe, steps_per_epoch, device)
    for line in keeper.carried.get("lines", []) if keeper else ():
        watch.epoch(line)
    for epoch in range(at.epoch, recipe.epochs + 1):
        model.train()
        synchronise(device)
        start_s = time.perf_counter() - at.seconds
        totals = torch.tensor(at.sums, dtype=torch.float64, device=device)  # sums over images: loss, correct
        images, step, lr = at.batches * recipe.batch_size, (epoch - 1) * steps_per_epoch + at.batches, recipe.lr
        batches = training_batches(train_split, recipe, scale, data_generator(config.seed, epoch))
        for batch in islice(batches, at.batches, None):  # those that are done are drawn again, for the draws' sake
            lr = learning_rate(recipe, step, steps_per_epoch)
            set_rate(optimiser, lr)
            with autocast(device, config.precision):
                loss, sums = compute.loss_of(model, batch, recipe)
            scaler.scale(loss).backward()  # type: ignore[union-attr]  # a tensor's product is a tensor
            scaler.unscale_(optimiser)
            norm = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
            clip_gradients(weights, recipe, norm)
            watch.see(sums[0] + watch.judged(norm, scaler), step)
            watch.check()
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad(set_to_none=True)
            if compute.average is not None:
                compute.average.update(model, step)
            totals += sums
            images += len(batch.labels)
            step += 1
            progress.batch(epoch, images, totals)
            if keeper and images < len(train_split) and keeper.due():
                synchronise(device)
                watch.check(wait=True)  # not into a checkpoint
                seconds, done = time.perf_counter() - start_s, images // recipe.batch_size
                keeper.save(Position(epoch, done, seconds, totals.tolist()), parts)
                start_s = time.perf_counter() - seconds  # what saving takes is no training
        synchronise(device)
        seconds = time.perf_counter() - start_s
        watch.check(wait=True)
        start_s = time.perf_counter()
        evaluation = evaluate(compute.judged, compute.forward, eval_split, scale, config.precision)
        if not math.isfinite(evaluation.nll):  # the last step's update is only seen here
            raise watch.diverged(step - 1)
        loss_sum, correct_sum = totals.tolist()
        line = {"epoch": epoch, "train_loss": loss_sum / images, "train_accuracy": correct_sum / images}
        line |= {f"{split_name}_loss": evaluation.nll, f"{split_name}_accuracy": evaluation.accuracy, "lr": lr}
        line |= {"seconds": seconds, "eval_seconds": time.perf_counter() - start_s, "images_seen": epoch * images}
        watch.epoch(line)
        progress.epoch(line)
        yield Epoch(line, evaluation)
        at = Position(epoch + 1)
        if keeper and (epoch == recipe.epochs or keeper.due()):
            keeper.save(at, parts)


def batch_loss(model: nn.Module, batch: Batch, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean loss to descend, and this batch's sums over images (loss, correct) for the record.

    A mixed image counts for each of its two labels by their share.
    """
    images = batch.images if batch.mix is None else mix_images(batch.images, batch.mix)
    logits = model(images).float()
    smoothing, guess, own = smoothing_of(recipe, logits.shape[1]), logits.argmax(dim=1), batch.labels
    losses = F.cross_entropy(logits, own, reduction="none", label_smoothing=smoothing)
    correct = (guess == own).double()
    if batch.mix is not None:
        other, share = batch.labels.roll(1), batch.mix.label_weight
        other_losses = F.cross_entropy(logits, other, reduction="none", label_smoothing=smoothing)
        losses = share * losses + (1 - share) * other_losses
        correct = share * correct + (1 - share) * (guess == other).double()
    return losses.mean(), torch.stack([losses.detach().double().sum(), correct.sum()])


def smoothing_of(recipe: Recipe, classes: int) -> float:
    """As PyTorch takes it, which spreads it over all classes, the true one included."""
    return recipe.label_smoothing * (classes / max(1, classes - 1) if recipe.smoothing_over == "others" else 1)


class Average:
    """Exponential moving average of the weights; short at first, so that it forgets the start."""

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = copy.deepcopy(model).requires_grad_(False), decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
        for mine, theirs in _by_dtype(self.model.buffers(), model.buffers()):
            torch._foreach_copy_(mine, theirs)


def _by_dtype(*lists: Iterable[torch.Tensor]) -> Iterable[list[list[torch.Tensor]]]:
    """The same lists for each dtype alone: only of one dtype are many tensors one launch."""
    groups: dict[torch.dtype, list[list[torch.Tensor]]] = {}
    for group in zip(*lists):
        for tensors, tensor in zip(groups.setdefault(group[0].dtype, [[] for _ in group]), group):
            tensors.append(tensor)
    return groups.values()


class Compute:
    """The two functions that take the time, compiled if the config says so: the loss of the model in training, and the
    forward pass of the model that is judged, which is its average if the recipe keeps one."""

    def __init__(self, model: nn.Module, config: RunConfig):
        self.average = Average(model, config.recipe.ema) if config.recipe.ema else None
        self.judged = self.average.model if self.average else model
        self.forward: Any = self.judged
        self.compiled_loss: Any = None
        self.whole_batch = config.recipe.batch_size
        if config.compile:
            device = next(model.parameters()).device
            forget_compiled_for_others(config.cell_id, config.dataset, device)
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            # A small ViT's step is hundreds of short kernels: as one CUDA graph they start together. What it returns
            # the next step overwrites, so the loop reads it at once; evaluation keeps its results and gets no graph.
            mode = "reduce-overhead" if device.type == "cuda" else "default"
            self.compiled_loss = torch.compile(batch_loss, dynamic=False, mode=mode)
            self.forward = torch.compile(self.judged, dynamic=False)

    def loss_of(self, model: nn.Module, batch: Batch, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
        """One short batch an epoch is not worth a compilation."""
        if self.compiled_loss is None or len(batch.labels) < self.whole_batch:
            return batch_loss(model, batch, recipe)
        return self.compiled_loss(model, batch, recipe)


@functools.lru_cache(maxsize=1)
def forget_compiled_for_others(cell_id: str, dataset: str, device: torch.device) -> None:
    """PyTorch compiles a function for a few shapes a process and then stops: a sweep has many cells. A second call in a
    row for the same cell, which comes with another seed, does nothing: that cell's code is used again."""
    torch._dynamo.reset()


def warm_up(
    config: RunConfig,
    model: nn.Module,
    compute: Compute,
    train_split: DeviceSplit,
    eval_split: DeviceSplit,
    scale: Scaling,
) -> float | None:
    """Compiles for a whole batch and for the evaluation, so that no epoch's time holds compilation; the weights and
    statistics stay as they were. Returns the seconds, or None where nothing is compiled."""
    if not config.compile:
        return None
    start_s = time.perf_counter()
    before = copy.deepcopy(model.state_dict())
    recipe, device = config.recipe, train_split.labels.device
    compute.whole_batch = count = min(recipe.batch_size, len(train_split))
    few = DeviceSplit(train_split.images[:count], train_split.labels[:count])
    model.train()
    for _ in range(WARM_STEPS):
        batch = next(training_batches(few, recipe, scale, data_generator(config.seed, 0)))
        with autocast(device, config.precision):
            loss, _ = compute.loss_of(model, batch, recipe)
        loss.backward()
        model.zero_grad(set_to_none=True)
    evaluate(compute.judged, compute.forward, eval_split, scale, config.precision)
    model.load_state_dict(before)
    synchronise(device)
    return time.perf_counter() - start_s
