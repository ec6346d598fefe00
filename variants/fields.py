"""Owns the typed frozen records that describe an experiment: checking, reading from text, comparing.
Refuses to know what any field means.
"""

import dataclasses
import difflib
import functools
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

LARGEST = 2**53  # of whole numbers that a float holds exactly; nothing here is counted beyond


class UsageError(ValueError):
    """What a person asked for cannot be done; the command lines print the message and exit with 2."""


def near_matches(word: str, choices: Iterable[str]) -> str:
    """A clause that names what may have been meant, or every choice when nothing is near."""
    choices = sorted(choices)
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.55)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(choices)}"


@functools.cache  # asked for at every record that is made, and slow to resolve
def hints(record_type: type) -> dict[str, Any]:
    """The declared type of each field."""
    resolved = get_type_hints(record_type)
    return {field.name: resolved[field.name] for field in dataclasses.fields(record_type)}


def check_fields(record: Any) -> None:
    """Raises UsageError unless each value has its field's declared type; called by `__post_init__`.

    A whole number given for a float becomes one: 1 and 1.0 are the same experiment and must not look like two, nor
    must 0.0 and -0.0.
    """
    for name, hint in hints(type(record)).items():
        value = getattr(record, name)
        _check_value(name, value, hint)
        declared = _as_declared(value, hint)
        if declared is not value:
            object.__setattr__(record, name, declared)


def _as_declared(value: Any, hint: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, tuple):
        return tuple(_as_float(item) if float in get_args(hint) else item for item in value)
    is_float = hint is float or (get_origin(hint) in (Union, types.UnionType) and float in get_args(hint))
    return _as_float(value) if is_float else value


def _as_float(value: float) -> float:
    return float(value) + 0.0  # -0.0 becomes 0.0: they are equal and are written differently


def _check_value(name: str, value: Any, hint: Any) -> None:
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UsageError(f"{name}: a number beyond {LARGEST:,} is no size and no count")
    if hint is Any:
        return
    if origin is Literal:
        if not any(type(value) is type(arg) and value == arg for arg in args):
            raise UsageError(f"{name}={value!r}: {near_matches(str(value), map(str, args))}")
    elif origin in (Union, types.UnionType):
        if value is not None:
            _check_value(name, value, next(arg for arg in args if arg is not type(None)))
    elif origin is tuple:
        _check_tuple(name, value, args)
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UsageError(f"{name}={value!r}: a finite number is needed")
    elif type(value) is not hint:
        raise UsageError(f"{name}={value!r}: {hint.__name__} is needed, not {type(value).__name__}")


def _check_tuple(name: str, value: Any, args: tuple[Any, ...]) -> None:
    if not isinstance(value, tuple):
        raise UsageError(f"{name}={value!r}: a sequence is needed")
    if args[-1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise UsageError(f"{name}={value!r}: {len(args)} values are needed")
    for item, hint in zip(value, args):
        _check_value(name, item, hint)


def from_text(record: Record, changes: Mapping[str, str]) -> Record:
    """A copy with fields read from text, as `--set` gives them; unknown names and wrong types name the choices."""
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
    except ValueError as error:  # the natural way for a person's own class to refuse
        raise UsageError(f"{', '.join(changes)}: {(str(error).splitlines() or ['no reason given'])[0]}") from None


def _parse(name: str, text: str, hint: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return text
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in args if arg is not type(None))
        return None if text.lower() == "none" else _parse(name, text, inner)
    if origin is tuple:
        return tuple(_parse(name, part, args[0]) for part in text.split(",") if part and text.lower() != "none")
    if hint is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise UsageError(f"{name}={text!r}: true or false is needed")
        return words[text.lower()]
    try:
        return hint(text)
    except (TypeError, ValueError):  # a person's own class may have fields of any type
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
