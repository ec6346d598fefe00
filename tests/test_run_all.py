"""run_all.sh, stopped: what it runs is told, saves and is waited for, and no report is made of a part of the runs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INT, TERM, USR1, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP

# In the place of .venv/bin/python: it has every module and sees a device. Its sweep hears signals as a real one does.
PYTHON = f"""#!{sys.executable}
import os, sys, time
from pathlib import Path
words = sys.argv[1:]
if words[0] != "-m":
    sys.exit()
with open("ran", "a") as file:
    print(*words[1:], file=file)
if words[1] == "harness.report" or "--dry-run" in words:
    sys.exit()
sys.path.insert(0, {str(ROOT)!r})
from harness.training.signals import listening
with listening() as stop:
    end_s = time.monotonic() + 30  # nothing outlives a test that failed
    Path("pid").write_text(str(os.getpid()))
    Path("pid").rename("sweep")
    while stop.asked is None and time.monotonic() < end_s:
        if Path("code").exists():
            sys.exit(int(Path("code").read_text()))
        time.sleep(0.01)
    time.sleep(0.5)
    Path("saved").touch()
    sys.exit(128 + (stop.asked or 0))
"""
SWEEPS = {
    "--quick": "harness.sweep quick --device cpu --out results-quick/runs",
    "--full": "harness.sweep main --data-dir data --out results/runs",
    "--cpu": "harness.sweep main --data-dir data --out results/runs",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout of the script alone, with a made-up Python."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    shutil.copy(ROOT / "run_all.sh", tmp_path)
    return tmp_path


def started(place: Path, mode: str = "--quick", **own: str) -> tuple[subprocess.Popen, int]:
    """The script in a process group of its own, and its sweep's process number once that listens."""
    narrowing = ("SEEDS", "VARIANTS", "DATASETS", "OUT", "JOBS")
    env = {name: value for name, value in os.environ.items() if name not in narrowing} | own
    command = ["bash", str(place / "run_all.sh"), mode]
    script = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True)
    await_(lambda: (place / "sweep").exists() or script.poll() is not None)
    return script, int((place / "sweep").read_text())


def await_(happened) -> None:
    end_s = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def ended(script: subprocess.Popen) -> tuple[int, str]:
    told = script.communicate(timeout=60)[1]
    with pytest.raises(ProcessLookupError):
        os.killpg(script.pid, signal.SIGKILL)  # nobody of the group is left
    return script.returncode, told


@pytest.mark.parametrize(
    ("send", "number"),
    [(send, number) for send in (os.kill, os.killpg) for number in (INT, TERM, USR1, HUP)],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value.__name__,
)
def test_a_signal_for_the_script_is_one_for_its_sweep(place, send, number):
    """For the script alone, and for its whole process group, as Ctrl-C is."""
    script, _ = started(place)
    send(script.pid, number)
    code, told = ended(script)
    assert code == 128 + number and (place / "saved").exists()
    assert told.startswith("harness.sweep was stopped") and told.endswith(" goes on: bash run_all.sh --quick\n")
    assert (place / "ran").read_text() == SWEEPS["--quick"] + "\n", "no report of a part of the runs"


@pytest.mark.parametrize("mode", ["--full", "--cpu"])
@pytest.mark.parametrize("number", [INT, TERM], ids=lambda number: number.name)
def test_however_it_was_started(place, mode, number):
    script, _ = started(place, mode)
    os.kill(script.pid, number)
    code, told = ended(script)
    assert code == 128 + number and (place / "saved").exists() and told.endswith(f"bash run_all.sh {mode}\n")
    assert (place / "ran").read_text() == SWEEPS[mode] + "\n"


def test_the_same_signal_many_times_costs_nothing(place):
    """As `timeout` sends it, to the script and to its group."""
    script, _ = started(place)
    for _ in range(3):
        os.kill(script.pid, TERM)
        time.sleep(0.1)
    assert ended(script)[0] == 143 and (place / "saved").exists()


def test_ctrl_c_a_second_time_ends_it_at_once(place):
    script, _ = started(place)
    for _ in range(2):
        os.killpg(script.pid, INT)
        time.sleep(0.1)
    assert ended(script)[0] == 130 and not (place / "saved").exists()


@pytest.mark.parametrize("mode", SWEEPS)
@pytest.mark.parametrize("number", [TERM, USR1, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_comes_after_a_sweep_that_was_stopped_itself(place, mode, number):
    script, sweep = started(place, mode)
    os.kill(sweep, number)
    code, told = ended(script)
    assert code == 128 + number and told.endswith(f"the same command goes on: bash run_all.sh {mode}\n")
    assert (place / "ran").read_text() == SWEEPS[mode] + "\n"


@pytest.mark.parametrize("mode", SWEEPS)
@pytest.mark.parametrize("sweeps", [0, 1])
def test_a_sweep_that_ended_by_itself_is_reported(place, mode, sweeps):
    """With failed cells too, whose exit code is then the script's."""
    script, _ = started(place, mode)
    (place / "code.part").write_text(str(sweeps))
    (place / "code.part").rename(place / "code")
    assert ended(script) == (sweeps, "")
    ran = (place / "ran").read_text().splitlines()
    assert ran[0] == SWEEPS[mode] and ran[1].startswith("harness.report ") and len(ran) == 2


@pytest.mark.parametrize("mode", ["--quick", "--full"])
def test_how_many_at_once_is_passed_on(place, mode):
    (place / "code").write_text("2")
    ended(started(place, mode, JOBS="3")[0])
    words = (place / "ran").read_text().splitlines()[0].split()
    assert words[words.index("--jobs") + 1] == "3"
