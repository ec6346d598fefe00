"""Owns writing a run: each file atomically, result.json last, because a run exists when its result does.
Refuses to compute what it writes.
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from harness.records.schema import BY_THE_WRITER, EPOCH_FIELDS, FILES, RESULT_FIELDS, SCHEMA
from harness.records.seal import sealed
from variants.fields import UsageError

LEAST_ROOM = 2**16  # bytes: a record without its predictions


@contextlib.contextmanager
def opened_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write into. At the end either all of it is under that name, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _name_to_disk(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    with opened_atomically(path) as file:
        file.write(content)


def _name_to_disk(folder: Path) -> None:
    """A new name outlives a loss of power only once its folder is on the disk; not every system can be asked for it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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


def _line(epoch: dict[str, Any]) -> str:
    return json.dumps(epoch, allow_nan=False) + "\n"


def result_bytes(result: Mapping[str, Any], digests: Mapping[str, str]) -> bytes:
    """result.json, sealed. `digests`: the SHA-256 of each of the record's other files."""
    told = {name: value for name, value in result.items() if name not in BY_THE_WRITER}
    return sealed(json_bytes({**told, "schema": SCHEMA, "files": dict(digests)}))


class RunWriter:
    """One run's folder, written in the order of the flow: begin, an epoch at a time, finish.

    It remembers what it wrote: a file that has changed when the run ends does not get a digest that says otherwise.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._written: dict[str, Any] = {}  # hashes, by the file's name

    def begin(
        self,
        config: dict[str, Any],
        env: dict[str, Any],
        cost: dict[str, Any],
        lines: Sequence[dict[str, Any]] = (),
    ) -> None:
        """`lines`: the epochs that an earlier session has done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            for half in self.folder.glob(f".{name}.*"):  # of a process that was killed while it wrote
                half.unlink(missing_ok=True)
        for name in reversed(FILES):  # the old result goes first: what is left is an unfinished run at any moment
            (self.folder / name).unlink(missing_ok=True)
        self._write("config.json", json_bytes({**config, "schema": SCHEMA}))
        self._write("env.json", json_bytes(env))
        self._write("cost.json", json_bytes(cost))
        self._write("epochs.jsonl", "".join(map(_line, lines)).encode())

    def epoch(self, line: dict[str, Any]) -> None:
        if missing := set(EPOCH_FIELDS) - line.keys():
            raise ValueError(f"the epoch's line lacks {', '.join(sorted(missing))}")
        content = _line(line).encode()
        with (self.folder / "epochs.jsonl").open("r+b") as file:  # r: a file that is gone shall not begin here anew
            file.seek(0, os.SEEK_END)
            file.write(content)
        self._written["epochs.jsonl"].update(content)

    def finish(self, result: dict[str, Any], predictions: dict[str, np.ndarray] | None = None) -> None:
        missing = RESULT_FIELDS.keys() - result.keys() - set(BY_THE_WRITER)
        if missing:
            raise ValueError(f"the result lacks {', '.join(sorted(missing))}")
        if predictions is not None:
            content = io.BytesIO()
            np.savez_compressed(content, **predictions)  # type: ignore[arg-type]
            self._write("predictions.npz", content.getvalue())
        for name in self._written:
            (self.folder / name).stat()  # OSError for one that is gone
        with (self.folder / "epochs.jsonl").open("r+b") as file:
            os.fsync(file.fileno())  # the result must not be on the disk before them
        digests = {name: written.hexdigest() for name, written in self._written.items()}
        write_atomically(self.folder / "result.json", result_bytes(result, digests))

    def _write(self, name: str, content: bytes) -> None:
        write_atomically(self.folder / name, content)
        self._written[name] = hashlib.sha256(content)
