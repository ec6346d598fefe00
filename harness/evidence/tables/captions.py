"""What several tables share: the columns that say which cell a row shows, and the sentences that say what its runs were
made with.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from harness.datasets import title
from harness.evidence.cells.groups import Group
from harness.evidence.cells.numbers import finite
from harness.evidence.writing import DAGGER, Columns, Item

Part = Literal["device", "precision", "n", "epochs", "images"]

MOST_NAMED = 4  # different budgets; of more, the lowest and the highest are named


def cell_columns(group_of: Callable[[Item], Group]) -> Columns[Item]:
    """The first columns of a table with a row for each cell."""
    return {
        "variant": lambda item: group_of(item).row[0],
        "recipe": lambda item: group_of(item).row[1],
        "data set": lambda item: title(group_of(item).dataset),
    }


def made_with(groups: Sequence[Group], *in_columns: Part) -> str:
    """One sentence on the finished runs of these groups, without what the table's columns say already."""
    groups = [group for group in groups if group.runs]
    if not groups:
        return ""
    runs = [run for group in groups for run in group.runs]
    parts: dict[str, str] = {
        "device": f"on {_names(name for group in groups for name in group.devices)}",
        "precision": f"in {_names(group.setting('precision') for group in groups)}",
        "torch": f"with torch {_names(run.env.get('torch') for run in runs)}",
        "n": f"n = {_numbers([len(group.runs) for group in groups])}",
        "epochs": f"{_numbers([group.passes for group in groups])} epochs",
        "images": f"{_numbers([finite(run.result.get('images_seen')) for run in runs])} images seen",
    }
    return f"Trained {', '.join(text for name, text in parts.items() if name not in in_columns)}."


def flag(group: Group) -> str:
    return f" {DAGGER}" if len(group.data_digests) > 1 else ""


def different_data(groups: Sequence[Group]) -> str:
    """What the dagger means, where a table has one."""
    return f"{DAGGER} The runs of this cell did not all see the same data." if any(map(flag, groups)) else ""


def _names(values: Iterable[Any]) -> str:
    return " and ".join(sorted({"unknown" if value is None else str(value) for value in values}))


def _numbers(values: Sequence[float | None]) -> str:
    known = sorted({value for value in values if value is not None})
    texts = [f"{value:,.0f}" for value in known]
    unknown = ["unknown"] if len(known) < len(set(values)) else []
    if len(texts) > MOST_NAMED:
        texts = [f"{texts[0]} to {texts[-1]}"]
    return " or ".join([*texts, *unknown])
