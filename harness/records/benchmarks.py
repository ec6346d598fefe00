"""Owns what harness.bench leaves on disk: one JSON file a device, one entry a comparison, the newest in its place.
Refuses to measure, and to mix two devices in one file.
"""

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.records.write import write_json
from variants.fields import UsageError

SCHEMA = 1


@dataclass(frozen=True)
class Comparison:
    """Ours against a baseline, timed in turn; `ratio`: how many times as fast ours is, the median over the rounds."""

    name: str  # of the benchmark and its settings: the key under which a later measurement takes its place
    unit: str  # of both speeds; more is better
    ours: float
    baseline: float
    baseline_name: str
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    goal: float | None = None  # least ratio that the project wants
    facts: dict[str, Any] = field(default_factory=dict)  # what else was measured; null where it could not be
    env: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None else self.ratio >= self.goal


def file_of(folder: Path, device_name: str) -> Path:
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', device_name.lower()).strip('-')}.json"


def write_comparisons(folder: Path, device_name: str, found: list[Comparison]) -> Path:
    """Adds them to the device's file; those of the same name are replaced, the others stay."""
    path = file_of(folder, device_name)
    kept = {one.name: one for one in read_comparisons(path)[1]} if path.exists() else {}
    kept |= {one.name: one for one in found}
    entries = [asdict(kept[name]) for name in sorted(kept, key=_order)]
    try:
        write_json(path, {"schema": SCHEMA, "device_name": device_name, "comparisons": entries})
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _order(name: str) -> list[tuple[int, str]]:
    """By words, and numbers by their size: batch 64 before batch 512."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def read_comparisons(path: Path) -> tuple[str, list[Comparison]]:
    """(device, comparisons) of one file."""
    try:
        plain = json.loads(path.read_text())
        if plain["schema"] != SCHEMA:
            raise UsageError(f"{path}: schema {plain['schema']}, this version reads {SCHEMA}")
        names = {f.name for f in fields(Comparison)}
        found = [Comparison(**{k: v for k, v in entry.items() if k in names}) for entry in plain["comparisons"]]
        return str(plain["device_name"]), found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not a file of benchmarks: {type(error).__name__}: {error}") from None
