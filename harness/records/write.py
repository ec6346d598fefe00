"""Owns writing a run: each file atomically, result.json last, because a run exists when its result does.
Refuses to compute what it writes.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.records.schema import EPOCH_FIELDS, FILES, RESULT_FIELDS, SCHEMA
from variants.fields import UsageError


def write_atomically(path: Path, content: bytes) -> None:
    """Either the whole content is under that name afterwards, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json_bytes(value))


def prepare(out: Path) -> None:
    """The folder that runs go into; one that cannot be written is better refused before hours are spent."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"cannot write into {out}: {error.strerror or error}") from None


def _line(epoch: dict[str, Any]) -> str:
    return json.dumps(epoch, allow_nan=False) + "\n"


class RunWriter:
    """One run's folder, written in the order of the flow: begin, an epoch at a time, finish."""

    def __init__(self, folder: Path):
        self.folder = folder

    def begin(
        self,
        config: dict[str, Any],
        env: dict[str, Any],
        cost: dict[str, Any],
        lines: Sequence[dict[str, Any]] = (),
    ) -> None:
        """`lines`: the epochs that an earlier session has done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for half in self.folder.glob(".*"):  # a process that was killed while it wrote
            half.unlink(missing_ok=True)
        for name in reversed(FILES):  # the old result goes first: what is left is an unfinished run at any moment
            (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / "config.json", {**config, "schema": SCHEMA})
        write_json(self.folder / "env.json", env)
        write_json(self.folder / "cost.json", cost)
        write_atomically(self.folder / "epochs.jsonl", "".join(map(_line, lines)).encode())

    def epoch(self, line: dict[str, Any]) -> None:
        if missing := set(EPOCH_FIELDS) - line.keys():
            raise ValueError(f"the epoch's line lacks {', '.join(sorted(missing))}")
        with (self.folder / "epochs.jsonl").open("a") as file:
            file.write(_line(line))

    def finish(self, result: dict[str, Any], predictions: dict[str, np.ndarray] | None = None) -> None:
        missing = set(RESULT_FIELDS) - result.keys() - {"schema"}
        if missing:
            raise ValueError(f"the result lacks {', '.join(sorted(missing))}")
        if predictions is not None:
            self._write_predictions(predictions)
        write_json(self.folder / "result.json", {**result, "schema": SCHEMA})

    def _write_predictions(self, predictions: dict[str, np.ndarray]) -> None:
        temporary = self.folder / ".predictions.npz"
        with temporary.open("wb") as file:
            np.savez_compressed(file, **predictions)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / "predictions.npz")
