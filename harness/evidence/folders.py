"""Owns where records are looked for when nobody says: a person's own runs, else the reference runs.
Refuses to mix the two unless both are named.
"""

from pathlib import Path

from harness.records.schema import is_aside
from variants.fields import UsageError

OWN_RUNS, REFERENCE_RUNS = Path("results/runs"), Path("results/reference")


def folders_of(named: list[Path] | None) -> list[Path]:
    """The folders to read; a named one must exist."""
    for folder in named or []:
        if not folder.is_dir():
            raise UsageError(f"--results {folder}: there is no such folder")
    own = any(not is_aside(path.parent) for path in OWN_RUNS.glob("*/result.json"))
    return named or [OWN_RUNS if own else REFERENCE_RUNS]
