"""What happens when a signal asks a run to stop: it is remembered, and the run stops between two steps, where its state
can be saved.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
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
    at_once: bool = False

    def check(self) -> None:
        """For work that has nothing of its own to save."""
        if self.asked is not None:
            raise StoppedError(self.asked)


_listening: list[Stop] = []  # the one of this process, while it listens


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """The first signal is remembered. A block inside of another gets the same Stop, so that what comes too late for the
    inner one stops the outer.

    After the first signal Ctrl-C has its usual effect at once, and the others have none: `timeout` and schedulers send
    them to a process, its parent and their group. A signal that is ignored stays ignored: a shell does that to what it
    starts in the background."""
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield Stop()
        return
    if _listening:
        yield _listening[0]
        return
    stop = Stop()
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]

    def heard(number: int, frame: FrameType | None) -> None:
        stop.asked = number
        for other in heeded:
            signal.signal(other, signal.SIG_DFL if other == signal.SIGINT else _nothing)
        if stop.at_once:
            stop.check()

    before = {number: signal.signal(number, heard) for number in heeded}
    _listening.append(stop)
    try:
        yield stop
    finally:
        _listening.clear()
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, about which Python complains where the second comes before it has seen to the first."""


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """For what takes long and has nothing to save: a signal ends it where it is."""
    with listening() as stop:
        stop.at_once = True
        try:
            stop.check()
            yield
        finally:
            stop.at_once = False


def wait(seconds: float) -> None:
    """For something that another process is at."""
    with listening() as stop:
        time.sleep(seconds)
        stop.check()


def heed() -> None:
    """Between two pieces of work: the one before may have had nothing left to stop when the signal came."""
    with listening() as stop:
        stop.check()
