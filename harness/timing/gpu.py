"""A first look at a GPU, for `python -m harness.bench gpu`: whether a variant trains there and, if asked, what its real
loop, the loop's parts and 30 of its steps take: facts, one JSON object a line. What it measured of a loop is kept among
the comparisons too. On a CPU it is a dry run.
"""

import json
import math
import sys
import tempfile
import time
import traceback
from argparse import Namespace
from collections import namedtuple
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from harness.config import RunConfig
from harness.datasets import DATASETS
from harness.records.benchmarks import Comparison, fact_text, file_stem, write_comparisons
from harness.records.environment import environment
from harness.records.write import prepare
from harness.timing.training import STAGED, Staged, drain
from harness.timing.turns import configured, made_up, seconds_of, titled
from harness.training import device as devices
from harness.training.checkpoint import Checkpoints, Position
from harness.training.loop import train
from harness.training.progress import Progress
from harness.training.setup import Stepping, Training, build_model, prepared, warm_up
from variants.catalog import CATALOG

HOST = torch.device("cpu")  # to time until the last launch, the GPU not waited for
QUEUED = 20  # steps that fit into the queue of launches
LONG_GAP_US = 10

# How much is done: on a GPU as much as means something, on a CPU as little as shows that it works. `images` and `tests`
# are those of the epoch that is measured.
Sizes = namedtuple("Sizes", "smoke_steps images tests steps_before_profile profiled_steps")
SIZES = {"cuda": Sizes(12, 50_000, 10_000, 100, 30), "cpu": Sizes(2, 517, 70, 2, 2)}


def look_at_all(args: Namespace) -> int:
    """Exit code 1 if anything failed."""
    device, configs = configured(args, args.variant or CATALOG)
    if device.type == "cpu":
        print("a dry run on the CPU: energy, kernels and gaps need CUDA, and its times say little", file=sys.stderr)
    prepare(args.out)
    env = {**environment(devices.describe(device), "made up"), "shared_device": devices.is_shared(device)}
    path = args.out / f"gpu-{file_stem(env['device_name'])}.jsonl"
    append(path, {"what": "environment", **env})
    print(f"{env['device_name']}, torch {env['torch']}", flush=True)
    worked = []
    for config in configs:
        look = Look(config, device, path, args.graph == "on")
        worked.append(look.look(args.measure))
        if device.type == "cuda" and {"loop", "parts"} <= look.facts.keys():
            write_comparisons(args.out, env["device_name"], [replace(look.compared(), env=env)])
    print(f"written: {path}")
    return 0 if all(worked) else 1


def append(path: Path, fact: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(fact) + "\n")


class Look:
    """One variant on the device, part by part; each part returns its facts. All use one model, so that what was
    compiled is used again."""

    def __init__(self, config: RunConfig, device: torch.device, path: Path, graph: bool):
        self.config, self.device, self.path, self.graph = config, device, path, graph
        self.sizes, self.facts = SIZES[device.type], dict[str, dict[str, Any]]()

    def look(self, measure: bool) -> bool:
        """Whether everything worked. What cannot be compiled goes on eager."""
        worked = trained = self.worked(self.smoke)
        if not trained and self.config.compile:
            self.config = replace(self.config, compile=False)
            trained = self.worked(self.smoke)
        for part in (self.loop, self.parts, self.profile) if trained and measure else ():
            worked &= self.worked(part)
        return worked

    def worked(self, part: Callable[[], dict[str, Any]]) -> bool:
        """A failure is a fact too, and the next part goes on; after a failed capture only a new process can."""
        try:
            self.add(part.__name__, part())
            return True
        except Exception as error:  # compilers raise what they like
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"[:400]
            self.add("failed", {"part": part.__name__, "compiled": self.config.compile, "error": reason})
            if isinstance(error, devices.CaptureError):
                raise
            return False

    def add(self, what: str, facts: dict[str, Any]) -> None:
        """A line in the file, and one on the screen."""
        variant, self.facts[what] = self.config.variant_name, facts
        append(self.path, {"what": what, "variant": variant, "recipe": self.config.recipe_source, **facts})
        known = (f"{name.replace('_', ' ')} {fact_text(value)}" for name, value in facts.items() if value is not None)
        print(f"{variant} {what}: {', '.join(known)}", flush=True)

    def prepared(self, images: int, tests: int) -> Training:
        """Warm for the shapes that so many images have."""
        data = made_up(DATASETS[self.config.dataset], images, tests)
        training = prepared(self.config, self.model, data, (data.train, data.test), Stepping(self.graph))
        self.compile_s = warm_up(training)
        return training

    def smoke(self) -> dict[str, Any]:
        """Two short epochs."""
        self.model, steps = build_model(self.config, self.device), self.sizes.smoke_steps
        counters.clear()
        devices.forget_peak_memory(self.device)
        training = self.prepared(steps * self.config.recipe.batch_size, self.sizes.tests)
        lines = [epoch.line for epoch in islice(train(training), 2)]
        of_torch = counters["inductor"].items()  # some of them explain a slow step
        return {
            "batch_size": training.whole_batch,
            "precision": self.config.precision,
            "compiled": self.config.compile,
            "graph": training.is_graph,
            "compile_s": self.compile_s,
            "losses": [line["train_loss"] for line in lines],
            "rough_step_ms": 1000 * lines[-1]["seconds"] / steps,
            "peak_memory_bytes": devices.peak_memory_bytes(self.device),
            **{name: n for name, n in of_torch if name.startswith(("cudagraph", "fxgraph_cache"))},
        }

    def loop(self) -> dict[str, Any]:
        """The second epoch of the real loop; its joules are the evaluation's too."""
        training = self.prepared(self.sizes.images, self.sizes.tests)
        epochs = train(training)
        next(epochs)
        meter = devices.Meter(self.device)
        line = next(epochs).line
        return {
            "joules": meter.joules(),
            "batch_size": training.whole_batch,
            "steps": training.steps_per_epoch,
            "step_ms": 1000 * line["seconds"] / training.steps_per_epoch,
            "epoch_s": line["seconds"],
            "eval_s": line["eval_seconds"],
            "epochs_of_a_run": self.config.recipe.epochs,
        }

    def parts(self) -> dict[str, Any]:
        """What an epoch takes without the rest of the loop. `host`: until the last launch."""
        training, device = self.prepared(self.sizes.images, self.sizes.tests), self.device
        staged = Staged(training)
        queued = min(QUEUED, len(staged.batches))

        def pipeline() -> None:
            drain(training.train_split, self.config.recipe, training.scale)

        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder), {"run": "none"})
            return {
                "pipeline_s": min(seconds_of(pipeline, device) for _ in range(2)),
                "pipeline_host_s": seconds_of(pipeline, HOST),
                "staged_s": [seconds_of(staged.steps, device) for _ in range(2)][1],
                "host_step_ms": 1000 * seconds_of(lambda: staged.steps(queued), HOST) / queued,
                "checkpoint_save_s": seconds_of(lambda: checkpoints.save(Position(2), training), device),
            }

    def compared(self) -> Comparison:
        """The loop with its own steps on staged batches, once: for tables, and for what a study would cost."""
        config, (smoke, loop, parts) = self.config, (self.facts[part] for part in ("smoke", "loop", "parts"))
        ours, staged = self.sizes.images / loop["epoch_s"], self.sizes.images / parts["staged_s"]
        name = titled(f"gpu {config.variant_name} {config.recipe_source} batch {config.recipe.batch_size}", config)
        watts = loop["joules"] and loop["joules"] / (loop["epoch_s"] + loop["eval_s"])
        facts = {name: smoke[name] for name in ("precision", "graph", "peak_memory_bytes")}
        facts |= {"compile": config.compile, "compile_seconds": smoke["compile_s"], "images": self.sizes.images}
        facts["joules_per_1000_images"] = watts and 1000 * watts / ours
        return Comparison(name, "images/s", ours, staged, STAGED, *[ours / staged] * 3, rounds=1, facts=facts)

    def profile(self) -> dict[str, Any]:
        """The device's busy time in a few steps, its kernels, and the gaps between them; the tables go into a file."""
        steps, on_cuda = self.sizes.profiled_steps, self.device.type == "cuda"
        training = self.prepared((self.sizes.steps_before_profile + steps) * self.config.recipe.batch_size, tests=1)
        window = Window(training, self.sizes)
        next(train(training, window))
        order = "self_device_time_total" if on_cuda else "self_cpu_time_total"
        text = window.profiler.key_averages().table(order, row_limit=60, max_name_column_width=110)
        found = {"profiled_ms": 1000 * window.wall_s / steps, "host_ms": 1000 * window.host_s / steps}
        if on_cuda:
            events = window.profiler.events() or ()
            kernels = [e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
            busy_us, gaps = busy_and_gaps((e.time_range.start, e.time_range.end, e.name) for e in kernels)
            found |= {"busy_ms": busy_us / steps / 1000, "kernels": len(kernels) / steps}
            found["gaps_over_10_us"] = sum(gap > LONG_GAP_US for gap, _, _ in gaps) / steps
            text += "\nthe longest gaps: microseconds, after what, before what\n"
            text += "".join(f"{gap:9.1f} {a[:60]} -> {b[:60]}\n" for gap, a, b in sorted(gaps, reverse=True)[:12])
        path = self.path.with_name(f"{self.path.stem}-{file_stem(self.config.variant_name)}.txt")
        path.write_text(text)
        return found | {"table": path.name}


class Window(Progress):
    """Profiles the last steps of the first epoch: the loop reports every step to its Progress."""

    def __init__(self, training: Training, sizes: Sizes):
        super().__init__("", training.config.recipe.epochs, len(training.train_split), quiet=True)
        self.device, self.sizes, self.seen = training.device, sizes, 0
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        self.profiler = torch.profiler.profile(activities=activities)

    def batch(self, epoch: int, images: int, totals: torch.Tensor) -> None:
        self.seen += 1
        if self.seen == self.sizes.steps_before_profile:
            devices.synchronise(self.device)
            self.profiler.start()
            self.from_s = time.perf_counter()
        elif self.seen == self.sizes.steps_before_profile + self.sizes.profiled_steps:
            self.host_s = time.perf_counter() - self.from_s
            devices.synchronise(self.device)
            self.wall_s = time.perf_counter() - self.from_s
            self.profiler.stop()


def busy_and_gaps(kernels: Iterable[tuple[float, float, str]]) -> tuple[float, list[tuple[float, str, str]]]:
    """How long a device did anything, and when it did nothing: for how long, after what, before what. Of (start, end,
    name); kernels may overlap."""
    busy_us, gaps, end, before = 0.0, [], -math.inf, ""
    for start, stop, name in sorted(kernels):
        if before and start > end:
            gaps.append((start - end, before, name))
        if stop > end:
            busy_us += stop - max(start, end)
            end, before = stop, name
    return busy_us, gaps
