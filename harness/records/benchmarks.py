"""What harness.bench leaves on disk and a report shows: one JSON file a device, one entry a comparison. A new
measurement replaces the one of its name; two devices never share a file.
"""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.records.read import parsed
from harness.records.schema import NUMBER, misfits
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


AMOUNTS = ("ours", "baseline", "ratio", "ratio_low", "ratio_high", "rounds")
KINDS = {**dict.fromkeys(("name", "unit", "baseline_name"), (str,)), **dict.fromkeys(AMOUNTS, NUMBER), "rounds": (int,)}
KINDS |= {"goal": NUMBER, "facts": (dict,), "env": (dict,)}


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
        device, entries = plain.get("device_name"), plain.get("comparisons")
        if not isinstance(device, str) or not isinstance(entries, list):
            raise ValueError("it has no usable device_name or comparisons")
        return device, [_comparison(*numbered) for numbered in enumerate(entries, 1)]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not a file of benchmarks: {error}") from None


def _comparison(number: int, entry: Any) -> Comparison:
    if not isinstance(entry, dict):
        raise ValueError(f"comparison {number} is no object")
    plain: dict[str, Any] = {name: entry.get(name) for name in KINDS}
    wrong = [name for name, value in plain.items() if value is None and name != "goal"]
    wrong = wrong or misfits(plain, KINDS) or [name for name in AMOUNTS if plain[name] <= 0]
    wrong = wrong or [f"facts.{name}" for name in misfits(plain["facts"], dict.fromkeys(RECKONED, NUMBER))]
    if wrong:
        raise ValueError(f"comparison {number} has no usable {', '.join(wrong)}")
    one = Comparison(**plain)
    if not one.ratio_low <= one.ratio <= one.ratio_high:
        raise ValueError(f"comparison {number} has a ratio of {one.ratio}, from {one.ratio_low} to {one.ratio_high}")
    return one


def fact_text(value: Any) -> str:
    """A measured number, or another fact, for a reader."""
    if isinstance(value, list):
        return ", ".join(map(fact_text, value))
    if type(value) not in NUMBER:
        return "not measured" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
