"""What goes on with what: checkpoints of other code, other threads, other images; and stops at an awkward time."""

import errno
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import run, sweep
from harness.config import run_config_from_plain
from harness.experiment import run_cell
from harness.records.read import DIRTY, Run, load_runs, problems_of, run_state
from harness.records.write import RunWriter
from harness.training.checkpoint import PATTERN, Checkpoints
from harness.training.signals import StoppedError, heed, listening
from tests.test_mishaps import fresh_cell, stopped_after
from tests.test_resume import CPU, ROOT, assert_same, cell, config
from variants.fields import UsageError

ONE = ["quick", "--variants", "compact", "--epochs", "1", "--device", "cpu", "--jobs", "1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return cell(tmp_path_factory.mktemp("whole"))


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


def test_without_a_thread_to_write_it_a_checkpoint_is_written_all_the_same(tmp_path, monkeypatch, whole):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(StoppedError, match="nothing is lost"):
            stopping(tmp_path, patch)
    assert list((tmp_path / config().run_id).glob(PATTERN))
    assert_same(cell(tmp_path), whole)


KILLED_LATE = """
import os, sys
from pathlib import Path
from harness.training.checkpoint import Checkpoints
from tests.test_mishaps import fresh_cell
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
