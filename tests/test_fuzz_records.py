"""Records damaged in every way that a disk, a person or a program may damage them: none is read as another than it was.

A record is read wrongly if any reader gives what the run did not write, if a sweep counts it as done, or if
`verify --records` finds nothing to say. What readers may do is refuse, with OSError or ValueError and nothing else.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.config import resolve
from harness.datasets import DATASETS
from harness.experiment import run_cell
from harness.records import read
from harness.records import write as writing
from harness.records.read import DIRTY, Run, finished_under, load_runs, problems_of, read_run, run_state
from harness.records.schema import FILES
from tests.mutations import (
    PLACES,
    Sort,
    archive_sorts,
    bytes_sorts,
    cases,
    done,
    in_a_line,
    json_sorts,
    line_sorts,
    text_sorts,
)

ROOT = Path(__file__).resolve().parents[1]
ANOTHER_ENVIRONMENT = min(ROOT.glob("results/reference/*/env.json"))

UNCHECKED = "digests are not compared"
UNSEALED = "the seal of result.json is not looked at"
HOPELESS = "what is no JSON raises what nobody expects"
SHAPELESS = "JSON that is no object is taken as it comes"
BARE = "an archive is taken as it comes"
PICKLES = "pickles are unpickled"
NARROW = "a file that cannot be opened is not expected"
NAMELESS = "the folder's name is not looked at"


def json_file(defect: str) -> dict[str, Sort]:
    bytes_, text = bytes_sorts(defect, HOPELESS), text_sorts(defect, HOPELESS)
    return {**bytes_, **text, **json_sorts(defect, HOPELESS, SHAPELESS)}


LINES = {**bytes_sorts(UNCHECKED, HOPELESS), **text_sorts(UNCHECKED, HOPELESS), **line_sorts(UNCHECKED)}
LINES["emptied"] = replace(LINES["emptied"], defect=UNCHECKED)  # no lines are no error
LINES |= {
    f"{name} in a line": Sort(in_a_line(sort.change), sort.defect)
    for name, sort in json_sorts(UNCHECKED, HOPELESS, SHAPELESS).items()
    if name not in ("no object", "the same otherwise written")
}
SORTS: dict[str, dict[str, Sort]] = {
    **{name: json_file(UNCHECKED) for name in ("config.json", "env.json", "cost.json")},
    # another run's result is sound in itself, and names other files
    "result.json": json_file(UNSEALED) | {"another run's": Sort(lambda draw, content, other: other, UNCHECKED)},
    "epochs.jsonl": LINES,
    "predictions.npz": {**bytes_sorts(BARE, BARE), **archive_sorts(UNCHECKED, BARE, PICKLES)},
}


def trained(out: Path, seed: int) -> Run:
    config = resolve(
        "compact", DATASETS["digits"], "quick", epochs=2, seed=seed, settings=[f"variant.depth={seed + 1}"]
    )
    return run_cell(config, Path("data"), out, torch.device("cpu"), quiet=True)


class Original:
    """A sound record, all that is read from it, and a folder in which copies of it are damaged."""

    def __init__(self, run: Run, other: Run, place: Path):
        self.content = {name: (run.folder / name).read_bytes() for name in FILES}
        self.other = {name: (other.folder / name).read_bytes() for name in FILES}
        self.whole_other = dict(self.other)
        self.other["env.json"] = ANOTHER_ENVIRONMENT.read_bytes()
        self.parts = (run.config, run.env, run.cost, run.result)
        self.epochs, self.predictions = run.epochs(), run.predictions()
        self.out, self.folder = place, place / run.folder.name

    def laid_out(self, **changed: bytes) -> Path:
        shutil.rmtree(self.out, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, content in self.content.items():
            (self.folder / name).write_bytes(changed.get(name.replace(".", "_"), content))
        return self.folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    runs = [trained(tmp_path_factory.mktemp("sound"), seed) for seed in (0, 1)]
    return Original(runs[0], runs[1], tmp_path_factory.mktemp("damaged") / "runs")


# --- what is wrong with how it was read ------------------------------------------------------------------------------


def same(arrays: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    return arrays.keys() == others.keys() and all(
        arrays[name].dtype == others[name].dtype and np.array_equal(arrays[name], others[name]) for name in others
    )


def misread(original: Original) -> Iterator[str]:
    """Every way in which the damaged record in its folder is taken for something that it is not."""
    folder = original.folder
    done()  # by what was read before
    readers: dict[str, Callable[[], bool]] = {
        "read_run": lambda: _parts(read_run(folder)) == original.parts,
        "epochs": lambda: read_run(folder).epochs() == original.epochs,
        "predictions": lambda: same(read_run(folder).predictions(), original.predictions),
    }
    for name, reads_well in readers.items():
        try:
            if not reads_well():
                yield f"{name} gives what the run did not write"
        except (OSError, ValueError):
            pass
        except Exception as error:
            yield f"{name} raises {type(error).__name__}"
        yield from done()
    expectations: dict[str, Callable[[], bool]] = {
        "load_runs": lambda: all(_parts(run) == original.parts for run in load_runs([original.out])),
        "run_state": lambda: run_state(folder) != "done",
        "problems_of": lambda: set(problems_of(folder)) - {DIRTY} != set(),
        "set_aside": lambda: _goes_aside(original),
    }
    for name, holds in expectations.items():
        try:
            if not holds():
                yield f"{name} takes it for sound"
        except Exception as error:
            yield f"{name} raises {type(error).__name__}"


def _parts(run: Run) -> tuple[dict[str, Any], ...]:
    return run.config, run.env, run.cost, run.result


def _goes_aside(original: Original) -> bool:
    """All of it, under a name at which nobody looks for a record, so that the run can be begun in its own folder."""
    folder, there = original.folder, lying_in(original.folder)
    if not os.path.lexists(folder / "result.json"):  # an unfinished run is nothing to set aside
        return writing.set_aside(folder) is None or not lying_in(folder)
    place = writing.set_aside(folder)
    return place is not None and lying_in(place) == there and not lying_in(folder) and not finished_under(original.out)


def lying_in(folder: Path) -> dict[str, bytes | None]:
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


# --- the defects that the damage would get through by ----------------------------------------------------------------


def raising_another(function: Callable[..., Any], expected: type[Exception]) -> Callable[..., Any]:
    """As if whoever wrote it had not thought of that error."""

    def called(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except expected as error:
            raise RuntimeError(str(error)) from None

    return called


def bare_predictions(run: Run) -> dict[str, np.ndarray]:
    with np.load(run.folder / "predictions.npz", allow_pickle=True) as arrays:
        return dict(arrays)


def plant(defect: str, patch: pytest.MonkeyPatch) -> None:
    if defect not in (UNSEALED, NARROW, NAMELESS):
        patch.setattr(read, "_content", lambda folder, name, digests: (folder / name).read_bytes())
    if defect == UNSEALED:
        patch.setattr(read, "is_sealed", lambda content: True)
    elif defect == HOPELESS:
        loads = raising_another(read.json.loads, ValueError)
        patch.setattr(read, "parsed", lambda name, content: loads(content.decode(errors="replace")))
    elif defect == SHAPELESS:
        patch.setattr(read, "_object", read.parsed)
    elif defect == BARE:
        patch.setattr(Run, "predictions", bare_predictions)
    elif defect == PICKLES:
        load = np.load
        patch.setattr(read.np, "load", lambda file, **_: load(file, allow_pickle=True))
    elif defect == NARROW:
        for module in (read, writing):
            for name in {"read_run", "whole_run"} & vars(module).keys():
                patch.setattr(module, name, raising_another(getattr(module, name), OSError))
    elif defect == NAMELESS:
        for module in (read, writing):
            patch.setattr(module, "whole_run", read.read_run)


# --- tests -----------------------------------------------------------------------------------------------------------


def damaged(original: Original, name: str, sorts: dict[str, Sort], count: int) -> Iterator[tuple[str, list[str]]]:
    """Each sort of damage in turn, and what it led to."""
    for sort, changed in cases(sorts, count, original.content[name], original.other[name], seed=f"{name} {count}"):
        original.laid_out(**{name.replace(".", "_"): changed})
        yield sort, list(misread(original))


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.long)])
def test_no_damaged_record_is_read_as_another(original, name, rounds, tried, capsys):
    wrong, kinds = [], Counter[str]()
    for sort, found in damaged(original, name, SORTS[name], rounds * len(SORTS[name])):
        kinds[sort] += 1
        wrong += [f"{sort}: {one}" for one in found]
    assert wrong == []
    tried("damaged files of records", kinds)


@pytest.mark.parametrize("name", SORTS)
def test_each_sort_of_damage_bites_where_a_defect_lets_it(original, name, tried, monkeypatch, capsys):
    harmless, defects = [], Counter[str]()
    for sort, how in SORTS[name].items():
        with monkeypatch.context() as patch:
            plant(how.defect, patch)
            tries = damaged(original, name, {sort: how}, 60)
            found = next((found for _, found in tries if found), None)
        defects[how.defect] += 1
        if not found:
            harmless.append(f"{sort} does no harm although {how.defect}")
    assert harmless == []
    tried("damaged files of records", {}, defects)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_no_record(original, name, place, tried, monkeypatch, capsys):
    def harm() -> list[str]:
        PLACES[place](original.laid_out() / name)
        return list(misread(original))

    assert harm() == []
    plant(NARROW, monkeypatch)
    assert harm()
    tried("damaged files of records", {place: 1}, {NARROW: 1})


def test_the_record_of_another_run_under_this_name_is_not_this_run(original, tried, monkeypatch, capsys):
    """It is sound, and a report may count it as what it is; a sweep must not take it for the cell of that name."""

    def harm() -> list[str]:
        original.laid_out(**{name.replace(".", "_"): content for name, content in original.whole_other.items()})
        return [one for one in misread(original) if "what the run did not write" not in one and "load_runs" not in one]

    assert harm() == []
    plant(NAMELESS, monkeypatch)
    assert harm() == ["run_state takes it for sound", "set_aside takes it for sound"]
    tried("damaged files of records", {"all files another run's": 1}, {NAMELESS: 2})
