"""Owns the device: choosing it, its precision and compilation by default, waiting for it, what it says of itself.
Refuses to fall back silently.
"""

import contextlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from variants.fields import UsageError


def choose(name: str) -> torch.device:
    """`auto` is CUDA where it works, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}: choose from auto, cpu, cuda, cuda:0, ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("this PyTorch sees no CUDA device (torch.cuda.is_available() is false): --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{name} does not exist: this machine has {torch.cuda.device_count()} CUDA device(s)")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported: choose from auto, cpu, cuda")
    return device


def defaults(device: torch.device) -> tuple[str, bool]:
    """(precision, compile)"""
    return ("bf16", True) if device.type == "cuda" else ("fp32", False)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(device: torch.device) -> dict[str, Any]:
    """What a record says about where it was made."""
    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        facts |= {"device_name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, "driver": _driver()}
    else:
        facts |= {"device_name": f"{_cpu_name()}, {os.cpu_count()} cores", "cuda": None, "driver": None}
    return facts


def peak_memory_bytes(device: torch.device) -> int | None:
    """Of the device, or on the CPU of this whole process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_shared(device: torch.device) -> bool | None:
    """Whether others are computing here: another process on the GPU, or half again as many running as cores."""
    if device.type == "cuda":
        pids = _query("--query-compute-apps=pid")
        return None if pids is None else len(set(pids.split())) > 1
    if not hasattr(os, "getloadavg"):
        return None
    return os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)


def _driver() -> str | None:
    text = _query("--query-gpu=driver_version")
    return text.split()[0] if text and text.split() else None


def _query(what: str) -> str | None:
    try:
        return subprocess.run(
            ["nvidia-smi", what, "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
