"""Owns what harness.bench leaves on disk: one JSON file a device, one entry a comparison, the newest in its place.
Refuses to measure, and to mix two devices in one file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.records.read import parsed
from harness.records.schema import NUMBER
from harness.records.write import write_json
from variants.fields import UsageError

SCHEMA = 1
MOST = 1e15  # of any number; what is far beyond it no figure has room for
GARBLED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control characters, line ends, no text
RECKONED = (  # facts that a table turns into other units; all others are only kept
    *("step_ms", "flops_floor_ms", "bytes_floor_ms", "share_of_bound", "model_flop_utilisation", "pipeline_share"),
    *("peak_memory_bytes", "joules_per_1000_images", "compile_seconds"),
)


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
    try:
        entries = [asdict(kept[name]) for name in sorted(kept, key=_order)]
        write_json(path, {"schema": SCHEMA, "device_name": device_name, "comparisons": entries})
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None
    except RecursionError:
        raise UsageError(f"cannot write {path}: what it holds is nested too deep") from None
    return path


def _order(name: str) -> list[tuple[int, str]]:
    """By words, and numbers by their size: batch 64 before batch 512."""
    return [(len(part), part) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


# --- reading, of what may have been changed by hand ------------------------------------------------------------------


def read_comparisons(path: Path) -> tuple[str, list[Comparison]]:
    """(device, comparisons) of one file."""
    try:
        plain = parsed("no JSON", path.read_bytes())
        if not isinstance(plain, dict) or type(plain.get("schema")) is not int:
            raise ValueError("it says no schema")
        if plain["schema"] != SCHEMA:
            raise ValueError(f"schema {plain['schema']}, this version reads {SCHEMA}")
        if not _text(plain.get("device_name")) or not isinstance(plain.get("comparisons"), list):
            raise ValueError("it has no usable device_name or comparisons")
        return plain["device_name"], [_comparison(*numbered) for numbered in enumerate(plain["comparisons"], 1)]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a file of benchmarks: {error}") from None


def _comparison(number: int, entry: Any) -> Comparison:
    if not isinstance(entry, dict):
        raise ValueError(f"comparison {number} is no object")
    plain = {"goal": None, "facts": {}, "env": {}, **entry}
    wrong = [name for name, usable in USABLE.items() if not usable(plain.get(name))]
    if "facts" not in wrong:
        wrong += [f"facts.{name}" for name in RECKONED if not _number_or_null(plain["facts"].get(name))]
    if wrong:
        raise ValueError(f"comparison {number} has no usable {', '.join(wrong)}")
    one = Comparison(**{name: plain[name] for name in USABLE})
    if not one.ratio_low <= one.ratio <= one.ratio_high:
        raise ValueError(f"comparison {number} has a ratio of {one.ratio}, from {one.ratio_low} to {one.ratio_high}")
    return one


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and not GARBLED.search(value)


def _amount(value: Any) -> bool:
    return type(value) in NUMBER and 0 < value < MOST


def _number_or_null(value: Any) -> bool:
    return value is None or (type(value) in NUMBER and abs(value) < MOST)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


USABLE: Mapping[str, Callable[[Any], bool]] = {
    "name": _text,
    "unit": _text,
    "ours": _amount,
    "baseline": _amount,
    "baseline_name": _text,
    "ratio": _amount,
    "ratio_low": _amount,
    "ratio_high": _amount,
    "rounds": lambda value: type(value) is int and 0 < value < MOST,
    "goal": _number_or_null,
    "facts": _object,
    "env": _object,
}
