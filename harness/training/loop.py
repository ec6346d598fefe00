"""The one training loop, read from top to bottom, and how it notices that the loss is no longer a number.
It writes no record: it yields each epoch and leaves the rest to its caller. No variant's name appears in it.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from harness.recipes import Recipe
from harness.training.checkpoint import Checkpoints, Position, restore, save
from harness.training.device import autocast, synchronise
from harness.training.evaluate import Evaluation, evaluate_seeds
from harness.training.optimiser import clip_gradients, gradient_norm, learning_rate, set_rate
from harness.training.progress import Progress
from harness.training.setup import Training, derive


@dataclass(frozen=True)
class Epoch:
    """The line for the record, and the predictions on the evaluated split."""

    line: dict[str, Any]
    evaluation: Evaluation


def train(
    training: Training, progress: Progress | None = None, checkpoints: Checkpoints | None = None
) -> Iterator[Epoch]:
    """Trains the model in place, from where the checkpoint left it, and yields after every epoch, evaluated."""
    for (epoch,) in train_seeds(training, progress, [checkpoints] if checkpoints else ()):
        yield epoch


def train_seeds(
    training: Training, progress: Progress | None = None, checkpoints: Sequence[Checkpoints] = ()
) -> Iterator[list[Epoch]]:
    """The same for all seeds of the training, an epoch of each at a time. One that diverges stands in
    `training.failures`, and the others go on; raises DivergenceError when none is left."""
    config, model, device = training.config, training.model, training.device
    optimiser, scaler, average = training.optimiser, training.scaler, training.average
    recipe, images_per_epoch, steps_per_epoch = config.recipe, len(training.train_split), training.steps_per_epoch
    weights = [p for p in model.parameters() if p.requires_grad]
    progress = progress or Progress("", recipe.epochs, images_per_epoch, quiet=True)
    torch.manual_seed(derive("dropout", *training.seeds))
    positions = restore(checkpoints, training)
    at, sums = positions[0], [position.sums for position in positions]  # they differ in nothing but their sums
    progress.begin((at.epoch - 1) * images_per_epoch + at.batches * recipe.batch_size)
    watch = LossWatch(recipe, steps_per_epoch, device, len(training.seeds))
    training.failures = watch.failures
    watch.last_good = [one.history.lines[-1] if one.history.lines else None for one in checkpoints] or watch.last_good
    for epoch in range(at.epoch, recipe.epochs + 1):
        model.train()
        synchronise(device)
        start_s = time.perf_counter() - at.seconds
        totals = torch.tensor(sums, dtype=torch.float64, device=device)  # of each seed over images: loss, correct
        images, step, lr = at.batches * recipe.batch_size, (epoch - 1) * steps_per_epoch + at.batches, recipe.lr
        batches = training.batches(training.train_split, epoch)
        for batch in islice(batches, at.batches, None):  # those that are done are drawn again, for the draws' sake
            lr = learning_rate(recipe, step, steps_per_epoch)
            set_rate(optimiser, lr)
            with autocast(device, config.precision):
                loss, of_batch = training.loss_of(batch)
            scaler.scale(loss.sum()).backward()  # type: ignore[union-attr]  # a tensor's product is a tensor
            scaler.unscale_(optimiser)
            norm = gradient_norm(weights, len(training.seeds))
            clip_gradients(weights, recipe, norm)
            watch.see(of_batch[..., 0] + watch.judged(norm, scaler), step)
            if device.type == "cpu":  # the host would wait for a GPU, which is asked after the epoch
                watch.check()
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad(set_to_none=True)
            if average is not None:
                average.update(model, step)
            totals += of_batch
            images += batch.labels.shape[-1]
            step += 1
            progress.batch(epoch, images, totals)
            if checkpoints and images < images_per_epoch and checkpoints[0].due():
                synchronise(device)
                watch.check()  # not into a checkpoint
                seconds, done = time.perf_counter() - start_s, images // recipe.batch_size
                save(checkpoints, [Position(epoch, done, seconds, own) for own in totals.tolist()], training)
                start_s = time.perf_counter() - seconds  # the time of saving does not count as training
        synchronise(device)
        seconds = time.perf_counter() - start_s
        watch.check()
        start_s = time.perf_counter()
        evaluations = evaluate_seeds(*training.evaluated_with)
        watch.see(torch.tensor([one.nll for one in evaluations], device=device), step - 1)  # of the last step's update
        watch.check()
        eval_seconds, split = time.perf_counter() - start_s, "val" if config.holdout else "test"
        epochs: list[Epoch] = []
        for seed, ((loss_sum, correct_sum), evaluation) in enumerate(zip(totals.tolist(), evaluations)):
            line = {"epoch": epoch, "train_loss": loss_sum / images, "train_accuracy": correct_sum / images}
            line |= {f"{split}_loss": evaluation.nll, f"{split}_accuracy": evaluation.accuracy, "lr": lr}
            line |= {"seconds": seconds, "eval_seconds": eval_seconds, "images_seen": epoch * images}
            watch.last_good[seed] = line
            epochs.append(Epoch(line, evaluation))
        progress.epoch(mean_line([one.line for seed, one in enumerate(epochs) if seed not in training.failures]))
        yield epochs
        at, sums = Position(epoch + 1), [Position().sums for _ in training.seeds]
        if checkpoints and (epoch == recipe.epochs or checkpoints[0].due()):
            save(checkpoints, [at for _ in checkpoints], training)


def mean_line(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is shown of several seeds."""
    if len(lines) == 1:
        return lines[0]
    return {name: type(value)(statistics.mean(line[name] for line in lines)) for name, value in lines[0].items()}


class DivergenceError(RuntimeError):
    """The loss or its gradient is no longer a number, in every seed that was trained."""

    def __init__(self, reasons: dict[int, str]):
        super().__init__(reasons[0])
        self.reasons = reasons


class LossWatch:
    """Notices the first step of each seed whose loss or gradient is not finite. `see` is called after every step and
    never makes the host wait for a GPU; `check` reads the answer into `failures`, and raises when no seed is left."""

    def __init__(self, recipe: Recipe, steps_per_epoch: int, device: torch.device, seeds: int = 1):
        self._recipe, self._steps_per_epoch = recipe, steps_per_epoch
        self.failures: dict[int, str] = {}  # why, by the seed's place
        self._first = torch.full((seeds,), -1, dtype=torch.int64, device=device)  # the first bad step
        self.last_good: list[dict[str, Any] | None] = [None] * seeds  # the line of the last whole epoch

    def see(self, value: torch.Tensor, step: int) -> None:
        self._first = torch.where((self._first < 0) & ~torch.isfinite(value), step, self._first)

    def check(self) -> None:
        for seed, bad in enumerate(self._first.tolist()):
            if bad >= 0 and seed not in self.failures:
                self.failures[seed] = self._reason(seed, bad)
        if len(self.failures) == len(self._first):
            raise DivergenceError(self.failures)

    def _reason(self, seed: int, step: int) -> str:
        rate, last = learning_rate(self._recipe, step, self._steps_per_epoch), self.last_good[seed]
        before = "before it there was no whole epoch"
        if last:
            before = f"the last good loss was {last['train_loss']:.4g}, over epoch {last['epoch']}"
        place = f"epoch {step // self._steps_per_epoch + 1}, step {step} (learning rate {rate:.3g})"
        return f"the loss or its gradient is not finite at {place}; {before}"

    @staticmethod
    def judged(norm: torch.Tensor, scaler: torch.amp.GradScaler) -> torch.Tensor:
        """The gradient's norm, or 0 while the loss is scaled up: then it may overflow because of the scale alone. The
        scaler skips such a step and halves the scale; at a scale of 1 or less an overflow is no longer excused."""
        if not scaler.is_enabled():
            return norm
        return torch.where(scaler.scale(torch.ones_like(norm)) > 1, 0.0, norm)  # type: ignore[arg-type]
