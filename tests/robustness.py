"""What was tried to break the suite, counted by the tests themselves: results/robustness.md says it."""

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

FILE = Path(__file__).resolve().parents[1] / "results" / "robustness.md"
MARK = "<!-- written by the test run: bash run_all.sh --test --report -m 'long or not long' -->"


@dataclass
class Tried:
    """The counts of one attempt. `cases` were made; `kinds` says of how many sorts, and what each sort met."""

    cases: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # cases by kind
    defects: dict[str, int] = field(default_factory=dict)  # planted, and by how many cases each was found

    def add(self, kinds: Mapping[str, int], defects: Mapping[str, int]) -> None:
        for mine, more in ((self.kinds, kinds), (self.defects, defects)):
            for name, count in more.items():
                mine[name] = mine.get(name, 0) + count
        self.cases += sum(kinds.values())


class Trials:
    """Every attempt of one test run, by its title."""

    def __init__(self) -> None:
        self.found: dict[str, Tried] = {}

    def __call__(self, title: str, kinds: Mapping[str, int], defects: Mapping[str, int] | None = None) -> None:
        """`kinds`: how many cases of each kind went well; `defects`: planted in the code, and how many cases saw it."""
        self.found.setdefault(title, Tried()).add(kinds, defects or {})

    def text(self, facts: Iterable[str]) -> str:
        summary = [
            (title, f"{one.cases:,}", len(one.kinds), len(one.defects) or "—") for title, one in self.found.items()
        ]
        headers = ("what was tried", "cases", "kinds", "planted defects, all found")
        parts = [MARK, "# What was tried to break it", *facts, tabulate(summary, headers, tablefmt="github")]
        for title, one in self.found.items():
            parts += [f"## {title}", tabulate(sorted(one.kinds.items()), ("kind", "cases"), tablefmt="github")]
            if one.defects:
                rows = sorted(one.defects.items())
                parts.append(tabulate(rows, ("planted defect", "cases that found it"), tablefmt="github"))
        return "\n\n".join(parts) + "\n"


def skipped(reasons: Sequence[str]) -> str:
    """What was not tried, and why: the most frequent reason first."""
    told = [f"{count} ({reason})" for reason, count in Counter(reasons).most_common()]
    return f"Skipped: {', '.join(told) or 'none'}."


def machine() -> str:
    import torch

    return f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()} {platform.machine()}"
