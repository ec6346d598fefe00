"""The state of each run of a plan by the records in a folder, and how long the rest will take by what is finished.

A record counts in whatever precision it was made, unless one is asked for: a login node may have no GPU to choose one.
The speed of one device is never used for another.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from tabulate import tabulate

from harness.config import plan_id
from harness.records.read import State, parsed, read_config, run_state, whole_run
from harness.records.schema import is_aside
from harness.sweeping.plan import PlannedRun, about

STATES: tuple[State, ...] = ("done", "running", "failed", "unfinished", "missing")  # of two records the earlier counts
UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)  # it is being written, or is no record
TIMES = ("train_seconds", "eval_seconds", "compile_seconds", "corruption_seconds")


@dataclass(frozen=True)
class Status:
    """One run of the plan, and what its record says where there is one."""

    run: PlannedRun
    state: State
    folder: Path | None = None
    seconds: float | None = None  # that a finished run took, or a running one has taken so far
    device: str | None = None
    epochs: int = 0  # that a running one has finished
    reason: str | None = None  # of a failure
    left: float | None = None  # seconds until it is done; None where that is unknown


def statuses(
    planned: Sequence[PlannedRun], out: Path, precision: str | None = None, compiles: bool | None = None
) -> list[Status]:
    wanted = {name: value for name, value in (("precision", precision), ("compile", compiles)) if value is not None}
    found: dict[tuple[str, int], list[Path]] = {}
    for folder in sorted(file.parent for file in out.glob("*/config.json")):
        if is_aside(folder):
            continue
        try:
            config = read_config(folder)
            if all(config[name] == value for name, value in wanted.items()):
                found.setdefault((plan_id(config), config["seed"]), []).append(folder)
        except UNUSABLE as error:
            print(f"skipped {folder}: {type(error).__name__}: {error}", file=sys.stderr)
    return [_status(run, found.get((run.plan_id, run.config.seed), [])) for run in planned]


def _status(run: PlannedRun, folders: Iterable[Path]) -> Status:
    states: dict[Path, State] = {folder: run_state(folder) for folder in folders}
    if not states:
        return Status(run, "missing")
    folder = min(states, key=lambda folder: STATES.index(states[folder]))
    status = Status(run, states[folder], folder)
    try:
        return replace(status, **_facts(status.state, folder))
    except UNUSABLE as error:
        return replace(status, reason=f"its record cannot be used: {error}")


def _facts(state: State, folder: Path) -> dict[str, Any]:
    if state in ("done", "failed"):
        run = whole_run(folder)
        together = max((len(session.get("seeds") or [1]) for session in run.result["sessions"] or ()), default=1)
        seconds = sum(run.result.get(part) or 0.0 for part in TIMES) / together  # each has the time of all
        return {"seconds": seconds, "device": run.env.get("device_name"), "reason": run.result["reason"]}
    if state == "running":
        content = (folder / "epochs.jsonl").read_bytes()
        lines = [parsed("epochs.jsonl", line) for line in content.splitlines() if line.endswith(b"}")]
        seconds = sum(line["seconds"] + line["eval_seconds"] for line in lines)
        device = parsed("env.json", (folder / "env.json").read_bytes()).get("device_name")
        return {"seconds": seconds, "device": device, "epochs": len(lines)}
    return {}


def with_time_left(found: Sequence[Status]) -> tuple[list[Status], str | None]:
    """The same with `left`, and the device whose speed was taken: by what a running run took so far, else by the
    finished seeds of its cell."""
    device = _commonest_device(found, "done") or _commonest_device(found, "running")
    taken: dict[str, list[float]] = {}
    for status in found:
        if status.state == "done" and status.device == device and status.seconds:
            taken.setdefault(status.run.plan_id, []).append(status.seconds)
    timed = []
    for status in found:
        left, epochs = None, status.run.config.recipe.epochs
        if status.state == "running" and status.epochs and status.seconds:
            left = status.seconds / status.epochs * (epochs - status.epochs)
        elif seconds := taken.get(status.run.plan_id):
            left = fmean(seconds)
        timed.append(replace(status, left=left))
    return timed, device


def _commonest_device(found: Iterable[Status], state: State) -> str | None:
    devices = Counter(status.device for status in found if status.state == state and status.device)
    return devices.most_common(1)[0][0] if devices else None


def status_plain(found: Sequence[Status]) -> dict[str, Any]:
    """As `--json` prints it. `number` is what --cell takes; `seconds_left` is null where nothing is known."""
    found, device = with_time_left(found)
    counts = Counter(status.state for status in found)
    own = ("state", "seconds", "device", "reason")
    runs = [
        {
            **{"number": status.run.task, "row": status.run.row.title, "dataset": status.run.config.dataset},
            **{"seed": status.run.config.seed, "folder": status.folder and str(status.folder)},
            **{name: getattr(status, name) for name in own},
            "epochs_so_far": status.epochs if status.state == "running" else None,
            "seconds_left": status.left if status.state != "done" else 0,
        }
        for status in found
    ]
    return {"counts": {state: counts[state] for state in STATES}, "speed_of": device, "runs": runs}


# --- shown on a terminal ---------------------------------------------------------------------------------------------


def status_text(found: Sequence[Status]) -> str:
    """A line for each row of the study, over its data sets and seeds; what runs, what failed; and how long is left."""
    found, device = with_time_left(found)
    rows: dict[str, list[Status]] = {}
    for status in found:
        rows.setdefault(status.run.row.title, []).append(status)
    table = []
    for title, of_row in [*rows.items(), ("all", found)]:
        counts = Counter(status.state for status in of_row)
        seconds, unknown = _time_left(of_row)
        time = about(seconds) + " and more" * bool(unknown) if seconds else "unknown" if unknown else "-"
        table.append([title, *(counts[state] or "-" for state in STATES), time])
    align = ("left", *["right"] * (len(STATES) + 1))
    lines = [tabulate(table, headers=["row", *STATES, "time left"], colalign=align, disable_numparse=True)]
    running = [status for status in found if status.state == "running"]
    lines += [f"running: {s.run.title}, {s.epochs} of {s.run.config.recipe.epochs} epochs, {s.folder}" for s in running]
    lines += [f"failed: run {s.run.number}, {s.run.title}: {s.reason}" for s in found if s.state == "failed"]
    return "\n".join([*lines, _last_line(found, len(running), device)])


def _time_left(found: Iterable[Status]) -> tuple[float, int]:
    """Seconds, and of how many runs nothing is known."""
    left = [status.left for status in found if status.state != "done"]
    return sum(seconds or 0.0 for seconds in left), left.count(None)


def _last_line(found: Sequence[Status], running: int, device: str | None) -> str:
    count = sum(status.state != "done" for status in found)
    if not count:
        return "all done"
    seconds, unknown = _time_left(found)
    if unknown == count:
        return f"{count} to go, how long is unknown (--dry-run makes a guess)"
    at_once = f", about {about(seconds / running)} if {running} go on at once" if running > 1 else ""
    more = f" and {unknown} of which nothing is known" if unknown else ""
    return f"{count} to go: about {about(seconds)} one after another{at_once}{more}, at the speed of {device}"
