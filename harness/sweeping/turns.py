"""Owns training cells one after the other: a failure is named and stops nothing, what others are at is left to them.
Refuses to choose: which cells, and in what order, is decided before.
"""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.records.lock import BusyError, holder
from harness.records.read import read_run, run_state
from harness.sweeping.plan import Planned
from harness.training.signals import StoppedError, heed, listening, wait
from variants.fields import UsageError

Device = Any  # torch's, which is not imported before something is trained
WAIT_S = 1.0
NO_DATA = "no data (see above)"


@listening()
def train_all(todo: Sequence[Planned], data_dir: Path, out: Path, device: Device) -> int:
    """What another process is at is left to it; in the end its outcome is waited for, and if it gave up, done here."""
    problems, absent = [], absent_data({cell.config.dataset for cell in todo}, data_dir)
    waiting, told_of = list(enumerate(todo, 1)), set()
    while waiting:
        busy = []
        for count, cell in waiting:
            nth = f"[{count}/{len(todo)}] " if len(todo) > 1 else ""
            try:
                reason = NO_DATA if cell.config.dataset in absent else attempt(cell, nth, data_dir, out, device)
            except BusyError as error:
                busy.append((count, cell))
                if cell.number not in told_of:
                    print(f"{nth}cell {cell.number}: {error}", flush=True)
                told_of.add(cell.number)
                continue
            if reason is None:
                print(f"{cell.title}: {outcome(out / cell.config.run_id)}", flush=True)
            else:
                problems.append(told(cell, reason))
        if len(busy) == len(waiting):
            wait(WAIT_S)
        waiting = busy
    return concluded(problems, len(todo))


def attempt(cell: Planned, nth: str, data_dir: Path, out: Path, device: Device) -> str | None:
    """Trains the cell unless another process was faster; what kept it from being done, or None."""
    from harness.experiment import run_cell

    heed()
    folder = out / cell.config.run_id
    if run_state(folder) == "done":
        return None
    if who := holder(folder):
        raise BusyError(folder, who)
    print(f"{nth}cell {cell.number}: {cell.title} -> {folder}", flush=True)
    try:
        run = run_cell(cell.config, data_dir, out, device)
        return None if run.ok else run.result["reason"]
    except (BusyError, StoppedError):
        raise
    except UsageError as error:
        return str(error)
    except Exception as error:  # one broken cell must not cost the others
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"


def told(cell: Planned, reason: str) -> str:
    print(f"FAILED {cell.title}: {reason}", file=sys.stderr, flush=True)
    return f"{cell.title} (--cell {cell.number})"


def outcome(folder: Path) -> str:
    result = read_run(folder).result
    return f"{result['split']} accuracy {result[result['split'] + '_accuracy']:.2%}"


def concluded(problems: Sequence[str], count: int) -> int:
    if problems:
        print(f"{len(problems)} of {count} cells are not done: {'; '.join(problems)}", file=sys.stderr)
    return 1 if problems else 0


def absent_data(names: set[str], data_dir: Path) -> set[str]:
    """Fetches and reads every data set before hours are spent; says which are not to be had."""
    from harness.data.load import load

    absent = set()
    for name in sorted(names):
        try:
            load(name, data_dir)
        except UsageError as error:
            absent.add(name)
            print(error, file=sys.stderr, flush=True)
    return absent
