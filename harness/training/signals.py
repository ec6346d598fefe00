"""Owns what happens when somebody asks a run to stop: it is remembered, and the run stops where nothing is lost.
Refuses to raise inside a step.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

# SIGHUP: the terminal is closed. SIGUSR1: what Slurm sends before it kills, if asked to.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


class StoppedError(Exception):
    """A signal stopped the run; its state is saved, unless the disk took none."""

    def __init__(self, number: int, saved: bool = True):
        lost = "nothing is lost" if saved else "its state could not be saved, only what was saved before is kept"
        super().__init__(f"stopped by {signal.Signals(number).name}; {lost}")
        self.exit_code = 128 + number


@dataclass
class Stop:
    """The signal that asked, or none."""

    asked: int | None = None

    def check(self) -> None:
        """For work that has nothing of its own to save."""
        if self.asked is not None:
            raise StoppedError(self.asked)


_heard: list[Stop] = []  # of whoever listens; one at most


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """The first signal is remembered. Whoever listens inside of somebody who listens hears the same, so that what the
    inner one no longer heeds reaches the outer."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread hears signals
        yield Stop()
        return
    if _heard:
        yield _heard[0]
        return
    stop = Stop()

    def heard(number: int, frame: FrameType | None) -> None:
        stop.asked = number

    _heard.append(stop)
    try:
        with handled_by(heard):
            yield stop
    finally:
        _heard.clear()


@contextlib.contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """The first signal calls it. After that Ctrl-C has its usual effect at once, and the others have none: `timeout`
    and schedulers tell a process, its parent and their group. One that is ignored was meant to be: a shell does that to
    what it starts in the background."""

    def first(number: int, frame: FrameType | None) -> None:
        for heard in heeded:
            signal.signal(heard, signal.SIG_DFL if heard == signal.SIGINT else _nothing)
        handler(number, frame)

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, first) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, about which Python complains where the second comes before it has seen to the first."""


def wait(seconds: float) -> None:
    """For something that another process is at."""
    with listening() as stop:
        time.sleep(seconds)
        stop.check()


def heed() -> None:
    """Between two pieces of work: the one before may have had nothing left to stop when the signal came."""
    with listening() as stop:
        stop.check()
