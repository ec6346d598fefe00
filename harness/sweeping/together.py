"""Shows a sweep whose cells train at once: a line for each cell that ends and, for small cells on a terminal, a bar of
the passes that are done. The lines that every cell prints are shown only if it failed, any other line at once.
"""

import re
import sys
import threading
from typing import TextIO

from harness.sweeping.workers import Job

A_PASS = re.compile(r" epoch \d+/\d+ ")  # in the line that a run prints after each
USUAL = re.compile(
    rf"^cell \d+: |{A_PASS.pattern}| evaluated under |: goes on after epoch |: (test|val) accuracy |; nothing is lost"
)
BAR = 30  # characters


class Together:
    """`passes`: of all cells. Lines come from a thread for each cell."""

    def __init__(self, passes: int, stream: TextIO | None = None):
        self.passes, self.done, self.stream = passes, 0, stream or sys.stdout
        self.printed: dict[int, list[str]] = {}
        self._terminal, self._one_at_a_time = self.stream.isatty(), threading.Lock()

    def heard(self, job: Job, line: str) -> None:
        """Keeps what every cell prints, in case this one fails."""
        with self._one_at_a_time:
            if not USUAL.search(line):
                self._write(f"{self._wiped()}[{job.number}] {line}")
                return
            self.printed.setdefault(job.number, []).append(line)
            self.done += bool(A_PASS.search(line))
            if self._terminal:
                filled = BAR * self.done // self.passes
                bar = f"[{'#' * filled}{'.' * (BAR - filled)}] {self.done} of {self.passes} passes"
                self._write(f"\r\x1b[2K{bar}")

    def ended(self, job: Job, passes: int, text: str, failed: bool) -> None:
        """`passes`: of this cell, some of which an earlier process may have done. The bar comes back with the next."""
        with self._one_at_a_time:
            printed = self.printed.pop(job.number, [])
            self.done += passes - sum(bool(A_PASS.search(line)) for line in printed)
            lines = [f"[{job.number}] {line}" for line in printed] if failed else []
            self._write("".join((self._wiped(), *lines, f"{text}\n")))

    def close(self) -> None:
        with self._one_at_a_time:
            self._write(self._wiped())

    def _wiped(self) -> str:
        return "\r\x1b[2K" if self._terminal else ""

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
