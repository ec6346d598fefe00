"""The device that a run computes on: choosing it, its default precision and compilation, its memory and energy, and who
else computes there. A GPU that cannot be used is an error or a warning, never a silent fall back to the CPU.
"""

import contextlib
import ctypes
import functools
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from variants.fields import UsageError

GPU_IS_THERE = Path("/dev/nvidiactl")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of the large products


def choose(name: str) -> torch.device:
    """`auto` is CUDA where it works, else the CPU, with a warning if there is a GPU that does not work."""
    if name == "auto":
        if torch.cuda.is_available():
            return _usable(torch.device("cuda"))
        if GPU_IS_THERE.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
            print(f"this machine has an NVIDIA GPU, but {_no_cuda()}: going on with the CPU", file=sys.stderr)
        return torch.device("cpu")
    if name in ("cpu", "cpu:0"):
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise UsageError(f"unknown device {name!r}: choose from auto, cpu, cuda, cuda:0, ...")
    device = torch.device(name)
    if not torch.cuda.is_available():
        raise UsageError(f"there is no CUDA device to use, {_no_cuda()}: --device cpu")
    if (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{name} does not exist: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return _usable(device)


def _usable(device: torch.device) -> torch.device:
    """It is there; that it works is only known when it has done something. From here on it is the one meant where
    PyTorch is not told which, and fp32 is fp32 in its convolutions too."""
    try:
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False  # by itself PyTorch takes TF32 for convolutions, and for them alone
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"{device} cannot be used: {_first_line(error)}") from None
    return device


def _no_cuda() -> str:
    """Why CUDA does not work, as PyTorch says it."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"PyTorch says: {_first_line(error)}"
    return "torch.cuda.is_available() is false"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def make_deterministic() -> None:
    """For the rest of this process: only kernels that give the same bits each time, at the price of some speed. An
    operation that has none raises RuntimeError."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"  # by its compilation in other processes too
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    compiler = sys.modules.get("torch._inductor.config")
    if hasattr(compiler, "deterministic"):
        compiler.deterministic = True  # type: ignore[union-attr]  # it has read the environment already


def is_out_of_memory(error: BaseException) -> bool:
    """A GPU's allocator has a type of its own for it; cuBLAS, the driver and the CPU's allocator have words."""
    words = ("out of memory", "alloc_failed", "allocate memory", "not enough memory")
    message = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in message for word in words)


def defaults(device: torch.device) -> tuple[str, bool]:
    """(precision, compile)"""
    if device.type != "cuda":
        return "fp32", False
    return ("bf16" if has_bf16() else "fp32"), True


def has_bf16() -> bool:
    """Where there is no GPU to ask, most have it."""
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if precision == "fp32" else torch.autocast(device.type, DTYPES[precision])


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Small gradients are zero in float16: fp16 multiplies the loss so that they are not. In any other precision the
    scaler does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def takes_graph(device: torch.device, precision: str) -> bool:
    """Whether a training step can be one CUDA graph. The loss scale of fp16 may skip a step."""
    return device.type == "cuda" and precision != "fp16"


class CaptureError(UsageError):
    """Work could not become a CUDA graph. What this process then does on the device is not to be trusted."""


def as_graph(work: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """`work` as one CUDA graph: what starts all its kernels at once, on the memory that they have now. Before that it
    is done twice for real, since libraries and compilers make themselves ready at first."""
    stream, graph, own = torch.cuda.Stream(device), torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    stream.wait_stream(own)
    with torch.cuda.stream(stream):
        work()
        work()
    try:
        with torch.cuda.graph(graph, stream=stream):
            work()
    except RuntimeError as error:
        torch.cuda.set_stream(own)  # where the recording cannot even be ended, the other stays
        errors = [one for one in (error.__context__, error) if one]  # the first: before ending the recording failed too
        for one in filter(is_out_of_memory, errors):
            raise one from None
        raise CaptureError(f"the step cannot be one CUDA graph ({_first_line(errors[0])}): --graph off") from error
    own.wait_stream(stream)
    return graph.replay


@contextlib.contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """What is drawn inside is drawn again after it. Where it fails, nothing more is touched."""
    on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)
    if on_gpu is not None:
        torch.cuda.set_rng_state(on_gpu, device)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(device: torch.device) -> dict[str, Any]:
    """For the record of a run."""
    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    facts["deterministic"] = torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda":
        facts |= {"device_name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, "driver": driver()}
    else:
        facts |= {"device_name": f"{_cpu_name()}, {os.cpu_count()} cores", "cuda": None, "driver": None}
    return facts


def keep_freed_memory(device: torch.device) -> None:
    """Has glibc keep what a step frees for the next one. By itself it hands large blocks back to the system each time
    and takes them again page by page: 30 pages an image, a twentieth of a training step on a CPU."""
    if device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
            c_library = ctypes.CDLL(None)
            c_library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
            c_library.mallopt(M_MMAP_THRESHOLD, 2**25)  # the most that it accepts


def forget_peak_memory(device: torch.device) -> None:
    """Starts the peak anew, so that a cell of a sweep does not report that of a larger one before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was kept for that larger one
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int | None:
    """Since it was last forgotten: of the device, or on the CPU of this process, where Linux tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# --- who else is there, and the energy -------------------------------------------------------------------------------


def is_shared(device: torch.device) -> bool | None:
    """Whether others are computing here: another process on the GPU, or half again as many running as our threads."""
    if device.type == "cuda":
        found = _nvml(lambda nvml: nvml.nvmlDeviceGetComputeRunningProcesses(_handle(nvml, device)))
        pids = {process.pid for process in found or ()}
        return len(pids) > 1 if os.getpid() in pids else None  # a container may hide who is there
    return os.getloadavg()[0] > 1.5 * torch.get_num_threads()  # as many as this process keeps busy by itself


class Meter:
    """Counts the joules that a GPU has used since the meter was made; None where nobody counts them."""

    def __init__(self, device: torch.device):
        self._device = device
        self._start_mj = self._read_mj()

    def joules(self) -> float | None:
        now_mj = self._read_mj()
        return None if now_mj is None or self._start_mj is None else (now_mj - self._start_mj) / 1000

    def _read_mj(self) -> int | None:
        """Since the driver was loaded."""
        if self._device.type != "cuda":
            return None
        return _nvml(lambda nvml: nvml.nvmlDeviceGetTotalEnergyConsumption(_handle(nvml, self._device)))


def driver() -> str | None:
    return _nvml(lambda nvml: nvml.nvmlSystemGetDriverVersion())


def _nvml(question: Callable[[Any], Any]) -> Any:
    """What NVIDIA's management library answers; None without the package, a driver or an answer."""
    nvml = nvml_package()
    if nvml is None:
        return None
    try:
        return question(nvml)
    except nvml.NVMLError:
        return None


@functools.cache
def nvml_package() -> Any | None:
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


def _handle(nvml: Any, device: torch.device) -> Any:
    """By the identifier: NVML does not number the devices as CUDA_VISIBLE_DEVICES does."""
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
