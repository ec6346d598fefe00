"""What a shared machine does to a run: a disk with no room, a device that is taken for a while, a stop at an awkward
time; and checkpoints of other code, runs with other threads or other images."""

import errno
import os
import resource
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import experiment, run, sweep
from harness.commands import run_command
from harness.config import run_config_from_plain
from harness.experiment import Options, run_cell
from harness.records import read
from harness.records.read import DIRTY, Run, load_runs, problems_of, run_state
from harness.records.write import RunWriter
from harness.training import setup
from harness.training.checkpoint import PATTERN
from harness.training.signals import StoppedError, heed, listening
from tests.processes import Process, command
from tests.test_resume import CPU, WORDS, assert_same, cell, config, stopping_after
from variants.fields import UsageError

ONE = ["quick", "--variants", "compact", "--epochs", "1", "--device", "cpu", "--jobs", "1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return cell(tmp_path_factory.mktemp("whole"))


def fresh_cell(out: Path) -> Run:
    return run_cell(config(), Path("data"), out, CPU, quiet=True, options=Options(fresh=True))


def stopped_after(out: Path, monkeypatch, steps: int, again=cell) -> Path:
    with monkeypatch.context() as patch:
        stopping_after(patch, steps)
        with pytest.raises(StoppedError):
            again(out)
    return out / config().run_id


# --- no room ---------------------------------------------------------------------------------------------------------


def train_with_room_for(size: int, out: Path) -> None:
    """No file may grow beyond that: the system itself refuses each write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    run_command(run.main, [*WORDS, "--quiet", "--out", str(out)])


@pytest.mark.parametrize("size", [1000, 70_000])
def test_no_room_is_a_sentence_before_anything_is_done_and_for_checkpoints_a_warning(tmp_path, size):
    out = tmp_path / "runs"
    process = Process(tmp_path / "log", train_with_room_for, size, out)
    code, errors = process.ended(), process.read("err")
    if size == 1000:
        assert code == 2 and errors.count("\n") == 1 and "cannot write into" in errors and not list(out.iterdir())
    else:
        assert code == 0 and errors.count("could not be written") == 2 and "Traceback" not in errors
        (folder,) = out.iterdir()
        assert "kept without weights" in errors and not list(folder.glob("*safetensors*"))
        assert run_state(folder) == "done" and not list(folder.glob("*checkpoint*"))


NO_ROOM = [OSError(errno.ENOSPC, "No space left on device"), MemoryError(), RuntimeError("[enforce fail at inline")]


@pytest.mark.parametrize("error", NO_ROOM)
@pytest.mark.parametrize("where", ["in training", "under corruptions"])
def test_a_stop_without_a_saved_state_says_so(tmp_path, monkeypatch, capsys, error, where):
    def full(path, state):
        raise error

    monkeypatch.setattr("harness.training.checkpoint.write_state", full)
    if where == "in training":
        stopping_after(monkeypatch, 20)
    else:
        real = run_cell.__globals__["evaluate_corrupted"]
        asked = lambda *args: os.kill(os.getpid(), signal.SIGTERM) or real(*args)  # noqa: E731
        monkeypatch.setitem(run_cell.__globals__, "evaluate_corrupted", asked)
    with pytest.raises(StoppedError, match="its state could not be saved, only what was saved before is kept"):
        cell(tmp_path)
    assert capsys.readouterr().err.count("could not be written") == 1


# --- a device that is taken for a while ------------------------------------------------------------------------------


def test_out_of_memory_keeps_what_was_done_before(tmp_path, monkeypatch, whole):
    def taken(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    folder = stopped_after(tmp_path, monkeypatch, 100)
    with monkeypatch.context() as patch:
        patch.setattr(setup, "batch_loss", taken)
        assert not cell(tmp_path).ok
    assert run_state(folder) == "failed" and list(folder.glob(PATTERN))
    again = cell(tmp_path)
    assert_same(again, whole)
    assert [session["after_epochs"] for session in again.result["sessions"]] == [0, 2]


def test_a_run_that_diverges_after_a_stop_is_told_as_without_it(tmp_path, monkeypatch):
    real = setup.batch_loss

    def never_a_number(from_step: int):
        count = iter(range(10**9))

        def batch_loss(*args):
            loss, sums = real(*args)
            return (loss, sums * float("nan")) if next(count) >= from_step else (loss, sums)

        return batch_loss

    with monkeypatch.context() as patch:
        patch.setattr(setup, "batch_loss", never_a_number(70))
        reason = cell(tmp_path / "whole").result["reason"]
    assert "epoch 2, step 70" in reason and "over epoch 1" in reason
    stopped_after(tmp_path, monkeypatch, 60)  # 15 steps into the second epoch
    with monkeypatch.context() as patch:
        patch.setattr(setup, "batch_loss", never_a_number(70 - 60))
        assert cell(tmp_path).result["reason"] == reason


# --- a record that is there ------------------------------------------------------------------------------------------


def test_fresh_keeps_the_old_record_and_goes_on_when_it_is_repeated(tmp_path, monkeypatch, whole, capsys):
    old = cell(tmp_path)
    before = {path.name: path.read_bytes() for path in old.folder.iterdir()}
    folder = stopped_after(tmp_path, monkeypatch, 60, fresh_cell)
    kept = tmp_path / f"replaced-{folder.name}"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    again = fresh_cell(tmp_path)
    assert [session["after_epochs"] for session in again.result["sessions"]] == [0, 1]
    assert_same(again, whole)
    capsys.readouterr()
    assert [run.folder for run in read.load_runs([tmp_path])] == [folder]
    assert f"left out {kept}" in capsys.readouterr().err


def test_what_fresh_began_stays_so_whatever_goes_on_with_it(tmp_path, monkeypatch, whole):
    stopped_after(tmp_path, monkeypatch, 60, fresh_cell)
    stopped_after(tmp_path, monkeypatch, 50)  # the same command without --fresh
    again = fresh_cell(tmp_path)
    assert [session["after_epochs"] for session in again.result["sessions"]] == [0, 1, 2]
    assert_same(again, whole)


def test_fresh_does_not_go_on_with_what_was_begun_without_it(tmp_path, monkeypatch):
    stopped_after(tmp_path, monkeypatch, 60)
    assert len(fresh_cell(tmp_path).result["sessions"]) == 1


# --- signals ---------------------------------------------------------------------------------------------------------


def test_a_process_that_waits_stops_as_one_that_trains(tmp_path):
    words = [*WORDS, "--out", str(tmp_path / "runs"), "--epochs", "400"]
    first = command(tmp_path / "first", *words)
    first.until("epoch 1/")
    second = command(tmp_path / "second", *words)
    second.until("waiting for it")
    time.sleep(0.3)
    second.signal(signal.SIGTERM)
    assert second.ended() == 143
    assert "stopped by SIGTERM" in second.read("err") and "--epochs 400" in second.read("err")
    first.process.kill()
    first.ended()


def test_a_signal_that_is_ignored_stays_ignored():
    """A shell has what it starts in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.asked is None
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- checkpoints of others -------------------------------------------------------------------------------------------


def test_a_forgotten_flag_costs_nothing(tmp_path, whole, monkeypatch, capsys):
    """Checkpoints of other code, flags or packages wait for those; a finished run needs none."""
    stopped_after(tmp_path, monkeypatch, 60, partial(cell, save_every_s=0))
    real = run_cell.__globals__["environment"]
    with monkeypatch.context() as patch:
        patch.setitem(run_cell.__globals__, "environment", lambda *args: real(*args) | {"source_digest": "other"})
        folder = stopped_after(tmp_path, patch, 20)
        assert "another source_digest: the run starts again" in capsys.readouterr().err
    assert len(list(folder.glob(PATTERN))) == 3, "the last two of the one, and where the other stopped"
    again = cell(tmp_path)
    assert [session["after_epochs"] for session in again.result["sessions"]] == [0, 1]
    assert "starts again" not in capsys.readouterr().err
    assert_same(again, whole)


def test_a_run_goes_on_with_the_threads_that_it_began_with(tmp_path, whole, monkeypatch, capsys):
    own = torch.get_num_threads()
    torch.set_num_threads(own + 1)
    try:
        stopped_after(tmp_path / "other", monkeypatch, 60)
        more = cell(tmp_path / "more")
    finally:
        torch.set_num_threads(own)
    again = cell(tmp_path / "other")
    assert f"goes on with {own + 1} threads, as it began" in capsys.readouterr().err
    assert torch.get_num_threads() == own and again.env["threads"] == own + 1
    assert_same(again, more)


# --- images of the same name -----------------------------------------------------------------------------------------


def images(folder: Path, seed: int) -> str:
    draw = np.random.default_rng(seed)
    for number in range(24):
        path = folder / ("train" if number < 16 else "test") / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return f"folder:{folder}"


def test_a_run_on_other_images_of_the_same_name_is_not_this_one(tmp_path, capsys):
    mine, other = images(tmp_path / "a" / "images", 0), images(tmp_path / "b" / "images", 1)
    moved = images(tmp_path / "c" / "images", 0)
    rest = ["--device", "cpu", "--out", str(tmp_path / "runs"), "--epochs", "1"]
    words = ["--variant", "compact", "--recipe", "quick", "--batch-size", "8", "--quiet", *rest]
    assert run.main([*words, "--dataset", mine]) == 0
    capsys.readouterr()
    assert run.main([*words, "--dataset", moved]) == 0
    assert "done already" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"was made of other images, those of folder:.*/a/images"):
        run.main([*words, "--dataset", other])
    (record,) = load_runs([tmp_path / "runs"])
    with pytest.raises(UsageError, match="was made of other images"):
        run_cell(replace(run_config_from_plain(record.config), dataset=other), tmp_path, tmp_path / "runs", CPU)
    assert run.main([*words, "--dataset", other, "--fresh"]) == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        record.folder.name,
        f"replaced-{record.folder.name}",
    }


def test_a_sweep_does_not_skip_what_was_done_on_other_images(tmp_path, capsys):
    mine, other = images(tmp_path / "a" / "images", 0), images(tmp_path / "b" / "images", 1)
    words = [*ONE, "--recipes", "quick", "--seeds", "1", "--out", str(tmp_path / "runs"), "--dataset"]
    assert sweep.main([*words, mine]) == 0
    assert sweep.main([*words, mine]) == 0
    assert "1 done, 0 to train" in capsys.readouterr().out
    for more in ([], ["--jobs", "2"]):
        with pytest.raises(UsageError, match="was made of other images"):
            sweep.main([*words, other, *more])


# --- a stop at an awkward time ---------------------------------------------------------------------------------------


def test_a_stop_in_a_cell_s_last_moment_ends_the_sweep(tmp_path, monkeypatch):
    real = RunWriter.finish

    def finish(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        real(self, *args)

    monkeypatch.setattr(RunWriter, "finish", finish)
    with pytest.raises(StoppedError):
        sweep.main([*ONE, "--seeds", "2", "--out", str(tmp_path)])
    assert [run.config["seed"] for run in load_runs([tmp_path])] == [0]
    assert len(list(tmp_path.iterdir())) == 1, "the next is not begun"


def test_whoever_listens_inside_hears_the_same():
    with listening() as outer:
        with listening() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert inner is outer and outer.asked == signal.SIGTERM
        with pytest.raises(StoppedError):
            heed()
    heed()


def test_only_ctrl_c_is_urgent_when_it_comes_again():
    """`timeout` tells a process and its group; a scheduler tells a sweep, and its children beside the sweep itself."""
    usual = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="SIGTERM"), listening() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        stop.check()
    assert signal.getsignal(signal.SIGTERM) == usual


def killed_late(out: Path) -> None:
    experiment.clear = lambda folder: os._exit(9)  # type: ignore[assignment]
    fresh_cell(out)


def test_what_was_killed_after_its_result_is_done(tmp_path, whole):
    """Its checkpoints lie there still: they are no fault of the record, and --fresh does not go on with them."""
    assert Process(tmp_path / "log", killed_late, tmp_path).ended() == 9
    folder = tmp_path / config().run_id
    assert run_state(folder) == "done" and list(folder.glob(PATTERN)) and (folder / "lock").exists()
    assert problems_of(folder) in ([], [DIRTY])
    again = fresh_cell(tmp_path)
    assert [session["after_epochs"] for session in again.result["sessions"]] == [0]
    (folder / "checkpoint-000004-00000000.pt").write_bytes(b"left")
    assert_same(cell(tmp_path), whole)
    assert_same(again, whole)
