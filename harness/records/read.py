"""Owns reading runs back: one, or all under some folders, and which cells are done, failed or unfinished.
Refuses to fill a hole: a run that cannot be read is reported by name.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.records.lock import holder
from harness.records.schema import SCHEMA, SINCE_2

State = Literal["done", "failed", "running", "unfinished", "missing"]


@dataclass(frozen=True)
class Run:
    """A finished run, done or failed, as it lies on disk."""

    folder: Path
    config: dict[str, Any]
    env: dict[str, Any]
    cost: dict[str, Any]
    result: dict[str, Any]

    @property
    def ok(self) -> bool:
        return self.result["outcome"] == "ok"

    def epochs(self) -> list[dict[str, Any]]:
        lines = [line for line in (self.folder / "epochs.jsonl").read_text().splitlines() if line.strip()]
        epochs = json.loads("[" + ",\n".join(lines) + "]")  # once: line by line takes half as long again
        if len(epochs) != len(lines):
            raise ValueError(f"{len(lines)} lines hold {len(epochs)} epochs")
        return epochs

    def predictions(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "predictions.npz", allow_pickle=False) as arrays:
            return dict(arrays)


def read_run(folder: Path) -> Run:
    parts = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("config", "env", "cost", "result")}
    for name in ("config", "result"):
        if parts[name]["schema"] not in range(1, SCHEMA + 1):
            raise ValueError(f"{name}.json has schema {parts[name]['schema']}, this version reads 1 to {SCHEMA}")
    if parts["result"]["schema"] < SCHEMA:
        parts["result"] = {**dict.fromkeys(SINCE_2), **parts["result"]}  # what was not measured then is null
    return Run(folder, **parts)


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Every finished run directly under the folders, by name; an unreadable one is named on stderr."""
    runs = []
    for path in sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*/result.json")):
        try:
            runs.append(read_run(path.parent))
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"skipped {path.parent}: {type(error).__name__}: {error}", file=sys.stderr)
    return runs


def run_state(folder: Path) -> State:
    """What there is of one run."""
    result = folder / "result.json"
    if not result.is_file():
        if not (folder / "config.json").is_file():
            return "missing"
        return "running" if holder(folder) is not None else "unfinished"
    try:  # what cannot be read cannot be reported, so it is not done
        return "done" if read_run(folder).ok else "failed"
    except (OSError, ValueError, KeyError, TypeError):
        return "failed"
