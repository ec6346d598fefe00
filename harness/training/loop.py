"""The one training loop, read from top to bottom. It writes no record: it yields each epoch and leaves the rest to its
caller. No variant's name appears in it.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch

from harness.data.pipeline import Batch
from harness.training.checkpoint import Checkpoints, Position, restore, save
from harness.training.device import synchronise
from harness.training.evaluate import Evaluation, judged, read
from harness.training.optimiser import learning_rate
from harness.training.progress import Progress
from harness.training.setup import Training, derive
from harness.training.step import Step
from variants.fields import UsageError


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
    config, device = training.config, training.device
    recipe, images_per_epoch, steps_per_epoch = config.recipe, len(training.train_split), training.steps_per_epoch
    progress = progress or Progress("", recipe.epochs, images_per_epoch, quiet=True)
    torch.manual_seed(derive("dropout", *training.seeds))
    positions = restore(checkpoints, training)
    at, sums = positions[0], [position.sums for position in positions]  # they differ in nothing but their sums
    progress.begin((at.epoch - 1) * images_per_epoch + at.batches * recipe.batch_size)
    step = Step(training)
    watch, batches = step.watch, training.batches(training.train_split, at.epoch, at.batches)
    watch.last_good = [one.history.lines[-1] if one.history.lines else None for one in checkpoints] or watch.last_good

    def keep(seconds: float | None = None) -> None:
        """Inside of an epoch, or at its end before it is evaluated, with its seconds."""
        nonlocal start_s
        synchronise(device)
        watch.check()  # not into a checkpoint
        seconds, done = seconds or time.perf_counter() - start_s, -(-images // recipe.batch_size)
        save(checkpoints, [Position(epoch, done, seconds, own) for own in step.totals.tolist()], training)
        start_s = time.perf_counter() - seconds  # the time of saving does not count as training

    for epoch in range(at.epoch, recipe.epochs + 1):
        training.model.train()
        synchronise(device)
        start_s = time.perf_counter() - at.seconds
        step.totals.copy_(torch.tensor(sums, dtype=torch.float64))
        images = min(at.batches * recipe.batch_size, images_per_epoch)
        number = (epoch - 1) * steps_per_epoch + at.batches
        with kept_after_error(keep):
            for batch in batches:
                step(batch, number)
                images = min(images + recipe.batch_size, images_per_epoch)
                number += 1
                progress.batch(epoch, images, step.totals)
                if checkpoints and images < images_per_epoch and checkpoints[0].due():
                    keep()
        synchronise(device)
        seconds = time.perf_counter() - start_s
        watch.check()
        start_s = time.perf_counter()
        with kept_after_error(partial(keep, seconds)):
            on_device = judged(*training.evaluated_with)
            drawing_s, batches = drawn_ahead(training, epoch + 1)
        found = read(on_device)
        watch.see(torch.tensor([one.nll for one in found], device=device), number - 1)  # of the last step's update
        watch.check()
        lr = learning_rate(recipe, number - 1, steps_per_epoch)
        eval_seconds, split = time.perf_counter() - start_s - drawing_s, "val" if config.holdout else "test"
        epochs: list[Epoch] = []
        for seed, ((loss_sum, correct_sum), evaluation) in enumerate(zip(step.totals.tolist(), found)):
            line = {"epoch": epoch, "train_loss": loss_sum / images, "train_accuracy": correct_sum / images}
            line |= {f"{split}_loss": evaluation.nll, f"{split}_accuracy": evaluation.accuracy, "lr": lr}
            line |= {"seconds": seconds, "eval_seconds": eval_seconds, "images_seen": epoch * images}
            watch.last_good[seed] = line
            epochs.append(Epoch(line, evaluation))
        progress.epoch(mean_line([one.line for seed, one in enumerate(epochs) if seed not in training.failures]))
        yield epochs
        if checkpoints and (epoch == recipe.epochs or checkpoints[0].due()):
            save(checkpoints, [Position(epoch + 1) for _ in checkpoints], training)
        at, sums = Position(epoch + 1, seconds=drawing_s), [Position().sums for _ in training.seeds]


@contextlib.contextmanager
def kept_after_error(keep: Callable[[], None]) -> Iterator[None]:
    """Where a file can no longer be read, the run ends and is kept as it is."""
    try:
        yield
    except (UsageError, OSError):
        keep()
        raise


def drawn_ahead(training: Training, epoch: int) -> tuple[float, Iterator[Batch]]:
    """An epoch's batches, and the host's seconds that went into them already. While a GPU is still evaluating, the host
    draws the first, so that no epoch begins with an idle GPU. These seconds count as the epoch's, not as evaluation's,
    although both go on at once."""
    batches, start_s = training.batches(training.train_split, epoch), time.perf_counter()
    if training.device.type == "cuda" and epoch <= training.config.recipe.epochs:
        batches = chain([next(batches)], batches)
    return time.perf_counter() - start_s, batches


def mean_line(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is shown of several seeds."""
    if len(lines) == 1:
        return lines[0]
    return {name: type(value)(statistics.mean(line[name] for line in lines)) for name, value in lines[0].items()}
