"""What several tables share: the columns that say which cell a row shows, and the sentences that say what its runs were
made with.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from harness.datasets import title
from harness.evidence.cells import Cell
from harness.evidence.quality import finite
from harness.evidence.writing import DAGGER, Columns, Item

Part = Literal["device", "precision", "n", "epochs", "images"]

MOST_NAMED = 4  # different budgets; of more, the lowest and the highest are named


def cell_columns(cell_of: Callable[[Item], Cell]) -> Columns[Item]:
    """The first columns of a table with a row for each cell."""
    return {
        "variant": lambda item: cell_of(item).row[0],
        "recipe": lambda item: cell_of(item).row[1],
        "data set": lambda item: title(cell_of(item).dataset),
    }


def made_with(cells: Sequence[Cell], *in_columns: Part) -> str:
    """One sentence on the finished runs of these cells, without what the table's columns say already."""
    cells = [cell for cell in cells if cell.runs]
    if not cells:
        return ""
    runs = [run for cell in cells for run in cell.runs]
    parts: dict[str, str] = {
        "device": f"on {_names(name for cell in cells for name in cell.devices)}",
        "precision": f"in {_names(cell.setting('precision') for cell in cells)}",
        "torch": f"with torch {_names(run.env.get('torch') for run in runs)}",
        "n": f"n = {_numbers([len(cell.runs) for cell in cells])}",
        "epochs": f"{_numbers([cell.epochs for cell in cells])} epochs",
        "images": f"{_numbers([finite(run.result.get('images_seen')) for run in runs])} images seen",
    }
    return f"Trained {', '.join(text for name, text in parts.items() if name not in in_columns)}."


def flag(cell: Cell) -> str:
    return f" {DAGGER}" if len(cell.data_digests) > 1 else ""


def different_data(cells: Sequence[Cell]) -> str:
    """What the dagger means, where a table has one."""
    return f"{DAGGER} The runs of this cell did not all see the same data." if any(map(flag, cells)) else ""


def _names(values: Iterable[Any]) -> str:
    return " and ".join(sorted({"unknown" if value is None else str(value) for value in values}))


def _numbers(values: Sequence[float | None]) -> str:
    known = sorted({value for value in values if value is not None})
    texts = [f"{value:,.0f}" for value in known]
    unknown = ["unknown"] if len(known) < len(set(values)) else []
    if len(texts) > MOST_NAMED:
        texts = [f"{texts[0]} to {texts[-1]}"]
    return " or ".join([*texts, *unknown])
