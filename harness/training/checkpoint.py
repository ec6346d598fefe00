"""Owns what a run needs to go on where it stopped: everything that changes while it trains, in files of its own folder.
Refuses a file that is not whole, and one that another run or other code wrote.
"""

import contextlib
import hashlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from harness.records.schema import ASIDE
from harness.records.write import opened_atomically
from harness.training.signals import Stop, StoppedError

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
class Parts:
    """What trains. Optimisers and the average change in place; the scaler does nothing unless fp16 needs it."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: nn.Module | None = None
    scaler: torch.amp.GradScaler = field(default_factory=partial(torch.amp.GradScaler, enabled=False))


@dataclass
class Keeper:
    """Saves a run's state now and then, and finds it again.

    `maker` says who may go on with it: run, code, packages. `carry` gives what the caller wants to find again, as plain
    data; after `find` it stands in `carried`.
    """

    folder: Path
    maker: Mapping[str, Any]
    every_s: float = EVERY_S
    stop: Stop = field(default_factory=Stop)
    carry: Callable[[], dict[str, Any]] = dict
    carried: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._due_s = time.monotonic() + self.every_s
        self._writing: threading.Thread | None = None
        self._told = self._failed = False
        self._mark = hashlib.sha256(repr(sorted(self.maker.items())).encode()).hexdigest()[:8]  # of whose they are

    def restored(self, parts: Parts) -> Position:
        """Puts back what was found, once."""
        state, self.state = self.state, None
        return Position() if state is None else restore(state, parts)

    def find(self) -> bool:
        """The newest state that can be used; what cannot is set aside, or left to the code that wrote it, and said."""
        for half in self.folder.glob(f".{PATTERN}.*"):  # of a process that was killed while it wrote
            half.unlink(missing_ok=True)
        others: list[str] = []
        for path in sorted(self.folder.glob(PATTERN), reverse=True):
            try:
                state = read_state(path)
                if state["maker"].get("run") != self.maker.get("run"):
                    raise ValueError(f"it is of the run {state['maker'].get('run')}")
            except (ValueError, FileNotFoundError, IsADirectoryError) as error:  # a disk that is silent says nothing
                print(f"{path}: {error}; set aside as {_set_aside(path).name}", file=sys.stderr, flush=True)
                continue
            differing = [name for name, value in self.maker.items() if state["maker"].get(name) != value]
            if not differing:
                self.state, self.carried = state, state["carried"]
                return True
            others = others or differing
        if others:
            print(
                f"{self.folder} has a checkpoint of another {' and '.join(others)}: the run starts again, because "
                "going on would give a run that nobody can repeat; until it is finished, that checkpoint is kept",
                file=sys.stderr,
                flush=True,
            )
        return False

    def due(self) -> bool:
        return self.stop.asked is not None or time.monotonic() >= self._due_s

    def save(self, position: Position, parts: Parts) -> None:
        """Copies the state and writes it while the training goes on; waits for it where the run is to stop."""
        state = {"maker": dict(self.maker), "carried": self.carry(), "position": asdict(position), **_state_of(parts)}
        self.wait()
        name = f"checkpoint-{position.epoch:06d}-{position.batches:08d}-{self._mark}.pt"
        self._writing = threading.Thread(target=self._write, args=(self.folder / name, state), daemon=True)
        try:
            self._writing.start()
        except RuntimeError:  # a machine that has no thread left
            self._writing = None
            self._write(self.folder / name, state)
        self._due_s = time.monotonic() + self.every_s
        self.check()

    def check(self) -> None:
        """Ends the run where a signal asked for it and everything that can be saved is."""
        if self.stop.asked is not None:
            self.wait()
            raise StoppedError(self.stop.asked, saved=not self._failed)

    def wait(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def clear(self) -> None:
        """The run is finished: its record says everything."""
        self.wait()
        clear(self.folder)

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        """A full disk or memory must not cost the run: it goes on without, and says so once."""
        self._failed = True
        try:
            write_state(path, state)
        except (OSError, MemoryError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if not self._told:
                print(f"{path} could not be written ({reason}); training on", file=sys.stderr, flush=True)
            self._told = True
            return
        self._failed = False
        _remove(sorted(self.folder.glob(f"checkpoint-*-{self._mark}.pt"))[:-KEPT])


def _set_aside(path: Path) -> Path:
    names = (f"{ASIDE}{path.name}" + (f"-{number}" if number > 1 else "") for number in count(1))
    aside = next(place for name in names if not os.path.lexists(place := path.with_name(name)))
    path.replace(aside)
    return aside


def clear(folder: Path) -> None:
    _remove(folder.glob(PATTERN))


def _remove(paths: Iterable[Path]) -> None:
    """A checkpoint too many harms nobody; what cannot be removed was not written here."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _state_of(parts: Parts) -> dict[str, Any]:
    """Copies in the host's memory: the next step changes the originals."""
    device = next(parts.model.parameters()).device
    return {
        "model": _copied(parts.model.state_dict()),
        "optimiser": _copied(parts.optimiser.state_dict()),
        "average": None if parts.average is None else _copied(parts.average.state_dict()),
        "scaler": parts.scaler.state_dict(),
        "generator": torch.get_rng_state(),
        "cuda_generator": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def restore(state: dict[str, Any], parts: Parts) -> Position:
    parts.model.load_state_dict(state["model"])
    parts.optimiser.load_state_dict(state["optimiser"])
    if parts.average is not None:
        parts.average.load_state_dict(state["average"])
    parts.scaler.load_state_dict(state.get("scaler", {}))  # checkpoints from before fp16 have none and need none
    torch.set_rng_state(state["generator"])
    if state["cuda_generator"] is not None:
        torch.cuda.set_rng_state(state["cuda_generator"], next(parts.model.parameters()).device)
    return Position(**state["position"])


def write_state(path: Path, state: dict[str, Any]) -> None:
    """The pickled state, streamed from the tensors into the file, and its SHA-256."""
    with opened_atomically(path) as file:
        stream = _Digested(file)
        try:
            torch.save(state, stream)  # type: ignore[arg-type]  # asks a stream for no more than that
        except RuntimeError as error:  # of an archive that torch could not end, because a write had failed
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.write(stream.sha256.digest())


class _Digested:
    """Hashes what it passes on."""

    def __init__(self, file: BinaryIO):
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, content: memoryview) -> int:
        self.sha256.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def read_state(path: Path) -> dict[str, Any]:
    """ValueError for a file that is not byte for byte what was written. Nothing in it can be executed."""
    payload = _payload(path.read_bytes())
    try:
        state = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except Exception as error:  # torch refuses in many ways
        raise ValueError(f"it is no checkpoint of ours ({type(error).__name__})") from None
    if not isinstance(state, dict) or not state.keys() >= PARTS:
        raise ValueError("it is no checkpoint of ours")
    if not all(isinstance(state[name], dict) for name in ("maker", "carried", "position")):
        raise ValueError("it is no checkpoint of ours")
    return state


def _payload(content: bytes) -> bytes:
    payload, digest = content[:-32], content[-32:]
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("its checksum does not match, it is no whole checkpoint")
    return payload
