"""The command lines, run as a person runs them: what they print, what they leave, and their exit codes."""

import errno
import io
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from harness import run
from harness.commands import WAITING, run_command
from harness.counting.cost import cost_of
from harness.datasets import DATASETS
from harness.records.read import load_runs, run_state
from harness.sweeping.workers import cores
from harness.training.optimiser import learning_rate
from harness.training.progress import Progress
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--dataset", "digits", "--recipe", "quick", "--epochs", "1", "--device", "cpu"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)


def test_one_cell_from_command_to_record(tmp_path, capsys):
    words = ["--variant", "compact", *TINY, "--out", str(tmp_path), "--name", "first try"]
    assert run.main(words) == 0
    printed = capsys.readouterr().out
    (record,) = load_runs([tmp_path])
    assert "epoch 1/1" in printed and f"record: {record.folder}" in printed
    assert f"test accuracy {record.result['test_accuracy']:.2%}" in printed and "time: training" in printed
    assert record.result["images_seen"] == 1437 and record.result["params"] == record.cost["params"] == 116_171
    assert record.result["test_accuracy"] == record.epochs()[-1]["test_accuracy"]
    assert record.config["label"] == "first try" and record.env["device"] == "cpu" and record.env["data_digest"]
    predictions = record.predictions()
    right = predictions["labels"] == predictions["predicted"]
    assert len(right) == 360 and right.mean() == pytest.approx(record.result["test_accuracy"])
    assert ((predictions["confidence"] > 0.1 - 1e-6) & (predictions["confidence"] <= 1)).all()

    made = (record.folder / "result.json").stat().st_mtime_ns
    assert run.main(words) == 0 and "done already" in capsys.readouterr().out
    assert (record.folder / "result.json").stat().st_mtime_ns == made
    assert run.main([*words, "--fresh", "--quiet"]) == 0 and "done already" not in capsys.readouterr().out
    (again,) = load_runs([tmp_path])
    assert (again.folder / "result.json").stat().st_mtime_ns != made
    assert again.result["test_nll"] == record.result["test_nll"], "the same command, another result"
    assert np.array_equal(again.predictions()["confidence"], predictions["confidence"])


def test_holdout_never_looks_at_test(tmp_path):
    assert run.main(["--variant", "compact", *TINY, "--out", str(tmp_path), "--holdout", ".1", "--quiet"]) == 0
    (record,) = load_runs([tmp_path])
    result = record.result
    assert result["split"] == "val" and result["test_accuracy"] is None and result["val_accuracy"] is not None
    assert result["images_seen"] == 1437 - 144 and len(record.predictions()["labels"]) == 144
    assert not any(key.startswith("test") for line in record.epochs() for key in line)


def test_divergence_is_recorded_and_exits_1(tmp_path, capsys):
    hot = ["--set", "recipe.lr=1e30", "recipe.warmup_epochs=0", "recipe.label_smoothing=0"]
    assert run.main(["--variant", "compact", *TINY, "--out", str(tmp_path), *hot, "--quiet"]) == 1
    (record,) = load_runs([tmp_path])
    assert record.result["outcome"] == "failed" and record.result["test_accuracy"] is None
    assert "epoch 1, step" in record.result["reason"] and "epoch 1, step" in capsys.readouterr().err
    assert run_state(record.folder) == "failed"


def test_dry_run_prints_everything_and_trains_nothing(tmp_path, capsys):
    words = ["--variant", "compact", "--dataset", "c10", "--recipe", "published", "--device", "cpu", "--dry-run"]
    assert run.main([*words, "--out", str(tmp_path), "--set", "variant.pool=mean"]) == 0
    printed = capsys.readouterr().out
    resolved = json.loads(printed[: printed.rindex("\n}\n") + 3])
    assert resolved["recipe"]["lr"] == 0.01 and resolved["variant"]["pool"] == "mean"
    assert "parameters 119,002" in printed and "MACs" in printed and "about" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "extra",
    [
        ["--dataset", "c10", "--recipe", "published"],
        ["--dataset", "digits", "--recipe", "quick", "--holdout", "0.1", "--epochs", "7", "--batch-size", "100"],
        ["--dataset", "digits", "--set", "recipe.schedule_unit=epoch", "recipe.cycles=2", "recipe.train_share=0.5"],
    ],
)
def test_dry_run_as_json_is_one_object_that_says_what_the_loop_will_do(extra, tmp_path, capsys):
    words = ["--variant", "compact", "--device", "cpu", *extra, "--out", str(tmp_path / "none")]
    assert run.main([*words, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    args = run.parser().parse_args(words)
    config, _ = run.configure(args, DATASETS[args.dataset])
    recipe, steps = config.recipe, told["steps_per_epoch"]
    kept = DATASETS[args.dataset].train_count * (1 - config.holdout)
    assert told["config"] == config.to_plain()
    assert steps == math.ceil(round(kept) / recipe.batch_size)
    assert told["learning_rates"] == [learning_rate(recipe, epoch * steps, steps) for epoch in range(recipe.epochs)]
    assert len(told["learning_rates"]) == recipe.epochs
    cost = cost_of("compact", config.variant, config.dataset, check=False)
    assert told["cost"] == asdict(cost) and cost.params and cost.macs and cost.activations
    assert told["estimate"]["seconds"] > 0 and told["estimate"]["reason"] is None
    assert told["estimate"]["device"] == "cpu" and not list(tmp_path.iterdir())


def test_dry_run_as_json_agrees_with_the_record(tmp_path, capsys):
    """Epoch by epoch too: where the rate changes with epochs, that of the first step is that of the last."""
    words = ["--variant", "compact", *TINY, "--epochs", "3", "--holdout", "0.2", "--out", str(tmp_path)]
    words += ["--set", "recipe.schedule_unit=epoch"]
    assert run.main([*words, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert run.main([*words, "--quiet"]) == 0
    (record,) = load_runs([tmp_path])
    assert told["config"] == {name: value for name, value in record.config.items() if name != "schema"}
    assert told["cost"] == record.cost
    assert told["learning_rates"] == [line["lr"] for line in record.epochs()] and len(told["learning_rates"]) == 3


def test_a_time_that_cannot_be_measured_is_null_and_says_why(monkeypatch, capsys):
    def failing(*args):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("harness.training.estimate.training_rate", failing)
    assert run.main(["--variant", "compact", *TINY, "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    assert estimate["seconds"] is None and "no such kernel" in estimate["reason"]


def test_a_plan_fetches_no_weights(tmp_path, monkeypatch, capsys):
    """Neither for the cost nor for the guess of the time."""
    asked, real = [], timm.create_model

    def create_model(name, *, pretrained=False, **words):
        asked.append(pretrained)
        return real(name, **words)

    monkeypatch.setattr(timm, "create_model", create_model)
    words = ["--variant", "timm:resnet10t", "--dataset", "digits", "--recipe", "s3", "--device", "cpu", "--dry-run"]
    assert run.main([*words, "--set", "variant.pretrained=true"]) == 0
    assert asked and not any(asked) and '"pretrained": true' in capsys.readouterr().out


BAD = [
    (["harness.run", "--variant", "compact", "--dataset", "digits", "--json"], "add --dry-run"),
    (["harness.run", "--variant", "compact", *TINY, "--holdout", "0.9999", "--dry-run", "--json"], "leaves 0"),
    (["harness.run", "--variant", "compct", "--dataset", "c10"], "compact"),
    (["harness.run", "--variant", "compact", "--dataset", "c11"], "c10"),
    (["harness.run", "--variant", "compact", "--dataset", "c10", "--recipe", "comon"], "common"),
    (["harness.run", "--variant", "timm", "--dataset", "c10", "--recipe", "published"], "no recipe was published"),
    (["harness.run", "--variant", "compact", "--dataset", "c10", "--set", "recipe.lrate=1"], "lr"),
    (["harness.run", "--variant", "compact", "--dataset", "c10", "--set", "variant.patch=5"], "does not divide"),
    (["harness.run", "--variant", "compact", "--dataset", "c10", "--set", "recipe.lr=-1"], "positive"),
    (["harness.run", "--variant", "compact", "--dataset", "c10", "--epochs", "0"], "at least 1"),
    (["harness.run", "--variant", "compact", "--dataset", "c10", "--epochs", "many"], "invalid int"),
    (["harness.run", "--variant", "compact"], "--dataset"),
    (["harness.run", "--variant", "compact", "--dataset", "folder:/no/such"], "class folders"),
    (["harness.sweep", "mian"], "main"),
    (["harness.sweep", "main", "--variants", "vanila"], "vanilla"),
    (["harness.sweep", "main", "--variants", "compact", "vanila", "--recipes", "published"], "vanilla"),
    (["harness.run", "--variant", "compact", "--dataset", "digits", "--out", "README.md"], "cannot write"),
    (["harness.run", "--variant", "timm:resnet81", "--dataset", "digits", "--dry-run"], "resnet18"),
    (["harness.sweep", "main", "--variants", "timm", "--recipes", "published"], "nothing to do"),
]


@pytest.mark.parametrize(("words", "expected"), BAD, ids=lambda v: " ".join(v)[-40:] if isinstance(v, list) else v)
def test_bad_requests_exit_2_before_anything_is_loaded(words, expected):
    done = command(*words)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr and "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 3
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["run", "sweep", "cost", "report"])
def test_help_shows_examples(name):
    done = command(f"harness.{name}", "--help")
    assert done.returncode == 0 and "examples:" in done.stdout and f"python -m harness.{name}" in done.stdout


def test_help_does_not_wait_for_torch():
    """Parsing imports neither torch nor timm, so help answers at once."""
    code = "import sys, harness.run as r; r.parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


TELL_POLICY = (
    "import os, sys; print(*map(os.environ.get, ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')), 'torch' in sys.modules)"
)
STARTS = {
    "a command": f"from harness.commands import run_command\ndef main(words):\n    {TELL_POLICY}\nrun_command(main)",
    "the tests": f"import tests.conftest\n{TELL_POLICY}",
}
CHOSEN = [
    ({}, "PASSIVE 10000"),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
    ({"OMP_WAIT_POLICY": ""}, " None"),
    ({"GOMP_SPINCOUNT": "1000"}, "None 1000"),
    ({"KMP_BLOCKTIME": "200"}, "None None"),
]


def unchosen(**own: str) -> dict[str, str]:
    """This environment as if nobody had said how threads wait, and what is said instead."""
    return {name: value for name, value in os.environ.items() if name not in WAITING} | own


@pytest.mark.parametrize("code", STARTS.values(), ids=STARTS.keys())
@pytest.mark.parametrize(("own", "policy"), CHOSEN)
def test_idle_threads_are_to_sleep_before_torch_is_loaded_unless_the_user_chose(code, own, policy):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=unchosen(**own), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{policy} False\n"), done.stderr


WAITS = """
import time
from harness.commands import run_command
def main(words):
    import torch
    torch.set_num_threads(2)
    torch.ones(10**6).sin().sum()
    start_s = time.process_time()
    time.sleep(1)
    print(time.process_time() - start_s)
run_command(main)
"""


@pytest.mark.skipif(cores() < 2, reason="one core has no thread that waits for another")
def test_an_idle_thread_takes_no_time():
    """Which shows that OpenMP has read it."""

    def taken_s(**own: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", WAITS], cwd=ROOT, env=unchosen(**own), capture_output=True, text=True
        )
        return float(done.stdout)

    assert taken_s() < 0.05 < taken_s(OMP_WAIT_POLICY="ACTIVE")


def test_interruption_exits_130():
    def interrupted(arguments):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_command(interrupted)
    assert caught.value.code == 130


FULL = "standard output cannot be written: No space left on device\n"
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")


def onto_a_full_disk(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    with open("/dev/full", "w") as full:
        return subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )


PRINTING = (
    ("harness.sweep", "--list"),
    ("harness.sweep", "--help"),
    ("harness.run", *("--variant", "compact", *TINY, "--dry-run")),
    ("harness.verify", "--records"),
)


@needs_dev_full
@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_below_standard_output_is_a_sentence(words, unbuffered):
    if "--help" in words and unbuffered:
        pytest.skip("argparse itself swallows it, in newer Pythons")
    done = onto_a_full_disk(*words, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (2, FULL)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_file_that_may_not_grow_is_a_sentence(tmp_path, unbuffered):
    """Unlike /dev/full it takes nothing gladly, as a full disk does: only a sign more tells."""
    resource = pytest.importorskip("resource")
    limit = (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    with open(tmp_path / "log", "w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "harness.sweep", "--list"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        )
    assert (done.returncode, done.stderr) == (2, "standard output cannot be written: File too large\n")


@needs_dev_full
def test_a_full_disk_below_standard_output_ends_no_training(tmp_path):
    done = onto_a_full_disk("harness.run", "--variant", "compact", *TINY, "--out", str(tmp_path))
    (record,) = load_runs([tmp_path])
    assert record.ok and done.returncode == 2 and done.stderr.endswith(FULL)
    assert done.stderr.count("goes on unseen, its progress cannot be shown: No space left on device\n") == 1


@needs_dev_full
def test_one_full_log_of_both_leaves_the_exit_code():
    with open("/dev/full", "w") as full:
        for words, code in ((("--list",), 2), (("mian",), 2)):
            command = [sys.executable, "-m", "harness.sweep", *words]
            buffered = os.environ | {"PYTHONUNBUFFERED": ""}
            assert subprocess.run(command, cwd=ROOT, stdout=full, stderr=full, env=buffered).returncode == code


def test_a_pipe_that_nobody_reads_is_no_complaint():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "harness.sweep", "--list"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_below_another_file_is_not_blamed_on_standard_output(capsys):
    def writing(arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_command(writing)
    assert capsys.readouterr().err == ""


class Closed(io.StringIO):
    """Takes nothing, for this reason."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


LINE = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.5, "test_accuracy": 0.4, "seconds": 20.0}


@pytest.mark.parametrize("bar", [True, False])
def test_progress_that_cannot_be_shown_is_told_once(bar, capsys):
    progress = Progress("compact digits", 2, 100, Closed(errno.EIO))
    progress.bar = bar
    for epoch in (1, 2):
        progress.shown_s = -1e9
        progress.batch(epoch, 50, torch.tensor([100.0, 25.0]))
        progress.epoch(LINE | {"epoch": epoch})
    progress.judging("under corruptions", 100, lambda: None)(50)
    progress.close()
    told = capsys.readouterr()
    assert told.err == "compact digits: goes on unseen, its progress cannot be shown: Input/output error\n"
    with pytest.raises(BrokenPipeError):
        Progress("", 1, 100, Closed(errno.EPIPE)).epoch(LINE)


def test_a_model_that_cannot_be_counted_can_be_trained(tmp_path, monkeypatch, capsys):
    def broken(*args, **named):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("harness.experiment.cost_of", broken)
    assert run.main(["--variant", "compact", *TINY, "--out", str(tmp_path), "--quiet"]) == 0
    (record,) = load_runs([tmp_path])
    assert record.result["macs"] is None and record.result["params"] == 116_171
    assert "cannot be counted" in capsys.readouterr().err


def test_unknown_device_is_refused():
    with pytest.raises(UsageError, match="unknown device"):
        run.main(["--variant", "compact", "--dataset", "digits", "--device", "gpu"])
