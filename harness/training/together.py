"""Several seeds of one cell as one model: their weights lie stacked in one module, and one pass computes them all. The
variants know nothing of it; a seed by itself is trained as the plain module that it is.
"""

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel


class Together(nn.Module):
    """The seeds' models as one. Each parameter and saved buffer of `member` has the seeds as its first dimension; what
    a model does not save (an index, a table of positions) is the same for all. Its state is that of `member`."""

    def __init__(self, models: Sequence[nn.Module], seeds: Sequence[int]):
        super().__init__()
        self.member, self.seeds = copy.deepcopy(models[0]), tuple(seeds)
        self.device_type = next(models[0].parameters()).device.type
        weights = [dict(model.named_parameters(remove_duplicate=False)) for model in models]
        made: dict[int, nn.Parameter] = {}  # a weight that two layers share stays one
        for path, own in list(self.member.named_parameters(remove_duplicate=False)):
            if id(own) not in made:
                together = torch.stack([of_seed[path].detach() for of_seed in weights])
                made[id(own)] = nn.Parameter(together, own.requires_grad)
            self._put(path, made[id(own)])
        states = [model.state_dict() for model in models]
        self.saved = tuple(path for path, _ in self.member.named_buffers() if path in states[0])
        for path in self.saved:
            self._put(path, torch.stack([state[path] for state in states]))

    def _put(self, path: str, tensor: torch.Tensor) -> None:
        module, _, name = path.rpartition(".")
        setattr(self.member.get_submodule(module), name, tensor)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.member.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.member.load_state_dict(*args, **kwargs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """What all seeds say of the same images: seeds x images x classes."""
        return self._vmapped(lambda model, same: model(same), None, images)

    def each(self, function: Callable[..., Any], *values: torch.Tensor) -> Any:
        """`function(model, *values)` of every seed at once, each with its own part of the values and its own random
        numbers."""
        return self._vmapped(function, 0, *values)

    def _vmapped(self, function: Callable[..., Any], dim: int | None, *values: torch.Tensor) -> Any:
        def of_seed(state: dict[str, torch.Tensor], *own: torch.Tensor) -> Any:
            return function(lambda images: functional_call(self.member, state, (images,)), *own)

        buffers = dict(self.member.named_buffers())
        state = dict(self.member.named_parameters()) | {path: buffers[path] for path in self.saved}
        # PyTorch's fused attention has no batching rule on the CPU: there it would run seed by seed.
        plain = sdpa_kernel([SDPBackend.MATH]) if self.device_type == "cpu" else contextlib.nullcontext()
        with plain:
            return vmap(of_seed, (0, *(dim for _ in values)), randomness="different")(state, *values)


def as_one(models: Sequence[nn.Module], seeds: Sequence[int]) -> nn.Module:
    return Together(models, seeds) if len(models) > 1 else models[0]


def part(state: Any, seed: int) -> Any:
    """A seed's part of a state, by its place. What has no dimension, as an optimiser's count of steps, is shared."""
    if isinstance(state, torch.Tensor):
        return state[seed].clone() if state.ndim else state
    if isinstance(state, dict):
        return {name: part(value, seed) for name, value in state.items()}
    return state


def stacked(states: Sequence[Any], name: Any = None) -> Any:
    """The opposite: what the seeds' states are as one."""
    if isinstance(states[0], torch.Tensor):
        return states[0] if name == "step" else torch.stack(list(states))
    if isinstance(states[0], dict):
        return {key: stacked([state[key] for state in states], key) for key in states[0]}
    return states[0]
