"""The per-module form of a count: which modules a record names, and what each of them comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.counting.closed_form import Item

COLUMNS = ("params", "macs", "activations")
LEVELS = 3  # blocks.0.attention and blocks.0.mlp are named, what is inside them is not


def ancestors(path: str) -> list[str]:
    """The modules that `a.b` is part of, itself included: "", "a", "a.b"."""
    parts = path.split(".") if path else []
    return [".".join(parts[:n]) for n in range(len(parts) + 1)]


def macs_by_module(layers: Sequence[Item]) -> dict[str, int]:
    """As fvcore has it: a module's count includes its parts', and "" is the whole model."""
    counts: Counter[str] = Counter()
    for layer in layers:
        for path in ancestors(layer.path):
            counts[path] += layer.macs
    return named(counts)


def table_by_module(layers: Sequence[Item]) -> dict[str, dict[str, int]]:
    """Of each module down to LEVELS all COLUMNS, its parts included; "" is the whole model."""
    rows: dict[str, dict[str, int]] = {}
    for layer in layers:
        for path in ancestors(layer.path)[: LEVELS + 1]:
            row = rows.setdefault(path, dict.fromkeys(COLUMNS, 0))
            for column in COLUMNS:
                row[column] += getattr(layer, column)
    return rows


def named(counts: Mapping[str, int], levels: int = LEVELS) -> dict[str, int]:
    """Those modules that do something, down to `levels`."""
    return {path: int(count) for path, count in counts.items() if count and path.count(".") < levels}
