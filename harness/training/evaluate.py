"""Evaluation of a model on a split: accuracy, negative log-likelihood, a prediction for every image, and the accuracy
under corruptions. The model is left in the mode that it was in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from harness.data.corrupt import Corruptions
from harness.data.pipeline import DeviceSplit, Scaling
from harness.datasets import CORRUPTION_NAMES, CORRUPTION_STRENGTHS
from harness.training.device import autocast
from harness.training.world import ALONE, World

# Images evaluated at once, counted in those of 32 pixels: a GPU wants many, a CPU what its caches hold.
BATCH_IMAGES = {"cuda": 512, "cpu": 64}


@dataclass(frozen=True)
class Evaluation:
    accuracy: float
    nll: float
    predicted: np.ndarray
    confidence: np.ndarray


class Given(NamedTuple):
    """What is evaluated, in the order of `judged`'s arguments."""

    model: nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]
    split: DeviceSplit
    scale: Scaling
    precision: str
    world: World = ALONE


Judged = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # the same, on the device


def batch_size(split: DeviceSplit, compiled: bool = False) -> int:
    """Where each size would be compiled for, one that divides the split, unless that would halve it."""
    pixels = int(BATCH_IMAGES[split.labels.device.type] * 32 * 32)
    most = min(len(split), max(1, pixels // (split.images.shape[-1] * split.images.shape[-2])))
    dividing = (size for size in range(most, most // 2, -1) if compiled and len(split) % size == 0)
    return next(dividing, most)


@torch.no_grad()
def judged(
    model: nn.Module,
    forward: Callable[[torch.Tensor], torch.Tensor],
    split: DeviceSplit,
    scale: Scaling,
    precision: str,
    world: World = ALONE,
) -> list[Judged]:
    """One for each of the seeds that the model computes, left on the device: a GPU is not waited for. `forward`
    computes `model`, perhaps compiled for whole batches; every image counts once. Each process takes its share."""
    was_training = model.training
    model.eval()
    own = world.span(len(split))
    device, size, logits = split.labels.device, batch_size(split, forward is not model), []
    stop = max(own.stop, own.start + 1)  # without an image of its own it says how wide its logits are
    wanted = [slice(start, min(start + size, stop)) for start in range(own.start, stop, size)]
    with autocast(device, precision):
        for images in map(scale, split.in_turn(wanted)):
            logits.append((forward if len(images) == size else model)(images).float())
    model.train(was_training)
    logits_SNK = world.gathered(torch.cat(logits, dim=-2), len(split))
    return [_judged(logits_NK, split.labels) for logits_NK in logits_SNK.view(-1, *logits_SNK.shape[-2:])]


def _judged(logits_NK: torch.Tensor, labels: torch.Tensor) -> Judged:
    confidence, predicted = logits_NK.softmax(dim=1).max(dim=1)
    accuracy, nll = (predicted == labels).double().mean(), F.cross_entropy(logits_NK, labels)
    return accuracy, nll, predicted, confidence


def read(judged: Sequence[Judged]) -> list[Evaluation]:
    return [
        Evaluation(
            accuracy=accuracy.item(),
            nll=nll.item(),
            predicted=predicted.cpu().numpy().astype(np.uint16),
            confidence=confidence.cpu().numpy().astype(np.float32),
        )
        for accuracy, nll, predicted, confidence in judged
    ]


@torch.no_grad()
def evaluate_corrupted(given: Given, tell: Callable[[int], None]) -> list[dict[str, list[float]]]:
    """For each seed the accuracy under each corruption, weakest strength first. `tell` is called with the number of
    images done."""
    model, forward, split, scale, precision, world = given
    was_training = model.training
    model.eval()
    device, size, corruptions = split.labels.device, batch_size(split, forward is not model), Corruptions()
    none = torch.zeros((), dtype=torch.int64, device=device)
    correct = {kind: [none] * CORRUPTION_STRENGTHS for kind in CORRUPTION_NAMES}
    batches = [slice(start, start + size) for start in range(0, len(split), size)]
    own = split.in_turn(batches[world.rank :: world.size])
    for nth, rows in enumerate(batches):
        labels = split.labels[rows]
        if nth % world.size != world.rank:
            corruptions.skip((len(labels), *split.images.shape[1:]))
            continue
        for kind, strength, images in corruptions.of(next(own)):
            with autocast(device, precision):
                logits = (forward if len(images) == size else model)(scale(images))
            correct[kind][strength] = correct[kind][strength] + (logits.argmax(dim=-1) == labels).sum(dim=-1)
        tell(rows.start + len(labels))
    model.train(was_training)
    counted = {kind: world.sum(torch.stack(counts)) for kind, counts in correct.items()}
    by_kind = {kind: counts.view(CORRUPTION_STRENGTHS, -1).T.tolist() for kind, counts in counted.items()}
    seeds = range(len(next(iter(by_kind.values()))))
    return [{kind: [n / len(split) for n in counts[seed]] for kind, counts in by_kind.items()} for seed in seeds]
