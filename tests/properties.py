"""Properties that must hold for every example: how hypothesis tries them, and how many examples break one."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

# What it remembers between runs is of no use where it draws the same examples each time, and belongs in no checkout.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis-of-small-vit-ablations")

LONG_FORM = 30  # times as many examples
WORDS = (
    *("", " ", "..", ".", "/", "../../x", "/etc/passwd", "C:\\x", "con", "NUL.txt", "-rf", "--", "a=b=c", "'", "`"),
    *("=1+1", "@x", "+1", "-1", "-1.5", "1,234", "a|b", "a&b", "50%", "$x$", "a_b", "#1", "~", "^", "{", "}", "\\"),
    *("<script>alert(1)</script>", "<!--", "-->", "[a](b)", "![a](b)", "[x]", "*", "**b**", "\n", "a\r\nb", "\t=1"),
    *("\0", "\x1b[31m", "ümlaut", "漢字", "🚀", "👨‍👩‍👧", "\u202e", "\ufeff", "\u2028", "\ud800", "nan", "inf"),
    *("1e999", "1_0", "0x1", "True", "none", "None", "x" * 5000, "9" * 5000, "9" * 400, "½", "²", "٣", " 1 ", "1."),
    *(".5", "1e-3", "-0.0", "1,2", "\uff1d1"),
)  # fmt: skip
SIGNS = "<>|&%$#_{}~^\\`*[]=+-@'\" ab\n\t.,:;/0"
TEXT = st.one_of(st.sampled_from(WORDS), st.text(max_size=30), st.text(SIGNS, max_size=12))


@dataclass(frozen=True)
class Property:
    """`holds` raises AssertionError, or anything else, for an example that breaks it."""

    examples: st.SearchStrategy[Any]
    holds: Callable[[Any], None]
    number: int = 100  # of drawn examples in the short form
    telling: Sequence[Any] = ()  # tried before them: what hypothesis draws depends on which modules have been imported


def attempt(one: Property, number: int) -> int:
    """How many examples were tried; the first that breaks the property is made small and raised."""
    return _tried(one, one.holds, number, (Phase.explicit, Phase.generate, Phase.shrink))


def breaking(one: Property, number: int) -> int:
    """How many of so many examples break the property; one that cannot even be drawn does."""
    found = 0

    def look(example: Any) -> None:
        nonlocal found
        try:
            one.holds(example)
        except Exception:
            found += 1

    try:
        _tried(one, look, number, (Phase.generate,))
    except Exception:
        found += 1
    return found


def _tried(one: Property, look: Callable[[Any], None], number: int, phases: tuple[Phase, ...]) -> int:
    count = len(one.telling)
    for example in one.telling:
        look(example)

    @settings(
        max_examples=number,
        phases=phases,
        derandomize=True,
        database=None,
        deadline=None,  # another process on the machine is no defect
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(one.examples)
    def one_example(example: Any) -> None:
        nonlocal count
        count += 1
        look(example)

    one_example()
    return count
