"""Owns one cell from its config to its record: data, model, training, and what is written when.
Refuses to report and to choose: the accuracy recorded is that of the last planned epoch.
"""

import contextlib
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from harness.config import RunConfig
from harness.counting.cost import Cost, cost_of
from harness.data.canonical import Split
from harness.data.load import ImageData, load
from harness.data.pipeline import held_out, scaling, shown_more_often, to_device
from harness.records.environment import environment
from harness.records.lock import Lock, owned
from harness.records.read import Run, check_images, done_run, whole_run
from harness.records.write import RunWriter, prepare, set_aside, set_aside_done
from harness.tally import Session, Tally
from harness.training import device as devices
from harness.training.checkpoint import EVERY_S, Keeper, clear
from harness.training.energy import Meter
from harness.training.evaluate import Evaluation, evaluate, evaluate_corrupted
from harness.training.loop import Compute, Epoch, train, warm_up
from harness.training.mishaps import out_of_memory, told_in_a_sentence
from harness.training.progress import Progress
from harness.training.seeds import derive
from harness.training.signals import Stop, listening
from harness.training.watch import DivergenceError
from variants.fields import UsageError


def build_model(config: RunConfig, device: torch.device) -> nn.Module:
    """The variant, initialised by a seed that no data depends on."""
    torch.manual_seed(derive("init", config.seed))
    return config.variant.module().to(device)


def run_cell(
    config: RunConfig,
    data_dir: Path,
    out: Path,
    device: torch.device,
    quiet: bool = False,
    fresh: bool = False,
    save_every_s: float = EVERY_S,
) -> Run:
    """Trains one cell, from where an earlier process left it, and leaves its record.

    A run that diverges is recorded as failed and returned as such. Raises BusyError where another process trains this
    cell, and StoppedError where a signal asked for it: the same call goes on.
    """
    prepare(out)
    folder = out / config.run_id
    with told_in_a_sentence(config, folder, device), listening() as stop, owned(folder) as lock, own_threads():
        if not fresh and (run := done_run(folder)):  # by another process, since the caller looked
            check_images(run, config.dataset, data_dir)
            clear(folder)  # of a process that was killed when the result was just written
            return run
        return _run_owned(config, data_dir, folder, device, quiet, fresh, save_every_s, stop, lock)


def _run_owned(
    config: RunConfig,
    data_dir: Path,
    folder: Path,
    device: torch.device,
    quiet: bool,
    fresh: bool,
    save_every_s: float,
    stop: Stop,
    lock: Lock,
) -> Run:
    devices.keep_freed_memory(device)
    devices.forget_peak_memory(device)
    model = build_model(config, device)  # first, so that a model that cannot be built costs nobody the data
    data = load(config.dataset, data_dir)
    splits = splits_of(config, data)
    check_batches(model, len(splits[0]), config.recipe.batch_size)
    cost, env = counted(config, model), environment(devices.describe(device), data.digest)
    tally = Tally(config, sum(p.numel() for p in model.parameters()), cost.macs)
    maker = {name: env[name] for name in ("source_digest", "data_digest", "torch", "device", "deterministic")}
    keeper = Keeper(folder, {"run": config.run_id, **maker}, save_every_s, stop, tally.carry)
    found = keeper.find()
    if found and fresh and (not keeper.carried.get("fresh") or done_run(folder)):  # what --fresh itself began goes on
        keeper.clear()
        found, keeper.state, keeper.carried = False, None, {}
    tally.fresh = fresh or (found and bool(keeper.carried.get("fresh")))
    if found:
        tally.lines, tally.earlier = list(keeper.carried["lines"]), list(keeper.carried["sessions"])
        env["threads"] = as_it_began(config, device, keeper.carried["threads"])
        if not quiet:
            print(f"{title(config)}: goes on after epoch {len(tally.lines)}", flush=True)
    set_aside(folder)
    set_aside_done(folder)
    writer = RunWriter(folder)
    writer.begin(config.to_plain(), env, asdict(cost), tally.lines)
    facts = {name: env[name] for name in ("device_name", "torch", "commit")} | {"after_epochs": len(tally.lines)}
    tally.session = Session(device, facts, devices.Neighbours(device), Meter(device))
    predictions, reason, kept = None, None, False
    try:
        evaluation = _trained(config, data, splits, model, device, writer, tally, keeper, lock, quiet)
    except DivergenceError as error:
        reason = str(error)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        reason, kept = out_of_memory(config, device), True  # others may leave the device, and then it goes on
    else:
        labels = splits[1].labels.astype("uint16")
        predictions = {"labels": labels, "predicted": evaluation.predicted, "confidence": evaluation.confidence}
    lock.check()
    writer.finish(tally.result(reason), predictions)
    if not kept:
        keeper.clear()
    try:
        return whole_run(folder)
    except ValueError as error:
        told = f"{folder} was changed while it was trained ({error}): the same command trains it again"
        raise UsageError(told) from None


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """A run that goes on takes the threads that it began with; the next one has this process's again."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def as_it_began(config: RunConfig, device: torch.device, threads: int) -> int:
    """On a CPU another number of threads takes sums in another order, and no command would give that run again."""
    if device.type == "cpu" and threads != torch.get_num_threads():
        print(f"{title(config)}: goes on with {threads} threads, as it began", file=sys.stderr, flush=True)
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def trained_again(
    config: RunConfig, data_dir: Path, device: torch.device, first: int, quiet: bool = False
) -> Generator[Epoch, None, None]:
    """The first epochs of the same run once more, without a record. To be closed by whoever asks for fewer."""
    model = build_model(config, device)
    data = load(config.dataset, data_dir)
    train_split, eval_split = (to_device(split, device) for split in splits_of(config, data))
    scale, compute = scaling(data, config.recipe, device), Compute(model, config)
    warm_up(config, model, compute, train_split, eval_split, scale)
    progress = Progress(title(config), first, len(train_split), quiet=quiet)
    with contextlib.closing(progress):
        yield from islice(train(config, model, compute, train_split, eval_split, scale, progress), first)


def splits_of(config: RunConfig, data: ImageData) -> tuple[Split, Split]:
    """What is trained on and what is judged on."""
    train_split, judged = held_out(data.train, config.holdout) if config.holdout else (data.train, data.test)
    return shown_more_often(train_split, config.recipe.train_share), judged


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
        return Cost(config.variant_name, config.dataset_name, params)


def _trained(
    config: RunConfig,
    data: ImageData,
    splits: tuple[Split, Split],
    model: nn.Module,
    device: torch.device,
    writer: RunWriter,
    tally: Tally,
    keeper: Keeper,
    lock: Lock,
    quiet: bool,
) -> Evaluation:
    """The run itself: every epoch goes into the record as it ends."""
    train_split, eval_split = (to_device(split, device) for split in splits)
    scale, compute, session = scaling(data, config.recipe, device), Compute(model, config), tally.session
    assert session is not None
    session.compile_seconds = warm_up(config, model, compute, train_split, eval_split, scale)
    progress = Progress(title(config), config.recipe.epochs, len(train_split), quiet=quiet)
    evaluation = None
    try:
        for epoch in train(config, model, compute, train_split, eval_split, scale, progress, keeper):
            lock.check()
            writer.epoch(epoch.line)
            tally.lines.append(epoch.line)
            evaluation = epoch.evaluation
            session.neighbours.look()
    finally:
        progress.close()
        keeper.wait()
        session.neighbours.look(last=True)
    judged = compute.judged, compute.forward, eval_split, scale, config.precision
    if evaluation is None:  # the last session ended after the last epoch
        evaluation = evaluate(*judged)
    if not config.holdout:  # which chooses, and needs nothing that the choice is not made by
        start_s, told = time.perf_counter(), progress.judging("under corruptions", len(eval_split), keeper.check)
        tally.corruption_accuracy = evaluate_corrupted(*judged, told)
        tally.corruption_seconds = time.perf_counter() - start_s
        progress.close()
    return evaluation


def title(config: RunConfig) -> str:
    return f"{config.variant_name} {config.dataset_name} {config.recipe_name} seed {config.seed}"
