"""Owns what a row of a study changes, as a machine states it: the fields in which two resolved configs differ.
Refuses labels, which a person typed.
"""

from dataclasses import dataclass
from typing import Any

from harness.config import RunConfig
from harness.evidence.writing import HOLE
from harness.study import changed_fields

RATES = ("dropout", "attention_dropout", "head_dropout", "drop_path")  # where a recipe sets one, it is the variant's
MOST_FIELDS = 3  # a row that differs in more is another model or recipe: no list explains it


@dataclass(frozen=True)
class Change:
    """A field with the value that it had and the one that it has; a hole where a config has no such field."""

    field: str
    before: Any
    after: Any

    @property
    def text(self) -> str:
        gone, new = (_only_in(*pair) for pair in ((self.before, self.after), (self.after, self.before)))
        if bool(gone) != bool(new):  # of two lists, what one has and the other has not
            return f"{self.field} {'without' if gone else 'with'} {', '.join(gone or new)}"
        return f"{self.field}: {_text(self.before)} → {_text(self.after)}"


def changes(before: RunConfig, after: RunConfig) -> list[Change]:
    names = changed_fields(before, after)
    return [Change(name, _value(before, name), _value(after, name)) for name in names if not _said_twice(name, names)]


def changes_text(found: list[Change]) -> str:
    if len(found) > MOST_FIELDS:
        return f"in {len(found)} fields"
    return "; ".join(change.text for change in found) or HOLE


def _value(config: RunConfig, path: str) -> Any:
    part, dot, name = path.partition(".")
    return getattr(getattr(config, part), name, HOLE) if dot else config.plan[part]


def _said_twice(path: str, paths: list[str]) -> bool:
    part, _, name = path.partition(".")
    return part == "recipe" and name in RATES and f"variant.{name}" in paths


def _only_in(one: Any, other: Any) -> list[str]:
    both = isinstance(one, tuple) and isinstance(other, tuple)
    return [str(member) for member in one if member not in other] if both else []


def _text(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
