"""Checkpoints: everything that changes while a run trains, saved now and then in the run's own folder, so that the same
command goes on after a kill. A file that is not whole is set aside; one of other code is left to that code.
"""

import contextlib
import hashlib
import io
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from harness.records.schema import ASIDE
from harness.records.write import write_atomically
from harness.training.history import History
from harness.training.setup import Training
from harness.training.signals import Stop, StoppedError
from harness.training.together import StackedSeeds, stack, unstack
from harness.training.world import ALONE, World

KEPT = 2  # the one before the newest is there for the day on which the newest cannot be read
EVERY_S = 60.0
PATTERN = "checkpoint-*.pt"
PARTS = {"maker", "carried", "position", "model", "optimiser", "average", "generator", "cuda_generator"}


@dataclass
class Position:
    """Where the loop stands: so many batches of this epoch are done."""

    epoch: int = 1
    batches: int = 0
    seconds: float = 0.0  # spent on them
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])  # over their images: loss, correct


@dataclass
class Checkpoints:
    """Those of one run. `maker` says what may go on with them: the run, its code, packages and device."""

    folder: Path
    maker: Mapping[str, Any]
    history: History = field(default_factory=History)
    stop: Stop = field(default_factory=Stop)
    every_s: float = EVERY_S
    state: dict[str, Any] | None = None  # what was found, until it is restored
    world: World = ALONE

    def __post_init__(self) -> None:
        self.postpone()
        self._failed = False  # to write the last one
        self._mark = hashlib.sha256(repr(sorted(self.maker.items())).encode()).hexdigest()[:8]  # in the names of files

    def find(self, at: tuple[int, int] | None = None) -> dict[str, Any] | None:
        """The history that lies in the newest usable checkpoint, or in that at a position (epoch, batches). Others are
        set aside, or kept for the code that wrote them, with a message."""
        for half in self.folder.glob(f".{PATTERN}.*"):  # of a process that was killed while it wrote
            half.unlink()
        others: list[str] = []
        for path in sorted(self.folder.glob(PATTERN), reverse=True):
            try:
                state = read_state(path)
                if state["maker"].get("run") != self.maker.get("run"):
                    raise ValueError(f"it is of the run {state['maker'].get('run')}")
            except ValueError as error:
                aside = path.replace(path.with_name(f"{ASIDE}{path.name}"))
                print(f"{path}: {error}; set aside as {aside.name}", file=sys.stderr, flush=True)
                continue
            if at and (state["position"]["epoch"], state["position"]["batches"]) != at:
                continue
            differing = [name for name, value in self.maker.items() if state["maker"].get(name) != value]
            if not differing:
                self.state = state
                return state["carried"]
            others = others or differing
        if others:
            print(
                f"{self.folder} has a checkpoint of another {' and '.join(others)}: the run starts again, because "
                "going on would give a run that nobody can repeat; until it is finished, that checkpoint is kept",
                file=sys.stderr,
                flush=True,
            )
        return None

    def due(self) -> bool:
        """Of several processes the first one decides."""
        told = self.world.number(self.stop.asked or -int(time.monotonic() >= self._due_s))
        if told > 0:
            self.stop.asked = told
        return told != 0

    def save(self, position: Position, training: "Training | OneSeed") -> None:
        """A full disk or memory does not end the run: it goes on without a checkpoint, with one warning."""
        if self.world.rank:
            return self.check()
        state = {"maker": dict(self.maker), "carried": self.history.to_plain(), "position": asdict(position)}
        path = self.folder / f"checkpoint-{position.epoch:06d}-{position.batches:08d}-{self._mark}.pt"
        try:
            write_state(path, state | _state_of(training))
            for older in sorted(self.folder.glob(f"checkpoint-*-{self._mark}.pt"))[:-KEPT]:
                older.unlink(missing_ok=True)
            self._failed = False
        except (OSError, MemoryError, RuntimeError) as error:
            if not self._failed:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                print(f"{path} could not be written ({reason}); training on", file=sys.stderr, flush=True)
            self._failed = True
        self.postpone()
        self.check()

    def postpone(self) -> None:
        self._due_s = time.monotonic() + self.every_s

    def check(self) -> None:
        """Ends the run where a signal asked for it and everything that can be saved is."""
        if self.stop.asked is not None:
            raise StoppedError(self.stop.asked, saved=not self._failed)


def clear(folder: Path) -> None:
    """Of a run that is finished, whose record says everything, or that starts again."""
    for path in folder.glob(PATTERN):
        with contextlib.suppress(OSError):  # one too many harms nobody
            path.unlink()


# --- of all seeds that are trained together --------------------------------------------------------------------------


class OneSeed:
    """A seed's part of a training, as a checkpoint takes it: what the seed's own run would have there."""

    def __init__(self, training: Training, seed: int):
        self.model, self.optimiser = _Part(training.model, seed), _Part(training.optimiser, seed)
        self.average = None if training.average is None else SimpleNamespace(model=_Part(training.average.model, seed))
        self.scaler, self.device = training.scaler, training.device


class _Part:
    def __init__(self, whole: Any, seed: int):
        self._whole, self._seed = whole, seed

    def state_dict(self) -> dict[str, Any]:
        return unstack(self._whole.state_dict(), self._seed)


def save(checkpoints: Sequence[Checkpoints], positions: Sequence[Position], training: Training) -> None:
    """A checkpoint for each seed that has not failed. A signal ends the training when all are written."""
    stopped = None
    for seed, (own, position) in enumerate(zip(checkpoints, positions)):
        if seed not in training.failures:
            try:
                own.save(position, OneSeed(training, seed) if len(checkpoints) > 1 else training)
            except StoppedError as error:
                stopped = error
    for own in checkpoints:
        own.postpone()  # one that has failed too: the first is asked whether a checkpoint is due
    if stopped:
        raise stopped


def restore(checkpoints: Sequence[Checkpoints], training: Training) -> list[Position]:
    """Puts back what was found, once; without it the seeds begin at the beginning. Where each stands."""
    states = [own.state for own in checkpoints if own.state is not None]
    if not states:
        return [Position() for _ in training.seeds]
    for own in checkpoints:
        own.state = None
    first = states[0]
    model, optimiser, average = first["model"], first["optimiser"], first["average"]
    if isinstance(training.model, StackedSeeds):
        model, average = (stack([state[name] for state in states]) for name in ("model", "average"))
        optimiser = stack([state["optimiser"] for state in states], shared=("step",))
    training.model.load_state_dict(model)
    training.optimiser.load_state_dict(optimiser)
    if training.average is not None:
        training.average.model.load_state_dict(average)
    training.scaler.load_state_dict(first.get("scaler", {}))  # checkpoints from before fp16 have none and need none
    torch.set_rng_state(first["generator"])
    if first["cuda_generator"] is not None:
        torch.cuda.set_rng_state(first["cuda_generator"], training.device)
    return [Position(**state["position"]) for state in states]


def _state_of(training: "Training | OneSeed") -> dict[str, Any]:
    on_gpu = training.device.type == "cuda"
    return {
        "model": training.model.state_dict(),
        "optimiser": training.optimiser.state_dict(),
        "average": None if training.average is None else training.average.model.state_dict(),
        "scaler": training.scaler.state_dict(),
        "generator": torch.get_rng_state(),
        "cuda_generator": torch.cuda.get_rng_state(training.device) if on_gpu else None,
    }


def write_state(path: Path, state: dict[str, Any]) -> None:
    """What torch writes, and its SHA-256: torch itself reads a file in which bits have changed."""
    file = io.BytesIO()
    torch.save(state, file)
    digest = hashlib.sha256(file.getbuffer()).digest()
    file.seek(0, io.SEEK_END)
    file.write(digest)
    write_atomically(path, file.getbuffer())


def read_state(path: Path) -> dict[str, Any]:
    """ValueError for a file that is not byte for byte what was written. Nothing in it can be executed."""
    content = path.read_bytes()
    payload, digest = content[:-32], content[-32:]
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("its checksum does not match, it is no whole checkpoint")
    try:
        state = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except Exception as error:  # torch refuses in many ways
        raise ValueError(f"it is not one of our checkpoints ({type(error).__name__})") from None
    plain = ("maker", "carried", "position")
    if not isinstance(state, dict) or not state.keys() >= PARTS or not all(isinstance(state[p], dict) for p in plain):
        raise ValueError("it is not one of our checkpoints")
    return state
