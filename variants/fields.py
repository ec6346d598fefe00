"""Typed frozen records that describe an experiment: checking their values, reading them from text, comparing two.

A field's type says all that it may be: `heads: Count = 12`, `dropout: Rate = 0.0`, `pool: Literal["cls", "mean"]`.
"""

import dataclasses
import difflib
import functools
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

LARGEST = 2**53  # of whole numbers that a float holds exactly; nothing here is counted beyond
UNIONS = (Union, types.UnionType)
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class UsageError(ValueError):
    """What a user asked for cannot be done; the command lines print the message and exit with 2."""


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold, as part of its type: `Annotated[int, Range(least=1)]`."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        ends = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{words} {end:g}" for words, end in ends.items() if math.isfinite(end))


Count = Annotated[int, Range(least=1)]
CountOrZero = Annotated[int, Range(least=0)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Probability = Annotated[float, Range(least=0, most=1)]
Share = Annotated[float, Range(above=0, most=1)]
Rate = Annotated[float, Range(least=0, below=1)]


def first_line(error: BaseException) -> str:
    """Of what an error says; its kind, where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def near_matches(word: str, choices: Iterable[str]) -> str:
    """A clause that names what may have been meant, or every choice when nothing is near."""
    choices = sorted(choices)
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.55)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(choices)}"


@functools.cache  # asked for at every record that is made, and slow to resolve
def hints(record_type: type, ranges: bool = False) -> dict[str, Any]:
    """The declared type of each field, with or without the range of its numbers."""
    resolved = get_type_hints(record_type, include_extras=ranges)
    return {field.name: resolved[field.name] for field in dataclasses.fields(record_type)}


def check_fields(record: Any) -> None:
    """Raises UsageError unless each value is of its field's type and in its range; called by `__post_init__`.

    A whole number given for a float becomes one: 1 and 1.0 are the same experiment and must not look like two, nor
    must 0.0 and -0.0.
    """
    for name, hint in hints(type(record), ranges=True).items():
        value = getattr(record, name)
        checked = _checked(name, value, hint)
        if checked is not value:
            object.__setattr__(record, name, checked)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value as its type has it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _checked(name, value, args[0])
        if any(isinstance(limit, Range) and value not in limit for limit in args[1:]):
            raise UsageError(f"{name}={value}: must be {' and '.join(map(str, args[1:]))}")
        return value
    if origin in UNIONS:
        return None if value is None else _checked(name, value, _other_than_none(args))
    if origin is tuple:
        return _checked_tuple(name, value, args)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UsageError(f"{name}: must be at most {LARGEST:,}")
    if origin is Literal:
        if not any(type(value) is type(arg) and value == arg for arg in args):
            raise UsageError(f"{name}={value!r}: {near_matches(str(value), map(str, args))}")
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UsageError(f"{name}={value!r}: a finite number is needed")
        return float(value) + 0.0  # -0.0 becomes 0.0: they are equal and are written differently
    elif hint is not Any and type(value) is not hint:
        raise UsageError(f"{name}={value!r}: {hint.__name__} is needed, not {type(value).__name__}")
    return value


def _checked_tuple(name: str, value: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise UsageError(f"{name}={value!r}: a sequence is needed")
    if args[-1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise UsageError(f"{name}={value!r}: {len(args)} values are needed")
    return tuple(_checked(name, item, hint) for item, hint in zip(value, args))


def _other_than_none(args: tuple[Any, ...]) -> Any:
    return next(arg for arg in args if arg is not type(None))


def from_text(record: Record, changes: Mapping[str, str]) -> Record:
    """A copy with fields read from text, as `--set` gives them; an unknown name is answered with the near ones."""
    known = hints(type(record))
    values = {}
    for name, text in changes.items():
        if name not in known:
            raise UsageError(f"{type(record).__name__} has no field {name!r}: {near_matches(name, known)}")
        values[name] = _parse(name, text, known[name])
    try:
        return dataclasses.replace(record, **values) if values else record  # type: ignore[type-var]
    except UsageError:
        raise
    except ValueError as error:  # the natural way for a user's own class to refuse
        raise UsageError(f"{', '.join(changes)}: {first_line(error)}") from None


def _parse(name: str, text: str, hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return text
    if origin in UNIONS:
        return None if text.lower() == "none" else _parse(name, text, _other_than_none(args))
    if origin is tuple:
        return tuple(_parse(name, part, args[0]) for part in text.split(",") if part and text.lower() != "none")
    if hint is bool:
        if text.lower() not in TRUTH:
            raise UsageError(f"{name}={text!r}: true or false is needed")
        return TRUTH[text.lower()]
    try:
        return hint(text)
    except (TypeError, ValueError):  # a user's own class may have fields of any type
        raise UsageError(f"{name}={text!r}: {hint.__name__} is needed") from None


def from_plain(record_type: type[Record], plain: Mapping[str, Any]) -> Record:
    """The record that `dataclasses.asdict` and JSON turned into `plain`; JSON has no tuples."""
    known = hints(record_type)
    for name in plain:
        if name not in known:
            raise UsageError(f"{record_type.__name__} has no field {name!r}: {near_matches(name, known)}")
    return record_type(**{name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()})


def difference(first: Any, second: Any) -> dict[str, tuple[Any, Any]]:
    """The fields in which two records of one type differ, with both values: what an ablation is."""
    if type(first) is not type(second):
        raise UsageError(f"{type(first).__name__} and {type(second).__name__} have no fields in common")
    pairs = {f.name: (getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(first)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
