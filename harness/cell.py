"""A cell before it is trained: what its runs are called, their splits, whether model and batches go together, and what
the model costs.
"""

import sys
from collections.abc import Sequence

from torch import nn

from harness.config import RunConfig
from harness.counting.cost import Cost, cost_of
from harness.data.load import ImageData, Split
from harness.data.pipeline import held_out, shown_more_often
from harness.training.setup import PLAIN, Stepping
from variants.fields import UsageError


def title(config: RunConfig, seeds: Sequence[int] = ()) -> str:
    name = f"{config.variant_name} {config.dataset_name} {config.recipe_name}"
    if len(seeds) < 2:
        return f"{name} seed {config.seed}"
    in_row = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{name} seeds {f'{seeds[0]} to {seeds[-1]}' if in_row else ', '.join(map(str, seeds))}"


def split_name(config: RunConfig) -> str:
    return "val" if config.holdout else "test"


def splits_of(config: RunConfig, data: ImageData) -> tuple[Split, Split]:
    """(trained on, evaluated on)"""
    train_split, judged = held_out(data.train, config.holdout) if config.holdout else (data.train, data.test)
    return shown_more_often(train_split, config.recipe.train_share), judged


def check_batches(model: nn.Module, images: int, batch_size: int, stepping: Stepping = PLAIN) -> None:
    """A batch norm cannot train on one image, and none is dropped; nor on parts of a batch."""
    normed, parts = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()), stepping.accumulate
    size, last = stepping.world.size, images % batch_size
    if normed and last == 1:
        raise UsageError(f"--batch-size {batch_size} leaves a last batch of 1 image, on which batch norm cannot train")
    if normed and parts > 1:
        raise UsageError(
            f"--accumulate {parts}: batch norm takes its statistics over the batch, and would see parts of it"
        )
    if normed and size > 1 and next(model.parameters()).device.type == "cpu":
        raise UsageError(
            "on CPUs several processes cannot train a model with batch norm, whose statistics PyTorch "
            "gathers over a batch on GPUs only: one process, or GPUs"
        )
    if normed and 0 < last < size:
        raise UsageError(
            f"--batch-size {batch_size} leaves a last batch of {last} images for {size} processes: one without images "
            "would add to batch norm's statistics"
        )
    if batch_size < (pieces := size * parts):
        raise UsageError(f"a batch of {batch_size} images cannot be cut into {pieces} parts, one a process and part")


def counted(config: RunConfig, model: nn.Module) -> Cost:
    """A model that cannot be counted can still be trained; its MACs are then unknown."""
    try:
        return cost_of(config.variant_name, config.variant, config.dataset_name, check=False)
    except Exception as error:
        print(f"{config.variant_name} cannot be counted: {type(error).__name__}: {error}", file=sys.stderr)
        params = sum(p.numel() for p in model.parameters())
        return Cost(config.variant_name, config.dataset_name, params)
