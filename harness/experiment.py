"""One run from its config to its record, read from top to bottom: prepare, go on from a checkpoint, train epoch by
epoch, evaluate, record. The accuracy recorded is that of the last planned epoch.
"""

import contextlib
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.config import RunConfig
from harness.counting.cost import Cost, cost_of
from harness.data.load import ImageData, Split, load
from harness.data.pipeline import held_out, scaling, shown_more_often, to_device
from harness.records.environment import environment
from harness.records.lock import Lock, owned
from harness.records.read import Run, check_images, done_run, whole_run
from harness.records.write import RunWriter, prepare, set_aside
from harness.training import device as devices
from harness.training.checkpoint import EVERY_S, Checkpoints, clear
from harness.training.evaluate import Evaluation, evaluate, evaluate_corrupted
from harness.training.history import History, Session
from harness.training.loop import DivergenceError, Epoch, train
from harness.training.progress import Progress
from harness.training.setup import Training, build_model, warm_up
from harness.training.signals import listening
from variants.fields import UsageError


@dataclass(frozen=True)
class Resume:
    """How a run uses checkpoints."""

    fresh: bool = False  # trains again what is done; what --fresh itself began goes on
    save_every_s: float = EVERY_S


def run_cell(
    config: RunConfig, data_dir: Path, out: Path, device: torch.device, quiet: bool = False, resume: Resume = Resume()
) -> Run:
    """Trains one run, from where an earlier process left it, and leaves its record.

    A run that diverges is recorded as failed and returned as such. Raises BusyError where another process trains the
    same run, and StoppedError after a signal: the same call goes on.
    """
    prepare(out)
    folder = out / config.run_id
    with explained(config, folder, device), listening() as stop, owned(folder) as lock, own_threads():
        if not resume.fresh and (done := done_run(folder)):  # by another process, since the caller looked
            check_images(done, config.dataset, data_dir)
            clear(folder)  # of a process that was killed when the result was just written
            return done
        devices.keep_freed_memory(device)
        devices.forget_peak_memory(device)
        model = build_model(config, device)  # before the data: a model that cannot be built fails at once
        data = load(config.dataset, data_dir)
        splits = splits_of(config, data)
        check_batches(model, len(splits[0]), config.recipe.batch_size)
        cost, env = counted(config, model), environment(devices.describe(device), data.digest)

        history = History(fresh=resume.fresh)
        checkpoints = Checkpoints(folder, maker_of(config, env), history, stop, resume.save_every_s)
        carried = checkpoints.find()
        if carried and resume.fresh and not (carried.get("fresh") and done_run(folder) is None):
            clear(folder)  # --fresh goes on only with what --fresh began and did not finish
            carried = checkpoints.state = None
        if carried:
            history.go_on(carried)
            env["threads"] = carried["threads"]
            if takes_threads(device, carried["threads"]):
                print(f"{title(config)}: goes on with {carried['threads']} threads, as it began", file=sys.stderr)
            if not quiet:
                print(f"{title(config)}: goes on after epoch {len(history.lines)}", flush=True)
        set_aside(folder)
        writer = RunWriter(folder)
        writer.begin(config.to_plain(), env, asdict(cost), history.lines)
        facts = {name: env[name] for name in ("device_name", "torch", "commit")}
        history.session = Session(device, {**facts, "after_epochs": len(history.lines)})
        progress = Progress(title(config), config.recipe.epochs, len(splits[0]), quiet)

        predictions, reason, can_go_on = None, None, False
        try:
            train_split, eval_split = (to_device(split, device) for split in splits)
            training = Training(config, model, train_split, eval_split, scaling(data, config.recipe, device))
            evaluation = train_and_evaluate(training, checkpoints, writer, progress, lock)
            labels = splits[1].labels.astype("uint16")
            predictions = {"labels": labels, "predicted": evaluation.predicted, "confidence": evaluation.confidence}
        except DivergenceError as error:
            reason = str(error)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            reason, can_go_on = out_of_memory(config, device), True  # once others have left the device
        lock.check()
        size = {"params": sum(p.numel() for p in model.parameters()), "macs": cost.macs}
        writer.finish(history.result(split_name(config), reason) | size, predictions)
        if not can_go_on:
            clear(folder)
        return whole_run(folder)


def train_and_evaluate(
    training: Training, checkpoints: Checkpoints, writer: RunWriter, progress: Progress, lock: Lock
) -> Evaluation:
    """Every epoch goes into the record as it ends; the evaluation is that of the last one."""
    history, session, evaluation = checkpoints.history, checkpoints.history.session, None
    assert session is not None
    session.compile_seconds = warm_up(training)
    try:
        for epoch in train(training, progress, checkpoints):
            lock.check()
            writer.epoch(epoch.line)
            history.lines.append(epoch.line)
            evaluation = epoch.evaluation
            session.look()
    finally:
        progress.close()
        session.look(last=True)
    if evaluation is None:  # an earlier session ended after the last epoch
        evaluation = evaluate(*training.evaluated_with)
    if not training.config.holdout:  # a run with a holdout is for choosing, and never looks at the test set
        start_s = time.perf_counter()
        tell = progress.judging("under corruptions", len(training.eval_split), checkpoints.check)
        history.corruption_accuracy = evaluate_corrupted(*training.evaluated_with, tell)
        history.corruption_seconds = time.perf_counter() - start_s
        progress.close()
    return evaluation


def trained_again(
    config: RunConfig, data_dir: Path, device: torch.device, first: int, quiet: bool = False
) -> Generator[Epoch, None, None]:
    """The first epochs of the same run once more, without a record. To be closed by whoever asks for fewer."""
    model = build_model(config, device)
    data = load(config.dataset, data_dir)
    train_split, eval_split = (to_device(split, device) for split in splits_of(config, data))
    training = Training(config, model, train_split, eval_split, scaling(data, config.recipe, device))
    warm_up(training)
    progress = Progress(title(config), first, len(train_split), quiet)
    with contextlib.closing(progress):
        yield from islice(train(training, progress), first)


# --- going on --------------------------------------------------------------------------------------------------------


def maker_of(config: RunConfig, env: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint must have been made by, for the run to go on with it."""
    names = ("source_digest", "data_digest", "torch", "device", "deterministic")
    return {"run": config.run_id} | {name: env[name] for name in names}


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """A run that goes on takes the threads that it began with; the next one has this process's again."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def takes_threads(device: torch.device, threads: int) -> bool:
    """On a CPU another number of threads takes sums in another order, and no command would give that run again. True
    where it is another than now."""
    if device.type != "cpu" or threads == torch.get_num_threads():
        return False
    torch.set_num_threads(threads)
    return True


# --- what is trained -------------------------------------------------------------------------------------------------


def title(config: RunConfig) -> str:
    return f"{config.variant_name} {config.dataset_name} {config.recipe_name} seed {config.seed}"


def split_name(config: RunConfig) -> str:
    return "val" if config.holdout else "test"


def splits_of(config: RunConfig, data: ImageData) -> tuple[Split, Split]:
    """(trained on, evaluated on)"""
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


# --- errors ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(config: RunConfig, folder: Path, device: torch.device) -> Iterator[None]:
    """What a disk or a device does to a run becomes a sentence that says what to do. Any other exception is a mistake
    of ours and stays as it is."""
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, BrokenPipeError):
            raise
        place = error.filename or folder
        raise UsageError(f"{place}: {error.strerror}; once that is mended, the same command goes on") from error
    except (RuntimeError, MemoryError) as error:
        if devices.is_out_of_memory(error):
            raise UsageError(out_of_memory(config, device)) from error
        if "deterministic" in str(error):
            first_line = str(error).strip().splitlines()[0]
            raise UsageError(f"{config.run_id} cannot be trained with --deterministic: {first_line}") from error
        if config.precision == "fp16" and "not implemented for 'Half'" in str(error):
            raise UsageError(f"{config.run_id} cannot be trained in fp16 on {device.type}: {error}") from error
        raise


def out_of_memory(config: RunConfig, device: torch.device) -> str:
    size = config.recipe.batch_size
    ways = [f"--batch-size {max(1, size // 2)}"]
    if config.precision == "fp32":
        ways.append(f"--precision {'bf16' if devices.has_bf16() else 'fp16'}")
    if device.type == "cuda":
        ways.append("another --device")
    return f"out of memory on {device} at batch size {size}: end what else runs there, or try {' or '.join(ways)}"
