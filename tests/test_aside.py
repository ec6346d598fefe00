"""What lies where a run is to be trained and is no record is set aside: named, kept byte for byte, never counted."""

import json
import os
from pathlib import Path

import pytest

from harness import run, sweep
from harness.config import RunConfig, resolve
from harness.datasets import DATASETS
from harness.records import write as writing
from harness.records.lock import BusyError, owned
from harness.records.read import finished_under, load_runs, read_run, run_state
from harness.records.schema import FILES
from harness.records.write import RunWriter, set_aside
from tests.test_records import write
from variants.fields import UsageError

WORDS = ["--variant", "compact", "--dataset", "digits", "--recipe", "quick", "--epochs", "1", "--device", "cpu"]
CONFIG = resolve("compact", DATASETS["digits"], "quick", epochs=1)
ONE = ["quick", "--variants", "compact", "--epochs", "1", "--device", "cpu"]


def cut(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def seeds(*numbers: int) -> list[RunConfig]:
    return [resolve("compact", DATASETS["digits"], "quick", epochs=1, seed=number) for number in numbers]


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_sweep_trains_a_damaged_cell_anew_and_the_others_stay(tmp_path, capsys, one_thread):
    for config in seeds(0, 1, 2):
        write(tmp_path, config)
    damaged, *sound = (tmp_path / config.run_id for config in seeds(1, 0, 2))
    before, others = files_in(cut(damaged, "predictions.npz")), [files_in(folder) for folder in sound]
    words = [*ONE, "--seeds", "3", "--out", str(tmp_path)]
    assert sweep.main([*words, "--status"]) == 0
    assert "seed 1: its record cannot be used: predictions.npz is not what the run wrote" in capsys.readouterr().out
    assert files_in(damaged) == before, "looking moves nothing"
    assert sweep.main([*words, "--jobs", "1"]) == 0
    printed = capsys.readouterr()
    place = tmp_path / f"unreadable-{damaged.name}"
    assert "3 cells, 2 done, 1 to train" in printed.out
    assert f"{damaged}: predictions.npz is not what the run wrote; set aside as {place.name}" in printed.err
    assert files_in(place) == before and [files_in(folder) for folder in sound] == others
    assert sorted(read.config["seed"] for read in load_runs([tmp_path])) == [0, 1, 2] and run_state(damaged) == "done"
    assert sweep.main([*words, "--status"]) == 0
    printed = capsys.readouterr().out
    assert "all done" in printed and f"set aside, since what they hold is no record: {place.name}" in printed


@pytest.mark.parametrize("more", [[], ["--fresh"]])
def test_a_run_is_trained_where_a_folder_lies_in_the_place_of_its_result(tmp_path, capsys, one_thread, more):
    folder = write(tmp_path, CONFIG)
    (folder / "result.json").unlink()
    (folder / "result.json").mkdir()
    assert run.main([*WORDS, "--quiet", "--out", str(tmp_path), *more]) == 0
    assert f"result.json: Is a directory; set aside as unreadable-{folder.name}" in capsys.readouterr().err
    assert run_state(folder) == "done" and (tmp_path / f"unreadable-{folder.name}" / "result.json").is_dir()


def test_reading_names_a_damaged_record_and_moves_nothing(tmp_path, capsys):
    for config in seeds(0, 1):
        write(tmp_path, config)
    damaged = cut(tmp_path / CONFIG.run_id, "result.json")
    set_aside(cut(write(tmp_path, seeds(2)[0]), "config.json"))
    capsys.readouterr()
    there = sorted(tmp_path.rglob("*"))
    assert [run.config["seed"] for run in load_runs([tmp_path])] == [1]
    printed = capsys.readouterr().err
    assert f"skipped {damaged}: result.json is not what the run wrote" in printed
    assert f"left out {tmp_path / 'unreadable-'}" in printed and sorted(tmp_path.rglob("*")) == there


# --- what is moved, and what is not ----------------------------------------------------------------------------------


def test_a_whole_record_an_unfinished_run_and_an_empty_folder_stay(tmp_path):
    whole, begun, empty = write(tmp_path, CONFIG), tmp_path / "begun", tmp_path / "empty"
    RunWriter(begun).begin(CONFIG.to_plain(), {}, {})
    empty.mkdir()
    before = [files_in(folder) for folder in (whole, begun, empty)]
    assert [set_aside(folder) for folder in (whole, begun, empty)] == [None] * 3
    assert [files_in(folder) for folder in (whole, begun, empty)] == before


def test_a_failed_run_is_a_record(tmp_path):
    folder = write(tmp_path, CONFIG, outcome="failed", reason="it fell")
    assert set_aside(folder) is None and run_state(folder) == "failed"


def test_a_second_one_gets_a_number(tmp_path):
    places = []
    for _ in range(3):
        places.append(set_aside(cut(write(tmp_path, CONFIG), "env.json")))
    name = f"unreadable-{CONFIG.run_id}"
    assert [place and place.name for place in places] == [name, f"{name}-2", f"{name}-3"]
    assert all(place and set(files_in(place)) == set(FILES) for place in places)


def test_what_belongs_to_no_record_stays_where_it_is(tmp_path):
    folder = cut(write(tmp_path, CONFIG), "cost.json")
    (folder / "checkpoint-000001-00000001.pt").write_bytes(b"state")
    assert set_aside(folder) is not None
    assert files_in(folder) == {"checkpoint-000001-00000001.pt": b"state"}


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    """What cannot be read for now may be sound."""
    folder = write(tmp_path, CONFIG)
    before = files_in(folder)

    def deaf(path: Path) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", deaf)
        with pytest.raises(OSError, match="Input/output"):
            set_aside(folder)
    assert files_in(folder) == before and run_state(folder) == "done"


@pytest.mark.parametrize("moment", range(1, len(FILES) + 1))
def test_ended_in_between_nothing_is_lost_and_nothing_is_counted(tmp_path, monkeypatch, moment):
    folder = cut(write(tmp_path, CONFIG), "epochs.jsonl")
    before, moves, replace = files_in(folder), iter(range(1, 100)), os.replace

    def ending(old: Path, new: Path) -> None:
        if next(moves) == moment:
            raise KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(writing.os, "replace", ending)
        with pytest.raises(KeyboardInterrupt):
            set_aside(folder)
    assert run_state(folder) == "failed", "what is left is never taken for a run to be gone on with, nor for a record"
    set_aside(folder)
    assert files_in(folder) == {} and finished_under(tmp_path) == []
    found = {name: content for place in tmp_path.glob("unreadable-*") for name, content in files_in(place).items()}
    assert found == before


def test_nobody_sets_aside_what_another_process_is_at(tmp_path):
    """The record is damaged when this process looks; the other, which has the lock, is about to mend it."""
    from harness.experiment import run_cell
    from harness.training.device import choose

    folder = cut(write(tmp_path, CONFIG), "result.json")
    before = files_in(folder)
    with owned(folder):
        with pytest.raises(BusyError):
            run_cell(CONFIG, Path("data"), tmp_path, choose("cpu"), quiet=True)
        assert {name: content for name, content in files_in(folder).items() if name != "lock"} == before
        write(tmp_path, CONFIG)
    healed = files_in(folder)
    assert run_cell(CONFIG, Path("data"), tmp_path, choose("cpu"), quiet=True).ok
    assert files_in(folder) == healed and list(tmp_path.glob("unreadable-*")) == []


def test_a_file_in_the_place_of_a_run_s_folder_is_said(tmp_path):
    (tmp_path / CONFIG.run_id).write_text("no folder")
    with pytest.raises(UsageError, match="cannot write into"):
        run.main([*WORDS, "--quiet", "--out", str(tmp_path)])


# --- the seal --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [{"schema": 2}, {"schema": 2, "files": None}])
def test_a_seal_that_was_taken_off_is_missed(tmp_path, named):
    """Calling a record older than it is does not make its digests unnecessary."""
    folder = write(tmp_path, CONFIG)
    plain = json.loads((folder / "result.json").read_bytes()) | named
    for lacking in ({"digest"}, {"digest", "files"}):
        (folder / "result.json").write_text(json.dumps({k: v for k, v in plain.items() if k not in lacking}))
        with pytest.raises(ValueError, match=r"is not what the run wrote|config.json has schema 3, result.json 2"):
            read_run(folder)
