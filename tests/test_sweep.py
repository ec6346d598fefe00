"""The sweep: what is done is not done again, a failure stops nothing, and the status of every run is right.

Most tests have a stand-in for training, or for the process of a job; those that train say so.
"""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness import experiment, sweep
from harness.datasets import DATASETS
from harness.records.lock import BusyError, holder, take
from harness.records.read import load_runs, read_run, run_state
from harness.records.schema import EPOCH_FIELDS, RESULT_FIELDS
from harness.records.write import RunWriter
from harness.studies import STUDIES
from harness.study import Row, Study
from harness.sweeping import train, workers
from harness.sweeping.plan import PlannedRun, about, in_tasks, on_device, plan
from harness.sweeping.status import statuses, with_time_left
from harness.sweeping.workers import Display, Job, Place, default_jobs, environments, run_jobs
from harness.training import estimate
from harness.training.device import is_shared
from harness.training.signals import StoppedError, listening
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
COMPACT = ["quick", "--variants", "compact", "--epochs", "1", "--device", "cpu"]
ONE = [*COMPACT, "--jobs", "1"]


def small(name: str) -> Study:
    study = STUDIES[name].quick
    assert study
    return study


POOLING = small("pooling")


def runs_of_one(seeds: int) -> list[PlannedRun]:
    """What ONE plans."""
    return on_device(plan(STUDIES["quick"].narrowed(["compact"], seeds=range(seeds)), DATASETS, 1), "fp32", False)


# --- records without training ----------------------------------------------------------------------------------------


def begun(config, out: Path, epochs: int = 0, device: str = "a GPU") -> RunWriter:
    """A run that nobody is training; each of its epochs took 2 seconds."""
    writer = RunWriter(out / config.run_id)
    writer.begin(config.to_plain(), {"device_name": device}, {})
    for epoch in range(1, epochs + 1):
        writer.epoch(dict.fromkeys(EPOCH_FIELDS) | {"epoch": epoch, "seconds": 1.5, "eval_seconds": 0.5})
    return writer


def finished(config, out: Path, seconds: float = 100.0, device: str = "a GPU", **changes) -> None:
    result = dict.fromkeys(RESULT_FIELDS) | {"outcome": "ok", "split": "test", "test_accuracy": 0.5}
    begun(config, out, device=device).finish(result | {"train_seconds": seconds - 10, "eval_seconds": 10.0} | changes)


def running(config, out: Path, **facts) -> None:
    """Its lock is held until the process ends."""
    assert take(begun(config, out, **facts).folder)


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """Training is replaced by a record made up; the seeds that were trained."""
    seeds = []

    def run_seeds(configs, data_dir, out, *_, **options):
        free = [config for config in configs if not holder(out / config.run_id)]
        if not free:
            raise BusyError(out / configs[0].run_id, holder(out / configs[0].run_id) or {})
        seeds.append(*[config.seed for config in free] if len(configs) == 1 else [[config.seed for config in free]])
        for config in free:
            finished(config, out)
        return [read_run(out / config.run_id) for config in free]

    monkeypatch.setattr("harness.experiment.run_seeds", run_seeds)
    monkeypatch.setattr("harness.training.estimate.seconds_of", lambda *what: 1.0)
    return seeds


# --- runs in turn ----------------------------------------------------------------------------------------------------


def test_a_study_from_command_to_records(tmp_path, capsys, monkeypatch, one_thread):
    """Trains two runs at once, a run a core and a line for each, and one of them in turn: bit for bit the same."""
    at_once, in_turn = ["--out", str(tmp_path / "at once")], ["--out", str(tmp_path / "in turn")]
    two_cores(monkeypatch)
    assert sweep.main([*COMPACT, *at_once, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "2 runs, 0 done, 2 to train" in printed and "  0  compact quick, digits: about" in printed
    assert not list(tmp_path.iterdir())
    assert sweep.main([*COMPACT, *at_once]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("2 runs, 0 done, 2 to train, 2 at a time")
    numbers = [line.split()[2][0] for line in lines]
    assert sorted(numbers) == ["0", "1"] and [line.rpartition(" ")[0] for line in lines] == [
        f"[{nth}/2] run {number}: compact quick, digits seed {number}: done, test accuracy"
        for nth, number in enumerate(numbers, 1)
    ]
    assert sweep.main([*COMPACT, *at_once, "--cell", "1"]) == 0
    assert "run 1 is done already: compact quick, digits seed 1, test accuracy" in capsys.readouterr().out
    assert sweep.main([*COMPACT, *at_once, "--status"]) == 0
    assert "all done" in capsys.readouterr().out

    assert sweep.main([*COMPACT, *in_turn, "--seed", "1", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "1 run, 0 done, 1 to train" in printed and "run 0: compact quick, digits seed 1 ->" in printed
    assert "epoch 1/1" in printed
    (run,), (_, same) = load_runs([tmp_path / "in turn"]), load_runs([tmp_path / "at once"])
    assert run.env["threads"] == same.env["threads"] == 1
    for one, other in zip(run.epochs(), same.epochs(), strict=True):
        assert all(one[name] == other[name] for name in one if not name.endswith("seconds"))
    mine, theirs = run.predictions(), same.predictions()
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)
    assert run.result["corruption_accuracy"] == same.result["corruption_accuracy"]


def test_what_failed_or_was_given_up_or_is_missing_is_trained(tmp_path, capsys, monkeypatch, trained):
    """A failed run does not stop the others."""
    runs = [run.config for run in runs_of_one(4)]
    finished(runs[0], tmp_path, outcome="failed", reason="the loss is not finite")
    begun(runs[1], tmp_path, epochs=1)
    finished(runs[3], tmp_path)
    words, working = [*ONE, "--seeds", "4", "--out", str(tmp_path)], experiment.run_seeds

    def fragile(configs, *rest, **options):
        if configs[0].seed == 0:
            raise RuntimeError("the machine is on fire")
        return working(configs, *rest, **options)

    with monkeypatch.context() as broken:
        broken.setattr(experiment, "run_seeds", fragile)
        assert sweep.main(words) == 1
    printed = capsys.readouterr()
    assert "4 runs, 1 done, 3 to train" in printed.out and trained == [1, 2]
    told = "1 of 3 runs are not done: compact quick, digits seed 0 (--cell 0)"
    assert "on fire" in printed.err and told in printed.err
    assert sweep.main(words) == 0
    assert "4 runs, 3 done, 1 to train" in capsys.readouterr().out and trained == [1, 2, 0]


def test_the_first_failure_may_end_it(tmp_path, capsys, monkeypatch, trained):
    working = experiment.run_seeds

    def fragile(configs, *rest, **options):
        if configs[0].seed == 1:
            raise RuntimeError("the machine is on fire")
        return working(configs, *rest, **options)

    monkeypatch.setattr(experiment, "run_seeds", fragile)
    assert sweep.main([*ONE, "--seeds", "4", "--fail-fast", "--out", str(tmp_path)]) == 1
    told = "ended with the first run that failed (--fail-fast): compact quick, digits seed 1 (--cell 1)"
    assert trained == [0] and told in capsys.readouterr().err


def test_the_first_failure_may_end_what_runs_beside_it(tmp_path, capsys, monkeypatch):
    two_cores(monkeypatch)
    job = "import os, sys, time; sys.argv[2] == '1' and os.kill(os.getpid(), 9); time.sleep(100)"
    monkeypatch.setattr(train, "COMMAND", (sys.executable, "-c", job))
    begun_s = time.monotonic()
    words = ["quick", "--variants", "compact", "--device=cpu", "--seeds", "4", "--fail-fast", "--out", str(tmp_path)]
    assert sweep.main(words) == 1
    assert time.monotonic() - begun_s < 60
    assert "(--fail-fast): compact quick, digits seed 1 (--cell 1)" in capsys.readouterr().err


def test_seeds_of_a_cell_are_trained_at_once(tmp_path, capsys, trained):
    words = ["pooling", "--quick", "--seeds", "5", "--device", "cpu", "--out", str(tmp_path)]
    small = STUDIES["pooling"].quick
    assert small
    planned = plan(small.narrowed(seeds=range(5)), {"digits": DATASETS["digits"]})
    first = next(run.config for run in on_device(planned, "fp32", False) if run.config.seed == 1)
    finished(first, tmp_path)
    assert sweep.main([*words, "--seeds-at-once", "2"]) == 0
    cells = len(planned) // 5
    assert trained[0] == [0, 2] and trained.count([0, 1]) == cells - 1
    assert sum(len(seeds) if isinstance(seeds, list) else 1 for seeds in trained) == len(planned) - 1
    assert f"{len(planned)} runs, 1 done, {len(planned) - 1} to train" in capsys.readouterr().out


def test_a_seed_that_another_process_trains_comes_last(tmp_path, capsys, monkeypatch, trained):
    """The others of its group do not wait for it."""
    busy = runs_of_one(3)[1].config
    held = take(begun(busy, tmp_path).folder)
    monkeypatch.setattr("harness.sweeping.train.wait", lambda seconds: held and held.release())
    assert sweep.main([*ONE, "--seeds", "3", "--seeds-at-once", "3", "--out", str(tmp_path)]) == 0
    assert trained == [[0, 2], 1]


@pytest.mark.parametrize(
    ("place", "error", "told"),
    [
        ("torchvision.datasets.SVHN.download", OSError("no network"), "svhn is not in"),
        ("harness.data.load.by_torchvision", PermissionError(13, "Permission denied", "FILE"), "FILE cannot be read: "),
    ],
    ids=["missing", "not readable"],
)
def test_missing_data_fails_its_runs_alone(tmp_path, capsys, monkeypatch, trained, place, error, told):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(place, fail)
    words = [*ONE, "--seed", "0", "--datasets", "svhn", "digits", "--out", str(tmp_path / "runs")]
    assert sweep.main([*words, "--recipes", "quick", "--data-dir", str(tmp_path / "none")]) == 1
    printed = capsys.readouterr()
    assert told in printed.err and "1 of 2 runs are not done" in printed.err
    assert [run.config["dataset"] for run in load_runs([tmp_path / "runs"])] == ["digits"]


def test_what_another_process_trains_is_left_to_it_until_it_ends(tmp_path, capsys, monkeypatch, trained):
    """The others come first; then its outcome is waited for, and if it gave up, the run is trained here."""
    first, second, _ = (run.config for run in runs_of_one(3))
    locks = [lock for config in (first, second) if (lock := take(begun(config, tmp_path).folder))]
    assert len(locks) == 2 and run_state(tmp_path / first.run_id) == "running"
    waits = []

    def meanwhile(seconds: float) -> None:
        assert trained == [2], "the others come first"
        waits.append(seconds)
        if len(waits) == 3:
            for lock in locks:
                lock.release()

    monkeypatch.setattr(train, "wait", meanwhile)
    assert sweep.main([*ONE, "--seeds", "3", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("is being trained by process") == 2, "once for each"
    assert sorted(trained) == [0, 1, 2]


# --- several at once -------------------------------------------------------------------------------------------------


def two_cores(monkeypatch) -> None:
    """Of which OpenMP may take both, and memory enough."""
    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setattr(workers, "available_bytes", lambda: sys.maxsize)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_ctrl_c_leaves_no_child_and_loses_nothing(tmp_path):
    """A terminal sends it to the jobs too, which then hear twice. The last line is the command that goes on."""
    words = [*COMPACT[:3], "--device", "cpu", "--epochs", "500", "--jobs", "2", "--out", str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "harness.sweep", *words]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)
    end_s = time.monotonic() + 120
    while len([path for path in tmp_path.glob("*/epochs.jsonl") if path.stat().st_size]) < 2:
        assert process.poll() is None and time.monotonic() < end_s
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    printed, told = process.communicate(timeout=60)
    again = shlex.join(["python", "-m", "harness.sweep", *words])
    assert told == f"stopped by SIGINT; nothing is lost; the same command goes on: {again}\n"
    assert process.returncode == 130
    assert all(f"[{number}] compact digits quick seed {number} epoch 1/500" in printed for number in (0, 1))
    assert len(list(tmp_path.iterdir())) == 2
    for folder in tmp_path.iterdir():
        assert run_state(folder) == "unfinished" and not holder(folder) and list(folder.glob("checkpoint-*.pt"))


def test_a_killed_job_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    """Each job is the same command for one run. What it wrote on stdout is shown only if it failed."""
    two_cores(monkeypatch)
    job = "import os, sys; print(*sys.argv[1:], flush=True); sys.argv[2] == '1' and os.kill(os.getpid(), 9)"
    monkeypatch.setattr(train, "COMMAND", (sys.executable, "-c", job))
    monkeypatch.setattr(train, "outcome", lambda folder: "test accuracy 50.00%")
    words = ["quick", "--variants", "compact", "--device=cpu", "--seeds", "4", "--out", str(tmp_path)]
    assert sweep.main(words) == 1
    printed = capsys.readouterr()
    assert printed.out.count("--cell") == 1 and f"[1] --cell 1 {shlex.join(words)}\n" in printed.out
    assert "run 1: compact quick, digits seed 1: FAILED" in printed.out
    assert printed.out.count("done, test accuracy 50.00%") == 3 and "[4/4] " in printed.out
    assert "1 of 4 runs are not done: compact quick, digits seed 1 (--cell 1)" in printed.err
    assert train.without_jobs(["--jobs", "4", "main", "--jobs=2", "--quick"]) == ["main", "--quick"]


def test_a_sweep_that_is_stopped_before_its_first_job_starts_none(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "COMMAND", (sys.executable, "-c", f"open({str(tmp_path / 'late')!r}, 'w')"))
    monkeypatch.setattr(train, "with_data", lambda runs, *_: (os.kill(os.getpid(), signal.SIGTERM), runs)[1])
    with pytest.raises(StoppedError, match="stopped by SIGTERM; nothing is lost"):
        sweep.main(["pooling", "--quick", "--jobs", "2", "--device", "cpu", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.studies
@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.quick])
def test_every_small_form_is_done_within_a_minute(name, tmp_path):
    """Not part of an ordinary run: pytest -m studies."""
    command = [sys.executable, "-m", "harness.sweep", name, "--quick", "--device", "cpu", "--out", str(tmp_path)]
    start_s, before = time.monotonic(), os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds, after = time.monotonic() - start_s, os.times()
    computed = after.children_user + after.children_system - before.children_user - before.children_system
    assert done.returncode == 0, done.stderr
    assert len(load_runs([tmp_path])) == small(name).run_count
    assert computed <= 120 and (is_shared(CPU) or seconds <= 60), "a minute on two cores"


# --- jobs ------------------------------------------------------------------------------------------------------------


def job(number: int, code: str) -> Job:
    return Job(number, [sys.executable, "-c", code])


def test_every_job_runs_and_its_output_is_told_apart(capsys):
    jobs = [
        job(3, "import os; print('I am', os.environ['WORKER'])"),
        job(4, "import sys; print('oh no', file=sys.stderr); sys.exit(1)"),
        job(5, "import os; os.kill(os.getpid(), 9)"),
        job(6, "print('me too')"),
    ]
    ended = {done.number: code for done, code in run_jobs(jobs, [{**os.environ, "WORKER": "alone"}], Display())}
    assert ended == {3: 0, 4: 1, 5: -9, 6: 0}
    assert capsys.readouterr().out.splitlines() == ["[3] I am alone", "[4] oh no", "[6] me too"], "one at a time"


def test_a_signal_ends_what_runs_and_starts_no_more(tmp_path):
    pid = "import os; open({!r}, 'w').write(str(os.getpid())); import time; time.sleep(60)"
    started, late = tmp_path / "pid", tmp_path / "late"
    jobs = [job(0, "pass"), job(1, pid.format(str(started))), job(2, "pass"), job(3, pid.format(str(late)))]
    codes = []
    with pytest.raises(StoppedError, match="SIGUSR1"), listening():
        for done, code in run_jobs(jobs, [dict(os.environ)] * 2, Display()):
            codes.append((done.number, code))
            while not (started.exists() and started.read_text()):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGUSR1)
    assert codes == [(0, 0)] and not late.exists(), "neither what waits nor what is next starts"
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_jobs_share_the_threads_and_take_gpus_in_turn(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 10)
    own, gpus = {"OMP_NUM_THREADS": "8", "HOME": "/x"}, Place("cuda", "bf16", True, 2)
    three = environments(3, gpus, "auto", own)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in three] == ["0", "1", "0"]
    assert {e["OMP_NUM_THREADS"] for e in three} == {"2"} and three[0]["HOME"] == "/x"
    narrowed = environments(2, gpus, "cuda", own | {"CUDA_VISIBLE_DEVICES": "5,7"})
    assert [e["CUDA_VISIBLE_DEVICES"] for e in narrowed] == ["5", "7"]
    assert "CUDA_VISIBLE_DEVICES" not in environments(2, gpus, "cuda:1", own)[0], "a choice already"
    assert environments(64, Place("cpu"), "cpu", {}) == [{"OMP_NUM_THREADS": "1"}] * 64
    for said, threads in (("6", "3"), ("6,2", "3"), ("all", "5"), ("0", "5"), ("", "5")):  # as OpenMP reads it
        assert environments(2, Place("cpu"), "cpu", {"OMP_NUM_THREADS": said})[0]["OMP_NUM_THREADS"] == threads


def test_how_many_small_runs_at_once(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.setattr(workers, "available_bytes", lambda: sys.maxsize)
    assert default_jobs("cpu", {}) == 8 and default_jobs("cuda", {}) == 1
    assert default_jobs("cpu", {"OMP_NUM_THREADS": "2"}) == 2, "the user has said how many threads"
    assert default_jobs("cpu", {"OMP_NUM_THREADS": "64"}) == 8
    for gigabytes, expected in ((1, 1), (4, 3), (64, 8)):
        monkeypatch.setattr(workers, "available_bytes", lambda bytes_=gigabytes * 10**9: bytes_)
        assert default_jobs("cpu", {}) == expected
    one_each = environments(8, Place("cpu"), "cpu", {"OMP_NUM_THREADS": "64"}, threads=1)
    assert [e["OMP_NUM_THREADS"] for e in one_each] == ["1"] * 8


def test_the_device_is_asked_in_another_process(monkeypatch):
    assert workers.place_of("cpu") == Place("cpu", "fp32", False, 0)
    with pytest.raises(UsageError, match=r"^unknown device 'gpu'"):
        workers.place_of("gpu")
    monkeypatch.setattr(workers, "ASK", "import sys; print('hello', '[\"cuda\", \"bf16\", true, 2]', sep='\\n')")
    assert workers.place_of("cuda") == Place("cuda", "bf16", True, 2)


def test_which_sweeps_train_several_at_once():
    """Every small form, and what was told to."""
    several = ["quick", "main --jobs 2", *(f"{name} --quick" for name, study in STUDIES.items() if study.quick)]
    others = [*STUDIES, "quick --dataset c10 digits", "main --dataset digits", "quick --jobs 1", "quick --cell 0"]
    for words in [*several, *others, "quick --dry-run"]:
        args = sweep.parser().parse_args(words.split())
        assert sweep.may_be_several(args, sweep.chosen(args)) is (words in several), words


def test_the_longest_row_comes_first():
    planned = plan(STUDIES["quick"], DATASETS)
    assert [(run.row.variant, run.config.seed) for run in train.longest_first(planned)] == [
        (variant, seed) for variant in ("patch2", "vanilla", "timm", "compact") for seed in (0, 1)
    ]


AN_EPOCH = "compact digits quick seed 0 epoch {}/10  train loss 1.000\n"


@pytest.mark.parametrize("tty", [False, True])
def test_what_is_seen_of_small_runs(monkeypatch, tty):
    """Of two runs of ten epochs one had three behind it and is done, the other fails in its second. Of the one that
    failed everything is shown; what a job writes on stderr, at once."""
    screen = io.StringIO()
    screen.isatty = lambda: tty
    monkeypatch.setattr(sys, "stdout", screen)
    display, done, broken = Display(20, brief=True), Job(0, [], 10), Job(1, [], 10)
    display.bar.mininterval = 0
    for epoch in range(4, 11):
        display.line(done, AN_EPOCH.format(epoch), False)
    display.line(broken, AN_EPOCH.format(1), False)
    if tty:
        assert display.bar.n == 8 and " 8/20 " in screen.getvalue()
    display.end(done, "[1/2] run 0: done", failed=False)
    display.line(broken, "oh no\n", True)
    display.line(broken, "stopped by SIGTERM; nothing is lost; the same command goes on: ...\n", True)
    display.end(broken, "[2/2] run 1: FAILED", failed=True)
    display.bar.close()
    seen = [line.rpartition("\r")[2] for line in screen.getvalue().split("\n")]  # what a terminal still shows
    shown = f"[1/2] run 0: done\n[1] oh no\n[1] {AN_EPOCH.format(1)}[2/2] run 1: FAILED\n"
    assert "\n".join(seen).rstrip() == shown.rstrip()
    assert tty or screen.getvalue() == shown


# --- what is asked for -----------------------------------------------------------------------------------------------


def test_the_list_names_every_study_with_its_question(capsys):
    assert sweep.main(["--list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert sweep.main(["--list", "--json"]) == 0
    rows = {row["study"]: row for row in json.loads(capsys.readouterr().out)}
    for name, study in STUDIES.items():
        assert study.question in lines[name] and str(study.run_count) in lines[name]
        assert rows[name]["question"] == study.question and rows[name]["runs"] == study.run_count


def test_a_dry_run_as_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harness.training.estimate.seconds_of", lambda config, *_: 2.0 if config.seed == 0 else None)
    words = ["pooling", "--quick", "--track", "tensorboard", "--out", str(tmp_path), "--device", "cpu", "--json"]
    assert sweep.main([*words, "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["study"], told["runs"], told["done"], told["to_train"]) == ("pooling", 6, 0, 6)
    assert [(cell["number"], cell["to_train"], cell["seconds_of_a_seed"]) for cell in told["cells"]] == [
        (number, 2, 2.0) for number in range(3)
    ]
    assert {cell["row"] for cell in told["cells"]} == {"pool=cls", "pool=mean", "pool=seq"} and not list(
        tmp_path.iterdir()
    )


def test_a_run_s_number_stays_when_seeds_are_added():
    few, many = (plan(POOLING.narrowed(seeds=range(count)), DATASETS) for count in (2, 5))
    assert [run.config.run_id for run in many[: len(few)]] == [run.config.run_id for run in few]
    assert [run.number for run in many] == list(range(15))


def test_seeds_at_once_are_numbered_by_group():
    """Whatever is done: that is what a job array was told."""
    planned = plan(POOLING.narrowed(seeds=range(5)), DATASETS)
    assert [run.task for run in in_tasks(planned, 1)] == list(range(15))
    by_two = in_tasks(planned, 2)
    assert [run.number for run in by_two] == list(range(15)) and by_two[-1].task == 8
    assert [(run.config.seed, run.row.title) for run in by_two if run.task == 4] == [(s, "pool=cls") for s in (2, 3)]
    assert [run.config.seed for run in by_two if run.task == 8] == [4], "what is left of a cell"


ARRAY = "lr-sensitivity --quick --variants compact --epochs 1 --seeds 2 --seeds-at-once 2"  # a holdout: no corruptions


def test_a_job_array_trains_each_run_once(tmp_path, capsys):
    """The command as a scheduler runs it, two tasks at once; then the last beside one that was queued again."""
    words = [*ARRAY.split(), "--device", "cpu", "--out", str(tmp_path)]
    assert sweep.main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "6 runs, 0 done, 6 to train" in printed and "--array=0-2\n" in printed
    command = shlex.join([sys.executable, "-m", "harness.sweep", *words]) + " --cell $SLURM_ARRAY_TASK_ID"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    unset = {name: value for name, value in os.environ.items() if name != "SLURM_ARRAY_TASK_ID"}

    def array(*numbers: int) -> list[str]:
        own = [{**unset, "OMP_NUM_THREADS": "1", "SLURM_ARRAY_TASK_ID": str(number)} for number in numbers]
        tasks = [subprocess.Popen(["bash", "-c", command], env=env, **pipes) for env in own]
        told = [task.communicate(timeout=120)[0] for task in tasks]
        assert [task.returncode for task in tasks] == [0] * len(numbers), told
        return told

    array(0, 1)
    last, again = array(2, 0)
    assert "epoch 1/1" in last and "epoch 1/1" not in again
    assert [line.partition(":")[0] for line in again.splitlines()] == [f"run {n} is done already" for n in (0, 3)]
    runs = load_runs([tmp_path])
    assert len(runs) == 6 and all([session["seeds"] for session in run.result["sessions"]] == [[0, 1]] for run in runs)
    assert sweep.main([*words, "--status"]) == 0 and "all done" in capsys.readouterr().out
    done = subprocess.run(["bash", "-c", command], env=unset, **pipes)
    assert done.returncode == 2 and "is SLURM_ARRAY_TASK_ID set?" in done.stdout and "Traceback" not in done.stdout


def test_two_names_of_one_run_are_one_run():
    assert len(plan(STUDIES["quick"].narrowed(["vanilla"], ["published", "s1"], seeds=[0, 0]), DATASETS)) == 1


# --- status ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def some_runs(tmp_path) -> list[PlannedRun]:
    """Rows pool=seq, pool=cls and pool=mean, seeds 0 and 1: done, failed, missing; done, running, unfinished."""
    runs = on_device(plan(POOLING, DATASETS), "bf16", True)
    finished(runs[0].config, tmp_path, 100)
    finished(runs[1].config, tmp_path, outcome="failed", reason="the loss is not finite", test_accuracy=None)
    finished(runs[3].config, tmp_path, 200)
    running(runs[4].config, tmp_path, epochs=1)
    begun(runs[5].config, tmp_path, epochs=1)
    return runs


def left(runs: list[PlannedRun], out: Path) -> tuple[dict[int, float | None], str | None]:
    found, device = with_time_left(statuses(runs, out))
    return {status.run.number: status.left for status in found if status.state != "done"}, device


def test_states_of_runs_whatever_precision_they_were_made_in(tmp_path, some_runs, capsys):
    planned = plan(POOLING, DATASETS)  # of a machine that would choose fp32

    def states(*settings) -> list[str]:
        return [status.state for status in statuses(planned, tmp_path, *settings)]

    every = ["done", "failed", "missing", "done", "running", "unfinished"]
    assert states() == every == states("bf16", True)
    assert states("fp32") == states("bf16", False) == ["missing"] * 6
    finished(on_device(planned, "fp32", False)[1].config, tmp_path)  # of two records the better counts
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"dataset": "digits"}')
    assert states()[:2] == ["done", "done"] and "skipped" in capsys.readouterr().err


def test_time_left(tmp_path, some_runs):
    """Row pool=seq took 100 and 200 s, its third seed 9000 s on another machine. pool=cls has one epoch of three behind
    it, at 2 s each."""
    assert left(some_runs, tmp_path) == ({1: None, 2: None, 4: 4.0, 5: None}, "a GPU")
    seeds = on_device(plan(POOLING.narrowed(seeds=range(4)), DATASETS), "bf16", True)[::3]
    finished(seeds[2].config, tmp_path, 9000, device="a slow machine")
    assert left(seeds, tmp_path) == ({9: 150.0}, "a GPU")


def test_seeds_that_were_trained_together_share_their_time(tmp_path):
    runs = on_device(plan(POOLING.narrowed(seeds=range(3)), DATASETS), "bf16", True)[::3]
    for run in runs[:2]:
        finished(run.config, tmp_path, 300.0, sessions=[{"seeds": [0, 1]}])
    assert left(runs, tmp_path) == ({6: 150.0}, "a GPU")


def test_time_left_of_a_study_of_which_nothing_is_finished_yet(tmp_path):
    """It goes at the speed of what runs."""
    runs = on_device(plan(POOLING, DATASETS), "bf16", True)
    assert left(runs[:1], tmp_path) == ({0: None}, None)
    running(runs[0].config, tmp_path, epochs=2)
    running(runs[1].config, tmp_path, epochs=0)
    assert left(runs[:2], tmp_path) == ({0: 2.0, 1: None}, "a GPU")


def test_the_status_in_words(tmp_path, some_runs, capsys):
    assert sweep.main(["pooling", "--quick", "--status", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert lines["pool=seq"] == ["2", "-", "-", "-", "-", "-"]
    assert lines["pool=cls"] == ["-", "1", "1", "-", "-", "4", "s", "and", "more"]
    assert lines["pool=mean"] == ["-", "-", "-", "1", "1", "unknown"]
    assert lines["all"] == ["2", "1", "1", "1", "1", "4", "s", "and", "more"]
    assert "running: pool=cls, digits seed 1, 1 of 3 epochs" in text
    assert "failed: run 1, pool=cls, digits seed 0: the loss is not finite" in text
    assert "4 to go: about 4 s one after another and 3 of which nothing is known, at the speed of a GPU" in text


def test_the_status_as_json(tmp_path, some_runs, capsys):
    words = ["pooling", "--quick", "--status", "--out", str(tmp_path)]
    assert sweep.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["study"] == "pooling" and told["speed_of"] == "a GPU" and told["set_aside"] == []
    assert told["counts"] == {"done": 2, "running": 1, "failed": 1, "unfinished": 1, "missing": 1}
    assert [run["number"] for run in told["runs"]] == [*range(6)]
    (failed,) = [run for run in told["runs"] if run["state"] == "failed"]
    assert failed["reason"] == "the loss is not finite" and (failed["row"], failed["seed"]) == ("pool=cls", 0)
    (running,) = [run for run in told["runs"] if run["state"] == "running"]
    assert running["epochs_so_far"] == 1 and running["seconds_left"] == pytest.approx(4)
    assert run_state(Path(running["folder"])) == "running"
    assert [run["seconds_left"] for run in told["runs"] if run["state"] in ("done", "missing")] == [0, None, 0]


def test_status_needs_no_torch(tmp_path):
    """So a laptop or a login node can show it."""
    words = ["pooling", "--quick", "--status", "--out", str(tmp_path)]
    code = f"import sys; from harness import sweep; sweep.main({words}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "6 to go, how long is unknown" in done.stdout, done.stderr


def test_lengths_of_time():
    assert [about(s) for s in (3.4, 119, 120, 600, 7300, 100_000, 200_000)] == [
        "3 s", "119 s", "2.0 min", "10 min", "2.0 h", "28 h", "2.3 days",
    ]  # fmt: skip


# --- guesses ---------------------------------------------------------------------------------------------------------


def test_steps_alike_are_guessed_once(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(estimate, "training_rate", lambda *what: asked.append(what) or 1000.0)
    for name, distinct in (("lr-sensitivity", 4), ("budget", 1), ("augmentation", 3), ("main", 8)):
        asked.clear()
        planned = plan(STUDIES[name], DATASETS)
        sweep.announce_time(sweep.parser().parse_args([name, "--dry-run"]), planned, DATASETS, CPU)
        cells = {run.plan_id for run in planned}
        assert len(set(asked)) == distinct and len(asked) == len(cells), name
        assert len(capsys.readouterr().out.splitlines()) == len(cells) + 1


def test_a_guess_counts_what_a_run_sees(monkeypatch):
    monkeypatch.setattr(estimate, "training_rate", lambda *what: 1000.0)
    digits = DATASETS["digits"]
    config = Row("compact", "quick").resolve(digits)
    assert estimate.seconds_of(config, digits, CPU) == pytest.approx((10 * 1437 + (10 + 35) * 360 / 3) / 1000)
    held = Row("compact", "quick").resolve(digits, holdout=0.1)
    assert estimate.seconds_of(held, digits, CPU) == pytest.approx((10 * 0.9 * 1437 + 10 * 0.1 * 1437 / 3) / 1000)
