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


def do() -> None:
    DONE.append("what a file holds was executed")


class Deed:
    """Runs `do` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return do, ()


def done() -> list[str]:
    """What was executed since the last call."""
    deeds, DONE[:] = list(DONE), []
    return deeds[:1]


# --- any file


def truncated(draw: random.Random, content: bytes, _: bytes) -> bytes:
    return content[: draw.randrange(max(1, len(content)))]


def flipped(draw: random.Random, content: bytes, _: bytes) -> bytes:
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def zeroed(draw: random.Random, content: bytes, _: bytes) -> bytes:
    start = draw.randrange(len(content))
    end = start + draw.randint(1, 4096)
    return content[:start] + bytes(len(content[start:end])) + content[end:]


def mixed(draw: random.Random, content: bytes, other: bytes) -> bytes:
    """The beginning of one run's file and the rest of another's, as two writers at once would leave it."""
    at = draw.randrange(max(1, len(content)))
    return content[:at] + other[at:]


def no_utf8(draw: random.Random, content: bytes, _: bytes) -> bytes:
    at = draw.randrange(max(1, len(content)))
    return content[:at] + b"\xff" + content[at:]


BYTES: dict[str, Change] = {
    "cut off": truncated,
    "emptied": lambda *_: b"",
    "a bit flipped": flipped,
    "a block of zeros": zeroed,
    "half of another run's": mixed,
    "another run's": lambda draw, content, other: other,
    "only noise": lambda draw, content, _: draw.randbytes(draw.randint(1, 200)),
    "bytes that are no text": no_utf8,
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


def key_dropped(draw: random.Random, value: Any, _: Any) -> None:
    owner, key = draw.choice(places(value))
    del owner[key]


def another_kind(draw: random.Random, value: Any, _: Any) -> None:
    owner, key = draw.choice(places(value))
    owner[key] = draw.choice([other for other in OTHER_VALUES if type(other) is not type(owner[key])])


def no_finite_number(draw: random.Random, value: Any, _: Any) -> None:
    owner, key = draw.choice(places(value))
    owner[key] = draw.choice(NOT_FINITE)


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


FIELDS: dict[str, Change] = {
    "a field dropped": on_json(key_dropped),
    "a field of another kind": on_json(another_kind),
    "NaN or infinity": on_json(no_finite_number),
    "another likely number": on_json(likely_number),
    "a field of another run": on_json(from_the_other),
}
JSON: dict[str, Change] = {
    **FIELDS,
    "no object": on_json(lambda draw, value, _: draw.choice([[], [value], "x", 1, True])),
}


# --- lines of JSON


def on_lines(change: Callable[[random.Random, list[bytes], list[bytes]], None]) -> Change:
    def changed(draw: random.Random, content: bytes, other: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        change(draw, lines, other.splitlines(keepends=True))
        return b"".join(lines)

    return changed


def any_line(draw: random.Random, lines: list[bytes]) -> int:
    return draw.randrange(len(lines))


def in_a_line(change: Change) -> Change:
    """Damage to one line as if it were a JSON file of its own."""

    def changed(draw: random.Random, content: bytes, other: bytes) -> bytes:
        lines, others = content.splitlines(), other.splitlines()
        at = any_line(draw, lines)
        lines[at] = b" ".join(change(draw, lines[at], others[min(at, len(others) - 1)]).splitlines())
        return b"\n".join(lines) + b"\n"

    return changed


LINES: dict[str, Change] = {
    "a line dropped": on_lines(lambda draw, lines, _: lines.__delitem__(any_line(draw, lines))),
    "a line twice": on_lines(lambda draw, lines, _: lines.insert(any_line(draw, lines), lines[any_line(draw, lines)])),
    "lines in another order": on_lines(lambda draw, lines, _: draw.shuffle(lines)),
    "a line of another run": on_lines(
        lambda draw, lines, others: lines.__setitem__(any_line(draw, lines), draw.choice(others))
    ),
    **{f"{name} in a line": in_a_line(change) for name, change in FIELDS.items()},
}


# --- archives of arrays


def on_arrays(change: Callable[[random.Random, dict[str, np.ndarray], str], None]) -> Change:
    """`change(draw, arrays, name)` alters the array of that name."""

    def changed(draw: random.Random, content: bytes, _: bytes) -> bytes:
        with np.load(io.BytesIO(content)) as stored:
            arrays = dict(stored)
        change(draw, arrays, draw.choice(sorted(arrays)))
        out = io.BytesIO()
        np.savez(out, **arrays)  # type: ignore[arg-type]
        return out.getvalue()

    return changed


def recast(draw: random.Random, arrays: dict[str, np.ndarray], name: str) -> None:
    kinds = [kind for kind in ("float64", "int8", "complex64", "U3", "?") if np.dtype(kind) != arrays[name].dtype]
    arrays[name] = arrays[name].astype(draw.choice(kinds))


def reshaped(draw: random.Random, arrays: dict[str, np.ndarray], name: str) -> None:
    values = arrays[name]
    arrays[name] = draw.choice([values[:-1], values[:0], values[None], values.reshape(-1, 2), np.array(1)])


def pickled(draw: random.Random, arrays: dict[str, np.ndarray], name: str) -> None:
    arrays[name] = np.full(arrays[name].shape, Deed())


def one_changed(draw: random.Random, arrays: dict[str, np.ndarray], name: str) -> None:
    arrays[name] = arrays[name].copy()
    arrays[name][draw.randrange(arrays[name].size)] += 1


ARRAYS: dict[str, Change] = {
    "an array of another kind": on_arrays(recast),
    "an array of another shape": on_arrays(reshaped),
    "one element changed": on_arrays(one_changed),
    "an array missing": on_arrays(lambda draw, arrays, name: arrays.__delitem__(name)),
    "an array of pickles": on_arrays(pickled),
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
