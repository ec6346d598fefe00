"""The optimiser, which weights decay (decided by the kind of layer, never by a name), and the learning rate of every
step.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from harness.recipes import Recipe
from harness.training.together import StackedSeeds

DECAYING = (nn.Linear, nn.Conv1d, nn.Conv2d)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """What decays, all alike, and what does not: see Recipe.decay."""
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, DECAYING)}
    stacked = isinstance(model, StackedSeeds)
    is_decaying = {
        "all": lambda p: True,
        "matrices": lambda p: p.ndim - stacked >= 2,
        "weights": lambda p: id(p) in matrices,
    }[recipe.decay]
    trained = [p for p in model.parameters() if p.requires_grad]
    decays = [p for p in trained if is_decaying(p)]
    rest = [p for p in trained if not is_decaying(p)]
    groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(parameter_groups(model, recipe), lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), fused=True)


def set_rate(optimiser: torch.optim.Optimizer, lr: float | torch.Tensor) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def gradient_norm(weights: Sequence[nn.Parameter], seeds: int = 1) -> torch.Tensor:
    """Over all weights; of stacked ones a number for each seed."""
    gradients = [p.grad for p in weights if p.grad is not None]
    if seeds == 1:
        return nn.utils.get_total_norm(gradients)
    return torch.cat([g.reshape(seeds, -1) for g in gradients], dim=1).norm(dim=1)


@torch.no_grad()
def clip_gradients(weights: Sequence[nn.Parameter], recipe: Recipe, total_norm: torch.Tensor) -> None:
    """Scales gradients down to the recipe's largest norm, all together or each by itself; each seed by its own norm."""
    if not recipe.clip:
        return
    gradients = [p.grad for p in weights if p.grad is not None]
    if total_norm.ndim:
        norms = [total_norm] * len(gradients)
        if recipe.clip_scope != "all":
            norms = [g.reshape(len(g), -1).norm(dim=1) for g in gradients]
        shares = (recipe.clip / (torch.stack(norms) + 1e-6)).clamp(max=1.0).unbind()
        torch._foreach_mul_(gradients, [s.view(-1, *[1] * (g.ndim - 1)) for s, g in zip(shares, gradients)])
    elif recipe.clip_scope == "all":
        nn.utils.clip_grads_with_norm_(weights, recipe.clip, total_norm)
    else:
        norms = torch.stack(torch._foreach_norm(gradients))
        torch._foreach_mul_(gradients, (recipe.clip / (norms + 1e-6)).clamp(max=1.0).unbind())


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of a step, counted from 0. Time runs in steps or in the schedule's epochs, and starts again with each
    cycle.

    Warm-up takes W units of time. A linear one climbs from lr/W at time 0 to lr at time W - 1, one `from-min` from
    lr_min at time 0 to lr at time W; a harmonic one is at lr/W, lr/(W - 1), ..., lr. At time W the cosine is at lr; it
    falls towards lr_min, which it would reach at the cycle's end, or with `cosine_over=cycle` W units after it.
    """
    per_epoch = 1 if recipe.schedule_unit == "epoch" else steps_per_epoch
    total = recipe.time_epochs * per_epoch
    now = step * total // (recipe.epochs * steps_per_epoch) - round(recipe.late_epochs * per_epoch)
    if now < 0 and recipe.cycles > 1:  # restarts are periodic: before the first cycle comes the end of one
        now += total
    cycle = max(0, now) * recipe.cycles // total
    start, end = (-(-total * c // recipe.cycles) for c in (cycle, cycle + 1))
    time, length = now - start, end - start
    warmup = round(recipe.warmup_epochs * per_epoch)
    if warmup and time < warmup:
        return _warming_up(recipe, time, warmup)
    if recipe.schedule == "constant":
        return recipe.lr
    fall = length if recipe.cosine_over == "cycle" else length - warmup
    share = max(0, time - warmup) / max(1, fall)
    return recipe.lr_min + (recipe.lr - recipe.lr_min) * (1 + math.cos(math.pi * share)) / 2


def _warming_up(recipe: Recipe, time: int, warmup: int) -> float:
    """At a time before 0, which a late schedule has, the rate is that from which the climb starts."""
    if recipe.warmup_shape == "harmonic":
        return recipe.lr / (warmup - max(0, time))
    if recipe.warmup_shape == "from-min":
        return recipe.lr_min + (recipe.lr - recipe.lr_min) * max(0, time) / warmup
    return recipe.lr * max(0, time + 1) / warmup
