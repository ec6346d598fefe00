"""Owns what counts as a number in a record.
Refuses infinities, NaN, and a yes or no that Python would take for 1 or 0.
"""

import math
from typing import Any


def finite(value: Any) -> float | None:
    """The number, or None for what a record holds instead of one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None
