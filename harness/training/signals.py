"""Owns what happens when somebody asks a run to stop: it is remembered, and the run stops where nothing is lost.
Refuses to raise inside a step.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

# SIGUSR1: what Slurm sends before it kills, if asked to.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


class StoppedError(Exception):
    """A signal stopped the run; its state is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@dataclass
class Stop:
    """The signal that asked, or none."""

    asked: int | None = None

    def check(self) -> None:
        """For work that has nothing of its own to save."""
        if self.asked is not None:
            raise StoppedError(self.asked)


@contextlib.contextmanager
def listening() -> Iterator[Stop]:
    """The first signal is remembered; the same a second time has its usual effect at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main thread hears signals
        yield stop
        return

    def heard(number: int, frame: FrameType | None) -> None:
        stop.asked = number
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, heard) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
