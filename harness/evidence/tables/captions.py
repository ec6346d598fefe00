"""Owns the sentences that captions share: what the runs of a table were made with, and how much they were given.
Refuses to repeat what the columns say already.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from harness.evidence.cells import Cell
from harness.evidence.quality import finite
from harness.evidence.writing.text import DAGGER

Part = Literal["device", "precision", "n", "passes", "images"]

MOST_NAMED = 4  # different budgets; of more, the lowest and the highest are named


def made_with(groups: Sequence[Cell], *in_columns: Part) -> str:
    """One sentence on the finished runs of these groups; none where there are none."""
    groups = [group for group in groups if group.runs]
    if not groups:
        return ""
    runs = [run for group in groups for run in group.runs]
    passes = _numbers([group.epochs for group in groups])
    images = _numbers([finite(run.result.get("images_seen")) for run in runs])
    parts: dict[str, str] = {
        "device": f"on {_names(name for group in groups for name in group.devices)}",
        "precision": f"in {_names(group.setting('precision') for group in groups)}",
        "torch": f"with torch {_names(run.env.get('torch') for run in runs)}",
        "n": f"n = {_numbers([len(group.runs) for group in groups])}",
        "passes": f"{passes} passes over the training images",
        "images": f"{images} images seen",
    }
    told = [text for name, text in parts.items() if name not in in_columns]
    return f"Trained {', '.join(told)}."


def flag(group: Cell) -> str:
    return f" {DAGGER}" if len(group.data_digests) > 1 else ""


def different_data(groups: Sequence[Cell]) -> list[str]:
    """A sentence for the dagger, where a table has one."""
    return [f"{DAGGER} The runs of this cell did not all see the same data."] if any(map(flag, groups)) else []


def sentences(*texts: str) -> str:
    return " ".join(filter(None, texts))


def _names(values: Iterable[Any]) -> str:
    return " and ".join(sorted({"unknown" if value is None else str(value) for value in values}))


def _numbers(values: Sequence[float | None]) -> str:
    known = sorted({value for value in values if value is not None})
    texts = [f"{value:,.0f}" for value in known]
    unknown = ["unknown"] if len(known) < len(set(values)) else []
    if len(texts) > MOST_NAMED:
        texts = [f"{texts[0]} to {texts[-1]}"]
    return " or ".join([*texts, *unknown])
