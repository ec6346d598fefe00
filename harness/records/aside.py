"""Owns setting aside what lies where a run is to be trained and is no record: moved to a name that says so, and told.
Refuses to delete, to touch a record that holds together or that a disk just now will not give, and to act for anyone
but the holder of the run's lock.
"""

import os
import sys
from itertools import count
from pathlib import Path

from harness.records.read import done_run, whole_run
from harness.records.schema import ASIDE, FILES, REPLACED


def set_aside(folder: Path) -> Path | None:
    """Where it went, if anything had to. The result moves last: killed in between, what is left is no record either."""
    reason = fault_of(folder)
    return None if reason is None else _moved(folder, ASIDE, f"{reason}; set aside")


def set_aside_done(folder: Path) -> Path | None:
    """A sound record that is to be trained again: until there is another, and after it, it is kept."""
    return None if done_run(folder) is None else _moved(folder, REPLACED, "it is trained again; its record is kept")


def _moved(folder: Path, prefix: str, reason: str) -> Path:
    place = _new_place(folder, prefix)
    for name in FILES:
        if os.path.lexists(folder / name):
            os.replace(folder / name, place / name)
    print(f"{folder}: {reason} as {place.name}", file=sys.stderr, flush=True)
    return place


def fault_of(folder: Path) -> str | None:
    """Why what lies there is no record; None for a whole one, and for a run that has no result yet."""
    there = [folder / name for name in FILES if os.path.lexists(folder / name)]
    for path in there:
        if not path.is_file():
            return f"{path.name} is no file"
    if folder / "result.json" not in there:
        return None
    try:
        whole_run(folder)
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except ValueError as error:
        return str(error)
    return None


def _new_place(folder: Path, prefix: str) -> Path:
    for number in count(1):
        place = folder.with_name(f"{prefix}{folder.name}" + (f"-{number}" if number > 1 else ""))
        try:
            place.mkdir()
            return place
        except FileExistsError:
            continue
    raise AssertionError
