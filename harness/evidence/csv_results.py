"""Results that were not trained here, from CSV files (columns method, seed, accuracy, any others): each method against
a base by seed, with the tests, words and tables of a study."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.evidence.captions import best_sentence, effect_sentence
from harness.evidence.cells import grouped
from harness.evidence.effects import Effect, best_of
from harness.evidence.tables.study import ACCURACY, EFFECT, MEANS, ON_TESTS, TOO_WIDE, tested
from harness.evidence.writing import HOLE, Table, sentences, spread
from harness.statistics.intervals import mean_interval
from harness.statistics.paired import holm, paired
from variants.fields import UsageError, near_matches

COLUMNS = ("method", "seed", "accuracy")
NEEDED = "method, seed and accuracy"
SPLITTING = "dataset"  # accuracies of two data sets are never compared


@dataclass(frozen=True)
class Result:
    """A line of a file."""

    place: str  # file and line
    cells: dict[str, str]  # by column, in lower case
    seed: int
    accuracy: float  # as it is written
    has_sign: bool  # 74.3%

    @property
    def method(self) -> str:
        return self.cells["method"]

    def group(self, by: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.cells[column] for column in by)


@dataclass(frozen=True)
class Comparison:
    """The methods of one data set, or whatever the results are compared within: one family of tests."""

    within: dict[str, str]  # column and value
    base: str
    scores: dict[str, dict[int, float]]  # percent by seed, of each method; the base first

    @cached_property
    def effects(self) -> dict[str, Effect]:
        """Of each method but the base."""
        first = self.scores[self.base]
        others = [name for name in self.scores if name != self.base]
        found = [Effect(name, self.base, paired(first, self.scores[name])) for name in others]
        adjusted = holm([effect.difference.t_p for effect in found])
        return {name: replace(effect, holm_p=p) for name, effect, p in zip(others, found, adjusted)}

    @property
    def title(self) -> str:
        return ", ".join(f"{column} {value}" for column, value in self.within.items())

    @property
    def caption(self) -> str:
        where = f" ({self.title})" if self.within else ""
        told = f"paired by seed, {tested([*self.effects.values()])}"
        return sentences(
            f"Accuracy of each method{where}: {MEANS}.",
            f"Effects are differences from {self.base}, {told}" if self.effects else "",
            f"{HOLE} marks what is missing.",
        )

    def table(self) -> Table:
        base = dict.fromkeys(EFFECT, HOLE) | {"verdict": "base"}
        rows = []
        for name, scores in self.scores.items():
            effect = self.effects.get(name)
            told = base.values() if effect is None else [write(effect) for write in EFFECT.values()]
            rows.append((name, spread([*scores.values()]), *told))
        best = best_of([*self.scores.values()])
        return Table(
            "-".join(["compare", *re.findall(r"[a-z0-9]+", " ".join(self.within.values()).lower())]),
            ("method", ACCURACY, *EFFECT),
            tuple(rows),
            sentences(self.caption, best_sentence({ACCURACY: best}) if self.effects else ""),
            too_wide_for_print=TOO_WIDE,
            bold=frozenset() if best.row is None else frozenset({(best.row, 1)}),
            on_wide=ON_TESTS if self.effects else "",
            conclusions=tuple(map(effect_sentence, self.effects.values())),
            written_by="written by python -m harness.compare, not by hand",
        )

    def to_plain(self) -> dict[str, Any]:
        return {
            "within": self.within,
            "methods": [
                {"method": name, "seeds": [*scores]}
                | dict(zip(("mean", "half", "n"), mean_interval([*scores.values()])))
                for name, scores in self.scores.items()
                if scores
            ],
            "comparisons": [
                {"method": name, "against": self.base, **asdict(effect.difference), "holm_p": effect.holm_p}
                | {"verdict": effect.verdict, "seeds_to_resolve": effect.seeds_to_resolve}
                for name, effect in self.effects.items()
            ],
        }


@dataclass(frozen=True)
class Compared:
    """What some files say, in percent and points."""

    comparisons: list[Comparison]
    base: str
    written_as: str  # percent or shares
    unused: list[str]  # columns

    def to_plain(self) -> dict[str, Any]:
        return {**vars(self), "comparisons": [one.to_plain() for one in self.comparisons]}


def compared(paths: Sequence[Path], base: str | None, by: Sequence[str] | None) -> Compared:
    """`base`: else the first method. `by`: columns to compare within; else the data set, where there is such a
    column."""
    results = [result for path in paths for result in read(path)]
    columns = dict.fromkeys(column for result in results for column in result.cells)
    by = [SPLITTING] * (SPLITTING in columns) if by is None else [column.lower() for column in by]
    for result in results:
        if lacking := [column for column in by if not result.cells.get(column)]:
            raise UsageError(f"{result.place}: no {lacking[0]}, within which results are compared")
    _check_once(results, by)
    unit = _unit(results)
    methods = dict.fromkeys(result.method for result in results)
    base = base or next(iter(methods))
    if base not in methods:
        raise UsageError(f"--base {base!r}: no such method; {near_matches(base, methods)}")
    comparisons = []
    for values, of_group in grouped(results, lambda result: result.group(by)).items():
        scores: dict[str, dict[int, float]] = {base: {}}
        for result in sorted(of_group, key=lambda result: result.seed):
            scores.setdefault(result.method, {})[result.seed] = _percent(result, unit)
        ordered = {name: scores[name] for name in (base, *methods) if name in scores}
        comparisons.append(Comparison(dict(zip(by, values)), base, ordered))
    return Compared(comparisons, base, unit, [column for column in columns if column not in (*COLUMNS, *by)])


def _check_once(results: Sequence[Result], by: Sequence[str]) -> None:
    first: dict[tuple[Any, ...], Result] = {}
    for result in results:
        before = first.setdefault((result.group(by), result.method, result.seed), result)
        if before is not result:
            others = [name for name, text in result.cells.items() if text != before.cells.get(name)]
            others = [name for name in others if name not in COLUMNS]
            how = f"; to compare within each {others[0]}: --by {' '.join([*by, others[0]])}" if others else ""
            raise UsageError(
                f"{result.place}: {result.method} with seed {result.seed} stands in {before.place} already{how}"
            )


# --- percent or shares -----------------------------------------------------------------------------------------------


def _unit(results: Sequence[Result]) -> str:
    """All are written the same way; 0 is both."""
    percent = [result for result in results if result.has_sign or result.accuracy > 1]
    shares = [result for result in results if not result.has_sign and 0 < result.accuracy <= 1]
    if percent and shares:
        one, other = percent[0], shares[0]
        raise UsageError(
            f"{other.place}: {other.accuracy:g} looks like a share, and {one.accuracy:g} in {one.place} like percent: "
            f"write all the same way, percent with its sign ({other.accuracy:g}%)"
        )
    return "percent" if percent else "shares"


def _percent(result: Result, unit: str) -> float:
    value = result.accuracy if unit == "percent" else 100 * result.accuracy
    if not 0 <= value <= 100:
        raise UsageError(f"{result.place}: an accuracy of {value:g}% is not possible")
    return value


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Result]:
    """Its results, by lines. Between the columns stand commas, semicolons or tabs, whichever the header has."""
    text = _text(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=header.count)
    reader, names, results = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [], []
    try:
        for cells in reader:
            place, cells = f"{path}, line {reader.line_num}", [" ".join(cell.split()) for cell in cells]
            if not any(cells):  # a spreadsheet leaves such lines
                continue
            if names:
                results.append(_result(place, names, cells))
            else:
                names = _header(place, cells)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from None
    if not results:
        state = "a header and no result" if names else "nothing"
        raise UsageError(f"{path} holds {state}: lines with {NEEDED} are needed")
    return results


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: no UTF-8; a spreadsheet calls it CSV UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _header(place: str, cells: Sequence[str]) -> list[str]:
    names = [cell.lower() for cell in cells]
    lacking = [name for name in COLUMNS if name not in names]
    if len(lacking) == len(COLUMNS):
        raise UsageError(f"{place}: this is no header; the columns {NEEDED} are needed")
    if lacking:
        raise UsageError(f"{place}: no column {lacking[0]!r}; {near_matches(lacking[0], filter(None, names))}")
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise UsageError(f"{place}: two columns are called {twice[0]!r}")
    return names


def _result(place: str, names: Sequence[str], cells: Sequence[str]) -> Result:
    if any(cells[len(names) :]):
        raise UsageError(f"{place}: {len(cells)} cells, and the header has {len(names)} columns (a decimal comma?)")
    own = {name: text for name, text in zip(names, [*cells, *[""] * len(names)]) if name}
    for name in COLUMNS:
        if not own[name]:
            raise UsageError(f"{place}: no {name}")
    text = own["accuracy"].replace(",", ".")  # a decimal comma: between semicolons, or in quotes
    return Result(
        place,
        own,
        seed=int(_number(place, "seed", own["seed"], whole=True)),
        accuracy=_number(place, "accuracy", text.removesuffix("%")),
        has_sign=text.endswith("%"),
    )


def _number(place: str, name: str, text: str, whole: bool = False) -> float:
    try:
        value = int(text) if whole else float(text)
        if math.isfinite(value):
            return value
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"{place}: {name} {text!r} is no {'whole ' * whole}number")
