"""Sorts of damage for fuzz tests: each a function of a file's bytes."""

import io
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Change = Callable[[random.Random, bytes, bytes], bytes]  # the file, and the same file of another run

OTHER_VALUES: tuple[Any, ...] = (None, True, False, -1, 0, 1.5, "", "x", [], [[1]], {}, {"a": {"b": []}})
NOT_FINITE = (float("nan"), float("inf"), -float("inf"))

DONE: list[str] = []


class Deed:
    """Grows that list when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return do, ("what a file holds was executed",)


def do(deed: str) -> None:
    DONE.append(deed)


def done() -> list[str]:
    """What was executed since the last call."""
    deeds = DONE[:1]
    DONE.clear()
    return deeds


# --- any file


def within(change: Callable[[random.Random, bytes, int, bytes], bytes]) -> Change:
    """`change(draw, content, at, other)` alters what stands at a place drawn in the file."""
    return lambda draw, content, other: change(draw, content, draw.randrange(max(1, len(content))), other)


def flipped(draw: random.Random, content: bytes, at: int, _: bytes) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def zeroed(draw: random.Random, content: bytes, at: int, _: bytes) -> bytes:
    end = min(len(content), at + draw.randint(1, 4096))
    return content[:at] + bytes(end - at) + content[end:]


BYTES: dict[str, Change] = {
    "cut off": within(lambda draw, content, at, _: content[:at]),
    "emptied": lambda *_: b"",
    "a bit flipped": within(flipped),
    "a block of zeros": within(zeroed),
    "half of another run's": within(lambda draw, content, at, other: content[:at] + other[at:]),
    "another run's": lambda draw, content, other: other,
    "only noise": lambda draw, content, _: draw.randbytes(draw.randint(1, 200)),
    "bytes that are no text": within(lambda draw, content, at, _: content[:at] + b"\xff" + content[at:]),
}


# --- JSON


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (object, key) and (list, index) in it."""
    own = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [(value, key) for key, _ in own] + [place for _, item in own for place in places(item)]


def on_json(change: Callable[[random.Random, Any, Any], Any]) -> Change:
    """`change(draw, value, other)` alters the value in place or returns another."""

    def changed(draw: random.Random, content: bytes, other: bytes) -> bytes:
        value = json.loads(content)
        again = change(draw, value, json.loads(other))
        return json.dumps(value if again is None else again, indent=1).encode() + b"\n"

    return changed


def at_a_place(replacement: Callable[[random.Random, Any], Any]) -> Change:
    """Puts another value in the place of one anywhere in it."""

    def change(draw: random.Random, value: Any, _: Any) -> None:
        owner, key = draw.choice(places(value))
        owner[key] = replacement(draw, owner[key])

    return on_json(change)


def key_dropped(draw: random.Random, value: Any, _: Any) -> None:
    owner, key = draw.choice(places(value))
    del owner[key]


def another_kind(draw: random.Random, value: Any) -> Any:
    return draw.choice([other for other in OTHER_VALUES if type(other) is not type(value)])


def likely_number(draw: random.Random, value: Any, _: Any) -> None:
    """As an honest mistake would leave it: the schema sees nothing."""
    numbers = [(owner, key) for owner, key in places(value) if type(owner[key]) in (int, float)]
    owner, key = draw.choice(numbers)
    owner[key] = owner[key] + draw.choice([-1, 1]) if type(owner[key]) is int else owner[key] * draw.uniform(0.9, 1.1)


def from_the_other(draw: random.Random, value: Any, other: Any) -> None:
    """One field of another run's file."""
    differing = [key for key in value if value[key] != other.get(key)]
    key = draw.choice(differing or list(value))
    value[key] = other.get(key)


# --- lines of JSON


FIELDS: dict[str, Change] = {
    "a field dropped": on_json(key_dropped),
    "a field of another kind": at_a_place(another_kind),
    "NaN or infinity": at_a_place(lambda draw, _: draw.choice(NOT_FINITE)),
    "another likely number": on_json(likely_number),
    "a field of another run": on_json(from_the_other),
}
JSON: dict[str, Change] = {
    **FIELDS,
    "no object": on_json(lambda draw, value, _: draw.choice([[], [value], "x", 1, True])),
}


# --- lines of JSON


def on_lines(change: Callable[[random.Random, list[bytes], int, list[bytes]], None]) -> Change:
    """`change(draw, lines, at, others)` alters the lines in place, at one that was drawn."""

    def changed(draw: random.Random, content: bytes, other: bytes) -> bytes:
        lines = content.splitlines()
        change(draw, lines, draw.randrange(len(lines)), other.splitlines())
        return b"".join(line + b"\n" for line in lines)

    return changed


def in_a_line(change: Change) -> Change:
    """Damage to one line as if it were a JSON file of its own."""

    def change_line(draw: random.Random, lines: list[bytes], at: int, others: list[bytes]) -> None:
        lines[at] = b" ".join(change(draw, lines[at], others[min(at, len(others) - 1)]).splitlines())

    return on_lines(change_line)


LINES: dict[str, Change] = {
    "a line dropped": on_lines(lambda draw, lines, at, _: lines.__delitem__(at)),
    "a line twice": on_lines(lambda draw, lines, at, _: lines.insert(at, lines[at])),
    "lines in another order": on_lines(lambda draw, lines, *_: draw.shuffle(lines)),
    "a line of another run": on_lines(lambda draw, lines, at, others: lines.__setitem__(at, draw.choice(others))),
    **{f"{name} in a line": in_a_line(change) for name, change in FIELDS.items()},
}


# --- archives of arrays


def on_arrays(change: Callable[[random.Random, np.ndarray], np.ndarray | None]) -> Change:
    """`change(draw, array)` gives another array in the place of one; None: it goes missing."""

    def changed(draw: random.Random, content: bytes, _: bytes) -> bytes:
        with np.load(io.BytesIO(content)) as stored:
            arrays = dict(stored)
        name = draw.choice(sorted(arrays))
        again = change(draw, arrays.pop(name))
        out = io.BytesIO()
        np.savez(out, **arrays, **({} if again is None else {name: again}))  # type: ignore[arg-type]
        return out.getvalue()

    return changed


def recast(draw: random.Random, values: np.ndarray) -> np.ndarray:
    kinds = [kind for kind in ("float64", "int8", "complex64", "U3", "?") if np.dtype(kind) != values.dtype]
    return values.astype(draw.choice(kinds))


def reshaped(draw: random.Random, values: np.ndarray) -> np.ndarray:
    return draw.choice([values[:-1], values[:0], values[None], values.reshape(-1, 2), np.array(1)])


def one_changed(draw: random.Random, values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[draw.randrange(values.size)] += 1
    return values


ARRAYS: dict[str, Change] = {
    "an array of another kind": on_arrays(recast),
    "an array of another shape": on_arrays(reshaped),
    "one element changed": on_arrays(one_changed),
    "an array missing": on_arrays(lambda *_: None),
    "an array of pickles": on_arrays(lambda draw, values: np.full(values.shape, Deed())),
}


def cases(
    sorts: Mapping[str, Change], count: int, content: bytes, other: bytes, seed: str
) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files, one sort after another; a change that changes nothing is drawn again."""
    draw, names = random.Random(seed), list(sorts)
    for number in range(count):
        name = names[number % len(names)]
        tries = (sorts[name](draw, content, other) for _ in range(50))
        changed = next((changed for changed in tries if changed != content), None)
        assert changed is not None, f"{name} never changes this file"
        yield name, changed
