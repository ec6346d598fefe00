"""Python processes that start at once, for what only another process shows: kills, signals, locks, limits. They are
forks of a server that has imported torch and never computed, since threads do not survive a fork."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.test_resume", "harness.sweep", "torch._dynamo", "sklearn.datasets"])


class Process:
    """`target(*arguments)` with its output in the files LOG.out and LOG.err."""

    def __init__(self, log: Path, target: Callable[..., Any], *arguments: Any):
        self.log = log
        self.process: BaseProcess = FORKS.Process(target=_logged, args=(log, target, *arguments))
        self.process.start()

    def read(self, kind: str = "out") -> str:
        path = Path(f"{self.log}.{kind}")
        return path.read_text() if path.exists() else ""

    def until(self, words: str) -> None:
        """Waits until they are printed."""
        end_s = time.monotonic() + 120
        while words not in self.read():
            assert self.process.is_alive() and time.monotonic() < end_s, self.read("err")
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def ended(self) -> int | None:
        """The exit code; minus the signal that ended it."""
        self.process.join(300)
        return self.process.exitcode


def _logged(log: Path, target: Callable[..., Any], *arguments: Any) -> None:
    for handle, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), handle)
    target(*arguments)


def command(log: Path, *words: str) -> Process:
    """harness.run."""
    return Process(log, _run, *words)


def _run(*words: str) -> None:
    from harness import run
    from harness.commands import run_command

    run_command(run.main, list(words))
