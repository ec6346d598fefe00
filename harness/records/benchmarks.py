"""What harness.bench leaves on disk and a report shows: one JSON file a device, one entry a comparison. A new
measurement replaces the one of its name; two devices never share a file.
"""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.records.read import parsed
from harness.records.write import write_json
from variants.fields import UsageError

SCHEMA = 1
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


TEXTS, AMOUNTS = ("name", "unit", "baseline_name"), ("ours", "baseline", "ratio", "ratio_low", "ratio_high")


def file_stem(device_name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")


def write_comparisons(folder: Path, device_name: str, found: list[Comparison]) -> Path:
    """Adds them to the device's file; those of the same name are replaced, the others stay."""
    path = folder / f"{file_stem(device_name)}.json"
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
    return [(len(part), part) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def read_comparisons(path: Path) -> tuple[str, list[Comparison]]:
    """(device, comparisons) of one file."""
    try:
        plain = parsed("no JSON", path.read_bytes())
        if not isinstance(plain, dict) or type(plain.get("schema")) is not int:
            raise ValueError("it has no schema")
        if plain["schema"] != SCHEMA:
            raise ValueError(f"schema {plain['schema']}, this version reads {SCHEMA}")
        if not _is_text(plain.get("device_name")) or not isinstance(plain.get("comparisons"), list):
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
    wrong = [name for name in TEXTS if not _is_text(plain.get(name))]
    wrong += [name for name in AMOUNTS if not _is_number(plain.get(name)) or plain[name] <= 0]
    wrong += [name for name in ("facts", "env") if not isinstance(plain[name], dict)]
    if type(plain.get("rounds")) is not int or plain["rounds"] < 1:
        wrong.append("rounds")
    optional = {"goal": plain["goal"]}
    if isinstance(plain["facts"], dict):
        optional |= {f"facts.{name}": plain["facts"].get(name) for name in RECKONED}
    wrong += [name for name, value in optional.items() if value is not None and not _is_number(value)]
    if wrong:
        raise ValueError(f"comparison {number} has no usable {', '.join(wrong)}")
    one = Comparison(**{name: plain[name] for name in Comparison.__dataclass_fields__})
    if not one.ratio_low <= one.ratio <= one.ratio_high:
        raise ValueError(f"comparison {number} has a ratio of {one.ratio}, from {one.ratio_low} to {one.ratio_high}")
    return one


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def fact_text(value: Any) -> str:
    """A measured number, or another fact, for a reader."""
    if isinstance(value, list):
        return ", ".join(map(fact_text, value))
    if isinstance(value, bool) or not _is_number(value):
        return "not measured" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
