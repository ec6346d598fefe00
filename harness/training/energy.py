"""The energy that a GPU uses while something runs. On a CPU, or where NVML does not count it, the answer is None."""

import torch

from harness.training import nvml


class Meter:
    """Counts the joules of one device since it was made."""

    def __init__(self, device: torch.device):
        self._device, self._start_mj = device, _read_mj(device)

    def joules(self) -> float | None:
        now_mj = _read_mj(self._device)
        return None if now_mj is None or self._start_mj is None else (now_mj - self._start_mj) / 1000


def _read_mj(device: torch.device) -> int | None:
    return nvml.energy_mj(device) if device.type == "cuda" else None
