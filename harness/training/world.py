"""One run on several devices: the processes that torchrun started, and what they tell each other. A process by itself
is a world of one, in which nothing is sent.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from harness.data.pipeline import cuts
from harness.records.environment import is_launched
from variants.fields import UsageError, first_line

PATIENCE = timedelta(hours=12)  # while the first process evaluates or writes; one that is gone is noticed at once
LOST = ("connection closed", "connection reset", "connection was", "broken pipe", "nccl", "gloo", "timed out")


def own_device(name: str) -> str:
    """Each process takes the GPU of its number."""
    if not is_launched() or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    if ":" in name:
        raise UsageError(f"--device {name}: each process takes a GPU of its own: leave it out, or --device cuda or cpu")
    return f"cuda:{os.environ['LOCAL_RANK']}"


@dataclass(frozen=True)
class World:
    """The first process, of rank 0, writes and decides; the others do the same steps."""

    rank: int = 0
    size: int = 1

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def span(self, count: int) -> slice:
        """This process's part of so many."""
        return slice(*cuts(count, self.size)[self.rank : self.rank + 2])

    def gathered(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """... x count x columns, of which this process has its span in front of what it gives."""
        if self.size == 1:
            return rows
        whole, own = rows.new_zeros(*rows.shape[:-2], count, rows.shape[-1]), self.span(count)
        whole[..., own, :] = rows[..., : own.stop - own.start, :]
        return self.sum(whole)

    def told(self, value: Any) -> Any:
        """What the first process has."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def number(self, value: int) -> int:
        """The same for a number, without waiting for a GPU."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value)
        dist.broadcast(tensor, 0)
        return int(tensor)

    def averaging(self, model: nn.Module) -> nn.Module:
        """Computes the model, and averages its gradients over the processes."""
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        if device.type == "cpu":
            return DistributedDataParallel(model)
        from timm.layers import convert_sync_batchnorm  # a slow import, and knows timm's own batch norms

        return DistributedDataParallel(convert_sync_batchnorm(model), device_ids=[device])  # changes it in place


ALONE = World()


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world of this process, to its end."""
    if not is_launched():
        yield World()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise UsageError(
            f"another process of this run has ended or does not answer ({first_line(error)}): the same command goes on "
            "from the last checkpoint, with as many processes or others"
        ) from error
    # Not after an error: NCCL would wait for processes that wait for this one. When it has said what is wrong and is
    # gone, they notice, or torchrun ends them.
    dist.destroy_process_group()


def is_lost(error: BaseException) -> bool:
    """Whether the backends say that they do not reach another process."""
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in LOST)
