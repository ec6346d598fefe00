"""Owns where each cell of a plan stands, by the records in a folder: done, running, failed, unfinished, missing.
Refuses to mind the precision that a record was made in, unless it is asked to: a login node may have no GPU.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import plan_id
from harness.records.read import State, parsed, read_config, run_state, whole_run
from harness.records.schema import is_aside
from harness.sweeping.plan import Planned

STATES: tuple[State, ...] = ("done", "running", "failed", "unfinished", "missing")  # of two records the earlier counts


@dataclass(frozen=True)
class Standing:
    """One cell and what its record says; None is what there is no record of."""

    cell: Planned
    state: State
    folder: Path | None = None
    seconds: float | None = None  # that a finished run took, or that one which is running has taken
    device: str | None = None
    epochs: int = 0  # passes that a run which is running has behind it
    reason: str | None = None  # of a failure


def standings(
    planned: Iterable[Planned], out: Path, precision: str | None = None, compiles: bool | None = None
) -> list[Standing]:
    planned = list(planned)
    places = _folders(out, {cell.plan_id for cell in planned}, {"precision": precision, "compile": compiles})
    return [_standing(cell, places.get((cell.plan_id, cell.config.seed), ())) for cell in planned]


def _folders(out: Path, plans: set[str], wanted: Mapping[str, Any]) -> dict[tuple[str, int], list[Path]]:
    """Where the runs of each plan and seed lie."""
    found: dict[tuple[str, int], list[Path]] = {}
    for file in sorted(out.glob("*/config.json")):
        if is_aside(file.parent):
            continue
        try:
            config = read_config(file.parent)
            key = (plan_id(config), config["seed"])
            fits = all(value is None or config[name] == value for name, value in wanted.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"skipped {file.parent}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        if fits and key[0] in plans:
            found.setdefault(key, []).append(file.parent)
    return found


def _standing(cell: Planned, folders: Sequence[Path]) -> Standing:
    states: dict[Path, State] = {folder: run_state(folder) for folder in folders}
    if not states:
        return Standing(cell, "missing")
    folder = min(states, key=lambda folder: STATES.index(states[folder]))
    state = states[folder]
    facts: dict[str, Any] = {}
    try:
        facts = _running(folder) if state == "running" else _finished(folder) if state in ("done", "failed") else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # it is being written, or is no record
        facts = {"reason": f"its record cannot be used: {error}"} if state == "failed" else {}
    return Standing(cell, state, folder, **facts)


def _finished(folder: Path) -> dict[str, Any]:
    run = whole_run(folder)
    parts = ("train_seconds", "eval_seconds", "compile_seconds", "corruption_seconds")
    seconds = sum(run.result.get(part) or 0.0 for part in parts) or None
    return {"seconds": seconds, "device": run.env.get("device_name"), "reason": run.result["reason"]}


def _running(folder: Path) -> dict[str, Any]:
    content = (folder / "epochs.jsonl").read_bytes()
    lines = [parsed("epochs.jsonl", line) for line in content.splitlines() if line.endswith(b"}")]
    seconds = sum(line["seconds"] + line["eval_seconds"] for line in lines) or None
    env = parsed("env.json", (folder / "env.json").read_bytes())
    return {"seconds": seconds, "device": env.get("device_name"), "epochs": len(lines)}
