"""The one training loop, read from top to bottom, and how it notices that the loss is no longer a number.
It writes no record: it yields each epoch and leaves the rest to its caller. No variant's name appears in it.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from harness.data.pipeline import training_batches
from harness.recipes import Recipe
from harness.training.checkpoint import Checkpoints, Position
from harness.training.device import autocast, synchronise
from harness.training.evaluate import Evaluation, evaluate
from harness.training.optimiser import clip_gradients, learning_rate, set_rate
from harness.training.progress import Progress
from harness.training.setup import Training, data_generator, derive


@dataclass(frozen=True)
class Epoch:
    """The line for the record, and the predictions on the evaluated split."""

    line: dict[str, Any]
    evaluation: Evaluation


def train(
    training: Training, progress: Progress | None = None, checkpoints: Checkpoints | None = None
) -> Iterator[Epoch]:
    """Trains the model in place, from where the checkpoint left it, and yields after every epoch, evaluated."""
    config, model, device = training.config, training.model, training.device
    optimiser, scaler, average = training.optimiser, training.scaler, training.average
    recipe, images_per_epoch, steps_per_epoch = config.recipe, len(training.train_split), training.steps_per_epoch
    weights = [p for p in model.parameters() if p.requires_grad]
    progress = progress or Progress("", recipe.epochs, images_per_epoch, quiet=True)
    torch.manual_seed(derive("dropout", config.seed))
    at = checkpoints.restore(training) if checkpoints else Position()
    progress.begin((at.epoch - 1) * images_per_epoch + at.batches * recipe.batch_size)
    watch = LossWatch(recipe, steps_per_epoch, device)
    watch.last_good = checkpoints.history.lines[-1] if checkpoints and checkpoints.history.lines else None
    for epoch in range(at.epoch, recipe.epochs + 1):
        model.train()
        synchronise(device)
        start_s = time.perf_counter() - at.seconds
        totals = torch.tensor(at.sums, dtype=torch.float64, device=device)  # sums over images: loss, correct
        images, step, lr = at.batches * recipe.batch_size, (epoch - 1) * steps_per_epoch + at.batches, recipe.lr
        batches = training_batches(training.train_split, recipe, training.scale, data_generator(config.seed, epoch))
        for batch in islice(batches, at.batches, None):  # those that are done are drawn again, for the draws' sake
            lr = learning_rate(recipe, step, steps_per_epoch)
            set_rate(optimiser, lr)
            with autocast(device, config.precision):
                loss, sums = training.loss_of(batch)
            scaler.scale(loss).backward()  # type: ignore[union-attr]  # a tensor's product is a tensor
            scaler.unscale_(optimiser)
            norm = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
            clip_gradients(weights, recipe, norm)
            watch.see(sums[0] + watch.judged(norm, scaler), step)
            if device.type == "cpu":  # the host would wait for a GPU, which is asked after the epoch
                watch.check()
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad(set_to_none=True)
            if average is not None:
                average.update(model, step)
            totals += sums
            images += len(batch.labels)
            step += 1
            progress.batch(epoch, images, totals)
            if checkpoints and images < images_per_epoch and checkpoints.due():
                synchronise(device)
                watch.check()  # not into a checkpoint
                seconds, done = time.perf_counter() - start_s, images // recipe.batch_size
                checkpoints.save(Position(epoch, done, seconds, totals.tolist()), training)
                start_s = time.perf_counter() - seconds  # the time of saving does not count as training
        synchronise(device)
        seconds = time.perf_counter() - start_s
        watch.check()
        start_s = time.perf_counter()
        evaluation = evaluate(*training.evaluated_with)
        if not math.isfinite(evaluation.nll):  # the last step's update is only seen here
            raise watch.diverged(step - 1)
        loss_sum, correct_sum = totals.tolist()
        split = "val" if config.holdout else "test"
        line = {"epoch": epoch, "train_loss": loss_sum / images, "train_accuracy": correct_sum / images}
        line |= {f"{split}_loss": evaluation.nll, f"{split}_accuracy": evaluation.accuracy, "lr": lr}
        line |= {"seconds": seconds, "eval_seconds": time.perf_counter() - start_s, "images_seen": epoch * images}
        watch.last_good = line
        progress.epoch(line)
        yield Epoch(line, evaluation)
        at = Position(epoch + 1)
        if checkpoints and (epoch == recipe.epochs or checkpoints.due()):
            checkpoints.save(at, training)


class DivergenceError(RuntimeError):
    """The loss or its gradient is no longer a number."""


class LossWatch:
    """Notices the first step whose loss or gradient is not finite. `see` is called after every step and never makes the
    host wait for a GPU; `check` reads the answer."""

    def __init__(self, recipe: Recipe, steps_per_epoch: int, device: torch.device):
        self._recipe, self._steps_per_epoch = recipe, steps_per_epoch
        self._first = torch.full((), -1, dtype=torch.int64, device=device)  # the first bad step
        self.last_good: dict[str, Any] | None = None  # the line of the last whole epoch

    def see(self, value: torch.Tensor, step: int) -> None:
        self._first = torch.where((self._first < 0) & ~torch.isfinite(value), step, self._first)

    def check(self) -> None:
        if (bad := int(self._first)) >= 0:
            raise self.diverged(bad)

    def diverged(self, step: int) -> DivergenceError:
        rate, last = learning_rate(self._recipe, step, self._steps_per_epoch), self.last_good
        before = "before it there was no whole epoch"
        if last:
            before = f"the last good loss was {last['train_loss']:.4g}, over epoch {last['epoch']}"
        place = f"epoch {step // self._steps_per_epoch + 1}, step {step} (learning rate {rate:.3g})"
        return DivergenceError(f"the loss or its gradient is not finite at {place}; {before}")

    @staticmethod
    def judged(norm: torch.Tensor, scaler: torch.amp.GradScaler) -> torch.Tensor:
        """The gradient's norm, or 0 while the loss is scaled up: then it may overflow because of the scale alone. The
        scaler skips such a step and halves the scale; at a scale of 1 or less an overflow is no longer excused."""
        if not scaler.is_enabled():
            return norm
        return torch.where(scaler.scale(torch.ones_like(norm)) > 1, 0.0, norm)  # type: ignore[arg-type]
