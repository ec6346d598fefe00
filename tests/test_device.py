"""The device and the machine around a run: what is chosen, what is recorded of it, and what happens when it fails."""

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import run, verify
from harness.commands import run_command
from harness.config import RunConfig, resolve
from harness.datasets import DATASETS
from harness.experiment import Options, out_of_memory, run_cell
from harness.records.read import Run, read_run, run_state
from harness.training import device as devices
from harness.training import loop, setup
from harness.training.checkpoint import PATTERN, Checkpoints
from harness.training.device import Meter
from harness.training.history import Session
from tests.processes import Process
from tests.test_resume import assert_same
from variants.fields import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def config(**rest) -> RunConfig:
    return resolve("compact", DATASETS["digits"], "quick", epochs=2, settings=["variant.depth=1"], **rest)


def cell(out: Path, cell_config: RunConfig | None = None, **rest) -> Run:
    return run_cell(cell_config or config(), Path("data"), out, CPU, quiet=True, options=Options(**rest))


# --- choosing --------------------------------------------------------------------------------------------------------


def test_devices():
    assert devices.defaults(CPU) == ("fp32", False) and devices.defaults(torch.device("cuda")) == ("bf16", True)
    assert devices.choose("cpu") == devices.choose("cpu:0") == CPU
    for name in ("gpu", "cuda:x", "", "mps", "cpu:7"):
        with pytest.raises(UsageError, match=f"unknown device '{name}': choose from auto, cpu, cuda, cuda:0"):
            devices.choose(name)


def without_cuda(monkeypatch, built_for: str | None) -> None:
    def no_driver():
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease install one.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", no_driver)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.mark.parametrize(
    ("built_for", "why"),
    [(None, "is built without CUDA"), ("13.0", "PyTorch says: Found no NVIDIA driver on your system.")],
)
def test_without_cuda_it_is_said_why(monkeypatch, built_for, why):
    without_cuda(monkeypatch, built_for)
    with pytest.raises(UsageError) as refused:
        devices.choose("cuda:1")
    assert why in str(refused.value) and str(refused.value).endswith("--device cpu")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("there", "hidden", "told"), [(True, None, True), (True, "", False), (False, None, False)])
def test_auto_speaks_of_a_gpu_that_does_not_work(monkeypatch, tmp_path, capsys, there, hidden, told):
    """Hours on a CPU because of a driver should be nobody's surprise; who hides the GPU knows."""
    without_cuda(monkeypatch, "13.0")
    monkeypatch.setattr(devices, "GPU_IS_THERE", tmp_path if there else tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.choose("auto") == CPU
    assert ("Found no NVIDIA driver on your system" in capsys.readouterr().err) == told


def test_a_device_that_is_there_and_cannot_be_used_is_refused(monkeypatch):
    chosen = []

    def taken(*args, **named):
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "zeros", taken)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with pytest.raises(UsageError, match=r"^cuda:1 cannot be used: CUDA error: out of memory$"):
        devices.choose("cuda:1")
    assert not torch.backends.cudnn.allow_tf32, "what a record calls fp32 is fp32"
    with pytest.raises(UsageError, match="cuda:2 does not exist: this machine has 2"):
        devices.choose("cuda:2")
    assert chosen == [torch.device("cuda:1")], "what PyTorch is not told otherwise is meant for that one"


# --- memory ----------------------------------------------------------------------------------------------------------

OUT_OF_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    "numpy": MemoryError(),
}


def failing(error: BaseException):
    def fail(*args, **named):
        raise error

    return fail


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_bf16_has_fp16(monkeypatch, native, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert out_of_memory(config(), CPU).endswith(f"or --precision {precision}")
    assert devices.defaults(CUDA) == ("bf16" if native else "fp32", True)


def test_an_operation_without_fp16_is_told(tmp_path, monkeypatch):
    error = RuntimeError("\"histc\" not implemented for 'Half'")
    monkeypatch.setattr(setup, "batch_loss", failing(error))
    with pytest.raises(UsageError, match=r"cannot be trained in fp16 on cpu: .histc. not implemented for 'Half'"):
        cell(tmp_path, config(precision="fp16"))
    with pytest.raises(RuntimeError) as told:
        cell(tmp_path)
    assert told.value is error, "in another precision it is a mistake of ours"


def test_out_of_memory_in_training_is_recorded_with_what_to_try(tmp_path, monkeypatch):
    assert all(map(devices.is_out_of_memory, OUT_OF_MEMORY.values()))
    monkeypatch.setattr(setup, "batch_loss", failing(OUT_OF_MEMORY["cublas"]))
    assert cell(tmp_path).result["reason"] == (
        "out of memory on cpu at batch size 32: end what else runs there, or try --accumulate 2 or --batch-size 16 or "
        "--precision bf16"
    )


def test_out_of_memory_before_training_is_told_and_is_no_record(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.experiment.build_model", failing(OUT_OF_MEMORY["cuda"]))
    with pytest.raises(UsageError, match=r"^out of memory on cpu at batch size 32"):
        cell(tmp_path)
    assert run_state(tmp_path / config().run_id) == "missing"


def test_mistakes_of_ours_stay_tracebacks(tmp_path, monkeypatch):
    error = RuntimeError("shapes do not match")
    monkeypatch.setattr(setup, "batch_loss", failing(error))
    with pytest.raises(RuntimeError) as told:
        cell(tmp_path)
    assert told.value is error


# --- the disk --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return cell(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("part", ["config.json", "epochs.jsonl", "predictions.npz", "result.json"])
def test_a_disk_that_takes_no_more_is_told_and_the_same_command_goes_on(tmp_path, monkeypatch, whole, part):
    """Whatever could not be written, there is no half record and nothing is lost."""
    with monkeypatch.context() as patch:
        takes_no_more(patch, part)
        with pytest.raises(UsageError) as told:
            cell(tmp_path)
    assert os.strerror(errno.ENOSPC) in str(told.value) and "the same command goes on" in str(told.value)
    assert run_state(tmp_path / config().run_id) in ("unfinished", "missing")
    assert_same(cell(tmp_path), whole)


def takes_no_more(patch, part: str) -> None:
    """Opening and renaming fail for this one file of a record."""
    replace, opened = os.replace, Path.open

    def refuse(path) -> None:
        if part == Path(path).name.strip("."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def open_(self, mode="r", *args, **named):
        if mode not in ("r", "rb"):
            refuse(self)
        return opened(self, mode, *args, **named)

    def replace_(source, target):
        refuse(target)
        return replace(source, target)

    patch.setattr(Path, "open", open_)
    patch.setattr(os, "replace", replace_)


# --- the same bits ---------------------------------------------------------------------------------------------------


def train_deterministically(out: Path) -> None:
    import torch._inductor.config

    words = "--variant compact --dataset digits --recipe quick --epochs 2 --device cpu --quiet --deterministic"
    assert run.main([*words.split(), "--set", "variant.depth=1", "--out", str(out)]) == 0
    assert torch.are_deterministic_algorithms_enabled() and torch._inductor.config.deterministic
    assert verify.main([str(out / config().run_id), "--device", "cpu", "--quiet"]) == 0


def test_deterministic_is_recorded_and_gives_the_bits_of_the_cpu(tmp_path, whole):
    """In another process: it is for the whole of one."""
    process = Process(tmp_path / "log", train_deterministically, tmp_path / "runs")
    assert process.ended() == 0, process.read("err")
    there = read_run(tmp_path / "runs" / config().run_id)
    assert (whole.env["deterministic"], there.env["deterministic"]) == (False, True)
    assert_same(whole, there)
    assert "equal to the last bit" in process.read() and "note:" not in process.read()


def train_stopped(steps: int, *words: str) -> None:
    def due(self: Checkpoints) -> bool:
        nonlocal steps
        steps -= 1
        if steps == 0:
            self.stop.asked = 15
        return steps == 0

    Checkpoints.due = due
    run_command(run.main, list(words))


@pytest.mark.cuda
@pytest.mark.parametrize("compiled", ["off", "on"])
def test_on_cuda_a_deterministic_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, compiled):
    settings = "--set recipe.ema=0.9 recipe.dropout=0.1 recipe.mix=either recipe.clip=1.0"
    words = f"--variant compact --dataset digits --recipe quick --epochs 3 --device cuda --compile {compiled} --quiet"
    words = [*words.split(), "--deterministic", *settings.split()]

    def ended(steps: int, out: str) -> int | None:
        return Process(tmp_path / "log", train_stopped, steps, *words, "--out", str(tmp_path / out)).ended()

    assert (ended(-1, "whole"), ended(57, "stopped"), ended(-1, "stopped")) == (0, 143, 0)
    one, other = (read_run(path.parent) for path in sorted(tmp_path.glob("*/*/result.json")))
    assert len(one.result["sessions"]) + len(other.result["sessions"]) == 3
    assert_same(one, other)


def test_a_checkpoint_goes_on_only_as_deterministic_as_it_was(tmp_path, monkeypatch, capsys):
    facts, answers, evaluate = devices.describe(CPU), iter([True, False]), loop.read
    monkeypatch.setattr(devices, "describe", lambda device: {**facts, "deterministic": next(answers)})
    asked = iter([False, True])

    def ended(*args):
        if next(asked):
            raise KeyboardInterrupt
        return evaluate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "read", ended)
        with pytest.raises(KeyboardInterrupt):
            cell(tmp_path, save_every_s=0)
    assert list((tmp_path / config().run_id).glob(PATTERN))
    cell(tmp_path)
    assert "a checkpoint of another deterministic: the run starts again" in capsys.readouterr().err


def test_an_operation_without_deterministic_form_is_told(tmp_path, monkeypatch):
    error = RuntimeError("upsample_backward does not have a deterministic implementation, but you set\n'torch.use")
    monkeypatch.setattr(setup, "batch_loss", failing(error))
    with pytest.raises(UsageError, match="cannot be trained with --deterministic: upsample_backward does not have"):
        cell(tmp_path)


def test_other_numbers_of_threads_agree_to_the_documented_tolerance(tmp_path):
    """ARCHITECTURE: losses to 1e-5 over two epochs on digits; sums are taken in another order."""
    own, lines = torch.get_num_threads(), {}
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            lines[count] = cell(tmp_path / str(count)).epochs()
    finally:
        torch.set_num_threads(own)
    for one, other in zip(lines[1], lines[2], strict=True):
        for name in ("train_loss", "test_loss"):
            assert other[name] == pytest.approx(one[name], rel=1e-5), name
        assert (other["images_seen"], other["lr"]) == (one["images_seen"], one["lr"])


# --- what others do there --------------------------------------------------------------------------------------------


class Nvml:
    """The package nvidia-ml-py, as far as it is asked."""

    class NVMLError(Exception):
        pass

    def __init__(self, pids=(), energies_mj=(), silent=False):
        self.pids, self.energies_mj, self.silent = pids, iter(energies_mj), silent

    def nvmlInit(self):
        if self.silent:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlSystemGetDriverVersion(self):
        return "580.65"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid == "GPU-1-2"
        return "its handle"

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        assert handle == "its handle"
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        found = next(self.energies_mj)
        if found is None:
            raise self.NVMLError("Not Supported")
        return found


@pytest.fixture
def asking(monkeypatch):
    """Has NVML be the one given, or be absent."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))

    def ask(package: Nvml | None) -> None:
        devices.nvml_package.cache_clear()
        monkeypatch.setitem(sys.modules, "pynvml", package)

    yield ask
    devices.nvml_package.cache_clear()


@pytest.mark.parametrize(
    ("others", "shared"), [([], None), ([os.getpid()], False), ([os.getpid(), 1], True), ([1, 2], None)]
)
def test_a_gpu_is_shared_when_another_process_computes_there(asking, others, shared):
    """Who does not see itself there, as in some containers, cannot tell."""
    asking(Nvml(others))
    assert devices.is_shared(CUDA) is shared


def test_joules_are_a_difference_of_readings(asking):
    asking(Nvml(energies_mj=[5000, 7500, None, 1000, 5000, None]))
    assert Meter(CUDA).joules() == 2.5
    assert Meter(CUDA).joules() is None and Meter(CUDA).joules() is None
    assert Meter(CPU).joules() is None


@pytest.mark.parametrize("package", [None, Nvml(silent=True)])
def test_what_nvml_cannot_say_is_unknown(asking, package):
    """Without the package and without a driver."""
    asking(package)
    assert (devices.is_shared(CUDA), devices.driver(), Meter(CUDA).joules()) == (None, None, None)
    asking(Nvml())
    assert devices.driver() == "580.65"


@pytest.mark.parametrize(
    ("threads", "load", "shared"), [(1, 1.2, False), (1, 1.9, True), (4, 5.0, False), (4, 6.1, True)]
)
def test_a_cpu_is_shared_when_more_runs_than_our_threads(monkeypatch, threads, load, shared):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 9.0, 9.0))
    assert devices.is_shared(CPU) is shared


def test_others_on_the_device_are_remembered(monkeypatch):
    """One look that finds somebody is enough; looks are a minute apart."""
    answers, now = [False, True, False], [0.0]
    monkeypatch.setattr(devices, "is_shared", lambda device: answers.pop(0))
    monkeypatch.setattr("harness.training.history.time.monotonic", lambda: now[0])
    session = Session(CPU, {})
    for now[0], seen in ((30.0, False), (61.0, True), (90.0, True), (122.0, True)):
        session.look()
        assert session.shared is seen
    assert answers == []
