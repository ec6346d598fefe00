"""What a shared machine does to a run: a disk with no room, a device that is taken for a while, a lock that is removed,
a stop at an awkward time; and checkpoints of other code, runs with other threads or other images."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import run, sweep
from harness.config import run_config_from_plain
from harness.experiment import Resume, run_cell
from harness.records import read
from harness.records.read import DIRTY, Run, load_runs, problems_of, run_state
from harness.records.write import RunWriter
from harness.training import setup
from harness.training.checkpoint import PATTERN, Checkpoints
from harness.training.signals import StoppedError, heed, listening
from tests.test_resume import CPU, ROOT, WORDS, assert_same, cell, config, started, stopping_after
from variants.fields import UsageError

ONE = ["quick", "--variants", "compact", "--epochs", "1", "--device", "cpu", "--jobs", "1"]


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


def test_a_stop_under_corruptions_says_what_was_saved(tmp_path, monkeypatch):
    def full(path, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = run_cell.__globals__["evaluate_corrupted"]

    def stopped(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    monkeypatch.setitem(run_cell.__globals__, "evaluate_corrupted", stopped)
    monkeypatch.setattr("harness.training.checkpoint.write_state", full)
    with pytest.raises(StoppedError, match="its state could not be saved"):
        cell(tmp_path)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail at inline_container.cc]")])
def test_a_checkpoint_for_which_memory_is_missing_is_one_that_was_not_saved(tmp_path, monkeypatch, capsys, error):
    def missing(path, state):
        raise error

    monkeypatch.setattr("harness.training.checkpoint.write_state", missing)
    with pytest.raises(StoppedError, match="its state could not be saved"):
        stopping(tmp_path, monkeypatch)
    assert capsys.readouterr().err.count("could not be written") == 1


def stopping(out: Path, monkeypatch) -> None:
    monkeypatch.setattr(Checkpoints, "due", lambda self: setattr(self.stop, "asked", signal.SIGTERM) or True)
    cell(out)


KILLED_LATE = """
import os, sys
from pathlib import Path
from harness.training.checkpoint import Checkpoints
from tests.test_interrupted import fresh_cell
Checkpoints.clear = lambda self: os._exit(9)
fresh_cell(Path(sys.argv[1]))
"""


def test_what_was_killed_after_its_result_is_done(tmp_path, whole):
    """Its checkpoints lie there still: they are no fault of the record, and --fresh does not go on with them."""
    assert subprocess.run([sys.executable, "-c", KILLED_LATE, str(tmp_path)], cwd=ROOT).returncode == 9
    folder = tmp_path / config().run_id
    assert run_state(folder) == "done" and list(folder.glob(PATTERN)) and (folder / "lock").exists()
    assert problems_of(folder) in ([], [DIRTY])
    again = fresh_cell(tmp_path)
    assert [session["after_epochs"] for session in again.result["sessions"]] == [0]
    (folder / "checkpoint-000004-00000000.pt").write_bytes(b"left")
    assert_same(cell(tmp_path), whole)
    assert_same(again, whole)


def test_words_after_two_dashes_stay_words(tmp_path):
    words = ["--seeds", "1", "--variants", "compact", "--recipes", "quick", "--epochs", "1", "--device", "cpu"]
    ended = subprocess.run(
        [sys.executable, "-m", "harness.sweep", "--jobs", "2", *words, "--out", str(tmp_path), "--", "quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert len(load_runs([tmp_path])) == 1
