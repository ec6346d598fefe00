"""Sorts of damage for fuzz tests: each a function of a file's bytes, with the defect that would let it through."""

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True)
class Sort:
    change: Change
    defect: str = ""  # that, planted, lets some of these through


# --- any file


def part(draw: random.Random, content: bytes, longest: int = 64) -> slice:
    start = draw.randrange(max(1, len(content)))
    return slice(start, start + draw.randint(1, longest))


def truncated(draw: random.Random, content: bytes, _: bytes) -> bytes:
    return content[: draw.randrange(max(1, len(content)))]


def flipped(draw: random.Random, content: bytes, _: bytes) -> bytes:
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def inserted(draw: random.Random, content: bytes, _: bytes) -> bytes:
    at = part(draw, content)
    more = draw.choice([draw.randbytes(at.stop - at.start), b"%d" % draw.randrange(1000), b" "])
    return content[: at.start] + more + content[at.start :]


def deleted(draw: random.Random, content: bytes, _: bytes) -> bytes:
    at = part(draw, content)
    return content[: at.start] + content[at.stop :]


def zeroed(draw: random.Random, content: bytes, _: bytes) -> bytes:
    at = part(draw, content, 4096)
    return content[: at.start] + bytes(len(content[at])) + content[at.stop :]


def doubled(draw: random.Random, content: bytes, _: bytes) -> bytes:
    at = part(draw, content)
    return content[: at.stop] + content[at.start :]


def swapped(draw: random.Random, content: bytes, _: bytes) -> bytes:
    one, two = sorted(draw.sample(range(len(content)), 2))
    return content[:one] + content[two : two + 1] + content[one + 1 : two] + content[one : one + 1] + content[two + 1 :]


def mixed(draw: random.Random, content: bytes, other: bytes) -> bytes:
    """The beginning of one run's file and the rest of another's, as two writers at once would leave it."""
    at = draw.randrange(max(1, len(content)))
    return content[:at] + other[at:]


def bytes_sorts(defect: str = "", hopeless: str = "") -> dict[str, Sort]:
    """`hopeless`: the defect by which even what holds nothing does harm."""
    changes: dict[str, Change] = {
        "cut off": truncated,
        "emptied": lambda *_: b"",
        "a bit flipped": flipped,
        "bytes inserted": inserted,
        "bytes deleted": deleted,
        "a block of zeros": zeroed,
        "a block twice": doubled,
        "two bytes swapped": swapped,
        "half of another run's": mixed,
        "another run's": lambda draw, content, other: other,
        "only noise": lambda draw, content, _: draw.randbytes(draw.randint(1, 200)),
    }
    sorts = {name: Sort(change, defect) for name, change in changes.items()}
    return {
        **sorts,
        **{name: Sort(changes[name], hopeless) for name in ("cut off", "emptied", "a block of zeros", "only noise")},
    }


# --- text


def no_utf8(draw: random.Random, content: bytes, _: bytes) -> bytes:
    at = draw.randrange(max(1, len(content)))
    return content[:at] + draw.choice([b"\xff", b"\xc3", b"\xed\xa0\x80"]) + content[at:]


def line_ends(draw: random.Random, content: bytes, _: bytes) -> bytes:
    return content.replace(b"\n", draw.choice([b"\r\n", b"\r", b"\n\n", b" \n", b""]))


def text_sorts() -> dict[str, Sort]:
    return {"bytes that are no text": Sort(no_utf8), "other line ends": Sort(line_ends)}


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


def key_added(draw: random.Random, value: Any, _: Any) -> None:
    objects = [value, *(owner[key] for owner, key in places(value) if isinstance(owner[key], dict))]
    draw.choice(objects)[f"new {draw.randrange(9)}"] = draw.choice(OTHER_VALUES)


def key_twice(draw: random.Random, content: bytes, _: bytes) -> bytes:
    key = draw.choice(list(json.loads(content)))
    return content.rstrip()[:-1] + f', "{key}": {draw.choice(["null", "0", "1.5"])}}}\n'.encode()


def json_sorts() -> dict[str, Sort]:
    changes: dict[str, Change] = {
        "a field dropped": on_json(key_dropped),
        "a field of another kind": on_json(another_kind),
        "a field added": on_json(key_added),
        "NaN or infinity": on_json(no_finite_number),
        "another likely number": on_json(likely_number),
        "a field of another run": on_json(from_the_other),
        "a field twice": key_twice,
        "the same otherwise written": lambda draw, content, _: json.dumps(json.loads(content)).encode(),
        "no object": on_json(lambda draw, value, _: draw.choice([[], [value], "x", 1, True])),
    }
    return {name: Sort(change) for name, change in changes.items()}


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


def line_sorts() -> dict[str, Sort]:
    changes = {
        "a line dropped": on_lines(lambda draw, lines, _: lines.__delitem__(any_line(draw, lines))),
        "a line twice": on_lines(
            lambda draw, lines, _: lines.insert(any_line(draw, lines), lines[any_line(draw, lines)])
        ),
        "lines in another order": on_lines(lambda draw, lines, _: draw.shuffle(lines)),
        "a line of another run": on_lines(
            lambda draw, lines, others: lines.__setitem__(any_line(draw, lines), draw.choice(others))
        ),
    }
    return {name: Sort(change) for name, change in changes.items()}


# --- archives of arrays


def on_arrays(change: Callable[[random.Random, dict[str, np.ndarray]], None]) -> Change:
    def changed(draw: random.Random, content: bytes, _: bytes) -> bytes:
        with np.load(io.BytesIO(content)) as stored:
            arrays = dict(stored)
        change(draw, arrays)
        out = io.BytesIO()
        np.savez(out, **arrays)  # type: ignore[arg-type]
        return out.getvalue()

    return changed


def one_of(draw: random.Random, arrays: dict[str, np.ndarray]) -> str:
    return draw.choice(sorted(arrays))


def recast(draw: random.Random, arrays: dict[str, np.ndarray]) -> None:
    name = one_of(draw, arrays)
    kinds = [kind for kind in ("float64", "int8", "complex64", "U3", "?") if np.dtype(kind) != arrays[name].dtype]
    arrays[name] = arrays[name].astype(draw.choice(kinds))


def reshaped(draw: random.Random, arrays: dict[str, np.ndarray]) -> None:
    name = one_of(draw, arrays)
    values = arrays[name]
    arrays[name] = draw.choice([values[:-1], values[:0], values[None], values.reshape(-1, 2), np.array(1)])


def pickled(draw: random.Random, arrays: dict[str, np.ndarray]) -> None:
    name = one_of(draw, arrays)
    arrays[name] = np.full(arrays[name].shape, Deed())


def one_changed(draw: random.Random, arrays: dict[str, np.ndarray]) -> None:
    name = one_of(draw, arrays)
    arrays[name] = arrays[name].copy()
    arrays[name][draw.randrange(arrays[name].size)] += 1


def member_bytes(draw: random.Random, content: bytes, _: bytes) -> bytes:
    """The archive is whole, an array's own bytes are not."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            inside = old.read(name)
            new.writestr(name, draw.choice([truncated, flipped])(draw, inside, b"") if name == chosen else inside)
    return out.getvalue()


def bare_array(draw: random.Random, content: bytes, _: bytes) -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(draw.randint(0, 9)))
    return out.getvalue()


def archive_sorts() -> dict[str, Sort]:
    changes: dict[str, Change] = {
        "an array of another kind": on_arrays(recast),
        "an array of another shape": on_arrays(reshaped),
        "one element changed": on_arrays(one_changed),
        "an array broken inside": member_bytes,
        "an array missing": on_arrays(lambda draw, arrays: arrays.__delitem__(one_of(draw, arrays))),
        "an array too many": on_arrays(lambda draw, arrays: arrays.update(more=np.arange(3))),
        "one array and no archive": bare_array,
        "an array of pickles": on_arrays(pickled),
    }
    return {name: Sort(change) for name, change in changes.items()}


# --- where a file should be


def gone(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


PLACES: dict[str, Callable[[Path], None]] = {
    "no file": gone,
    "a folder in its place": folder_instead,
}


# --- all of them in turn


def cases(
    sorts: Mapping[str, Sort], count: int, content: bytes, other: bytes, seed: str
) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files, one sort after another; a change that changes nothing is drawn again."""
    draw, names = random.Random(seed), list(sorts)
    for number in range(count):
        name = names[number % len(names)]
        tries = (sorts[name].change(draw, content, other) for _ in range(50))
        changed = next((changed for changed in tries if changed != content), None)
        assert changed is not None, f"{name} never changes this file"
        yield name, changed
