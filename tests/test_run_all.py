"""run_all.sh: which commands it runs, with which words; of a sweep that was stopped it writes no report."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from harness import report, reproduce, sweep
from harness.training.signals import StoppedError
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]

# In the place of .venv/bin/python: it has every module, sees a device or not, and writes down what it is to run.
NOTING = """#!/bin/bash
[[ $1 == -m ]] && echo "${@:2}" >> ran
[[ $1 == -c ]] && exit "${NO_DEVICE:-0}"
exit 0
"""
QUICK = (
    "harness.reproduce quick --device cpu --out results-quick/runs{} report --study quick --results results-quick/runs"
)
FULL = "harness.reproduce main{} --data-dir data --out results/runs report --results results/runs --html"


def checkout(folder: Path, python: str) -> Path:
    """Of the script alone, with such a Python."""
    made_up = folder / ".venv" / "bin" / "python"
    made_up.parent.mkdir(parents=True)
    made_up.write_text(python)
    made_up.chmod(0o755)
    return Path(shutil.copy(ROOT / "run_all.sh", folder))


def ran(folder: Path, *words: str, code: int = 0, **own: str) -> list[str]:
    env = {"PATH": os.environ["PATH"], **own}
    script = checkout(folder, NOTING)
    done = subprocess.run(["bash", script, *words], env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return (folder / "ran").read_text().splitlines()


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "own", "command"),
    [
        (["--quick"], {}, QUICK.format("")),
        (["--quick"], {"JOBS": "3"}, QUICK.format(" --jobs 3")),
        ([], {}, FULL.format("")),
        (["--full"], {}, FULL.format("")),
        (["--cpu"], {"NO_DEVICE": "1"}, FULL.format("")),
        (["--full"], {"SEEDS": "0 1", "JOBS": "2"}, FULL.format(" --seed 0 1 --jobs 2")),
        ([], {"VARIANTS": "compact,timm", "DATASETS": " c10 ", "RECIPES": ""},
         FULL.format(" --variants compact timm --datasets c10")),
        (["--full"], {"RECIPES": "common, s1", "EPOCHS": "20"}, FULL.format(" --recipes common s1 --epochs 20")),
        (["--plan"], {"NO_DEVICE": "1", "OUT": "x", "DATA_DIR": "y"},
         "harness.sweep main --data-dir y --out x --dry-run"),
    ],
)  # fmt: skip
def test_what_is_run(tmp_path, words, own, command):
    (found,) = ran(tmp_path, *words, **own)
    assert found.removesuffix(" --bench results-quick/bench --out results-quick/paper --html") == command


def test_without_a_device_only_the_plan_is_shown(tmp_path):
    assert ran(tmp_path, code=2, NO_DEVICE="1", SEEDS="0") == [
        "harness.sweep main --seed 0 --data-dir data --out results/runs --dry-run"
    ]


def test_the_checks(tmp_path):
    assert [line.split()[0] for line in ran(tmp_path, "--test", "-k", "data")] == ["ruff", "ruff", "pyright", "pytest"]
    assert (tmp_path / "ran").read_text().endswith("pytest -n auto --maxprocesses 4 --dist loadfile -k data\n")


def test_what_it_needs_is_what_the_project_requires():
    """Three packages count and measure, and training goes on without them."""
    text = (ROOT / "pyproject.toml").read_text().split("[project.optional")[0]
    required = set(re.findall(r'^    "([\w-]+)>=', text, re.M)) - {"fvcore", "torchinfo", "nvidia-ml-py"}
    modules = {{"scikit-learn": "sklearn", "pillow": "PIL"}.get(name, name) for name in required}
    line = re.search(r"needed=\((.*?)\)", (ROOT / "run_all.sh").read_text())
    assert line and set(line[1].split()) == modules


# --- training and reporting in one process ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1])
def test_a_sweep_that_ended_by_itself_is_reported(monkeypatch, code):
    """With failed runs too; the exit code is then the sweep's."""
    called = []
    monkeypatch.setattr(sweep, "main", lambda words: called.append(words) or code)
    monkeypatch.setattr(report, "main", lambda words: called.append(words) or 0)
    assert reproduce.main(["main", "--seed", "0", "report", "--results", "x"]) == code
    assert called == [["main", "--seed", "0"], ["--results", "x"]]


def test_nothing_is_reported_of_a_sweep_that_was_refused_or_stopped(monkeypatch, capsys):
    def stopped(words):
        raise StoppedError(signal.SIGUSR1)

    monkeypatch.setattr(report, "main", lambda words: pytest.fail("it was reported"))
    for words in (["mian", "report"], ["--seeds=0", "report"], ["main"]):
        with pytest.raises((SystemExit, UsageError)):
            reproduce.main(words)
    monkeypatch.setattr(sweep, "main", stopped)
    assert reproduce.main(["main", "report"]) == 128 + signal.SIGUSR1
    assert capsys.readouterr().err.endswith("nothing is lost; no report was written; the same command goes on\n")


def test_a_signal_for_the_script_is_one_for_its_sweep(tmp_path):
    """Its process becomes the sweep's, which saves: test_sweep.py."""
    script = checkout(tmp_path, "#!/bin/bash\n[[ $1 == -m ]] && echo $$ > pid\nexit 0\n")
    process = subprocess.Popen(["bash", script, "--quick"])
    assert process.wait() == 0 and int((tmp_path / "pid").read_text()) == process.pid
