"""A CUDA graph on the CPU: the operators of a piece of work and the tensors that they had, done again on request. As on
a GPU, numbers are those of the recording, and each result lies where it lay then."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Call = tuple[Callable[..., Any], Any, Any, list[Any]]


class Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not is_view(function) and function.namespace != "profiler":
            self.calls.append((function, args, kwargs or {}, tree_leaves(result)))
        return result

    def replay(self) -> None:
        for function, args, kwargs, results in self.calls:
            for old, new in zip(results, tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)
                elif old != new:
                    raise AssertionError(f"{function} was read on the host: {old}, now {new}")


def is_view(function: Any) -> bool:
    returned = [one.alias_info for one in function._schema.returns]
    return any(info is not None and not info.is_write for info in returned)


def recorded(work: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """In place of `as_graph`. The recording does the work once more for real, which a GPU does not: what it changed
    must be put back all the same."""
    work()
    with Recording() as recording:
        work()
    return torch.no_grad()(recording.replay)
