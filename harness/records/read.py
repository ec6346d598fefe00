"""Owns reading runs back: one, or all under some folders, and which cells are done, failed or unfinished.
Refuses to fill a hole, and to pass on what was changed after it was written: a run that cannot be read is named.
"""

import io
import json
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from harness.config import OWN_TYPES, SEMANTICS, run_config_from_plain
from harness.records.lock import holder
from harness.records.schema import (
    CONFIG_FIELDS,
    PREDICTIONS,
    RESULT_FIELDS,
    SCHEMA,
    SEALED_SINCE,
    SINCE_2,
    SINCE_3,
    is_aside,
    misfits,
)
from harness.records.seal import digest, is_sealed

State = Literal["done", "failed", "running", "unfinished", "missing"]
CHANGED = "is not what the run wrote"


@dataclass(frozen=True)
class Run:
    """A finished run, done or failed, as it lies on disk.

    What is read later is as certain as what was read at once: ValueError for what is not as it was written.
    """

    folder: Path
    config: dict[str, Any]
    env: dict[str, Any]
    cost: dict[str, Any]
    result: dict[str, Any]

    @property
    def ok(self) -> bool:
        return self.result["outcome"] == "ok"

    @property
    def sealed(self) -> bool:
        """Before schema 3 nobody can tell whether a record was changed."""
        return self.result["files"] is not None

    def epochs(self) -> list[dict[str, Any]]:
        content = _content(self.folder, "epochs.jsonl", self.result["files"])
        lines = [line for line in content.splitlines() if line.strip()]
        whole = b"[" + b",\n".join(lines) + b"]"  # parsed at once: line by line takes half as long again
        epochs = parsed("epochs.jsonl", whole, self.sealed)
        if len(epochs) != len(lines) or not all(isinstance(epoch, dict) for epoch in epochs):
            raise ValueError(f"{len(lines)} lines of epochs.jsonl hold {len(epochs)} epochs")
        return epochs

    def predictions(self) -> dict[str, np.ndarray]:
        content = _content(self.folder, "predictions.npz", self.result["files"])
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = dict(stored)
        except Exception as error:  # a broken archive fails in many ways
            raise ValueError(f"predictions.npz cannot be read: {type(error).__name__}: {error}") from None
        if set(arrays) != set(PREDICTIONS):
            raise ValueError(f"predictions.npz holds {', '.join(sorted(arrays))}")
        if wrong := [name for name, kinds in PREDICTIONS.items() if arrays[name].dtype.kind not in kinds]:
            raise ValueError(f"predictions.npz: {' and '.join(wrong)} of another kind of number")
        return arrays


def read_run(folder: Path) -> Run:
    """OSError for a run that is not there, ValueError for one that is not as it was written."""
    content = (folder / "result.json").read_bytes()
    sealed = is_sealed(content)
    result = _fields("result.json", content, sealed, RESULT_FIELDS)
    if not sealed and (result["schema"] >= SEALED_SINCE or "files" in result or "digest" in result):
        raise ValueError(f"result.json {CHANGED}")
    if not sealed:
        result = {**dict.fromkeys((*SINCE_2, *SINCE_3)), **result}  # what was not measured then is null
    if missing := RESULT_FIELDS.keys() - result.keys():
        raise ValueError(f"result.json lacks {', '.join(sorted(missing))}")
    if result["outcome"] not in ("ok", "failed") or result["split"] not in ("test", "val"):
        raise ValueError(f"result.json has outcome {result['outcome']!r} and split {result['split']!r}")
    parts = [_content(folder, f"{name}.json", result["files"]) for name in ("config", "env", "cost")]
    config = _fields("config.json", parts[0], sealed, CONFIG_FIELDS)
    if config["schema"] != result["schema"]:
        raise ValueError(f"config.json has schema {config['schema']}, result.json {result['schema']}")
    if not sealed:
        _check_identity(config)
    env, cost = _object("env.json", parts[1], sealed), _object("cost.json", parts[2], sealed)
    return Run(folder, config, env, cost, result)


def read_config(folder: Path) -> dict[str, Any]:
    """What a run was to be, finished or not; nothing vouches for it before there is a result."""
    return _fields("config.json", (folder / "config.json").read_bytes(), False, CONFIG_FIELDS)


def whole_run(folder: Path) -> Run:
    """Like `read_run`, but every file is looked at, and the folder's name: for whoever asks whether it is done."""
    run = read_run(folder)
    run.epochs()
    if (folder / "predictions.npz").exists() or "predictions.npz" in (run.result["files"] or ()):
        run.predictions()
    if (name := run.config.get("run_id")) != folder.name:
        raise ValueError(f"it is the record of {name}")
    return run


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Every finished run directly under the folders, by name; an unreadable one is named on stderr."""
    runs = []
    for folder in sorted(folder for one in folders for folder in finished_under(one)):
        try:
            runs.append(read_run(folder))
        except (OSError, ValueError) as error:
            print(f"skipped {folder}: {type(error).__name__}: {error}", file=sys.stderr)
    return runs


def finished_under(folder: Path) -> list[Path]:
    """The folders that hold a result, sound or not; those set aside are named on stderr and left out."""
    found = sorted(path.parent for path in folder.glob("*/result.json"))
    for path in filter(is_aside, found):
        print(f"left out {path}: it was set aside", file=sys.stderr)
    return [path for path in found if not is_aside(path)]


def run_state(folder: Path) -> State:
    """What there is of one run."""
    try:
        if not os.path.lexists(folder / "result.json"):
            if not (folder / "config.json").is_file():
                return "missing"
            return "running" if holder(folder) is not None else "unfinished"
        return "done" if whole_run(folder).ok else "failed"
    except (OSError, ValueError):  # what cannot be read cannot be reported, so it is not done
        return "failed"


def done_run(folder: Path) -> Run | None:
    """The finished run that lies there, if one does. A disk that does not answer is no answer, but an OSError."""
    try:
        os.stat(folder / "result.json")  # Path.exists calls a disk that is silent a file that is not there
        run = whole_run(folder)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
        return None
    return run if run.ok else None


# --- bytes to values -------------------------------------------------------------------------------------------------


def _check_identity(config: dict[str, Any]) -> None:
    """A run's name holds a hash of its fields: all that vouches for a record without digests."""
    if config.get("semantics") != SEMANTICS or config.get("variant_type") not in OWN_TYPES:
        return  # made by other code, or of a class of somebody's own: nobody here can tell
    given = run_config_from_plain(config).run_id
    if config.get("run_id") != given:
        raise ValueError(f"config.json says that it is {config.get('run_id')}, its fields give {given}")


def _content(folder: Path, name: str, digests: dict[str, str] | None) -> bytes:
    content = (folder / name).read_bytes()
    if digests is not None and digest(content) != digests.get(name):
        raise ValueError(f"{name} {CHANGED}")
    return content


def _fields(name: str, content: bytes, sealed: bool, fields: Any) -> dict[str, Any]:
    """An object of a schema that this version reads, each field of its kind."""
    plain = _object(name, content, sealed)
    schema = plain.get("schema")
    if type(schema) is not int or schema not in range(1, SCHEMA + 1):
        raise ValueError(f"{name} has schema {schema}, this version reads 1 to {SCHEMA}")
    if wrong := misfits(plain, fields):
        raise ValueError(f"{name} has no usable {', '.join(wrong)}")
    return plain


def _object(name: str, content: bytes, sealed: bool) -> dict[str, Any]:
    plain = parsed(name, content, sealed)
    if not isinstance(plain, dict):
        raise ValueError(f"{name} holds no object")
    return plain


def parsed(name: str, content: bytes, sealed: bool = False) -> Any:
    """Without a seal nothing is taken for granted: what the writer never writes is refused."""
    try:
        return json.loads(content.decode()) if sealed else STRICT.decode(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}") from None


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _bounded(text: str) -> int:
    return int(text) if len(text) < 20 else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no number of a record")


STRICT = json.JSONDecoder(parse_float=_finite, parse_int=_bounded, parse_constant=_no_number)
