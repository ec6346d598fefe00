"""Owns the optimiser, which weights decay, and the learning rate of every step.
Refuses names of variants and layers: decay is decided by the kind of layer.
"""

import math

import torch
from torch import nn

from harness.recipes import Recipe

DECAYING = (nn.Linear, nn.Conv1d, nn.Conv2d)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Decay on everything, or on the weights of linear and convolution layers alone: no norm, bias, position, token."""
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, DECAYING)}
    trained = [p for p in model.parameters() if p.requires_grad]
    decays = [p for p in trained if recipe.decay == "all" or id(p) in matrices]
    rest = [p for p in trained if recipe.decay != "all" and id(p) not in matrices]
    groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(parameter_groups(model, recipe), lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), fused=True)


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of a step, counted from 0. Time runs in steps or in epochs, and starts again with each cycle.

    Warm-up climbs from lr/W at time 0 to lr at time W - 1; the cosine falls from lr at time W towards lr_min, which it
    would reach one unit after the cycle's last.
    """
    per_epoch = 1 if recipe.schedule_unit == "epoch" else steps_per_epoch
    now = step // steps_per_epoch if recipe.schedule_unit == "epoch" else step
    total = recipe.epochs * per_epoch
    cycle = now * recipe.cycles // total
    start, end = (-(-total * c // recipe.cycles) for c in (cycle, cycle + 1))
    time, length = now - start, end - start
    warmup = round(recipe.warmup_epochs * per_epoch)
    if time < warmup:
        return recipe.lr * (time + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.lr
    share = (time - warmup) / max(1, length - warmup)
    return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(math.pi * share)) / 2
