"""What is shown while a run trains: a bar on a terminal, and one line an epoch."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tqdm import tqdm

REFRESH_S = 0.5  # a reading of the loss makes a GPU wait


def duration(seconds: float) -> str:
    """3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60):02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Counts images over a whole run. `quiet` shows nothing."""

    def __init__(self, title: str, epochs: int, images_per_epoch: int, quiet: bool = False):
        self.title, self.epochs, self.images_per_epoch, self.quiet = title, epochs, images_per_epoch, quiet
        self.earlier, self.start_s = 0, time.monotonic()
        self.shown_s = self.start_s
        self.bar: tqdm | None = None

    def begin(self, images: int) -> None:
        """So many images were trained on before this process: they took none of its time."""
        self.earlier, self.start_s = images, time.monotonic()
        self.shown_s = self.start_s

    def batch(self, epoch: int, images: int, totals: torch.Tensor) -> None:
        """`images` done in this epoch; `totals` (loss and correct sum of each seed) lies on the device, seldom read."""
        if not self._is_time_to_show():
            return
        loss, correct = (totals.view(-1, 2).mean(0) / max(images, 1)).tolist()
        done = (epoch - 1) * self.images_per_epoch + images
        rate = (done - self.earlier) / (self.shown_s - self.start_s)
        self._show(
            done,
            self.epochs * self.images_per_epoch,
            f"epoch {epoch}/{self.epochs}  loss {loss:.3f}  accuracy {correct:.1%}  {rate:,.0f} images/s  "
            f"{duration(self._left_s(done))} left",
        )

    def epoch(self, line: dict[str, Any]) -> None:
        split = "val" if "val_loss" in line else "test"
        self._print(
            f"{self.title} epoch {line['epoch']}/{self.epochs}  train loss {line['train_loss']:.3f} "
            f"accuracy {line['train_accuracy']:.1%}  {split} loss {line[f'{split}_loss']:.3f} "
            f"accuracy {line[f'{split}_accuracy']:.1%}  {self.images_per_epoch / line['seconds']:,.0f} images/s  "
            f"{duration(self._left_s(line['epoch'] * self.images_per_epoch))} left"
        )

    def judging(self, what: str, images: int, check: Callable[[], None]) -> Callable[[int], None]:
        """Announces an evaluation after the training. Returns what the evaluation calls with the number of images done;
        it calls `check` each time."""
        self._print(f"{self.title} evaluated {what}")

        def tell(done: int) -> None:
            check()
            if self._is_time_to_show():
                self._show(done, images, f"{what}: {done / images:.0%}")

        return tell

    def close(self) -> None:
        """Removes the bar, however the run ended."""
        bar, self.bar = self.bar, None
        if bar is not None:
            with _if_it_can_be_shown():
                bar.close()

    def _is_time_to_show(self) -> bool:
        now_s = time.monotonic()
        if self.quiet or now_s - self.shown_s < REFRESH_S or not sys.stdout.isatty():
            return False
        self.shown_s = now_s
        return True

    def _left_s(self, done: int) -> float:
        per_image_s = (time.monotonic() - self.start_s) / max(1, done - self.earlier)
        return per_image_s * (self.epochs * self.images_per_epoch - done)

    def _show(self, done: int, total: int, text: str) -> None:
        with _if_it_can_be_shown():
            if self.bar is None or self.bar.total != total:
                self.close()
                form = {"bar_format": "{desc} [{bar:20}] {postfix}", "ascii": ".#", "dynamic_ncols": True}
                self.bar = tqdm(desc=self.title, total=total, file=sys.stdout, leave=False, **form)
            self.bar.n, self.bar.postfix = done, text
            self.bar.refresh()

    def _print(self, text: str) -> None:
        """Above the bar."""
        if not self.quiet:
            with _if_it_can_be_shown():
                tqdm.write(text, file=sys.stdout)
                sys.stdout.flush()


@contextlib.contextmanager
def _if_it_can_be_shown() -> Iterator[None]:
    """A full disk or a closed terminal ends no training; a pipe without a reader does, as for any command."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
