"""Several seeds of one cell as one model: their weights lie stacked in one module, and one pass computes them all. The
variants know nothing of it; a seed by itself is trained as the plain module that it is.
"""

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.training.device import is_out_of_memory
from variants.fields import UsageError


def stack_models(models: Sequence[nn.Module], seeds: Sequence[int]) -> nn.Module:
    """One model as it is, several as one, once it is certain that each is still computed as by itself."""
    if len(models) == 1:
        return models[0]
    together = StackedSeeds(models, seeds)
    _check(together, models)
    return together


class StackedSeeds(nn.Module):
    """The seeds' models as one. Each parameter of `member`, and each buffer that is saved or differs between the seeds,
    has the seeds as its first dimension. Its state is that of `member`."""

    def __init__(self, models: Sequence[nn.Module], seeds: Sequence[int]):
        super().__init__()
        self.member, self.seeds = copy.deepcopy(models[0]), tuple(seeds)
        self.device_type = next(models[0].parameters()).device.type
        saved, of_seeds = models[0].state_dict(), [_tensors(model) for model in models]
        made: dict[int, torch.Tensor] = {}  # a tensor that two modules share stays one
        slots = []
        for path, module, name, own in _slots(self.member):
            each = [tensors[path].detach() for tensors in of_seeds]
            is_weight = isinstance(own, nn.Parameter)
            if is_weight or path in saved or any(not torch.equal(each[0], other) for other in each):
                if id(own) not in made:
                    whole = torch.stack(each)
                    made[id(own)] = nn.Parameter(whole, own.requires_grad) if is_weight else whole
                slots.append((path, module, name, made[id(own)]))
        for _, module, name, tensor in slots:
            setattr(module, name, tensor)
        self.stacked = tuple(path for path, *_ in slots)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.member.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.member.load_state_dict(*args, **kwargs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Every seed's logits for the same images: seeds x images x classes."""
        return self._vmapped(lambda model, same: model(same), None, images)

    def each(self, function: Callable[..., Any], *values: torch.Tensor) -> Any:
        """`function(model, *values)` of every seed at once, each with its own part of the values and its own random
        numbers."""
        return self._vmapped(function, 0, *values)

    def _vmapped(self, function: Callable[..., Any], dim: int | None, *values: torch.Tensor) -> Any:
        def of_seed(state: dict[str, torch.Tensor], *own: torch.Tensor) -> Any:
            return function(lambda images: functional_call(self.member, state, (images,), tie_weights=False), *own)

        tensors = _tensors(self.member)
        state = {path: tensors[path] for path in self.stacked}
        # PyTorch's fused attention has no batching rule on the CPU: there it would run seed by seed.
        plain = sdpa_kernel([SDPBackend.MATH]) if self.device_type == "cpu" else contextlib.nullcontext()
        with plain:
            return vmap(of_seed, (0, *(dim for _ in values)), randomness="different")(state, *values)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def _slots(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, torch.Tensor]]:
    """Where each parameter and buffer is held: path, module and name there. A module under two paths comes once."""
    for module_path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{module_path}.{name}" if module_path else name, module, name, tensor


def _check(together: StackedSeeds, models: Sequence[Any]) -> None:
    """UsageError where vmap cannot train the model or computes another one: a tensor that is no buffer, say."""
    weight, side = next(models[0].parameters()), models[0].config.image_size
    images = torch.linspace(-1, 1, 6 * side**2, dtype=weight.dtype, device=weight.device).view(2, 3, side, side)
    advice = "the seeds of this variant cannot be trained together: --seeds-at-once 1"
    try:
        with torch.no_grad():
            copy.deepcopy(together).train().each(lambda model, own: model(own), torch.stack([images] * len(models)))
            found, own = together.eval()(images), torch.stack([model.eval()(images) for model in models])
    except Exception as error:  # of a model nothing is known
        if is_out_of_memory(error):
            raise
        first_line = (str(error).strip().splitlines() or [""])[0]
        raise UsageError(f"{advice} ({type(error).__name__}: {first_line})") from None
    for module in (together, *models):
        module.train()
    if not torch.allclose(found, own, rtol=1e-3, atol=1e-4 * float(own.abs().max())):
        raise UsageError(f"{advice} (they have in common what each has of its own by itself)")


# --- a seed's part of a state ----------------------------------------------------------------------------------------


def unstack(state: Any, index: int) -> Any:
    """What has no dimension, as an optimiser's count of steps, is shared."""
    if isinstance(state, torch.Tensor):
        return state[index].clone() if state.ndim else state
    if isinstance(state, dict):
        return {name: unstack(value, index) for name, value in state.items()}
    return state


def stack(states: Sequence[Any], shared: Collection[str] = (), name: Any = None) -> Any:
    """The opposite: what the seeds' states are together. `shared`: names of tensors that are the same for all."""
    if isinstance(states[0], torch.Tensor):
        return states[0] if name in shared else torch.stack(list(states))
    if isinstance(states[0], dict):
        return {key: stack([state[key] for state in states], shared, key) for key in states[0]}
    return states[0]
