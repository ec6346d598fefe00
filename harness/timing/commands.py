"""Benchmarks of whole commands, each in a process of its own: how soon help appears, a small run beside busy processes,
and a report on many records.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from harness.records.benchmarks import Comparison
from harness.records.environment import ROOT
from harness.timing.synthetic import write_records
from harness.timing.turns import Way, take_turns

BUSY = 2  # processes
ALONE, BESIDE = "alone", f"beside {BUSY} busy processes"
ASKED_RECORDS, ASKED_S = 1000, 10.0  # the goal of a report
# Short, but made of the steps and evaluations that any run is made of.
A_RUN = (
    *("--variant", "vanilla", "--dataset", "digits", "--recipe", "quick", "--epochs", "2", "--holdout", "0.5"),
    *("--device", "cpu", "--quiet"),
)
KEEP_BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    pass
"""
HELP, TORCH = "python -m harness.run --help", 'python -c "import torch"'


def compare_start(args: Namespace) -> Iterator[Comparison]:
    ways = {
        HELP: Way(lambda: spent(["-m", "harness.run", "--help"])[0]),
        TORCH: Way(lambda: spent(["-c", "import torch"])[0]),
    }
    timings = take_turns(ways, args.rounds)
    facts = {"help_seconds": timings.median_s(HELP), "import_torch_seconds": timings.median_s(TORCH)}
    yield timings.compare("start", "starts/s", HELP, TORCH, facts)


def compare_beside(args: Namespace) -> Iterator[Comparison]:
    ways = {ALONE: Way(_a_run, 60.0), BESIDE: Way(lambda: _a_run(BUSY), 60.0)}
    timings = take_turns(ways, args.rounds)
    facts = {f"seconds {way}": timings.median_s(way) for way in ways}
    yield timings.compare(BESIDE, "runs/min", BESIDE, ALONE, facts)


def _a_run(beside: int = 0) -> float:
    with tempfile.TemporaryDirectory() as out, busy(beside):
        return spent(["-m", "harness.run", *A_RUN, "--out", out])[0]


@contextlib.contextmanager
def busy(count: int) -> Iterator[list[subprocess.Popen]]:
    """So many other programs, each of which would take a core for itself."""
    others = [subprocess.Popen([sys.executable, "-c", KEEP_BUSY]) for _ in range(count)]
    try:
        yield others
    finally:
        for other in others:
            other.kill()
            other.wait()


def compare_reports(args: Namespace) -> Iterator[Comparison]:
    """So many records against a tenth of them: a ratio of 1 is a time that grows as the records do. And against the
    rate that the goal asks for, a baseline that is no command."""
    few = max(1, args.records // 10)
    peaks: list[int] = []
    with tempfile.TemporaryDirectory() as folder:

        def report(count: int) -> Way:
            runs, out = Path(folder) / str(count), Path(folder) / "paper"
            write_records(runs, count, args.epochs)

            def once() -> float:
                seconds, peak = spent(["-m", "harness.report", "--results", str(runs), "--out", str(out)])
                peaks.append(peak)
                return seconds

            return Way(once, count)

        all_of, tenth = f"{args.records:,} records", f"{few:,} records"
        asked = f"{ASKED_RECORDS:,} records in {ASKED_S:g} s"
        ways = {all_of: report(args.records), tenth: report(few), asked: Way(lambda: ASKED_S, ASKED_RECORDS)}
        timings = take_turns(ways, args.rounds)
    facts = {"seconds": timings.median_s(all_of), "epochs": args.epochs, "peak_memory_bytes": max(peaks)}
    name = f"report {args.records}"
    yield timings.compare(name, "records/s", all_of, tenth, facts)
    yield timings.compare(f"{name} against {ASKED_S:g} s", "records/s", all_of, asked)


def spent(arguments: list[str]) -> tuple[float, int]:
    """Wall seconds and peak bytes of a Python command that must succeed."""
    start_s = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = child.stderr.read() if child.stderr else b""
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start_s
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, arguments, stderr=error)
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
