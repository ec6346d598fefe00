"""The sweep: what is done is not done again, a failure stops nothing, and the status says how things stand."""

import io
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from harness import sweep
from harness.data.load import available_bytes
from harness.datasets import DATASETS
from harness.records.lock import holder, take
from harness.records.read import DIRTY, load_runs, problems_of, run_state
from harness.records.schema import EPOCH_FIELDS, RESULT_FIELDS
from harness.records.write import RunWriter
from harness.studies import STUDIES
from harness.study import Row, grid
from harness.sweeping import workers
from harness.sweeping.plan import Planned, dearest_first, on_device, plan
from harness.sweeping.remaining import remaining
from harness.sweeping.show import about, status_text
from harness.sweeping.standing import standings
from harness.sweeping.together import Together
from harness.sweeping.workers import Job, Place, Workers, default_jobs, environments
from harness.training import estimate
from harness.training.device import is_shared
from harness.training.signals import SIGNALS
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
ONE = ["quick", "--variants", "compact", "--epochs", "1", "--device", "cpu", "--jobs", "1"]
POOLING = STUDIES["pooling"].quick
assert POOLING is not None


def seeds_in(folder: Path) -> list[int]:
    return [run.config["seed"] for run in load_runs([folder])]


# --- cells that are trained ------------------------------------------------------------------------------------------


def test_a_study_from_command_to_records(tmp_path, capsys, one_thread):
    """The small form of one study, made smaller still; the others are planned in test_studies.py."""
    words = ["pooling", "--quick", "--seeds", "1", "--epochs", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert sweep.main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "3 cells, 0 done, 3 to train" in printed and "  0  pool=seq, digits: about" in printed
    assert list(tmp_path.iterdir()) == []
    assert sweep.main([*words, "--cell", "1"]) == 0
    assert sweep.main([*words, "--cell", "1"]) == 0
    assert "cell 1 is done already: pool=cls, digits seed 0, test accuracy" in capsys.readouterr().out
    assert sweep.main([*words, "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "3 cells, 1 done, 2 to train" in printed and "[2/2] cell 2: pool=mean, digits seed 0 ->" in printed
    assert {run.config["variant"]["pool"] for run in load_runs([tmp_path])} == {"seq", "cls", "mean"}
    assert sweep.main([*words, "--status"]) == 0
    assert "all done" in capsys.readouterr().out


def test_what_failed_or_was_given_up_or_is_missing_is_trained(tmp_path, capsys, one_thread):
    words = [*ONE, "--out", str(tmp_path)]
    planned = plan(STUDIES["quick"].narrowed(["compact"], seeds=range(4)), DATASETS, 1)
    cells = on_device(planned, "fp32", False)
    finished(cells[0], tmp_path, outcome="failed", reason="the loss is not finite")
    begun(cells[1], tmp_path, epochs=1)
    finished(cells[3], tmp_path)
    assert sweep.main([*words, "--seeds", "4"]) == 0
    assert "4 cells, 1 done, 3 to train" in capsys.readouterr().out
    assert sorted(seeds_in(tmp_path)) == [0, 1, 2, 3] and all(run.ok for run in load_runs([tmp_path]))
    assert [run_state(tmp_path / cell.config.run_id) for cell in cells] == ["done"] * 4


def test_a_failed_cell_does_not_stop_the_others_and_is_tried_again(tmp_path, capsys, monkeypatch, one_thread):
    from harness import experiment

    real = experiment.run_cell

    def fragile(config, *rest, **named):
        if config.seed == 0:
            raise RuntimeError("the machine is on fire")
        return real(config, *rest, **named)

    words = [*ONE, "--seeds", "2", "--out", str(tmp_path)]
    with monkeypatch.context() as broken:
        broken.setattr(experiment, "run_cell", fragile)
        assert sweep.main(words) == 1
    error = capsys.readouterr().err
    assert "on fire" in error and "1 of 2 cells are not done: compact quick, digits seed 0 (--cell 0)" in error
    assert seeds_in(tmp_path) == [1]
    assert sweep.main(words) == 0
    assert "2 cells, 1 done, 1 to train" in capsys.readouterr().out and sorted(seeds_in(tmp_path)) == [0, 1]


def test_missing_data_fails_its_cells_alone(tmp_path, capsys, monkeypatch, one_thread):
    def offline(*args):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.SVHN.download", offline)
    words = [*ONE, "--seed", "0", "--datasets", "svhn", "digits", "--out", str(tmp_path / "runs")]
    assert sweep.main([*words, "--recipes", "quick", "--data-dir", str(tmp_path / "none")]) == 1
    printed = capsys.readouterr()
    assert "svhn is not in" in printed.err and "1 of 2 cells are not done" in printed.err
    assert [r.config["dataset"] for r in load_runs([tmp_path / "runs"])] == ["digits"]


def test_two_names_of_one_run_are_one_cell(tmp_path, capsys):
    words = ["quick", "--variants", "vanilla", "--recipes", "published", "s1", "--seed", "0", "0", "--dry-run"]
    assert sweep.main([*words, "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert "1 cell, 0 done" in capsys.readouterr().out


def test_what_another_process_is_at_is_left_to_it_until_it_ends(tmp_path, capsys, monkeypatch):
    """The others come first; then its outcome is waited for, and counts."""
    cells = on_device(plan(STUDIES["quick"].narrowed(["compact"], seeds=[0, 1]), DATASETS, 1), "fp32", False)
    lock = take(begun(cells[0], tmp_path).folder)
    assert lock is not None and run_state(tmp_path / cells[0].config.run_id) == "running"

    def meanwhile(seconds: float) -> None:
        assert run_state(tmp_path / cells[1].config.run_id) == "done", "the others come first"
        finished(cells[0], tmp_path)
        lock.release()

    monkeypatch.setattr("harness.sweeping.turns.wait", meanwhile)
    assert sweep.main([*ONE, "--seeds", "2", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("is being trained by process") == 1 and "seed 0: test accuracy 50.00%" in printed


AT_ONCE = """
import os, sys
from harness import sweep
from harness.data.load import load
from pathlib import Path
import torch
load("digits", Path("data"))
children = []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        os._exit(sweep.main(sys.argv[2:]))
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.mark.parametrize(("processes", "cells"), [(3, 6), pytest.param(8, 64, marks=pytest.mark.long)])
def test_several_processes_on_one_study(tmp_path, processes, cells):
    """Each cell is trained once, and every process ends well when all cells are done."""
    words = [str(processes), *ONE, "--seeds", str(cells), "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", AT_ONCE, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = load_runs([tmp_path])
    assert len(runs) == cells and all(problems_of(run.folder) in ([], [DIRTY]) for run in runs)
    assert done.stdout.count("epoch 1/1") == cells, "each cell once"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_sweep_that_is_ended_leaves_no_child_and_loses_nothing(tmp_path, number):
    """It waits for its children, and its last line is the command that goes on."""
    words = [
        "quick",
        "--variants",
        "compact",
        "--device",
        "cpu",
        "--epochs",
        "500",
        "--jobs",
        "2",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "harness.sweep", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    lines = iter(process.stdout)
    seen = {next(line for line in lines if f"[{cell}]" in line and "epoch 1/" in line)[:3] for cell in (0,)}
    assert seen
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    again = shlex.join(["python", "-m", "harness.sweep", *words])
    assert told.startswith(f"stopped by {number.name}; nothing is lost") and told.endswith(f" goes on: {again}\n")
    assert told.count("\n") == 1
    assert process.returncode == 128 + number
    assert not any(holder(folder) for folder in tmp_path.iterdir())
    states = [run_state(folder) for folder in tmp_path.iterdir()]
    assert states and set(states) == {"unfinished"}, "nobody trains any more"
    assert list(tmp_path.glob("*/checkpoint-*.pt"))


def test_several_at_once(tmp_path, capsys):
    words = ["--epochs", "1", "--device", "cpu", "--out", str(tmp_path), "--variants", "compact"]
    assert sweep.main(["quick", "--jobs", "2", *words]) == 0
    printed = capsys.readouterr().out
    assert "2 cells, 0 done, 2 to train, 2 at a time" in printed
    for number in (0, 1):
        assert f"[{number}] compact digits quick seed {number} epoch 1/1" in printed
        assert f"cell {number}: compact quick, digits seed {number}: done" in printed
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or workers.cores()) // 2)
    assert [run.env["threads"] for run in load_runs([tmp_path])] == [threads, threads]


@pytest.fixture
def two_cores(monkeypatch):
    """Of which OpenMP may take both, and memory enough."""
    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setattr(sweep, "available_bytes", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_small_cells_train_one_a_core_as_one_thread_would_train_them(tmp_path, capsys, two_cores, one_thread):
    """Bit for bit what `--jobs 1` leaves on one thread; of each cell one line is seen."""
    words = ["quick", "--variants", "compact", "--epochs", "2", "--device", "cpu", "--out"]
    assert sweep.main([*words, str(tmp_path / "at once")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 cells, 0 done, 2 to train, 2 at a time") and len(lines) == 3
    assert {line.split("%")[0][:-5] for line in lines[1:]} == {
        f"[{nth}/2] cell {cell}: compact quick, digits seed {cell}: done, test accuracy "
        for nth, cell in enumerate([line.split()[2][0] for line in lines[1:]], 1)
    }
    assert sweep.main([*words, str(tmp_path / "in turn"), "--jobs", "1"]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    for pair in zip(*(load_runs([tmp_path / way]) for way in ("at once", "in turn")), strict=True):
        assert [run.env["threads"] for run in pair] == [1, 1]
        measured = [
            {k: v for k, v in line.items() if not k.endswith("seconds")} for run in pair for line in run.epochs()
        ]
        assert measured[:2] == measured[2:]
        mine, theirs = (run.predictions() for run in pair)
        assert all(mine[name].tobytes() == theirs[name].tobytes() for name in ("predicted", "confidence"))
        assert pair[0].result["test_nll"] == pair[1].result["test_nll"]
        assert pair[0].result["corruption_accuracy"] == pair[1].result["corruption_accuracy"]


@pytest.mark.skipif(default_jobs("cpu", {}, available_bytes()) < 2, reason="needs two cores, and memory for two cells")
def test_ctrl_c_stops_a_sweep_of_small_cells(tmp_path):
    words = ["quick", "--variants", "compact", "--device", "cpu", "--epochs", "500", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.sweep", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end_s = time.monotonic() + 120
    while len([path for path in tmp_path.glob("*/epochs.jsonl") if path.stat().st_size]) < 2:
        assert process.poll() is None and time.monotonic() < end_s
        time.sleep(0.05)
    os.killpg(process.pid, SIGNALS[0])  # as a terminal does: to the cells too
    printed, told = process.communicate(timeout=60)
    assert process.returncode == 130 and printed.count("\n") == 1, "not a word of a cell"
    assert told.startswith("stopped by SIGINT; nothing is lost") and told.count("\n") == 1
    assert [run_state(folder) for folder in tmp_path.iterdir()] == ["unfinished", "unfinished"]
    assert all(list(folder.glob("checkpoint-*.pt")) for folder in tmp_path.iterdir())


@pytest.mark.studies
@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.quick])
def test_every_small_form_is_done_within_a_minute(name, tmp_path, capsys):
    """Not part of an ordinary run: pytest -m studies."""
    command = [sys.executable, "-m", "harness.sweep", name, "--quick", "--device", "cpu", "--out", str(tmp_path)]
    start_s, before = time.monotonic(), os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds, after = time.monotonic() - start_s, os.times()
    computed = after.children_user + after.children_system - before.children_user - before.children_system
    assert done.returncode == 0, done.stderr
    assert len(load_runs([tmp_path])) == len(STUDIES[name].quick.cells())  # type: ignore[union-attr]
    busy = is_shared(CPU)
    where = ", on a busy machine" if busy else ""
    with capsys.disabled():
        print(f"\n{name}: {seconds:.0f} s, {computed:.0f} s of computing{where}", end=" ")
    assert computed <= 120 and (busy or seconds <= 60), "a minute on two cores"


# --- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["poolin"], "did you mean pooling"),
        (["quick", "--quick"], "no small form"),
        (["main", "--cell", "120"], "the cells 0 to 119"),
        (["main", "--cell", "-1"], "the cells 0 to 119"),
        (["budget", "--epochs", "10"], "leave out --epochs"),
        (["pooling", "--variants", "vanilla", "compact"], "only with compact"),
        (["pooling", "--dataset", "c11"], "did you mean c10"),
    ],
)
def test_what_cannot_be_done_is_said(words, message):
    with pytest.raises(UsageError, match=message):
        sweep.main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["main", "--seeds", "0"], "seeds by name are --seed 0"),
        (["main", "--seeds", "0", "1"], "seeds by name are --seed 0"),
        (["main", "--seeds", "2", "--seed", "1"], "not allowed with argument --seeds"),
        (["main", "--jobs", "2", "--cell", "1"], "not allowed with argument"),
        (["main", "--jobs", "0"], "1 or more"),
        ([], "required: study"),
    ],
)
def test_what_is_no_command_exits_2(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        sweep.main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and len(error.splitlines()) == 2


def test_seeds_by_number_and_by_name():
    def seeds(*words: str) -> tuple[int, ...]:
        return sweep.chosen(sweep.parser().parse_args(["main", *words])).seeds

    assert (seeds(), seeds("--seeds", "3")) == ((0, 1, 2, 3, 4), (0, 1, 2))
    assert (seeds("--seed", "0"), seeds("--seed", "7", "2")) == ((0,), (7, 2))


def test_the_list_names_every_study_with_its_question(capsys):
    with pytest.raises(SystemExit) as caught:
        sweep.main(["--list"])
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    for name, study in STUDIES.items():
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert study.question in line and str(len(study.cells())) in line


def test_run_all_s_seeds_are_names():
    code = f'set -u; {(ROOT / "run_all.sh").read_text().split("mode=")[0]} SEEDS="0 1" DATASETS=c10 JOBS=2 narrowing'
    done = subprocess.run(["bash", "-c", code, str(ROOT / "run_all.sh")], capture_output=True, text=True, cwd=ROOT)
    words = done.stdout.split()
    assert words == ["--seed", "0", "1", "--datasets", "c10", "--jobs", "2"], done.stderr
    args = sweep.parser().parse_args(["main", *words])
    assert (args.seed, args.dataset, args.jobs) == ([0, 1], ["c10"], 2)


# --- where the cells stand -------------------------------------------------------------------------------------------


def begun(cell: Planned, out: Path, epochs: int = 0, device: str = "a GPU") -> RunWriter:
    """A run that nobody is at; each of its passes took 2 seconds."""
    writer = RunWriter(out / cell.config.run_id)
    writer.begin(cell.config.to_plain(), {"device_name": device}, {})
    for epoch in range(1, epochs + 1):
        writer.epoch(dict.fromkeys(EPOCH_FIELDS) | {"epoch": epoch, "seconds": 1.5, "eval_seconds": 0.5})
    return writer


def finished(cell: Planned, out: Path, seconds: float = 100.0, device: str = "a GPU", **changes) -> None:
    result = dict.fromkeys(RESULT_FIELDS) | {"outcome": "ok", "split": "test", "test_accuracy": 0.5}
    begun(cell, out, device=device).finish(result | {"train_seconds": seconds - 10, "eval_seconds": 10.0} | changes)


def running(cell: Planned, out: Path, **facts) -> None:
    """Somebody has its lock, until the process ends."""
    assert take(begun(cell, out, **facts).folder)


def some_cells(out: Path) -> list[Planned]:
    """Rows pool=seq, pool=cls and pool=mean, seeds 0 and 1: done, failed, missing; done, running, unfinished."""
    assert POOLING is not None
    cells = on_device(plan(POOLING, DATASETS), "bf16", True)
    finished(cells[0], out, 100)
    finished(cells[1], out, outcome="failed", reason="the loss is not finite at epoch 1", test_accuracy=None)
    finished(cells[3], out, 200)
    running(cells[4], out, epochs=1)
    begun(cells[5], out, epochs=1)
    return cells


def never(*_) -> float:
    raise AssertionError("nobody needed to ask")


def test_states_of_cells_whatever_precision_they_were_made_in(tmp_path):
    some_cells(tmp_path)
    assert POOLING is not None
    planned = plan(POOLING, DATASETS)  # of a machine that would choose fp32
    states = [cell.state for cell in standings(planned, tmp_path)]
    assert states == ["done", "failed", "missing", "done", "running", "unfinished"]
    assert [cell.state for cell in standings(planned, tmp_path, "fp32")] == ["missing"] * 6
    assert [cell.state for cell in standings(planned, tmp_path, "bf16", False)] == ["missing"] * 6
    assert [cell.state for cell in standings(planned, tmp_path, "bf16", True)] == states


def test_of_two_records_the_better_counts(tmp_path):
    assert POOLING is not None
    planned = plan(POOLING, DATASETS)[:1]
    finished(*on_device(planned, "fp32", False), tmp_path, outcome="failed", reason="why")  # type: ignore[arg-type]
    finished(*on_device(planned, "bf16", True), tmp_path)  # type: ignore[arg-type]
    assert [cell.state for cell in standings(planned, tmp_path)] == ["done"]


def test_an_unreadable_neighbour_is_named_and_stops_nothing(tmp_path, capsys):
    some_cells(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"dataset": "digits"}')
    assert POOLING is not None
    assert [cell.state for cell in standings(plan(POOLING, DATASETS), tmp_path)].count("done") == 2
    assert "skipped" in capsys.readouterr().err


def test_time_left_by_what_was_finished(tmp_path):
    """Row pool=seq took 100 and 200 s. pool=cls has one pass of three behind it, at 2 s each."""
    cells = standings(some_cells(tmp_path), tmp_path)
    left = remaining(cells, lambda: "another machine", never)
    assert left.device == "a GPU" and left.seconds == {1: None, 2: None, 4: 4.0, 5: None}
    assert (left.total, left.unknown) == (4.0, 3)
    here = remaining(cells, lambda: "a GPU", lambda cell: 30.0)
    assert here.seconds == {1: 30.0, 2: 30.0, 4: 4.0, 5: 30.0} and here.unknown == 0


def test_a_seed_s_time_is_the_mean_of_the_others(tmp_path):
    assert POOLING is not None
    cells = on_device(plan(POOLING.narrowed(seeds=range(4)), DATASETS), "bf16", True)[::3]  # pool=seq
    finished(cells[0], tmp_path, 100)
    finished(cells[1], tmp_path, 200)
    finished(cells[2], tmp_path, 9000, device="a slow machine")
    left = remaining(standings(cells, tmp_path), never, never)  # type: ignore[arg-type]
    assert left.seconds == {9: 150.0} and left.device == "a GPU"


def test_a_study_of_which_nothing_is_finished_yet_goes_at_the_pace_of_what_runs(tmp_path):
    assert POOLING is not None
    cells = on_device(plan(POOLING, DATASETS), "bf16", True)
    running(cells[0], tmp_path, epochs=2)
    left = remaining(standings(cells[:1], tmp_path), never, never)  # type: ignore[arg-type]
    assert left.seconds == {0: 2.0} and left.device == "a GPU"
    running(cells[1], tmp_path, epochs=0)
    assert remaining(standings(cells[:2], tmp_path), lambda: "a laptop", never).seconds == {0: 2.0, 1: None}


def test_the_status_in_words(tmp_path):
    cells = standings(some_cells(tmp_path), tmp_path)
    text = status_text(cells, remaining(cells, lambda: "another machine", never))
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert lines["pool=seq"] == ["2", "-", "-", "-", "-", "-"]
    assert lines["pool=cls"] == ["-", "1", "1", "-", "-", "4", "s", "and", "more"]
    assert lines["pool=mean"] == ["-", "-", "-", "1", "1", "unknown"]
    assert lines["all"] == ["2", "1", "1", "1", "1", "4", "s", "and", "more"]
    assert "running: pool=cls, digits seed 1, 1 of 3 passes" in text
    assert "failed: cell 1, pool=cls, digits seed 0: the loss is not finite at epoch 1" in text
    assert "4 to go: about 4 s one after another and 3 of which nothing is known, at the pace of a GPU" in text


def test_status_asks_no_device_where_records_say_enough(tmp_path):
    """So a laptop or a login node without torch can show it."""
    assert POOLING is not None
    cells = on_device(plan(POOLING, DATASETS), "bf16", True)
    for cell in cells[:3]:
        finished(cell, tmp_path)
    code = (
        "import sys; from harness import sweep; "
        f"sweep.main(['pooling', '--quick', '--status', '--out', {str(tmp_path)!r}]); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 to go: about 5.0 min one after another, at the pace of a GPU" in done.stdout


def test_lengths_of_time():
    assert [about(s) for s in (3.4, 119, 120, 600, 7300, 100_000, 200_000)] == [
        "3 s", "119 s", "2.0 min", "10 min", "2.0 h", "28 h", "2.3 days",
    ]  # fmt: skip


# --- guesses ---------------------------------------------------------------------------------------------------------


def test_steps_alike_are_guessed_once(monkeypatch):
    asked = []

    def rate(*what):
        asked.append(what)
        return 1000.0

    monkeypatch.setattr(estimate, "training_rate", rate)

    def distinct(name: str) -> int:
        asked.clear()
        planned = plan(STUDIES[name], DATASETS)
        guess = sweep.guesser(dict(DATASETS), CPU)
        assert all(guess(cell) for cell in planned) and len(asked) <= len({cell.plan_id for cell in planned})
        return len(set(asked))

    assert distinct("lr-sensitivity") == 4, "four variants at twelve rates"
    assert distinct("budget") == 1 and distinct("data-fraction") == 1 and distinct("augmentation") == 3
    assert distinct("optimizer") == 4 and distinct("main") == 8, "three data sets of one shape"


def test_a_guess_counts_what_a_run_sees(monkeypatch):
    monkeypatch.setattr(estimate, "training_rate", lambda *what: 1000.0)
    digits = DATASETS["digits"]
    config = Row("compact", "quick").resolve(digits)
    assert estimate.seconds_of(config, digits, CPU) == pytest.approx((10 * 1437 + (10 + 35) * 360 / 3) / 1000)
    held = Row("compact", "quick").resolve(digits, holdout=0.1)
    assert estimate.seconds_of(held, digits, CPU) == pytest.approx((10 * 0.9 * 1437 + 10 * 0.1 * 1437 / 3) / 1000)


# --- several at once -------------------------------------------------------------------------------------------------


def job(number: int, code: str) -> Job:
    return Job(number, f"job {number}", [sys.executable, "-c", code])


def test_workers_share_the_threads_and_take_gpus_in_turn():
    own = {"OMP_NUM_THREADS": "8", "HOME": "/x"}
    gpus = Place("cuda", "bf16", True, 2)
    three = environments(3, gpus, "auto", own)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in three] == ["0", "1", "0"]
    assert {e["OMP_NUM_THREADS"] for e in three} == {"2"} and three[0]["HOME"] == "/x"
    narrowed = environments(2, gpus, "cuda", own | {"CUDA_VISIBLE_DEVICES": "5,7"})
    assert [e["CUDA_VISIBLE_DEVICES"] for e in narrowed] == ["5", "7"]
    assert "CUDA_VISIBLE_DEVICES" not in environments(2, gpus, "cuda:1", own)[0], "a choice already"
    processors = environments(64, Place("cpu", "fp32", False, 0), "cpu", {"HOME": "/x"})
    assert {e["OMP_NUM_THREADS"] for e in processors} == {str(max(1, workers.cores() // 64))}
    assert "CUDA_VISIBLE_DEVICES" not in processors[0]


@pytest.mark.parametrize(("said", "threads"), [("6", 3), ("6,2", 3), ("all", None), ("0", None), ("", None)])
def test_threads_are_shared_as_openmp_reads_them(said, threads):
    found = environments(2, Place("cpu", "fp32", False, 0), "cpu", {"OMP_NUM_THREADS": said})
    assert found[0]["OMP_NUM_THREADS"] == str(threads or max(1, workers.cores() // 2))


def test_how_many_small_cells_at_once(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 8)
    assert default_jobs("cpu", {}, None) == 8 and default_jobs("cuda", {}, None) == 1
    assert default_jobs("cpu", {"OMP_NUM_THREADS": "2"}, None) == 2, "the user has said how many threads"
    assert default_jobs("cpu", {"OMP_NUM_THREADS": "64"}, None) == 8
    assert [default_jobs("cpu", {}, gigabytes * 10**9) for gigabytes in (1, 4, 64)] == [1, 3, 8]
    one_each = environments(8, Place("cpu", "fp32", False, 0), "cpu", {"OMP_NUM_THREADS": "64"}, threads=1)
    assert [e["OMP_NUM_THREADS"] for e in one_each] == ["1"] * 8


@pytest.mark.parametrize(
    ("words", "several"),
    [
        ("quick", True),
        ("pooling --quick", True),
        ("main --dataset digits", False),
        ("main", False),
        ("quick --dataset c10", False),
        ("quick --dataset c10 digits", False),
        ("main --jobs 2", True),
        ("quick --jobs 1", False),
        ("quick --cell 0", False),
        ("quick --dry-run", False),
    ],
)
def test_which_sweeps_train_several_at_once(words, several):
    args = sweep.parser().parse_args(words.split())
    assert sweep.may_be_several(args, sweep.chosen(args)) is several


def test_every_small_form_is_one_of_small_cells():
    for name, study in STUDIES.items():
        args = sweep.parser().parse_args([name, *(["--quick"] if study.quick else [])])
        assert sweep.may_be_several(args, sweep.chosen(args)) is (study.quick is not None or name == "quick")


def test_the_dearest_row_comes_first():
    planned = plan(STUDIES["quick"], DATASETS)
    assert [cell.row.variant for cell in planned[:4]] == ["compact", "timm", "vanilla", "patch2"]
    assert [(cell.row.variant, cell.config.seed) for cell in dearest_first(planned)] == [
        (variant, seed) for variant in ("patch2", "vanilla", "timm", "compact") for seed in (0, 1)
    ]


class Screen(io.StringIO):
    def __init__(self, tty: bool):
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


A_PASS = "compact digits quick seed 0 epoch {}/10  train loss 1.000\n"


def watched(tty: bool) -> tuple[str, int]:
    """Two cells of ten passes: one that had three behind it and is done, one that fails in its second."""
    screen = Screen(tty)
    together, done, broken = Together(20, screen), job(0, ""), job(1, "")
    together.heard(done, "compact digits quick seed 0: goes on after epoch 3\n")
    for epoch in range(4, 11):
        together.heard(done, A_PASS.format(epoch))
    together.heard(broken, A_PASS.format(1))
    together.ended(done, 10, "[1/2] cell 0: done", failed=False)
    assert together.done == 11
    together.heard(broken, "oh no\n")
    together.ended(broken, 10, "[2/2] cell 1: FAILED", failed=True)
    together.close()
    return screen.getvalue(), together.done


def test_what_is_seen_of_small_cells():
    """Of the cell that failed what every cell prints too; what no other printed stands there since it came."""
    end = f"[1/2] cell 0: done\n{{}}[1] oh no\n[1] {A_PASS.format(1)}[2/2] cell 1: FAILED\n"
    assert watched(tty=False) == (end.format(""), 20)
    wipe = "\r\x1b[2K"
    text, done = watched(tty=True)
    assert done == 20 and f"{wipe}[############..................] 8 of 20 passes{wipe}[1/2] cell 0: done\n" in text
    seen = [line.rpartition(wipe)[2] for line in text.split("\n")]  # what a terminal still shows in the end
    assert "\n".join(seen) == end.format("")


def test_every_job_runs_and_says_how_it_ended(capsys):
    jobs = [
        job(3, "import os; print('I am', os.environ['WORKER'])"),
        job(4, "import sys; print('oh no', file=sys.stderr); sys.exit(1)"),
        job(5, "print('me too')"),
    ]
    ended = {done.number: code for done, code in Workers([{**os.environ, "WORKER": "alone"}]).run(jobs)}
    assert ended == {3: 0, 4: 1, 5: 0}
    assert capsys.readouterr().out.splitlines() == ["[3] I am alone", "[4] oh no", "[5] me too"], "one at a time"


def test_an_interruption_ends_what_still_runs_and_starts_no_more(tmp_path):
    crew = Workers([dict(os.environ)] * 2)
    running = crew.run(
        [job(0, "pass"), job(1, "import time; time.sleep(60)"), job(2, "import time; time.sleep(60)"),
         job(3, f"open({str(tmp_path / 'late')!r}, 'w')")]
    )  # fmt: skip
    start_s = time.monotonic()
    assert next(running) == (job(0, "pass"), 0)
    while len(crew._running) < 2:  # the place that became free is taken
        time.sleep(0.01)
    processes = list(crew._running)
    running.close()
    assert all(process.wait(timeout=20) != 0 for process in processes) and time.monotonic() - start_s < 40
    time.sleep(1)  # in which the next would have started
    assert not (tmp_path / "late").exists()


def test_what_was_just_about_to_start_is_ended_as_well(monkeypatch):
    """Nobody would wait for a whole cell after Ctrl-C."""
    real, ready = subprocess.Popen, threading.Event()

    def slowly(command, **options):
        if "sleep" in command[-1]:
            ready.set()
            time.sleep(1)
        return real(command, **options)

    monkeypatch.setattr(workers.subprocess, "Popen", slowly)
    running = Workers([dict(os.environ)] * 2).run([job(0, "pass"), job(1, "import time; time.sleep(60)")])
    start_s = time.monotonic()
    assert next(running)[1] == 0 and ready.wait(20)
    running.close()
    assert time.monotonic() - start_s < 30


ASKED_EARLY = """
import os, signal, sys
from harness import sweep
from harness.commands import run_command
def interrupted(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("it went on")
sweep.absent_data = interrupted
run_command(sweep.main)
"""


def test_a_sweep_that_is_stopped_before_its_first_job_says_how_to_go_on(tmp_path):
    words = ["pooling", "--quick", "--jobs", "2", "--device", "cpu", "--out", str(tmp_path)]
    ended = subprocess.run([sys.executable, "-c", ASKED_EARLY, *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 143 and "stopped by SIGTERM; nothing is lost" in ended.stderr
    assert "--jobs 2" in ended.stderr and ended.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_refused_before_anything_starts():
    with pytest.raises(UsageError, match="unknown device"):
        workers.place_of("gpu")


def test_each_job_is_the_same_command_for_one_cell():
    assert sweep.without_jobs(["main", "--jobs", "4", "--seeds", "2"]) == ["main", "--seeds", "2"]
    assert sweep.without_jobs(["main", "--jobs=4"]) == ["main"]
    assert sweep.without_jobs(["--jobs", "4", "main", "--jobs=2", "--quick"]) == ["main", "--quick"]


# --- the plan of a grid by hand --------------------------------------------------------------------------------------


def test_a_cell_s_number_stays_when_seeds_are_added():
    study = grid("?", Row("compact", "quick"), {"lr": {"1": "recipe.lr=1e-3", "2": "recipe.lr=2e-3"}}, seeds=(0, 1))
    few = plan(study.narrowed(datasets=["digits"]), DATASETS)
    many = plan(study.narrowed(datasets=["digits"], seeds=range(5)), DATASETS)
    assert [cell.config.run_id for cell in many[: len(few)]] == [cell.config.run_id for cell in few]
    assert json.dumps([cell.number for cell in many]) == json.dumps(list(range(10)))
