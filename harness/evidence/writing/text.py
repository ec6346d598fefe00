"""Owns how a number is written in a table: digits, units, n and what stands for a hole.
Refuses to compute more than a mean and its interval.
"""

from collections.abc import Iterable, Sequence

from harness.evidence.writing.table import HOLE
from harness.statistics.intervals import mean_interval

DAGGER = "†"


def spread(values: Sequence[float], failed: int = 0) -> str:
    """`77.25 ± 0.40 (5)`, `77.25 (1)`, `77.25 ± 0.40 (4, 1 failed)`, `— (1 failed)`, `—`."""
    failures = [f"{failed} failed"] if failed else []
    if not values:
        return " ".join([HOLE, *(f"({text})" for text in failures)])
    mean, half, n = mean_interval(values)
    interval = "" if half is None else f" ± {half:.2f}"
    return f"{mean:.2f}{interval} ({', '.join([str(n), *failures])})"


def difference(mean: float | None, half: float | None) -> str:
    """`-1.32 ± 0.80`, `-1.32`, `—`."""
    interval = "" if half is None else f" ± {half:.2f}"
    return HOLE if mean is None else f"{signed(mean)}{interval}"


def signed(value: float) -> str:
    """`+1.32`, `-0.00` for a little less than nothing, and `+0.00` for nothing, whatever rounding left of it."""
    return f"{round(value, 6) + 0.0:+.2f}"


def mean_difference(values: Sequence[float]) -> str:
    return signed(mean_interval(values)[0]) if values else HOLE


def p_value(p: float | None) -> str:
    """Three significant digits, so that no rounding hides on which side of .05 it lies."""
    return HOLE if p is None else f"{p:.3g}" if p > 1e-300 else "<1e-300"


def mean(values: Sequence[float], form: str = ".2f") -> str:
    return format(mean_interval(values)[0], form) if values else HOLE


def half_width(values: Sequence[float]) -> str:
    half = mean_interval(values)[1] if values else None
    return HOLE if half is None else f"{half:.2f}"


def whole(value: float | None) -> str:
    return HOLE if value is None else f"{value:,.0f}"


def scaled(value: float | None, unit: float) -> str:
    """Three significant digits, trailing zeros included."""
    return HOLE if value is None else f"{value / unit:#.3g}".rstrip(".")


def minutes(value: float) -> str:
    """Tenths below a hundred minutes, whole minutes above; seconds matter only below one."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def devices_text(names: Iterable[str]) -> str:
    """A device's name may hold commas, so that names need another sign between them."""
    return joined(names, " and ")


def joined(texts: Iterable[str], separator: str = ", ") -> str:
    """The different texts in the order in which they come, or a hole."""
    return separator.join(dict.fromkeys(texts)) or HOLE
