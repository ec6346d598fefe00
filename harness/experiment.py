"""Owns one cell from its config to its record: data, model, training, and what is written when.
Refuses to report and to choose: the accuracy recorded is that of the last planned epoch.
"""

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.config import RunConfig
from harness.counting.cost import Cost, cost_of
from harness.data.canonical import Split
from harness.data.load import ImageData, load
from harness.data.pipeline import held_out, scaling, shown_more_often, to_device
from harness.records.environment import environment
from harness.records.read import Run, read_run
from harness.records.write import RunWriter, prepare
from harness.training import device as devices
from harness.training.energy import Meter
from harness.training.evaluate import Evaluation, evaluate_corrupted
from harness.training.loop import Compute, DivergenceError, train, warm_up
from harness.training.progress import Progress
from harness.training.seeds import derive
from variants.fields import UsageError


@dataclass
class Tally:
    """What adds up while a run goes on; a failed run is recorded with what it had."""

    config: RunConfig
    params: int
    macs: int | None
    compile_seconds: float | None = None
    energy_joules: float | None = None
    corruption_accuracy: dict[str, list[float]] | None = None
    corruption_seconds: float | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    neighbours: devices.Neighbours | None = None

    def result(self, device: torch.device, reason: str | None) -> dict[str, Any]:
        lines, split = self.lines, "val" if self.config.holdout else "test"
        last = lines[-1] if lines and reason is None else {}
        seconds = sum(line["seconds"] for line in lines)
        images = lines[-1]["images_seen"] if lines else 0
        on_test = split == "test"
        return {
            "outcome": "ok" if reason is None else "failed",
            "reason": reason,
            "split": split,
            "test_accuracy": last.get("test_accuracy"),
            "best_test_accuracy": max(line["test_accuracy"] for line in lines) if last and on_test else None,
            "test_nll": last.get("test_loss"),
            "val_accuracy": last.get("val_accuracy"),
            "epochs": len(lines),
            "images_seen": images,
            "train_seconds": seconds if lines else None,
            "compile_seconds": self.compile_seconds,
            "eval_seconds": sum(line["eval_seconds"] for line in lines) if lines else None,
            "images_per_second": images / seconds if lines else None,
            "peak_memory_bytes": devices.peak_memory_bytes(device),
            "params": self.params,
            "macs": self.macs,
            "energy_joules": self.energy_joules,
            "corruption_accuracy": self.corruption_accuracy,
            "corruption_seconds": self.corruption_seconds,
            "shared_device": self.neighbours.seen if self.neighbours else None,
        }


def build_model(config: RunConfig, device: torch.device) -> nn.Module:
    """The variant, initialised by a seed that no data depends on."""
    torch.manual_seed(derive("init", config.seed))
    return config.variant.module().to(device)


def run_cell(config: RunConfig, data_dir: Path, out: Path, device: torch.device, quiet: bool = False) -> Run:
    """Trains one cell and leaves its record. A run that diverges is recorded as failed and returned as such."""
    prepare(out)
    devices.keep_freed_memory(device)
    devices.forget_peak_memory(device)
    model = build_model(config, device)  # first, so that a model that cannot be built costs nobody the data
    data = load(config.dataset, data_dir)
    splits = (data.train, data.test) if not config.holdout else held_out(data.train, config.holdout)
    splits = (shown_more_often(splits[0], config.recipe.train_share), splits[1])
    check_batches(model, len(splits[0]), config.recipe.batch_size)
    cost = counted(config, model)
    writer = RunWriter(out / config.run_id)
    writer.begin(config.to_plain(), environment(devices.describe(device), data.digest), asdict(cost))
    tally = Tally(config, sum(p.numel() for p in model.parameters()), cost.macs)
    try:
        evaluation = _trained(config, data, splits, model, device, writer, tally, quiet)
    except DivergenceError as error:
        writer.finish(tally.result(device, str(error)))
    except torch.OutOfMemoryError:
        reason = f"out of memory on {device} at batch size {config.recipe.batch_size}: try a smaller --batch-size"
        writer.finish(tally.result(device, reason))
    else:
        labels = splits[1].labels.astype("uint16")
        predictions = {"labels": labels, "predicted": evaluation.predicted, "confidence": evaluation.confidence}
        writer.finish(tally.result(device, None), predictions)
    return read_run(writer.folder)


def check_batches(model: nn.Module, images: int, batch_size: int) -> None:
    """A batch norm cannot train on one image, and none is dropped."""
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    if normed and images % batch_size == 1:
        raise UsageError(f"--batch-size {batch_size} leaves a last batch of 1 image, on which batch norm cannot train")


def counted(config: RunConfig, model: nn.Module) -> Cost:
    """A model that cannot be counted can still be trained; its MACs are then unknown."""
    try:
        return cost_of(config.variant_name, config.variant, config.dataset_name, check=False)
    except Exception as error:
        print(f"{config.variant_name} cannot be counted: {type(error).__name__}: {error}", file=sys.stderr)
        params = sum(p.numel() for p in model.parameters())
        return Cost(config.variant_name, config.dataset_name, params, *[None] * 6)


def _trained(
    config: RunConfig,
    data: ImageData,
    splits: tuple[Split, Split],
    model: nn.Module,
    device: torch.device,
    writer: RunWriter,
    tally: Tally,
    quiet: bool,
) -> Evaluation:
    """The run itself: every epoch goes into the record as it ends."""
    train_split, eval_split = (to_device(split, device) for split in splits)
    scale, compute = scaling(data, config.recipe, device), Compute(model, config)
    tally.neighbours = devices.Neighbours(device)
    tally.compile_seconds = warm_up(config, model, compute, train_split, eval_split, scale)
    progress, evaluation = Progress(title(config), config.recipe.epochs, len(train_split), quiet=quiet), None
    meter = Meter(device)
    try:
        for epoch in train(config, model, compute, train_split, eval_split, scale, progress):
            writer.epoch(epoch.line)
            tally.lines.append(epoch.line)
            evaluation = epoch.evaluation
            tally.neighbours.look()
    finally:
        progress.close()
        tally.energy_joules = meter.joules()
        tally.neighbours.look(last=True)
    assert evaluation is not None
    if not config.holdout:  # which chooses, and needs nothing that the choice is not made by
        start_s = time.perf_counter()
        told = progress.judging("under corruptions", len(eval_split))
        tally.corruption_accuracy = evaluate_corrupted(
            compute.judged, compute.forward, eval_split, scale, config.precision, told
        )
        progress.close()
        tally.corruption_seconds = time.perf_counter() - start_s
    return evaluation


def title(config: RunConfig) -> str:
    return f"{config.variant_name} {config.dataset_name} {config.recipe_name} seed {config.seed}"
