"""One run, or several seeds of a cell as one, from config to record, read from top to bottom: prepare, go on from a
checkpoint, train epoch by epoch, evaluate, record. The accuracy recorded is that of the last planned epoch.
"""

import contextlib
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.cell import check_batches, counted, split_name, splits_of, title
from harness.config import RunConfig, variant_type
from harness.counting.cost import Cost
from harness.data.load import ImageData, Split, load
from harness.data.pipeline import mean_and_std
from harness.records.environment import environment
from harness.records.lock import BusyError, Lock, owned
from harness.records.read import Run, check_images, done_run, whole_run
from harness.records.write import RunWriter, prepare, set_aside
from harness.training import device as devices
from harness.training.checkpoint import EVERY_S, Checkpoints, clear
from harness.training.evaluate import Evaluation, evaluate_corrupted, judged, read
from harness.training.history import History, Session
from harness.training.loop import Epoch, train_seeds
from harness.training.progress import Progress
from harness.training.setup import PLAIN, Stepping, Training, build_model, prepared, warm_up
from harness.training.signals import Stop, StoppedError, at_once, listening
from harness.training.step import DivergenceError
from harness.training.together import stack_models, unstack
from harness.training.track import FOLDER, Tracked, Trackers, flat
from variants.fields import UsageError
from variants.weights import Card, to_bytes


@dataclass(frozen=True)
class Options:
    """How a run is carried out; what it is does not depend on it."""

    fresh: bool = False  # trains again what is done; what --fresh itself began goes on
    save_every_s: float = EVERY_S
    stepping: Stepping = PLAIN
    weights: bool = True  # are kept
    track: tuple[str, ...] = ()  # names of trackers
    skip_broken: bool = False  # images of a folder


def run_cell(
    config: RunConfig,
    data_dir: Path,
    out: Path,
    device: torch.device,
    quiet: bool = False,
    options: Options = Options(),
) -> Run:
    """Trains one run, from where an earlier process left it, and leaves its record.

    A run that diverges is recorded as failed and returned as such. Raises BusyError where another process trains the
    same run, and StoppedError after a signal: the same call goes on.
    """
    (run,) = run_seeds([config], data_dir, out, device, quiet, options)
    return run


def run_seeds(
    configs: Sequence[RunConfig],
    data_dir: Path,
    out: Path,
    device: torch.device,
    quiet: bool = False,
    options: Options = Options(),
) -> list[Run]:
    """The same for several seeds of one cell, trained as one, with a record for each. A seed that another process
    trains is left out and named (BusyError where none is left); those at different positions are trained apart."""
    prepare(out)
    config = configs[0]
    with explained(config, out / config.run_id, device), listening() as stop, contextlib.ExitStack() as locks:
        seeds = owned_seeds(configs, out, locks)
        todo = [seed for seed in seeds if options.fresh or not seed.is_done(data_dir)]
        if not todo:
            options.stepping.world.told(None)
        else:
            devices.keep_freed_memory(device)
            devices.forget_peak_memory(device)
            models = [build_model(seed.config, device) for seed in todo]  # before the data: what cannot be built fails
            with at_once():
                data = load(config.dataset, data_dir, options.skip_broken)
            splits = splits_of(config, data)
            check_batches(models[0], len(splits[0]), config.recipe.batch_size, options.stepping)
            cost, env = counted(config, models[0]), environment(devices.describe(device), data.digest)
            env |= as_stepped(options.stepping)
            size, own_models = sum(p.numel() for p in models[0].parameters()), dict(zip(todo, models))
            del models
            for seed in todo:
                seed.params = size
                seed.find_checkpoint(env, cost, stop, options)
            for group in grouped_by_position(todo):
                with own_threads(), contextlib.ExitStack() as ends:
                    for seed in group:
                        ends.callback(seed.trackers.end)
                    train_group(group, [own_models.pop(seed) for seed in group], data, splits, quiet, options)
        return [whole_run(seed.folder) for seed in seeds]


def owned_seeds(configs: Sequence[RunConfig], out: Path, locks: contextlib.ExitStack) -> "list[Seed]":
    seeds = []
    for config in configs:
        folder = out / config.run_id
        try:
            seeds.append(Seed(config, folder, locks.enter_context(owned(folder))))
        except BusyError as error:
            if config is configs[-1] and not seeds:
                raise
            print(f"left out: {error}", flush=True)
    return seeds


class Seed:
    """One run of a cell, trained alone or together with others: its lock, history, checkpoints and record."""

    cost: Cost
    env: dict[str, Any]
    params: int
    history: History
    checkpoints: Checkpoints
    trackers: Trackers

    def __init__(self, config: RunConfig, folder: Path, lock: Lock):
        self.config, self.folder, self.lock, self.writer = config, folder, lock, RunWriter(folder)
        self.is_recorded = False

    def is_done(self, data_dir: Path) -> bool:
        """By another process, since the caller looked."""
        if done := done_run(self.folder):
            check_images(done, self.config.dataset, data_dir)
            clear(self.folder)  # of a process that was killed when the result was just written
        return done is not None

    def find_checkpoint(self, env: dict[str, Any], cost: Cost, stop: Stop, options: Options) -> None:
        """Where an earlier process left it."""
        self.env, self.cost, self.history = dict(env), cost, History(fresh=options.fresh)
        self.trackers = Trackers(options.track)
        maker = maker_of(self.config, env)
        self.checkpoints = Checkpoints(self.folder, maker, self.history, stop, options.save_every_s)
        self.checkpoints.world = options.stepping.world
        carried = self.checkpoints.find()
        if carried and options.fresh and not (carried.get("fresh") and done_run(self.folder) is None):
            clear(self.folder)  # --fresh goes on only with what --fresh began and did not finish
            carried = self.checkpoints.state = None
        self._go_on(carried)

    def _go_on(self, carried: dict[str, Any] | None) -> None:
        if carried:
            self.history.go_on(carried)
            self.env["threads"] = carried["threads"]

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and batches, (0, 0) at the beginning."""
        at = self.checkpoints.state["position"] if self.checkpoints.state else {"epoch": 0, "batches": 0}
        return at["epoch"], at["batches"]

    @property
    def trained_with(self) -> tuple[int, ...]:
        """The seeds with which it came there, itself among them; empty at the beginning."""
        return tuple(self.history.earlier[-1].get("seeds", [self.config.seed])) if self.checkpoints.state else ()

    def go_back(self, at: tuple[int, int]) -> None:
        """To a checkpoint that all who were trained together have: a process may die between two of their saves. A seed
        that has none there stays."""
        if self.position > at:
            self._go_on(self.checkpoints.find(at))

    def begin(self, session: Session) -> None:
        set_aside(self.folder)
        self.writer.begin(self.config.to_plain(), self.env, asdict(self.cost), self.history.lines)
        self.history.session = session
        shown = Tracked(title(self.config), flat(self.config.to_plain()), self.folder.parent / FOLDER)
        self.trackers.begin(shown, self.history.lines, goes_on=self.checkpoints.state is not None)

    def epoch(self, line: dict[str, Any]) -> None:
        self.lock.check()
        self.writer.epoch(line)
        self.history.lines.append(line)
        self.trackers.epoch(line)

    def record(
        self, reason: str | None, predictions: dict[str, np.ndarray] | None = None, weights: bytes | None = None
    ) -> None:
        """The end of it, once. `reason`: why it failed, if it did."""
        if self.is_recorded:
            return
        self.lock.check()
        size = {"params": self.params, "macs": self.cost.macs}
        result = self.history.result(split_name(self.config), reason) | size
        self.writer.finish(result, predictions, weights)
        self.is_recorded = True
        self.trackers.end(result)


def grouped_by_position(seeds: Sequence[Seed]) -> list[list[Seed]]:
    by_set: dict[tuple[int, ...], list[Seed]] = {}
    for seed in seeds:
        by_set.setdefault(seed.trained_with, []).append(seed)
    groups: dict[tuple[Any, ...], list[Seed]] = {}
    for numbers, members in by_set.items():
        oldest = min(seed.position for seed in members)
        for seed in members:
            seed.go_back(oldest)
            groups.setdefault((numbers, seed.position), []).append(seed)
    return list(groups.values())


def train_group(
    group: Sequence[Seed],
    models: Sequence[nn.Module],
    data: ImageData,
    splits: tuple[Split, Split],
    quiet: bool,
    options: Options,
) -> None:
    """Seeds at the same position, from there to their records."""
    device = next(models[0].parameters()).device
    devices.forget_peak_memory(device)
    first, numbers = group[0], [seed.config.seed for seed in group]
    config, done, name = first.config, len(first.history.lines), title(first.config, numbers)
    if first.checkpoints.state:
        if takes_threads(device, first.env["threads"]):
            print(f"{name}: goes on with {first.env['threads']} threads, as it began", file=sys.stderr)
        if not quiet:
            print(f"{name}: goes on after epoch {done}", flush=True)
    facts = {fact: first.env[fact] for fact in ("device_name", "torch", "commit")} | {"after_epochs": done}
    together = {"seeds": numbers} if len(group) > 1 else {}
    session = Session(device, facts | together | as_stepped(options.stepping))
    for seed in group:
        seed.begin(session)

    progress = Progress(name, config.recipe.epochs, len(splits[0]), quiet)
    predictions: Sequence[dict[str, np.ndarray] | None] = [None] * len(group)
    kept: Sequence[bytes | None] = [None] * len(group)
    reasons, can_go_on = {}, False
    try:
        options.stepping.world.told({"maker": dict(first.checkpoints.maker), "state": first.checkpoints.state})
        training = prepared(config, stack_models(models, numbers), data, splits, options.stepping)
        session.facts["graph"] = training.is_graph
        if (resident := training.stepping.resident) != "device":
            session.facts["resident"] = resident
            if options.stepping.resident == "auto":
                print(f"--resident {resident}: half of the memory that is left does not hold the images", flush=True)
        labels, evaluations = splits[1].labels.astype("uint16"), train_and_evaluate(training, group, progress)
        predictions = [{"labels": labels, "predicted": e.predicted, "confidence": e.confidence} for e in evaluations]
        if options.weights:
            kept = [None if i in training.failures else weights_of(training, i, s, data) for i, s in enumerate(group)]
    except DivergenceError as error:
        reasons = error.reasons
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error) or options.stepping.world.size > 1:  # the others are inside of a step
            raise
        can_go_on = True  # once others have left the device
        reasons = dict.fromkeys(range(len(group)), out_of_memory(config, device, len(group)))
    for index, (seed, predicted, weights) in enumerate(zip(group, predictions, kept)):
        seed.record(reasons.get(index), predicted, weights)
        if not can_go_on:
            clear(seed.folder)


class Follower:
    """In the place of a Seed, where another process writes its record."""

    def __init__(self, config: RunConfig, checkpoints: Checkpoints, session: Session):
        self.config, self.checkpoints, self.is_recorded = config, checkpoints, True
        self.history = checkpoints.history
        self.history.session = session

    def epoch(self, line: dict[str, Any]) -> None:
        self.history.lines.append(line)


def follow(config: RunConfig, data_dir: Path, device: torch.device, options: Options) -> None:
    """What all processes but the first do: the same steps, and no record."""
    stepping = options.stepping
    with explained(config, data_dir, device), listening(), own_threads():  # the first one says when to stop
        devices.keep_freed_memory(device)
        model = build_model(config, device)
        with at_once():
            data = load(config.dataset, data_dir, options.skip_broken)
        splits = splits_of(config, data)
        check_batches(model, len(splits[0]), config.recipe.batch_size, stepping)
        first = stepping.world.told(None)
        if first is None:
            return
        maker = maker_of(config, environment(devices.describe(device), data.digest))
        if differing := [name for name in maker if maker[name] != first["maker"][name]]:
            raise UsageError(f"process {stepping.world.rank} has another {' and '.join(differing)} than the first one")
        if first["state"]:
            takes_threads(device, first["state"]["carried"]["threads"])
        checkpoints = Checkpoints(Path(), maker, state=first["state"], world=stepping.world)
        follower = Follower(config, checkpoints, Session(device, {}))
        training = prepared(config, model, data, splits, stepping)
        with contextlib.suppress(DivergenceError):  # the first one tells it
            train_and_evaluate(training, [follower], Progress("", config.recipe.epochs, len(splits[0]), quiet=True))


def train_and_evaluate(training: Training, group: Sequence[Seed | Follower], progress: Progress) -> list[Evaluation]:
    """Every epoch goes into the records as it ends, and so does a failure. The last epoch's evaluations."""
    checkpoints, session, evaluations = [seed.checkpoints for seed in group], group[0].history.session, None
    assert session is not None
    session.compile_seconds = compiled(training, session)
    try:
        for epoch in train_seeds(training, progress, checkpoints):
            record_failures(training, group)
            for index, seed in enumerate(group):
                if index not in training.failures:
                    seed.epoch(epoch[index].line)
            evaluations = [one.evaluation for one in epoch]
            session.facts["graph_seconds"] = training.graph_seconds
            session.look()
    except StoppedError:
        record_failures(training, group)
        raise
    finally:
        progress.close()
        session.look(last=True)
    if evaluations is None:  # an earlier session ended after the last epoch
        evaluations = read(judged(*training.evaluated_with))
    if not training.config.holdout:  # a run with a holdout is for choosing, and never looks at the test set
        start_s = time.perf_counter()
        tell = progress.judging("under corruptions", len(training.eval_split), checkpoints[0].check)
        for seed, accuracy in zip(group, evaluate_corrupted(training.evaluated_with, tell)):
            seed.history.corruption_accuracy = accuracy
            seed.history.corruption_seconds = time.perf_counter() - start_s
        progress.close()
    return evaluations


def weights_of(training: Training, index: int, seed: Seed, data: ImageData) -> bytes:
    """Those that were evaluated, with what is needed to use them elsewhere."""
    config, state = seed.config, training.judged.state_dict()
    mean, std = mean_and_std(data, config.recipe)
    card = Card(
        variant_name=config.variant_name,
        variant_type=variant_type(config.variant),
        variant=asdict(config.variant),
        dataset=data.dataset.title,
        classes=data.dataset.class_names,
        mean=mean,
        std=std,
        run_id=config.run_id,
        split=split_name(config),
        accuracy=seed.history.lines[-1][f"{split_name(config)}_accuracy"],
    )
    return to_bytes(unstack(state, index) if len(training.seeds) > 1 else state, card)


def record_failures(training: Training, group: Sequence[Any]) -> None:
    for index, reason in training.failures.items():
        if not group[index].is_recorded:
            print(f"{title(group[index].config)} failed: {reason}", file=sys.stderr, flush=True)
            group[index].record(reason)
            clear(group[index].folder)  # it starts again, by itself


def compiled(training: Training, session: Session) -> float | None:
    """Seconds. Several seeds whose step cannot be compiled as one are trained without, and their records say so."""
    try:
        return warm_up(training)
    except Exception as error:  # compilers raise what they like
        if len(training.seeds) == 1 or devices.is_out_of_memory(error):
            raise
        first_line = (str(error).strip().splitlines() or [""])[0]
        print(f"not compiled, {type(error).__name__}: {first_line}", file=sys.stderr, flush=True)
        training.go_uncompiled()
        session.facts["compiled"] = False
        return None


def trained_again(
    config: RunConfig,
    data_dir: Path,
    device: torch.device,
    first: int,
    quiet: bool = False,
    session: Mapping[str, Any] = MappingProxyType({}),
) -> Generator[Epoch, None, None]:
    """The first epochs of the same run once more, without a record, as in that session of it: with the seeds that were
    trained together, as a graph and in parts if they were. To be closed by whoever asks for fewer."""
    seeds = session.get("seeds") or [config.seed]
    model = stack_models([build_model(replace(config, seed=seed), device) for seed in seeds], seeds)
    data = load(config.dataset, data_dir, skip_broken=True)  # as it may have been; the digest tells
    stepping = Stepping(bool(session.get("graph")), session.get("accumulate", 1))
    training = prepared(config, model, data, splits_of(config, data), stepping)
    warm_up(training)
    progress = Progress(title(config, seeds), first, len(training.train_split), quiet)
    with contextlib.closing(progress):
        for epoch in islice(train_seeds(training, progress), first):
            yield epoch[seeds.index(config.seed)]


def as_stepped(stepping: Stepping) -> dict[str, int]:
    """For records; those of one process and of whole batches do not say so."""
    facts = {"world_size": stepping.world.size, "accumulate": stepping.accumulate}
    return {name: count for name, count in facts.items() if count > 1}


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
        if "finished reduction" in str(error):  # DistributedDataParallel, of weights without gradient
            raise UsageError(
                f"{config.run_id} has weights that take no part in its loss: only one process can train it"
            ) from error
        raise


def out_of_memory(config: RunConfig, device: torch.device, seeds: int = 1) -> str:
    size = config.recipe.batch_size
    ways = [f"--seeds-at-once {seeds // 2}"] if seeds > 1 else []
    ways += ["--accumulate 2", f"--batch-size {max(1, size // 2)}"]
    if config.precision == "fp32":
        ways.append(f"--precision {'bf16' if devices.has_bf16() else 'fp16'}")
    if device.type == "cuda":
        ways.append("another --device")
    return f"out of memory on {device} at batch size {size}: end what else runs there, or try {' or '.join(ways)}"
