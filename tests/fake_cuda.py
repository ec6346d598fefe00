"""A made-up GPU: tensors of `cuda:0` without values, and an error for whatever would make the host wait for them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from harness.training import step

GPU, META = torch.device("cuda:0"), torch.device("meta")
ASK_FOR_VALUES = ("_local_scalar_dense", "nonzero", "equal")
COPIES = ("_to_copy", "copy_")
# With the rate as a tensor they have no fake form.
FUSED = {
    torch.ops.aten._fused_adam_.tensor_lr: torch.ops.aten._fused_adam_.default,
    torch.ops.aten._fused_adamw_.tensor_lr: torch.ops.aten._fused_adamw_.default,
}


class WaitsError(Exception):
    """On a GPU the host would wait here, or the call would fail."""


class FakeCuda(TorchDispatchMode):
    """Calls on host tensors are carried out; of those on the GPU only shape, type and device are followed."""

    def __init__(self) -> None:
        super().__init__()
        self.fake, self.is_strict = FakeTensorMode(allow_non_fake_inputs=True), False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            # What C++ is told, while Python sees cuda:0: else autograd would ask the driver for streams. Autocast goes
            # by the same and does not cast here.
            return META if args[0].fake_device == GPU else args[0].fake_device
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == META:
            kwargs["device"] = GPU
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        is_on_host = kwargs.get("device") in (None, torch.device("cpu"))
        if is_on_host and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if self.is_strict:
            refuse_waiting(func.overloadpacket.__name__, tensors, args, kwargs)
        if func in FUSED:
            func, kwargs["lr"] = FUSED[func], 0.0
        try:
            return func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:  # as an index by a mask
            raise WaitsError(f"{error.func} waits for the GPU") from None

    @contextmanager
    def strict(self) -> Iterator[None]:
        """From here on nothing may wait."""
        self.is_strict = True
        try:
            yield
        finally:
            self.is_strict = False


def refuse_waiting(name: str, tensors: list[torch.Tensor], args: Any, kwargs: dict[str, Any]) -> None:
    if name in ASK_FOR_VALUES:
        raise WaitsError(f"{name} waits for the GPU")
    if name in COPIES:
        source, target = (args[0], kwargs.get("device")) if name == "_to_copy" else (args[1], args[0].device)
        if target is None or source.device.type == target.type:
            return
        if not (kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))):
            raise WaitsError(f"a blocking copy from {source.device} to {target}")
        if source.device.type == "cpu" and not getattr(source, "was_pinned", False):
            raise WaitsError(f"a copy to {target} from memory that is not pinned")
    elif name.startswith("_fused_adam") and isinstance(kwargs["lr"], torch.Tensor) and kwargs["lr"].device != GPU:
        raise WaitsError("the rate lies on the host")
    elif len({tensor.device for tensor in tensors if tensor.ndim}) > 1:
        raise WaitsError(f"{name} of tensors on two devices: {[(str(t.device), *t.shape) for t in tensors]}")


def moved(model: nn.Module) -> nn.Module:
    """The model with its parameters and buffers on the GPU; a tensor that is neither stays on the host."""
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(value.detach().to(GPU), value.requires_grad))
        for name, value in list(module.named_buffers(recurse=False)):
            setattr(module, name, value.to(GPU))
    return model


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.clone()
    copy.was_pinned = True  # type: ignore[attr-defined]
    return copy


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """While it is entered, `cuda:0` exists; what reaches CUDA beside the operators is stubbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)  # a real one is not to be reached
        patch.setattr(torch.cuda, "synchronize", lambda device=None: None)
        patch.setattr(torch.Tensor, "pin_memory", pinned)
        patch.setattr(step, "generators_kept", lambda device: nullcontext())
        patch.setattr(step, "as_graph", lambda work, device: work)
        mode = FakeCuda()
        # One thread for backward: the engine has none for a device that is not there.
        with torch.autograd.set_multithreading_enabled(False), mode.fake, mode:
            yield mode
