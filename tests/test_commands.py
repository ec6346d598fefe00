"""The command lines: what they print, what they leave, and their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm

from harness import run, sweep
from harness.commands import WAITING, run_command, wait_passively
from harness.config import resolve
from harness.datasets import DATASETS
from harness.recipes import ALIASES, RECIPES
from harness.records.read import load_runs, run_state

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--dataset", "digits", "--recipe", "quick", "--epochs", "1", "--device", "cpu"]
TINIEST = [*TINY, "--holdout", "0.9"]  # a few steps, and no corruptions


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


def test_divergence_is_recorded_and_exits_1(tmp_path, capsys):
    hot = ["--set", "recipe.lr=1e30", "recipe.warmup_epochs=0", "recipe.label_smoothing=0"]
    assert run.main(["--variant", "compact", *TINY, "--out", str(tmp_path), *hot, "--quiet"]) == 1
    (record,) = load_runs([tmp_path])
    assert record.result["outcome"] == "failed" and record.result["test_accuracy"] is None
    assert "epoch 1, step" in record.result["reason"] and "epoch 1, step" in capsys.readouterr().err
    assert run_state(record.folder) == "failed"


def test_a_dry_run_trains_nothing_and_agrees_with_the_record(tmp_path, capsys):
    """Epoch by epoch too: where the rate changes with epochs, that of the first step is that of the last. With a
    holdout the test images are never looked at."""
    words = ["--variant", "compact", *TINY, "--epochs", "3", "--holdout", "0.2", "--out", str(tmp_path)]
    words += ["--batch-size", "100", "--set", "recipe.schedule_unit=epoch"]
    assert run.main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "parameters 116,171  MACs " in printed and "about" in printed
    assert run.main([*words, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert json.loads(printed[: printed.rindex("\n}\n") + 3]) == told["config"]
    assert told["steps_per_epoch"] == 12 and told["estimate"]["reason"] is None
    assert told["estimate"]["seconds"] > 0 and told["estimate"]["device"] == "cpu" and not list(tmp_path.iterdir())
    assert run.main([*words, "--quiet"]) == 0
    (record,) = load_runs([tmp_path])
    assert told["config"] == {name: value for name, value in record.config.items() if name != "schema"}
    assert told["cost"] == record.cost and told["cost"]["params"] and told["cost"]["macs"]
    assert told["learning_rates"] == [line["lr"] for line in record.epochs()] and len(told["learning_rates"]) == 3
    result = record.result
    assert result["split"] == "val" and result["test_accuracy"] is None and result["val_accuracy"] is not None
    assert result["images_seen"] == 3 * (1437 - 287) and len(record.predictions()["labels"]) == 287
    assert not any(key.startswith("test") for line in record.epochs() for key in line)


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


def test_recipes_go_by_their_sources_names_too():
    """The run is the same, and so is what its record and the tables call it."""
    for alias, name in {**ALIASES, "ViT-CIFAR": "s1"}.items():
        assert alias not in RECIPES and alias != "published"
        for variant in ("compact", "vanilla"):
            first, second = (resolve(variant, DATASETS["c10"], recipe) for recipe in (alias, name))
            assert first == second and first.to_plain() == second.to_plain()
    for command in (run, sweep):
        told = " ".join(command.parser().format_help().split())
        assert all(word in told for word in (*RECIPES, *ALIASES))


def unchosen(**own: str) -> dict[str, str]:
    """This environment as if nobody had said how threads wait, and what is said instead."""
    return {name: value for name, value in os.environ.items() if name not in WAITING} | own


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": ""}, {"KMP_BLOCKTIME": "200"}])
def test_how_idle_threads_wait_is_the_users_choice(own, monkeypatch):
    monkeypatch.setattr(os, "environ", unchosen(**own))
    wait_passively()
    assert os.environ == unchosen(**own)


TOLD = "import os, sys; print(os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
STARTS = {
    "a command": f"from harness.commands import run_command\ndef main(words):\n    {TOLD}\nrun_command(main)",
    "the tests": f"import tests.conftest\n{TOLD}",
}


@pytest.mark.parametrize("code", STARTS.values(), ids=STARTS)
def test_else_they_sleep_which_is_said_before_torch_is_loaded(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=unchosen(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "PASSIVE 10000 False\n"), done.stderr


def test_interruption_exits_130():
    def interrupted(arguments):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_command(interrupted)
    assert caught.value.code == 130


FULL = "cannot write the output: No space left on device\n"
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")


@needs_dev_full
@pytest.mark.parametrize("word", ["--list", "--help"])
def test_a_full_disk_below_standard_output_is_a_sentence(word):
    with open("/dev/full", "w") as full:
        done = listed(word, full)
    assert (done.returncode, done.stderr) == (2, FULL)


def listed(word: str, stdout: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "harness.sweep", word]
    return subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True)


@needs_dev_full
def test_a_full_disk_below_standard_output_ends_no_training(tmp_path, monkeypatch, capsys):
    with open("/dev/full", "w") as full, pytest.raises(SystemExit) as left:
        monkeypatch.setattr(sys, "stdout", full)
        run_command(run.main, ["--variant", "compact", *TINIEST, "--out", str(tmp_path)])
    (record,) = load_runs([tmp_path])
    told = capsys.readouterr().err
    assert record.ok and left.value.code == 2 and told.endswith(FULL)


def test_a_pipe_that_nobody_reads_is_no_complaint():
    read, write = os.pipe()
    os.close(read)
    done = listed("--list", write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_model_that_cannot_be_counted_can_be_trained(tmp_path, monkeypatch, capsys):
    def broken(*args, **named):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("harness.cell.cost_of", broken)
    assert run.main(["--variant", "compact", *TINIEST, "--out", str(tmp_path), "--quiet"]) == 0
    (record,) = load_runs([tmp_path])
    assert record.result["macs"] is None and record.result["params"] == 116_171
    assert "cannot be counted" in capsys.readouterr().err
