"""Owns what a person sees while a run trains: a bar on a terminal, one plain line an epoch elsewhere.
Refuses to touch the device more than twice a second, and to end a training for what cannot be shown.
"""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch

REFRESH_S = 0.5


def duration(seconds: float) -> str:
    """3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60):02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Counts images over a whole run. `quiet` shows nothing."""

    def __init__(
        self,
        title: str,
        epochs: int,
        images_per_epoch: int,
        stream: TextIO | None = None,
        quiet: bool = False,
    ):
        self.title, self.epochs, self.images_per_epoch, self.earlier = title, epochs, images_per_epoch, 0
        self.stream, self.quiet = stream or sys.stdout, quiet
        self.bar = self.stream.isatty() and not quiet
        self.complained = False
        self.start_s = self.shown_s = time.monotonic()

    def begin(self, images: int) -> None:
        """So many images were trained on before this process: they took none of its time."""
        self.earlier, self.start_s = images, time.monotonic()
        self.shown_s = self.start_s

    def batch(self, epoch: int, images: int, totals: torch.Tensor) -> None:
        """`images` done in this epoch; `totals` (loss sum, correct sum, ...) lies on the device and is seldom read."""
        now_s = time.monotonic()
        if not self.bar or now_s - self.shown_s < REFRESH_S:
            return
        self.shown_s = now_s
        loss, correct = (totals[:2] / max(images, 1)).tolist()
        done = (epoch - 1) * self.images_per_epoch + images
        filled = int(20 * done / (self.epochs * self.images_per_epoch))
        rate = (done - self.earlier) / (now_s - self.start_s)
        self._overwrite(
            f"{self.title} [{'#' * filled}{'.' * (20 - filled)}] epoch {epoch}/{self.epochs}  loss {loss:.3f}  "
            f"accuracy {correct:.1%}  {rate:,.0f} images/s  {duration(self._left_s(done))} left"
        )

    def epoch(self, line: dict[str, Any]) -> None:
        if self.quiet:
            return
        split = "val" if "val_loss" in line else "test"
        text = (
            f"{self.title} epoch {line['epoch']}/{self.epochs}  train loss {line['train_loss']:.3f} "
            f"accuracy {line['train_accuracy']:.1%}  {split} loss {line[f'{split}_loss']:.3f} "
            f"accuracy {line[f'{split}_accuracy']:.1%}  {self.images_per_epoch / line['seconds']:,.0f} images/s  "
            f"{duration(self._left_s(line['epoch'] * self.images_per_epoch))} left"
        )
        if self.bar:
            self._overwrite(text)
        else:
            self._show(text + "\n")

    def judging(self, what: str, images: int, check: Callable[[], None]) -> Callable[[int], None]:
        """Says what is evaluated after the training; the function that it returns hears how far, and calls `check`."""
        line = f"{self.title} evaluated {what}"
        if not self.quiet:
            self._overwrite(line) if self.bar else self._show(line + "\n")

        def tell(done: int) -> None:
            check()
            now_s = time.monotonic()
            if self.bar and now_s - self.shown_s >= REFRESH_S:
                self.shown_s = now_s
                self._overwrite(f"{line}: {done / images:.0%}")

        return tell

    def close(self) -> None:
        """Leaves the bar's line, however the run ended."""
        if self.bar:
            self._show("\n")

    def _left_s(self, done: int) -> float:
        per_image_s = (time.monotonic() - self.start_s) / max(1, done - self.earlier)
        return per_image_s * (self.epochs * self.images_per_epoch - done)

    def _overwrite(self, text: str) -> None:
        width = shutil.get_terminal_size((120, 24)).columns - 1  # a line that wraps cannot be overwritten
        self._show(f"\r\x1b[2K{text[:width]}")

    def _show(self, text: str) -> None:
        """A full disk may have room again at the next line; a pipe without a reader ends a run like any command."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self.complained:
                self.complained = True
                reason = error.strerror or error
                with contextlib.suppress(OSError):
                    print(f"{self.title}: goes on unseen, its progress cannot be shown: {reason}", file=sys.stderr)
