"""A run that is killed, stopped or disturbed ends as the run that was left alone; what cannot be used is said."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import run
from harness.config import RunConfig, resolve
from harness.datasets import DATASETS
from harness.experiment import Options, run_cell
from harness.records.lock import BusyError, holder, owned, take
from harness.records.read import Run, read_run, run_state
from harness.records.schema import FILES, WEIGHTS
from harness.training import checkpoint, setup
from harness.training.checkpoint import PATTERN, Checkpoints
from harness.training.signals import StoppedError
from tests.processes import FORKS, Process, command
from variants.weights import tensors_of

CPU = torch.device("cpu")
WORDS = ["--variant", "compact", "--dataset", "digits", "--recipe", "quick", "--epochs", "3", "--device", "cpu"]
WORDS += ["--set", "variant.depth=1"]
# everything that has a state: dropout draws from torch's generator, mixing from NumPy's, the average is a second model
SETTINGS = ["recipe.ema=0.9", "recipe.dropout=0.1", "recipe.drop_path=0.1", "recipe.mix=either", "recipe.clip=1.0"]
SETTINGS += ["variant.depth=1"]  # small, so that it is quick
TIMES = ("seconds", "eval_seconds")


def config(epochs: int = 3, **rest) -> RunConfig:
    return resolve("compact", DATASETS["digits"], "quick", epochs=epochs, settings=SETTINGS, **rest)


def cell(out: Path, **rest) -> Run:
    return run_cell(config(), Path("data"), out, CPU, quiet=True, options=Options(**rest))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    return cell(tmp_path_factory.mktemp("whole"))


def assert_same(one: Run, other: Run) -> None:
    """Bit for bit, but for what the clock and the machine's memory say."""
    for mine, theirs in zip(one.epochs(), other.epochs(), strict=True):
        assert {k: v for k, v in mine.items() if k not in TIMES} == {k: v for k, v in theirs.items() if k not in TIMES}
    clocks = {"train_seconds", "eval_seconds", "corruption_seconds", "images_per_second", "peak_memory_bytes"}
    clocks |= {"sessions", "shared_device", "files", "digest"}
    for name in one.result.keys() - clocks:
        assert one.result[name] == other.result[name], name
    for name, values in one.predictions().items():
        assert np.array_equal(values, other.predictions()[name]), name
    weights, others = tensors_of(one.folder), tensors_of(other.folder)
    assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
    for each in (one, other):
        assert {path.name for path in each.folder.iterdir()} == {*FILES, WEIGHTS}, "nothing else is left behind"


def stopping_after(monkeypatch, steps: int) -> None:
    """As if a signal came during that step, counted from now."""
    due, count = Checkpoints.due, iter(range(1, 10**9))

    def asked(self: Checkpoints) -> bool:
        if next(count) == steps:
            self.stop.asked = signal.SIGTERM
        return due(self)

    monkeypatch.setattr(Checkpoints, "due", asked)


@pytest.mark.parametrize("steps", [1, 20, 43, 44, 45, 46, 60, 100])  # 45 an epoch; its last asks when it is evaluated
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(tmp_path, whole, monkeypatch, steps):
    with monkeypatch.context() as patch:
        stopping_after(patch, steps)
        with pytest.raises(StoppedError) as stopped:
            cell(tmp_path)
    assert stopped.value.exit_code == 143 and run_state(tmp_path / config().run_id) == "unfinished"
    again = cell(tmp_path)
    assert_same(again, whole)
    assert [s["after_epochs"] for s in again.result["sessions"]] == [0, steps // 45]
    assert len(whole.result["sessions"]) == 1


def test_stopped_again_and_again(tmp_path, whole, monkeypatch):
    stopping = 0
    for steps in (3, 1, 50, 2, 70):
        with monkeypatch.context() as patch:
            stopping_after(patch, steps)
            try:
                done = cell(tmp_path)
                break
            except StoppedError:
                stopping += 1
    else:
        done = cell(tmp_path)
    assert stopping == 5
    assert_same(done, whole)


def test_stopped_while_it_is_judged(tmp_path, whole, monkeypatch):
    """After the last epoch only the evaluation is left to be done again."""
    real = checkpoint.Checkpoints.save

    def asked(self, position, training):
        if position.epoch == 4:
            self.stop.asked = signal.SIGINT
        real(self, position, training)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", asked)
        with pytest.raises(StoppedError):
            cell(tmp_path)
    assert_same(cell(tmp_path), whole)


def test_time_before_the_stop_counts(tmp_path, monkeypatch):
    real, now = time.perf_counter, [0.0]
    monkeypatch.setattr("harness.training.loop.time.perf_counter", lambda: real() + now[0])

    def late(self: Checkpoints) -> bool:
        now[0] += 100
        self.stop.asked = signal.SIGTERM
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "due", late)
        with pytest.raises(StoppedError):
            cell(tmp_path)
    assert 100 < cell(tmp_path).epochs()[0]["seconds"] < 110


# --- killed ----------------------------------------------------------------------------------------------------------


def train_saving_always(out: Path) -> None:
    cell(out, save_every_s=0)


def killed(out: Path, kills: int, longest_s: float) -> None:
    """Runs that are killed while they train, one run after the other, each until it came through."""
    draw, count, runs = random.Random(kills), 0, 0
    while True:
        place = out / str(runs)
        before = list(place.glob("*/checkpoint-*"))
        child = FORKS.Process(target=train_saving_always, args=(place,))
        child.start()
        if count < kills:
            while list(place.glob("*/checkpoint-*")) == before and child.is_alive():
                time.sleep(0.002)  # until it trains
            time.sleep(draw.uniform(0, longest_s))
            child.kill()
        child.join()
        if child.exitcode == 0:  # before it was killed, or because it was left alone
            runs += 1
            if count == kills:
                return
        else:
            assert child.exitcode == -signal.SIGKILL
            count += 1


@pytest.mark.parametrize("kills", [6, pytest.param(25, marks=pytest.mark.long)])
def test_killed_at_random_moments(tmp_path, whole, kills):
    """Inside the writing of a checkpoint too: there is one after every step."""
    killed(tmp_path, kills, longest_s=0.3)
    ended = [read_run(folder / config().run_id) for folder in tmp_path.iterdir()]
    assert ended
    for one in ended:
        assert_same(one, whole)


def killed_writing(out: Path, moment: str) -> None:
    real, count = checkpoint.write_state, iter(range(100))

    def half(handle: int) -> None:
        os.ftruncate(handle, os.fstat(handle).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    def deadly(path: Path, state: dict) -> None:
        if next(count) == 50:
            if moment == "half":
                os.fsync = half
            if moment == "after":
                real(path, state)
            if moment != "half":
                os.kill(os.getpid(), signal.SIGKILL)
        real(path, state)

    checkpoint.write_state = deadly
    train_saving_always(out)


@pytest.mark.parametrize("moment", ["before", "half", "after"])
def test_killed_inside_the_writing_of_a_checkpoint(tmp_path, whole, moment):
    assert Process(tmp_path / "log", killed_writing, tmp_path, moment).ended() == -signal.SIGKILL
    folder = tmp_path / config().run_id
    assert run_state(folder) == "unfinished" and list(folder.glob("checkpoint-*.pt"))
    assert bool(list(folder.glob(".checkpoint-*"))) == (moment == "half")
    assert_same(cell(tmp_path), whole)


# --- when, and what is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every_s", "times"), [(60.0, 1), (0.0, 45 * 3)])
def test_a_state_is_saved_when_it_is_due_and_after_the_last_epoch(tmp_path, monkeypatch, every_s, times):
    """An epoch may take a second: to save after each could take as long again."""
    real, saved = Checkpoints.save, []

    def save(self, position, training):
        saved.append((position.epoch, position.batches))
        real(self, position, training)

    monkeypatch.setattr(Checkpoints, "save", save)
    cell(tmp_path, save_every_s=every_s)
    assert len(saved) == times and saved[-1] == (4, 0)


def test_a_state_is_the_bytes_that_torch_writes_and_their_digest(tmp_path):
    """Which earlier versions wrote too, from memory."""
    import hashlib
    import io

    torch.manual_seed(0)
    state: dict[str, Any] = dict.fromkeys(checkpoint.PARTS, torch.rand(1000, 100))
    state |= {"maker": {}, "carried": {}, "position": {}}
    checkpoint.write_state(tmp_path / "checkpoint-1.pt", state)
    payload = io.BytesIO()
    torch.save(state, payload)
    content = payload.getvalue() + hashlib.sha256(payload.getvalue()).digest()
    assert (tmp_path / "checkpoint-1.pt").read_bytes() == content
    assert torch.equal(checkpoint.read_state(tmp_path / "checkpoint-1.pt")["model"], state["model"])


def test_a_checkpoint_without_a_scaler_is_one_of_a_run_that_had_none(tmp_path, whole, monkeypatch):
    """As those were that were written before there was fp16."""
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "_state_of", lambda training, real=checkpoint._state_of: without_scaler(real(training))
        )
        stopped_at(tmp_path, patch, 60)
    again = cell(tmp_path)
    assert [session["after_epochs"] for session in again.result["sessions"]] == [0, 1]
    assert_same(again, whole)


def without_scaler(state: dict) -> dict:
    assert state.pop("scaler") == {}
    return state


# --- what cannot be used ---------------------------------------------------------------------------------------------


def stopped_at(out: Path, monkeypatch, steps: int) -> list[Path]:
    with monkeypatch.context() as patch:
        stopping_after(patch, steps)
        with pytest.raises(StoppedError):
            cell(out, save_every_s=0)
    found = sorted((out / config().run_id).glob(PATTERN))
    assert len(found) == 2, "the last two are kept"
    return found


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pickle"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, whole, monkeypatch, capsys, damage):
    _, newest = stopped_at(tmp_path, monkeypatch, 60)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    ways = {
        "cut": newest.read_bytes()[:-1],
        "flipped": bytes(content),
        "empty": b"",
        "pickle": b"cos\nsystem\n(S'x'\ntR.",
    }
    newest.write_bytes(ways[damage])
    done = run_cell(config(), Path("data"), tmp_path, CPU)
    printed = capsys.readouterr()
    assert f"set aside as unreadable-{newest.name}" in printed.err and "goes on after epoch 1" in printed.out
    (tmp_path / config().run_id / f"unreadable-{newest.name}").unlink()
    assert_same(done, whole)


def test_without_a_usable_checkpoint_the_run_starts_again(tmp_path, whole, monkeypatch, capsys):
    for path in stopped_at(tmp_path, monkeypatch, 60):
        path.write_bytes(b"")
    done = cell(tmp_path)
    assert capsys.readouterr().err.count("set aside") == 2 and done.result["sessions"][0]["after_epochs"] == 0
    for path in done.folder.glob("unreadable-*"):
        path.unlink()
    assert_same(done, whole)


def test_other_code_does_not_go_on(tmp_path, whole, monkeypatch, capsys):
    stopped_at(tmp_path, monkeypatch, 60)
    with monkeypatch.context() as patch:
        real = run_cell.__globals__["environment"]
        patch.setitem(
            run_cell.__globals__, "environment", lambda *args: real(*args) | {"source_digest": "of other code"}
        )
        done = cell(tmp_path)
    assert "a checkpoint of another source_digest: the run starts again" in capsys.readouterr().err
    assert_same(done, whole)


def test_a_pickle_is_never_run(tmp_path):
    import hashlib
    import io
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    payload = io.BytesIO()
    torch.save({"maker": Evil()}, payload)
    for content in (payload.getvalue(), pickle.dumps(Evil())):
        path = tmp_path / "checkpoint-000001-00000001.pt"
        path.write_bytes(content + hashlib.sha256(content).digest())
        assert not Checkpoints(tmp_path, {}).find() and not (tmp_path / "ran").exists()


def test_fresh_starts_again(tmp_path, monkeypatch):
    stopped_at(tmp_path, monkeypatch, 60)
    assert cell(tmp_path, fresh=True).result["sessions"][0]["after_epochs"] == 0


def test_a_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path, whole, monkeypatch, capsys):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    assert_same(cell(tmp_path, save_every_s=0), whole)
    assert capsys.readouterr().err.count("No space left on device") == 1, "said once"


# --- signals and locks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, name):
    number, out = getattr(signal, name), tmp_path / "runs"
    process = command(tmp_path / "log", *WORDS, "--out", str(out), "--epochs", "400")
    process.until("epoch 1/")
    process.signal(number)
    assert process.ended() == 128 + number
    errors = process.read("err")
    assert f"stopped by {name}" in errors and "--epochs 400" in errors and "python -m harness.run --variant" in errors
    (folder,) = out.iterdir()
    assert run_state(folder) == "unfinished" and list(folder.glob("checkpoint-*.pt")) and not (folder / "lock").exists()


def interrupted_twice(out: Path) -> None:
    real, steps = setup.batch_loss, iter(range(10**9))

    def batch_loss(*args):
        if next(steps) == 70:
            os.kill(os.getpid(), signal.SIGINT)
            print("finishing the step", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
            print("too late", flush=True)
        return real(*args)

    setup.batch_loss = batch_loss
    train_saving_always(out)


def test_a_second_interrupt_ends_at_once_without_damage(tmp_path, whole):
    process = Process(tmp_path / "log", interrupted_twice, tmp_path)
    assert process.ended() == -signal.SIGINT and process.read() == "finishing the step\n", process.read("err")
    again = cell(tmp_path)
    assert_same(again, whole)
    assert [session["after_epochs"] for session in again.result["sessions"]] == [0, 1], "it went on"


def test_one_process_trains_and_the_other_waits(tmp_path):
    """Whoever comes second prints what the first one left."""
    out = tmp_path / "runs"
    both = [command(tmp_path / f"log{number}", *WORDS, "--out", str(out)) for number in (1, 2)]
    assert [process.ended() for process in both] == [0, 0], [process.read("err") for process in both]
    text = "".join(process.read() for process in both)
    assert text.count("epoch 3/3") == 1 and text.count("test accuracy") == 2
    (folder,) = out.iterdir()
    assert run_state(folder) == "done"


def holding(folder: Path) -> None:
    assert take(folder)
    print("held", flush=True)
    time.sleep(60)


def test_a_lock_dies_with_its_owner(tmp_path):
    folder = tmp_path / "run"
    owner = Process(tmp_path / "log", holding, folder)
    owner.until("held")
    who = holder(folder)
    assert who and who["pid"] == owner.process.pid
    with pytest.raises(BusyError, match=f"process {owner.process.pid} on"), owned(folder):
        pass
    owner.process.kill()
    owner.ended()
    assert holder(folder) is None and (folder / "lock").exists(), "the file stays, the lock does not"
    with owned(folder):
        assert holder(folder) is not None
    assert not (folder / "lock").exists()


def test_looking_does_not_take_the_lock_from_anyone(tmp_path):
    with owned(tmp_path):
        assert [holder(tmp_path) is not None for _ in range(50)] == [True] * 50


def test_a_folder_that_nothing_came_into_is_not_left(tmp_path):
    with owned(tmp_path / "empty"):
        assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "empty").exists()


def test_a_run_that_another_process_finished_meanwhile_is_not_trained_again(tmp_path, whole):
    first = cell(tmp_path)
    stamp = (first.folder / "result.json").stat().st_mtime_ns
    assert cell(tmp_path).result == first.result and (first.folder / "result.json").stat().st_mtime_ns == stamp


def test_save_every_is_checked(capsys):
    for text in ("-1", "nan", "soon"):
        with pytest.raises(SystemExit):
            run.main([*WORDS, "--save-every", text])
        assert "a number of seconds, 0 or more" in capsys.readouterr().err
