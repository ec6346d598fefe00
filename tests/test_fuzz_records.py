"""Records with damaged files: none is read as another than it was.

A record is misread if any reader gives what the run did not write, if a sweep counts it as done, or if `verify
--records` has nothing to say. What readers may do is refuse, with OSError or ValueError and nothing else.
"""

import shutil
from collections.abc import Callable, Iterator
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
from tests.mutations import ARRAYS, BYTES, JSON, LINES, Change, cases, done

ROOT = Path(__file__).resolve().parents[1]
ANOTHER_ENVIRONMENT = min(ROOT.glob("results/reference/*/env.json"))

SORTS: dict[str, dict[str, Change]] = {
    **{name: {**BYTES, **JSON} for name in ("config.json", "env.json", "cost.json", "result.json")},
    "epochs.jsonl": {**BYTES, **LINES},
    "predictions.npz": {**BYTES, **ARRAYS},
}


def trained(out: Path, seed: int) -> Run:
    settings = [f"variant.depth={seed + 1}", "variant.width=16", "variant.heads=1"]
    config = resolve("compact", DATASETS["digits"], "quick", epochs=2, batch_size=512, seed=seed, settings=settings)
    return run_cell(config, Path("data"), out, torch.device("cpu"), quiet=True)


class Original:
    """A sound record, all that is read from it, and a folder in which copies of it are damaged."""

    def __init__(self, run: Run, other: Run, place: Path):
        self.content, self.whole_other = lying_in(run.folder), lying_in(other.folder)
        self.other = {**self.whole_other, "env.json": ANOTHER_ENVIRONMENT.read_bytes()}
        self.parts, self.epochs, self.predictions = parts(run), run.epochs(), run.predictions()
        self.out, self.folder = place, place / run.folder.name

    def laid_out(self, changed: dict[str, bytes]) -> Path:
        shutil.rmtree(self.out, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, content in {**self.content, **changed}.items():
            (self.folder / name).write_bytes(content)
        return self.folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    runs = [trained(tmp_path_factory.mktemp("sound"), seed) for seed in (0, 1)]
    return Original(runs[0], runs[1], tmp_path_factory.mktemp("damaged") / "runs")


# --- what is wrong with how it was read ------------------------------------------------------------------------------


def misread(original: Original) -> Iterator[str]:
    """Every way in which the damaged record in its folder is taken for something that it is not."""
    folder = original.folder
    done()  # by what was read before
    readers: dict[str, Callable[[], bool]] = {
        "read_run": lambda: parts(read_run(folder)) == original.parts,
        "epochs": lambda: read_run(folder).epochs() == original.epochs,
        "predictions": lambda: same(read_run(folder).predictions(), original.predictions),
    }
    others: dict[str, Callable[[], bool]] = {
        "load_runs": lambda: all(parts(run) == original.parts for run in load_runs([original.out])),
        "run_state": lambda: run_state(folder) != "done",
        "problems_of": lambda: set(problems_of(folder)) - {DIRTY} != set(),
        "set_aside": lambda: goes_aside(original),
    }
    for name, holds in (readers | others).items():
        refusals = (OSError, ValueError) if name in readers else ()
        try:
            if not holds():
                yield f"{name} takes it for sound"
        except Exception as error:
            if not isinstance(error, refusals):
                yield f"{name} raises {type(error).__name__}"
        yield from done()


def parts(run: Run) -> tuple[dict[str, Any], ...]:
    return run.config, run.env, run.cost, run.result


def same(arrays: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    return arrays.keys() == others.keys() and all(
        arrays[name].dtype == others[name].dtype and np.array_equal(arrays[name], others[name]) for name in others
    )


def goes_aside(original: Original) -> bool:
    """All of it, under a name at which nobody looks for a record, so that the run can be begun in its own folder."""
    folder, there = original.folder, lying_in(original.folder)
    place = writing.set_aside(folder)
    if "result.json" not in there:  # an unfinished run is nothing to set aside
        return place is None
    if place is None or not place.name.startswith("unreadable-"):
        return False
    return lying_in(place) == there and not lying_in(folder) and not finished_under(original.out)


def lying_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- damage ----------------------------------------------------------------------------------------------------------


def damaged(original: Original, name: str, count: int) -> Iterator[tuple[str, list[str]]]:
    """Each sort of damage in turn, and what it led to."""
    content, other = original.content[name], original.other[name]
    for sort, changed in cases(SORTS[name], count * len(SORTS[name]), content, other, seed=f"{name} {count}"):
        original.laid_out({name: changed})
        yield sort, list(misread(original))


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.long)])
def test_no_damaged_record_is_read_as_another(original, name, rounds, capsys):
    assert [f"{sort}: {one}" for sort, found in damaged(original, name, rounds) for one in found] == []


@pytest.mark.parametrize("name", FILES)
def test_what_lacks_a_file_is_no_record(original, name, capsys):
    (original.laid_out({}) / name).unlink()
    assert list(misread(original)) == []


def another_run_s(original: Original) -> list[str]:
    """A sound record in the folder of another run: readers may give it as what it is, a sweep must not count it."""
    original.laid_out(original.whole_other)
    return [one for one in misread(original) if one.startswith(("run_state", "problems_of", "set_aside"))]


def test_the_record_of_another_run_under_this_name_is_not_this_run(original, monkeypatch, capsys):
    assert another_run_s(original) == []
    for module in (read, writing):  # as if nobody looked at the folder's name
        monkeypatch.setattr(module, "whole_run", read.read_run)
    assert another_run_s(original) == ["run_state takes it for sound", "set_aside takes it for sound"]


@pytest.mark.parametrize("name", sorted(SORTS.keys() - {"result.json"}))
def test_damage_is_seen_where_digests_are_not_compared(original, name, monkeypatch, capsys):
    """And so is a seal that nobody looks at: what is tried does get through."""
    monkeypatch.setattr(read, "_content", lambda folder, name, digests: (folder / name).read_bytes())
    monkeypatch.setattr(read, "is_sealed", lambda content: True)
    assert sum(bool(wrong) for _, wrong in damaged(original, name, 2)) >= 3
    assert any(wrong for _, wrong in damaged(original, "result.json", 2))
