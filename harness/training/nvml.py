"""What NVIDIA's management library (NVML) says of a GPU: its driver, the processes that compute there, the energy that
it has used. Without the package nvidia-ml-py, without a driver, or where the library has no answer, each is None.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def driver() -> str | None:
    return _asked(lambda library: library.nvmlSystemGetDriverVersion())


def process_ids(device: torch.device) -> set[int] | None:
    """Of all that compute on the device, as far as this process may see them."""

    def ids(library: Any) -> set[int]:
        return {process.pid for process in library.nvmlDeviceGetComputeRunningProcesses(_handle(library, device))}

    return _asked(ids)


def energy_mj(device: torch.device) -> int | None:
    """Millijoules since the driver was loaded."""
    return _asked(lambda library: library.nvmlDeviceGetTotalEnergyConsumption(_handle(library, device)))


@functools.cache
def package() -> Any | None:
    """The package, once it has found the driver."""
    try:
        import pynvml
    except ImportError:
        print("driver, neighbours and energy stay unknown: pip install nvidia-ml-py", file=sys.stderr, flush=True)
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _asked(question: Callable[[Any], T]) -> T | None:
    there = package()
    if there is None:
        return None
    try:
        return question(there)
    except there.NVMLError:
        return None


def _handle(library: Any, device: torch.device) -> Any:
    """By the identifier: NVML does not number the devices as CUDA_VISIBLE_DEVICES does."""
    return library.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
