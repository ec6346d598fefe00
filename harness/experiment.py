"""Owns one cell from its config to its record: data, model, training, and what is written when.
Refuses to report and to choose: the accuracy recorded is that of the last planned epoch.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.config import RunConfig
from harness.counting.cost import cost_of
from harness.data.load import ImageData, load
from harness.data.pipeline import held_out, scaling, to_device
from harness.records.environment import environment
from harness.records.read import Run, read_run
from harness.records.write import RunWriter
from harness.training import device as devices
from harness.training.evaluate import Evaluation
from harness.training.loop import Compute, DivergenceError, train, warm_up
from harness.training.progress import Progress
from harness.training.seeds import derive


@dataclass
class Tally:
    """What adds up while a run goes on; a failed run is recorded with what it had."""

    config: RunConfig
    params: int
    macs: int | None
    compile_seconds: float | None = None
    lines: list[dict[str, Any]] | None = None
    shared: bool | None = None

    def result(self, device: torch.device, reason: str | None) -> dict[str, Any]:
        lines, split = self.lines or [], "val" if self.config.holdout else "test"
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
            "shared_device": self.shared,
        }


def build_model(config: RunConfig, device: torch.device) -> nn.Module:
    """The variant, initialised by a seed that no data depends on."""
    torch.manual_seed(derive("init", config.seed))
    return config.variant.module().to(device)


def run_cell(config: RunConfig, data_dir: Path, out: Path, device: torch.device, quiet: bool = False) -> Run:
    """Trains one cell and leaves its record. A run that diverges is recorded as failed and returned as such."""
    data = load(config.dataset, data_dir)
    model = build_model(config, device)
    cost = cost_of(config.variant_name, config.variant, config.dataset_name, check=False)
    writer = RunWriter(out / config.run_id)
    writer.begin(config.to_plain(), environment(devices.describe(device), data.digest), asdict(cost))
    tally = Tally(config, sum(p.numel() for p in model.parameters()), cost.macs, lines=[])
    try:
        evaluation, labels = _trained(config, data, model, device, writer, tally, quiet)
    except DivergenceError as error:
        writer.finish(tally.result(device, str(error)))
    except torch.OutOfMemoryError:
        reason = f"out of memory on {device} at batch size {config.recipe.batch_size}: try a smaller --batch-size"
        writer.finish(tally.result(device, reason))
    else:
        predictions = {"labels": labels, "predicted": evaluation.predicted, "confidence": evaluation.confidence}
        writer.finish(tally.result(device, None), predictions)
    return read_run(writer.folder)


def _trained(
    config: RunConfig,
    data: ImageData,
    model: nn.Module,
    device: torch.device,
    writer: RunWriter,
    tally: Tally,
    quiet: bool,
) -> tuple[Evaluation, Any]:
    """The run itself: every epoch goes into the record as it ends."""
    train_part, judged_part = data.train, data.test
    if config.holdout:
        train_part, judged_part = held_out(data.train, config.holdout)
    train_split, eval_split = to_device(train_part, device), to_device(judged_part, device)
    scale, compute = scaling(data, config.recipe, device), Compute(model, config)
    tally.shared = devices.is_shared(device)
    tally.compile_seconds = warm_up(config, model, compute, train_split, eval_split, scale)
    progress = Progress(title(config), config.recipe.epochs, len(train_split), quiet=quiet)
    evaluation = None
    assert tally.lines is not None
    for epoch in train(config, model, compute, train_split, eval_split, scale, progress):
        writer.epoch(epoch.line)
        tally.lines.append(epoch.line)
        evaluation = epoch.evaluation
    shared = devices.is_shared(device)
    tally.shared = shared if tally.shared is None else tally.shared or bool(shared)
    assert evaluation is not None
    return evaluation, judged_part.labels.astype("uint16")


def title(config: RunConfig) -> str:
    return f"{config.variant_name} {config.dataset_name} {config.recipe_name} seed {config.seed}"
