"""Owns the per-module form of a count: which modules a record names.
Refuses to count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from harness.counting.closed_form import Item

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


def named(counts: Mapping[str, int], levels: int = LEVELS) -> dict[str, int]:
    """Those modules that do something, down to `levels`."""
    return {path: int(count) for path, count in counts.items() if count and path.count(".") < levels}
