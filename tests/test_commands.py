"""The command lines, run as a person runs them: what they print, what they leave, and their exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness import run
from harness.commands import run_command
from harness.records.read import load_runs, run_state
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
    assert record.result["images_seen"] == 1437 and record.result["params"] == record.cost["params"] == 116_267
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
    assert "parameters 119,098" in printed and "MACs" in printed and "about" in printed and "assumed" in printed
    assert list(tmp_path.iterdir()) == []


BAD = [
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


def test_interruption_exits_130():
    def interrupted(arguments):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_command(interrupted)
    assert caught.value.code == 130


def test_a_model_that_cannot_be_counted_can_be_trained(tmp_path, monkeypatch, capsys):
    def broken(*args, **named):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("harness.experiment.cost_of", broken)
    assert run.main(["--variant", "compact", *TINY, "--out", str(tmp_path), "--quiet"]) == 0
    (record,) = load_runs([tmp_path])
    assert record.result["macs"] is None and record.result["params"] == 116_267
    assert "cannot be counted" in capsys.readouterr().err


def test_unknown_device_is_refused():
    with pytest.raises(UsageError, match="unknown device"):
        run.main(["--variant", "compact", "--dataset", "digits", "--device", "gpu"])
