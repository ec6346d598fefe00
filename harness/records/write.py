"""Writes a run, each file atomically and result.json last, because a run is finished when its result exists; and sets
aside what lies where a run is to be trained. For training, and for whoever writes a file that must be whole.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from harness.records.read import reason, whole_run
from harness.records.schema import ASIDE, BY_THE_WRITER, FILES, REPLACED, RESULT_FIELDS, SCHEMA, WEIGHTS, digest, sealed
from variants.fields import UsageError

LEAST_ROOM = 2**16  # bytes: a record without its predictions


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Afterwards either all of it is under that name, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a new name must not be on the disk before the content
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # a file system that does not sync folders
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)  # nothing that this one replaces may be removed before its name is on the disk
            os.close(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json_bytes(value))


def prepare(out: Path) -> None:
    """The folder that runs go into; one that cannot be written is better refused before hours are spent."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(bytes(LEAST_ROOM))
            file.flush()
    except OSError as error:
        raise UsageError(f"cannot write into {out}: {error.strerror or error}") from None


# --- a run -----------------------------------------------------------------------------------------------------------


class RunWriter:
    """One run's folder, in the order of the flow: begin, an epoch at a time, finish."""

    def __init__(self, folder: Path):
        self.folder = folder

    def begin(
        self, config: dict[str, Any], env: dict[str, Any], cost: dict[str, Any], lines: Sequence[dict[str, Any]] = ()
    ) -> None:
        """`lines`: the epochs that an earlier session has done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (*reversed(FILES), WEIGHTS):  # the old result first: what is left is unfinished at any moment
            (self.folder / name).unlink(missing_ok=True)
            for half in self.folder.glob(f".{name}.*"):  # of a process that was killed while it wrote
                half.unlink(missing_ok=True)
        write_json(self.folder / "config.json", {**config, "schema": SCHEMA})
        write_json(self.folder / "env.json", env)
        write_json(self.folder / "cost.json", cost)
        write_atomically(self.folder / "epochs.jsonl", b"".join(map(_line, lines)))

    def epoch(self, line: dict[str, Any]) -> None:
        content = _line(line)
        with (self.folder / "epochs.jsonl").open("r+b") as file:  # it is there since the beginning
            file.seek(0, os.SEEK_END)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the result must not be on the disk before it

    def finish(
        self, result: dict[str, Any], predictions: dict[str, np.ndarray] | None = None, weights: bytes | None = None
    ) -> None:
        missing = RESULT_FIELDS.keys() - result.keys() - set(BY_THE_WRITER)
        if missing:
            raise ValueError(f"the result lacks {', '.join(sorted(missing))}")
        if predictions is not None:
            content = io.BytesIO()
            np.savez_compressed(content, **predictions)  # type: ignore[arg-type]
            write_atomically(self.folder / "predictions.npz", content.getvalue())
        if weights is not None:
            try:
                write_atomically(self.folder / WEIGHTS, weights)
            except OSError as error:  # the record is worth more, and whole without
                why = f"could not be written ({error.strerror}): the run is kept without weights"
                print(f"{self.folder / WEIGHTS} {why}", file=sys.stderr, flush=True)
        write_atomically(self.folder / "result.json", result_bytes(self.folder, result))


def result_bytes(folder: Path, result: Mapping[str, Any]) -> bytes:
    """result.json, sealed, with the digest of each of the record's other files as it lies there."""
    others = [path for name in FILES[:-1] if (path := folder / name).exists()]
    own = {name: value for name, value in result.items() if name not in BY_THE_WRITER}
    files = {path.name: digest(path.read_bytes()) for path in others}
    return sealed(json_bytes({**own, "schema": SCHEMA, "files": files}))


def _line(epoch: dict[str, Any]) -> bytes:
    return (json.dumps(epoch, allow_nan=False) + "\n").encode()


# --- setting aside, by the process that holds the run's lock ----------------------------------------------------------


def set_aside(folder: Path) -> Path | None:
    """Moves the record away that lies where a run is to be trained, if it is damaged or done, and says so. A failed run
    gives way, and one without a result."""
    if not (folder / "result.json").exists():
        return None
    try:
        run = whole_run(folder)
    except (FileNotFoundError, ValueError) as error:  # any other OSError says nothing of the record
        return _moved(folder, ASIDE, f"{reason(error)}; set aside")
    return _moved(folder, REPLACED, "it is trained again; its record is kept") if run.ok else None


def _moved(folder: Path, prefix: str, why: str) -> Path:
    """Where it went. The result moves last: killed in between, what is left is no record either."""
    names = (f"{prefix}{folder.name}" + (f"-{number}" if number > 1 else "") for number in count(1))
    place = next(path for name in names if not (path := folder.with_name(name)).exists())
    place.mkdir()
    for name in (WEIGHTS, *FILES):
        if (folder / name).exists():
            os.replace(folder / name, place / name)
    print(f"{folder}: {why} as {place.name}", file=sys.stderr, flush=True)
    return place
