"""What a shared machine does to a run, in the real: a disk with no room, a device that is taken for a while, a lock
that somebody removes, a command that is repeated."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.experiment import Resume, run_cell
from harness.records import read
from harness.records.read import Run, done_run, run_state
from harness.training import setup
from harness.training.checkpoint import PATTERN, Checkpoints
from harness.training.signals import StoppedError, listening
from tests.test_resume import CPU, ROOT, WORDS, assert_same, cell, config, started, stopping_after
from variants.fields import UsageError


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return cell(tmp_path_factory.mktemp("whole"))


def fresh_cell(out: Path) -> Run:
    return run_cell(config(), Path("data"), out, CPU, quiet=True, resume=Resume(fresh=True))


def stopped_after(out: Path, monkeypatch, steps: int, again=cell) -> Path:
    with monkeypatch.context() as patch:
        stopping_after(patch, steps)
        with pytest.raises(StoppedError):
            again(out)
    return out / config().run_id


# --- no room ---------------------------------------------------------------------------------------------------------


def with_room_for(size: int, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """No file may grow beyond that: the system itself refuses each write."""
    words = [sys.executable, "-m", "harness.run", *WORDS, "--quiet", "--out", str(out), *more]
    limit = (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    return subprocess.run(
        words,
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )


def test_no_room_at_all_is_a_sentence_before_anything_is_done(tmp_path):
    done = with_room_for(1000, tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot write into" in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_room_for_checkpoints_costs_checkpoints_alone(tmp_path):
    done = with_room_for(200_000, tmp_path)
    assert done.returncode == 0 and done.stderr.count("could not be written") == 1 and "Traceback" not in done.stderr
    (folder,) = tmp_path.iterdir()
    assert run_state(folder) == "done" and not list(folder.glob("*checkpoint*"))


def test_a_stop_without_a_saved_state_says_so(tmp_path, monkeypatch):
    def full(path, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        stopping_after(patch, 20)
        patch.setattr("harness.training.checkpoint.write_state", full)
        with pytest.raises(StoppedError, match="its state could not be saved, only what was saved before is kept"):
            cell(tmp_path)
    with monkeypatch.context() as patch:
        stopping_after(patch, 20)
        with pytest.raises(StoppedError, match="nothing is lost"):
            cell(tmp_path)


def test_a_lock_that_nothing_can_be_written_into_is_a_lock(tmp_path, monkeypatch, whole):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("harness.records.lock.os.ftruncate", full)
    assert_same(cell(tmp_path), whole)


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


def test_a_disk_that_is_silent_for_a_moment_costs_no_record(tmp_path, monkeypatch):
    """Neither is it taken for a damaged one."""
    done, real, silent = cell(tmp_path), Path.read_bytes, [True]
    before = {path.name: path.read_bytes() for path in done.folder.iterdir()}

    def read_bytes(self):
        if self.name == "result.json" and silent.pop():
            silent.append(False)
            raise OSError(errno.ESTALE, "Stale file handle", str(self))
        silent.append(False)
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(UsageError, match="Stale file handle; once that is mended, the same command goes on"):
        cell(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [done.folder.name]
    assert {path.name: real(path) for path in done.folder.iterdir()} == before


def test_a_folder_that_may_not_be_looked_into_is_not_done(tmp_path, monkeypatch):
    folder = cell(tmp_path).folder

    def refused(self, *args, **named):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refused)
    monkeypatch.setattr(Path, "read_bytes", refused)
    assert run_state(folder) == "failed" and run_state(tmp_path / "other") == "failed"
    with pytest.raises(PermissionError):
        done_run(folder)


def test_what_others_keep_in_the_folder_is_left_alone(tmp_path, whole):
    folder = tmp_path / config().run_id
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / ".note").write_text("mine")
    (folder / ".result.json.half").write_text("{")
    run = cell(tmp_path)
    assert {path.name for path in folder.iterdir()} - {path.name for path in whole.folder.iterdir()} == {
        ".ipynb_checkpoints",
        ".note",
    }
    assert run.epochs()[-1]["train_loss"] == whole.epochs()[-1]["train_loss"]


# --- a lock that somebody removes ------------------------------------------------------------------------------------


def test_whoever_loses_its_lock_stops_before_it_writes(tmp_path, whole):
    """Two processes would write one record: only the one that has the lock goes on."""
    first = started(tmp_path, "--epochs", "200")
    assert first.stdout and "epoch 1/" in first.stdout.readline()
    (folder,) = tmp_path.iterdir()
    (folder / "lock").unlink()
    second = started(tmp_path, "--epochs", "200")
    _, complaint = first.communicate(timeout=60)
    assert first.returncode == 2 and "was removed while this process held it" in complaint
    assert second.stdout and "epoch" in second.stdout.readline() and (folder / "lock").exists()
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=60)
    assert second.returncode == 143 and run_state(folder) == "unfinished"


def test_a_process_that_waits_stops_as_one_that_trains(tmp_path):
    first = started(tmp_path, "--epochs", "400")
    assert first.stdout and "epoch 1/" in first.stdout.readline()
    second = started(tmp_path, "--epochs", "400")
    assert second.stdout and "waiting for it" in second.stdout.readline()
    time.sleep(0.3)
    second.send_signal(signal.SIGTERM)
    _, told = second.communicate(timeout=60)
    assert second.returncode == 143 and "stopped by SIGTERM" in told and "--epochs 400" in told
    first.kill()
    first.communicate()


def test_a_signal_that_is_ignored_stays_ignored():
    """A shell has what it starts in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.asked is None
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- weights ---------------------------------------------------------------------------------------------------------


def test_the_weights_of_a_stopped_run_are_those_of_one_that_was_not(tmp_path, monkeypatch):
    """Those that train, not only their average that is judged, and the optimiser's state."""
    real, ends = Checkpoints.save, {}

    def watched(self, position, training):
        if position.epoch == 4:
            states = (training.model, training.optimiser, training.average.model)
            ends[self.folder.parent.name] = [read_numbers(state.state_dict()) for state in states]
        real(self, position, training)

    monkeypatch.setattr(Checkpoints, "save", watched)
    cell(tmp_path / "whole")
    for steps in (10, 70):
        stopped_after(tmp_path / "stopped", monkeypatch, steps)
    cell(tmp_path / "stopped")
    assert len(ends["whole"][0]) > 20 and ends["whole"] == ends["stopped"]


def read_numbers(value) -> list[bytes]:
    if isinstance(value, torch.Tensor):
        return [value.numpy().tobytes()]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [number for item in items for number in read_numbers(item)]
