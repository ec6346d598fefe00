"""A first look at a GPU, for `python -m harness.bench gpu`: whether a variant trains there and, if asked, what its real
loop, the loop's parts and 30 of its steps take. No baseline: facts, one JSON object a line. On a CPU it is a dry run.
"""

import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from harness.config import RunConfig
from harness.data.pipeline import scaling, to_device
from harness.datasets import DATASETS
from harness.records.benchmarks import fact_text, file_stem
from harness.records.environment import environment
from harness.timing.training import Staged, drain
from harness.timing.turns import made_up, seconds_of
from harness.training import device as devices
from harness.training.checkpoint import Checkpoints, Position
from harness.training.evaluate import evaluate
from harness.training.loop import train
from harness.training.progress import Progress
from harness.training.setup import Training, build_model, warm_up

COMPILER = ("cudagraph_skips", "cudagraph_partitions", "cudagraph_recorded_non_static_inputs")
COMPILER += ("fxgraph_cache_hit", "fxgraph_cache_miss")  # of torch's counters, those that explain a slow step
QUEUED = 20  # steps that fit into the queue of launches, so that the host does not wait for the device
LONG_GAP_US = 10


@dataclass(frozen=True)
class Sizes:
    """How much is done: on a GPU as much as means something, on a CPU as little as shows that it works."""

    smoke_steps: int
    smoke_tests: int
    images: int  # of the epoch that is measured
    tests: int
    profile_from: int  # the first step
    profiled: int


SIZES = {"cuda": Sizes(12, 1024, 50_000, 10_000, 100, 30), "cpu": Sizes(2, 70, 517, 70, 2, 2)}


class Facts:
    """Where the facts go: a file of JSON lines, and a line each on the screen."""

    def __init__(self, folder: Path, device: torch.device):
        described = devices.describe(device)
        env = {**environment(described, "made up"), "shared_device": devices.is_shared(device)}
        self.stem = f"gpu-{file_stem(described['device_name'])}"
        self.path = folder / f"{self.stem}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._write({"what": "environment", **env})
        print(f"{env['device_name']}, torch {env['torch']}", flush=True)

    def _write(self, fact: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(fact) + "\n")

    def add(self, what: str, config: RunConfig, facts: dict[str, Any]) -> None:
        self._write({"what": what, "variant": config.variant_name, "recipe": config.recipe_source, **facts})
        known = (f"{name.replace('_', ' ')} {fact_text(value)}" for name, value in facts.items() if value is not None)
        print(f"{config.variant_name} {what}: {', '.join(known)}", flush=True)

    def failed(self, part: str, config: RunConfig, error: Exception) -> None:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"[:400]
        self.add("failed", config, {"part": part, "compiled": config.compile, "error": reason})


def look(config: RunConfig, device: torch.device, facts: Facts, measure: bool) -> bool:
    """Whether everything worked; what did not is a fact too. A config that cannot be compiled goes on eager."""
    model = None
    for tried in (config, replace(config, compile=False)) if config.compile else (config,):
        try:
            model = smoke(tried, device, facts)
            config, worked = tried, tried is config
            break
        except Exception as error:  # compilers raise what they like
            facts.failed("smoke", tried, error)
    if model is None:
        return False
    for part in (time_loop, time_parts, profile) if measure else ():
        try:
            sizes = SIZES[device.type]
            whole = prepared(config, model, sizes.images, sizes.tests)
            warm_up(whole)  # for the shapes that only a whole epoch has
            facts.add(part.__name__.removeprefix("time_"), config, part(whole, facts))
        except Exception as error:
            facts.failed(part.__name__, config, error)
            worked = False
    return worked


def prepared(config: RunConfig, model: torch.nn.Module, images: int, tests: int) -> Training:
    device, data = next(model.parameters()).device, made_up(DATASETS[config.dataset], images, tests)
    split, few = to_device(data.train, device), to_device(data.test, device)
    return Training(config, model, split, few, scaling(data, config.recipe, device))


def smoke(config: RunConfig, device: torch.device, facts: Facts) -> torch.nn.Module:
    """Two short epochs. Returns the model, whose compiled code is used again where more is measured."""
    sizes, size, model = SIZES[device.type], config.recipe.batch_size, build_model(config, device)
    counters.clear()
    devices.forget_peak_memory(device)
    training = prepared(config, model, sizes.smoke_steps * size, sizes.smoke_tests)
    found: dict[str, Any] = {"batch_size": size, "precision": config.precision, "compiled": config.compile}
    found["compile_s"] = warm_up(training)
    lines = [epoch.line for epoch in islice(train(training), 2)]
    found["losses"] = [line["train_loss"] for line in lines]
    found["rough_step_ms"] = 1000 * lines[-1]["seconds"] / sizes.smoke_steps
    found["peak_memory_bytes"] = devices.peak_memory_bytes(device)
    found |= {name: counters["inductor"][name] for name in COMPILER if counters["inductor"][name]}
    facts.add("smoke", config, found)
    return model


def time_loop(whole: Training, facts: Facts) -> dict[str, Any]:
    """The second epoch of the real loop."""
    epochs, steps = train(whole), whole.steps_per_epoch
    next(epochs)
    meter, start_s = devices.Meter(whole.device), time.perf_counter()
    line = next(epochs).line
    wall_s, joules = time.perf_counter() - start_s, meter.joules()
    found = {"batch_size": whole.config.recipe.batch_size, "steps": steps, "step_ms": 1000 * line["seconds"] / steps}
    found |= {"epoch_s": line["seconds"], "eval_s": line["eval_seconds"], "epoch_and_eval_s": wall_s}
    return found | {"joules": joules, "epochs_of_a_run": whole.config.recipe.epochs}


def time_parts(whole: Training, facts: Facts) -> dict[str, Any]:
    """What an epoch takes without the rest of the loop. `host`: until the last launch, the device not waited for."""
    device, staged = whole.device, Staged(whole)

    def pipeline() -> None:
        drain(whole.train_split, whole.config.recipe, whole.scale)

    def evaluation() -> None:
        evaluate(*whole.evaluated_with)

    found = {"pipeline_s": min(seconds_of(pipeline, device) for _ in range(2)), "pipeline_host_s": _host_s(pipeline)}
    staged.epoch()
    found["staged_s"] = seconds_of(staged.epoch, device)
    queued = min(QUEUED, len(staged.batches))
    found["host_step_ms"] = 1000 * _host_s(lambda: staged.steps(queued)) / queued
    devices.synchronise(device)
    evaluation()
    found["eval_s"] = min(seconds_of(evaluation, device) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints, start_s = Checkpoints(Path(folder), {"run": "none"}), time.perf_counter()
        checkpoints.save(Position(2), whole)
        found["checkpoint_save_s"] = time.perf_counter() - start_s
    return found


def _host_s(work: Callable[[], Any]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


# --- the profile ------------------------------------------------------------------------------------------------------


class EndOfProfile(Exception):  # noqa: N818  # no error: it ends the training when enough steps were profiled
    """Raised after the last profiled step."""


class Window(Progress):
    """Profiles a few steps of the real loop in the middle of an epoch: the loop reports every step to its Progress."""

    def __init__(self, whole: Training):
        super().__init__("", whole.config.recipe.epochs, len(whole.train_split), quiet=True)
        self.device, self.sizes, self.seen = whole.device, SIZES[whole.device.type], 0
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        self.profiler = torch.profiler.profile(activities=kinds)

    def batch(self, epoch: int, images: int, totals: torch.Tensor) -> None:
        self.seen += 1
        if self.seen == self.sizes.profile_from:
            devices.synchronise(self.device)
            self.profiler.start()
            self.from_s = time.perf_counter()
        elif self.seen == self.sizes.profile_from + self.sizes.profiled:
            self.host_s = time.perf_counter() - self.from_s
            devices.synchronise(self.device)
            self.wall_s = time.perf_counter() - self.from_s
            self.profiler.stop()
            raise EndOfProfile


def profile(whole: Training, facts: Facts) -> dict[str, Any]:
    """The device's busy time in a few steps, its kernels, and the gaps between them; the tables go into a text file."""
    window = Window(whole)
    try:
        for _ in train(whole, window):
            pass
    except EndOfProfile:
        pass
    steps, events = window.sizes.profiled, window.profiler.events() or ()
    text = window.profiler.key_averages().table("self_cpu_time_total", row_limit=25, max_name_column_width=60)
    found = {"profiled_ms": 1000 * window.wall_s / steps, "host_ms": 1000 * window.host_s / steps}
    on_device = [e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    ranges = [(e.time_range.start, e.time_range.end, e.name) for e in on_device]
    if ranges:
        done = Timeline.of(ranges)
        text += done.text(steps)
        found |= {"busy_ms": done.busy_us / steps / 1000, "kernels": len(ranges) / steps}
        found["gaps_over_10_us"] = sum(gap > LONG_GAP_US for gap, _, _ in done.gaps) / steps
    path = facts.path.with_name(f"{facts.stem}-{file_stem(whole.config.variant_name)}.txt")
    path.write_text(text)
    return found | {"table": path.name}


@dataclass(frozen=True)
class Timeline:
    """What a device did: how long it was busy, the kernels by name (count, microseconds), and when it had nothing to do
    (microseconds, after what, before what)."""

    busy_us: float
    by_name: dict[str, tuple[int, float]]
    gaps: list[tuple[float, str, str]]

    @classmethod
    def of(cls, ranges: Iterable[tuple[float, float, str]]) -> "Timeline":
        """Of (start, end, name) in microseconds; kernels may overlap."""
        busy_us, gaps, end, before = 0.0, [], None, ""
        by_name: dict[str, tuple[int, float]] = {}
        for start, stop, name in sorted(ranges):
            count, total = by_name.get(name, (0, 0.0))
            by_name[name] = count + 1, total + stop - start
            if end is not None and start > end:
                gaps.append((start - end, before, name))
            if end is None or stop > end:
                busy_us += stop - (start if end is None else max(start, end))
                end, before = stop, name
        return cls(busy_us, by_name, gaps)

    def text(self, steps: int) -> str:
        """The kernels that take longest, a step, and the longest gaps."""
        kernels = sorted(self.by_name.items(), key=lambda row: -row[1][1])[:35]
        rows = ["", "microseconds a step, how often a step, kernel or copy"]
        rows += [f"{total / steps:9.1f} {count / steps:6.1f} {name[:110]}" for name, (count, total) in kernels]
        rows += ["the longest gaps: microseconds, after what, before what"]
        rows += [f"{gap:9.1f} {a[:60]} -> {b[:60]}" for gap, a, b in sorted(self.gaps, reverse=True)[:12]]
        return "\n".join(rows) + "\n"
