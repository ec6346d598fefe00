"""Owns the energy that a GPU has used, asked of NVIDIA's management library.
Refuses to guess: without the library, or on a CPU, the answer is None.
"""

import ctypes

import torch


class Meter:
    """Counts the joules of one device since it was made."""

    def __init__(self, device: torch.device, library: ctypes.CDLL | None = None):
        self._library = library if library is not None else _library()
        self._handle = self._find(device)
        self._start_mj = self._read_mj()

    def joules(self) -> float | None:
        now_mj = self._read_mj()
        return None if now_mj is None or self._start_mj is None else (now_mj - self._start_mj) / 1000

    def _find(self, device: torch.device) -> ctypes.c_void_p | None:
        if self._library is None or device.type != "cuda":
            return None
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        handle = ctypes.c_void_p()
        if self._library.nvmlInit_v2() or self._library.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
            return None
        return handle

    def _read_mj(self) -> int | None:
        if self._library is None or self._handle is None:
            return None
        value = ctypes.c_ulonglong()
        failed = self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(value))
        return None if failed else value.value


def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
