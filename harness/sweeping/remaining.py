"""Owns how long a plan will still take: by the finished seeds of each cell, and where there are none by a guess.
Refuses to mix devices: the pace of one says nothing of another, so what is unknown stays unknown.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.records.read import State
from harness.sweeping.plan import Planned
from harness.sweeping.standing import Standing

Guess = Callable[[Planned], float | None]  # seconds, on this device


@dataclass(frozen=True)
class Remaining:
    """Seconds until each cell that is not done would be, one after another; None where nobody knows."""

    seconds: dict[int, float | None]  # by the cell's number
    device: str | None  # at whose pace; none before anything was finished or guessed

    @property
    def total(self) -> float:
        return sum(seconds or 0.0 for seconds in self.seconds.values())

    @property
    def unknown(self) -> int:
        return sum(seconds is None for seconds in self.seconds.values())


def remaining(cells: Sequence[Standing], device: Callable[[], str], guess: Guess) -> Remaining:
    """`device` names this machine's, `guess` tries it: neither is asked where the records say enough."""
    open_cells = [cell for cell in cells if cell.state != "done"]
    if not open_cells:
        return Remaining({}, None)
    name = _commonest_device(cells, "done") or _commonest_device(cells, "running")
    paces = _paces(cells, name)
    needs_guess = any(cell.cell.plan_id not in paces and not _own_pace(cell) for cell in open_cells)
    here = device() if needs_guess else None
    may_guess = needs_guess and name in (None, here)
    seconds = {cell.cell.number: _left(cell, paces, guess if may_guess else None) for cell in open_cells}
    return Remaining(seconds, name or here)


def _commonest_device(cells: Sequence[Standing], state: State) -> str | None:
    found = Counter(cell.device for cell in cells if cell.state == state and cell.device)
    return found.most_common(1)[0][0] if found else None


def _paces(cells: Sequence[Standing], device: str | None) -> dict[str, float]:
    """Mean seconds of the finished runs of each plan on that device."""
    taken: dict[str, list[float]] = {}
    for cell in cells:
        if cell.state == "done" and cell.device == device and cell.seconds:
            taken.setdefault(cell.cell.plan_id, []).append(cell.seconds)
    return {plan: fmean(seconds) for plan, seconds in taken.items()}


def _own_pace(cell: Standing) -> float | None:
    """The whole run's seconds by its own finished passes."""
    if cell.state != "running" or not cell.epochs or not cell.seconds:
        return None
    return cell.seconds / cell.epochs * cell.cell.config.recipe.epochs


def _left(cell: Standing, paces: dict[str, float], guess: Guess | None) -> float | None:
    share = 1 - cell.epochs / cell.cell.config.recipe.epochs
    whole = _own_pace(cell) or paces.get(cell.cell.plan_id) or (guess(cell.cell) if guess else None)
    return None if whole is None else share * whole
