"""A training step as one graph: it is the step that it was without, whatever went before the recording. On a CPU what
replays the operators stands for CUDA's; that real one needs a GPU: the tests marked `cuda`."""

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from harness import run, sweep, verify
from harness.config import RunConfig, resolve
from harness.data.pipeline import DeviceSplit, scaling, to_device
from harness.datasets import DATASETS
from harness.experiment import Options, run_cell
from harness.records.read import Run
from harness.timing.turns import made_up
from harness.training import device as devices
from harness.training import loop, setup, step
from harness.training.loop import train_seeds
from harness.training.setup import Average, Stepping, Training, build_model
from harness.training.signals import StoppedError
from harness.training.together import stack_models
from tests.fake_cuda import GPU, fake_cuda, moved
from tests.recorded import recorded
from tests.test_resume import assert_same, stopping_after
from variants.fields import UsageError

CPU = torch.device("cpu")
SETTINGS = [
    "dropout=0.1",
    "drop_path=0.1",
    "mix=either",
    "clip=0.5",
    "ema=0.9",
    "warmup_epochs=1",
    "schedule_unit=step",
]


def eager(work: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """What a graph reads lies on the device, but nothing is recorded."""
    return work


@contextmanager
def graphs(make: Any = recorded):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "takes_graph", lambda device, precision: True)
        patch.setattr(step, "as_graph", make)
        yield patch


def config_of(variant: str = "compact", *settings: str) -> RunConfig:
    own = ["variant.depth=1", *(f"recipe.{text}" for text in (*SETTINGS, *settings))]
    if variant == "resnet18":  # has no dropout
        own = [text for text in own if "depth" not in text and "drop" not in text]
    return resolve(variant, DATASETS["digits"], "quick", epochs=2, batch_size=32, settings=own)


def training(config: RunConfig, seeds: Sequence[int] = (0,), images: int = 80, parts: int = 1) -> Training:
    """80 images are two whole batches and a short one."""
    data = made_up(DATASETS["digits"], images, 8)
    split, models = to_device(data.train, CPU), [build_model(replace(config, seed=seed), CPU) for seed in seeds]
    few = DeviceSplit(split.images[:8], split.labels[:8])
    scale, stepping = scaling(data, config.recipe, CPU), Stepping(accumulate=parts)
    return Training(config, stack_models(models, seeds), split, few, scale, stepping)


def trained(config: RunConfig, seeds: Sequence[int] = (0,), parts: int = 1) -> list[Any]:
    """All numbers that came of it: losses, accuracies, weights, averages, moments."""
    of, found = training(config, seeds, parts=parts), []
    for epochs in train_seeds(of):
        found += [epoch.line[name] for epoch in epochs for name in ("train_loss", "train_accuracy", "test_loss")]
    tensors = [*of.model.state_dict().values(), *of.judged.state_dict().values()]
    tensors += [value for state in of.optimiser.state.values() for value in state.values()]
    return [*found, *(tensor.clone() for tensor in tensors)]


def equal(some: Sequence[Any], others: Sequence[Any]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize(
    ("variant", "seeds", "parts"),
    [*product(["compact", "vit-lite-7-4", "resnet18"], [(0,), (0, 1, 2)], [1]), ("compact", (0, 1), 3)],
)
def test_a_recorded_step_is_the_step(variant, seeds, parts):
    """To the last bit, short batches between the others, dropout's numbers and a batch norm's statistics included."""
    with graphs():
        found = trained(config_of(variant), seeds, parts)
    with graphs(eager):
        assert equal(found, trained(config_of(variant), seeds, parts))


def test_numbers_on_the_device_train_as_numbers_of_the_host():
    """Up to float32, in which the rate lies there."""
    with graphs(eager):
        found = trained(config_of())
    own = trained(config_of())
    assert not equal(found, own)
    for mine, other in zip(found, own, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("augment", ["flip", "crop,erase"])
def test_the_graph_reads_what_was_drawn(augment):
    """uint8, or scaled already where a float step comes before."""
    with graphs():
        of = training(config_of("compact", f"augment={augment}"))
        one = step.Step(of)
        batch = next(of.batches(of.train_split, 1))
        one(batch, 0)
    assert all(torch.equal(a, b) for a, b in zip(step.tensors_of(one.batch), step.tensors_of(batch), strict=True))
    assert one.batch.images.dtype == (torch.uint8 if augment == "flip" else torch.float32)


# --- planted: what the comparison above would see --------------------------------------------------------------------


def constant_rate(optimiser: Any, lr: Any, real: Any = step.set_rate) -> None:
    real(optimiser, float(lr))


def replaced(self: Any, value: torch.Tensor, number: Any) -> None:
    """A new tensor, which no graph knows."""
    self.first_bad = torch.where((self.first_bad < 0) & ~torch.isfinite(value), number, self.first_bad)


def constant_weight(self: Any, model: Any, weight: Any, real: Any = Average.update) -> None:
    real(self, model, float(weight))


@pytest.mark.parametrize(
    ("place", "name", "planted"),
    [
        (step, "set_rate", constant_rate),
        (Average, "update", constant_weight),
        (step.Step, "_state", lambda self: list(self.training.model.parameters())),
        (step.Step, "_state", lambda self: [v for s in self.training.optimiser.state.values() for v in s.values()]),
        (step, "generators_kept", lambda device: nullcontext()),
        (step, "tensors_of", lambda batch: (batch.images, batch.labels)),
    ],
)
def test_what_a_graph_would_not_notice_is_seen(place, name, planted):
    with graphs(eager):
        wanted = trained(config_of())
    with graphs() as patch:
        patch.setattr(place, name, planted)
        try:
            found = trained(config_of())
        except AssertionError as error:
            assert "was read on the host" in str(error)
        else:
            assert not equal(found, wanted)


@pytest.mark.parametrize("planted", [False, True])
def test_a_loss_that_is_no_number_is_noticed_in_a_graph(planted):
    """At the end of the epoch, as a GPU does, when later losses are numbers again."""
    with graphs() as patch:
        patch.setattr(step.LossWatch, "check", lambda self: None)
        if planted:
            patch.setattr(step.LossWatch, "see", replaced)
        of = training(config_of())
        one = step.Step(of)
        batch, before = next(of.batches(of.train_split, 1)), copy.deepcopy(of.model.state_dict())
        for number in (6, 7, 8):
            of.model.load_state_dict(before)
            if number == 7:
                nn.init.constant_(next(of.model.parameters()), torch.nan)
            one(batch, number)
    with nullcontext() if planted else pytest.raises(step.DivergenceError, match="step 7 "):
        one.watch.check()


# --- stopped and resumed ---------------------------------------------------------------------------------------------


def cell(out: Path) -> Run:
    return run_cell(config_of(), Path("data"), out, CPU, quiet=True, options=Options(save_every_s=0))


@pytest.mark.parametrize("steps", [1, 30, 45, 46])
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(tmp_path, steps):
    """Moments and the rate's tensor come from the checkpoint before anything is recorded."""
    with graphs() as patch:
        whole = cell(tmp_path / "whole")
        with patch.context() as stopping, pytest.raises(StoppedError):
            stopping_after(stopping, steps)
            cell(tmp_path / "stopped")
        assert_same(whole, cell(tmp_path / "stopped"))
    assert whole.result["sessions"][0]["graph"] is True


@pytest.mark.parametrize("first", ["graph", "none"])
def test_a_run_goes_on_with_or_without_graph(tmp_path, first):
    with pytest.MonkeyPatch.context() as stopping, pytest.raises(StoppedError):
        stopping_after(stopping, 30)
        with graphs() if first == "graph" else nullcontext():
            cell(tmp_path)
    with nullcontext() if first == "graph" else graphs():
        assert [session["graph"] for session in cell(tmp_path).result["sessions"]] == [
            first == "graph",
            first == "none",
        ]


# --- asking for it ---------------------------------------------------------------------------------------------------


def test_which_steps_are_one_graph():
    cuda = torch.device("cuda:0")
    assert devices.takes_graph(cuda, "bf16") and devices.takes_graph(cuda, "fp32")
    assert not devices.takes_graph(cuda, "fp16") and not devices.takes_graph(CPU, "fp32")


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_graph_off_leaves_it_out(tmp_path, command):
    words = ["--dataset", "digits", "--epochs", "1", "--device", "cpu", "--out", str(tmp_path), "--graph", "off"]
    with graphs(None):
        if command == "run":
            assert run.main(["--variant", "compact", "--recipe", "quick", "--quiet", *words]) == 0
        else:
            assert sweep.main(["quick", "--variants", "compact", "--seeds", "1", "--jobs", "1", *words]) == 0
    assert len(list(tmp_path.glob("*/result.json"))) == 1


def test_a_step_that_cannot_be_one_graph_says_what_to_do(monkeypatch):
    with pytest.raises(
        UsageError, match=r"^the step cannot be one CUDA graph \(CUDA error: .* capturing\): --graph off"
    ):
        captured(monkeypatch, "CUDA error: operation not permitted when stream is capturing\nCUDA kernel errors might")


@pytest.mark.parametrize("ending", ["CUDA error: operation failed", ""])
def test_out_of_memory_in_a_recording_is_told_as_such(monkeypatch, ending):
    """Whether or not the recording can be ended then, and whatever else was being handled."""
    within = torch.OutOfMemoryError("tried to allocate 2 GiB")
    within.__context__ = None if ending else KeyError("another")
    with pytest.raises(torch.OutOfMemoryError, match="tried to allocate"):
        captured(monkeypatch, ending, within)


def test_a_recording_comes_after_two_steps_on_its_own_stream(monkeypatch):
    events = captured(monkeypatch)
    begun = ["side waits for own", "on side", "work", "work", "left side", "recording on side", "work"]
    assert events == [*begun, "recorded", "own waits for side", "replayed"]


def captured(monkeypatch, ending: str = "", within: Exception | None = None) -> list[str]:
    """`as_graph` on a made-up CUDA whose recording ends with an error, and its work with another."""
    events: list[str] = []

    class Stream:
        def __init__(self, name: str):
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            events.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def on(stream: Stream):
        events.append(f"on {stream.name}")
        yield
        events.append(f"left {stream.name}")

    @contextmanager
    def recording(graph: Any, stream: Stream):
        events.append(f"recording on {stream.name}")
        try:
            yield
        finally:
            if ending:
                raise RuntimeError(ending)
        events.append("recorded")

    def work() -> None:
        events.append("work")
        if within and "recording on side" in events:
            raise within

    replay = SimpleNamespace(replay=lambda: events.append("replayed"))
    made_up = {"Stream": lambda device: Stream("side"), "current_stream": lambda device: Stream("own"), "stream": on}
    made_up |= {"CUDAGraph": lambda: replay, "graph": recording, "set_stream": lambda stream: events.append("back")}
    for name, value in made_up.items():
        monkeypatch.setattr(torch.cuda, name, value)
    try:
        devices.as_graph(work, GPU)()
    finally:
        assert ("back" in events) == bool(ending or within)
    return events


def test_recording_leaves_no_trace_and_readies_the_optimiser():
    """Weights and moments as they were, and a bad loss of the recording forgotten; whose moments may be recorded."""
    with graphs():
        of = training(config_of("vit-lite-7-4"))
        nn.init.constant_(next(of.model.parameters()), torch.nan)
        one = step.Step(of)
    assert one.watch.first_bad.tolist() == [-1] and of.graph_seconds is not None
    assert all(group["capturable"] for group in of.optimiser.param_groups)
    assert not any(value.any() for state in of.optimiser.state.values() for value in state.values())


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize(("graph", "parts"), [(True, 1), (False, 1), (True, 2), (False, 2)])
def test_the_loss_is_a_graph_of_its_own_only_where_the_step_is_none(monkeypatch, kind, graph, parts):
    """Nor where the gradients of several parts, which the next one's graph would overwrite, are added up."""
    modes: list[str] = []

    def compiled(function: Any, mode: str = "", **rest: Any) -> Any:
        modes.append(mode)
        return function

    monkeypatch.setattr(torch, "compile", compiled)
    config, data = replace(config_of(), compile=True), made_up(DATASETS["digits"], 8)
    with fake_cuda() if kind == "cuda" else nullcontext():
        place = GPU if kind == "cuda" else CPU
        model, split = build_model(config, CPU), to_device(data.train, place)
        model = moved(model) if kind == "cuda" else model
        of = Training(config, model, split, split, scaling(data, config.recipe, place), Stepping(graph, parts))
    assert of.is_graph == (graph and kind == "cuda")
    assert modes[-1] == ("reduce-overhead" if kind == "cuda" and not graph and parts == 1 else "default")


def test_verify_repeats_a_graph_as_one(tmp_path, capsys):
    with graphs():
        folder = cell(tmp_path).folder
        assert verify.main([str(folder), "--device", "cpu", "--quiet"]) == 0
    assert verify.main([str(folder), "--device", "cpu", "--quiet", "--first", "1"]) == 1
    assert "equal to the last bit" in capsys.readouterr().out


def test_a_sweep_ends_where_a_step_cannot_be_one_graph(tmp_path, capsys):
    def refused(work: Any, device: torch.device) -> Any:
        raise devices.CaptureError("the step cannot be one CUDA graph: --graph off")

    words = ["quick", "--variants", "compact", "--jobs", "1", "--device", "cpu", "--out", str(tmp_path)]
    with graphs(refused), pytest.raises(UsageError, match="--graph off"):
        sweep.main(words)
    assert capsys.readouterr().out.count("run 0:") == 1 and not list(tmp_path.glob("*/result.json"))


# --- between two epochs ----------------------------------------------------------------------------------------------


def test_a_gpu_has_the_next_epoch_s_first_batch_before_its_evaluation_is_read(monkeypatch):
    events: list[str] = []
    config, data = config_of(), made_up(DATASETS["digits"], 40, 8)
    real_judged, real_batches, real_call = loop.judged, Training.batches, step.Step.__call__

    def judged(*args):
        events.append("evaluated")
        return real_judged(*args)

    def call(self, batch, number):
        events.append(f"step {number}")
        real_call(self, batch, number)

    def batches(self, split, epoch, done=0):
        for nth, batch in enumerate(real_batches(self, split, epoch, done)):
            events.append(f"batch {nth} of epoch {epoch}")
            yield batch

    def read(*args):
        events.append("read")
        return [SimpleNamespace(nll=1.0, accuracy=0.5)]

    monkeypatch.setattr(loop, "judged", judged)
    monkeypatch.setattr(loop, "read", read)
    monkeypatch.setattr(step.Step, "__call__", call)
    monkeypatch.setattr(Training, "batches", batches)
    monkeypatch.setattr(step.LossWatch, "check", lambda self: None)
    monkeypatch.setattr(FakeTensor, "tolist", lambda self: [[1.0, 1.0]])  # the epoch's sums
    with fake_cuda():
        split = to_device(data.train, GPU)
        of = Training(config, moved(build_model(config, CPU)), split, split, scaling(data, config.recipe, GPU))
        list(train_seeds(of))
    first = ["batch 0 of epoch 0", "batch 0 of epoch 1", "step 0", "batch 1 of epoch 1", "step 1", "evaluated"]
    second = ["batch 0 of epoch 2", "read", "step 2", "batch 1 of epoch 2", "step 3", "evaluated", "read"]
    assert events == [*first, *second], "the first of all is for the recording"


def test_what_was_drawn_ahead_is_the_next_epoch_s_time(monkeypatch):
    real = loop.drawn_ahead
    monkeypatch.setattr(loop, "drawn_ahead", lambda *args: (50.0, real(*args)[1]))
    (first,), (second,) = train_seeds(training(config_of()))
    assert first.line["seconds"] < 40 < second.line["seconds"]
    assert first.line["eval_seconds"] < -40, "the clock of the evaluation ran meanwhile"


# --- on a real one ---------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_on_cuda_a_graph_trains_as_no_graph(monkeypatch, compiled, seeds):
    """In float32, without dropout, whose numbers a compiled step draws in another order. No step waits."""
    config = replace(config_of("compact", "dropout=0", "drop_path=0"), compile=compiled)
    data, device, lines = made_up(DATASETS["digits"], 80, 8), devices.choose("cuda"), []
    compute = step.Step.__call__

    def not_waiting(self, *args):
        torch.cuda.set_sync_debug_mode("error")
        try:
            compute(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(step.Step, "__call__", not_waiting)
    for graph in (True, False):
        split = to_device(data.train, device)
        model = stack_models([build_model(replace(config, seed=seed), device) for seed in seeds], seeds)
        of = Training(config, model, split, split, scaling(data, config.recipe, device), Stepping(graph))
        assert of.is_graph is graph
        setup.warm_up(of)
        lines.append([one.line for epochs in train_seeds(of) for one in epochs])
    for mine, other in zip(*lines, strict=True):
        for name in ("train_loss", "test_loss"):
            assert mine[name] == pytest.approx(other[name], rel=1e-3)
