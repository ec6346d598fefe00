"""Owns noticing that the loss or its gradient is no longer a number, and at which step that began.
Refuses to make a GPU wait for it: the host asks after each step, and hears of it as soon as the device is that far.
"""

from typing import Any

import torch

from harness.recipe import Recipe
from harness.training.optimiser import learning_rate


class DivergenceError(RuntimeError):
    """The loss or its gradient is no longer a number."""

    def __init__(self, epoch: int, step: int, lr: float, last_good: str):
        place = f"epoch {epoch}, step {step} (learning rate {lr:.3g})"
        super().__init__(f"the loss or its gradient is not finite at {place}; {last_good}")


class Watch:
    """`see` after every step, `check` where it may end the run."""

    def __init__(self, recipe: Recipe, steps_per_epoch: int, device: torch.device):
        self._recipe, self._steps_per_epoch = recipe, steps_per_epoch
        self._first = torch.full((), -1, dtype=torch.int64, device=device)  # the first bad step
        self._underway: tuple[torch.Tensor, torch.cuda.Event] | None = None  # what the device was last asked
        self._last_good = "before it there was no whole epoch"

    def epoch(self, line: dict[str, Any]) -> None:
        """One has ended, and well."""
        self._last_good = f"the last good loss was {line['train_loss']:.4g}, over epoch {line['epoch']}"

    def see(self, value: torch.Tensor, step: int) -> None:
        self._first = torch.where((self._first < 0) & ~torch.isfinite(value), step, self._first)

    def check(self, wait: bool = False) -> None:
        """Without waiting, of a GPU what it has said by now; it then is at most a few steps further."""
        bad = int(self._first) if wait or not self._first.is_cuda else self._heard()
        if bad >= 0:
            raise self.diverged(bad)

    def diverged(self, step: int) -> DivergenceError:
        rate = learning_rate(self._recipe, step, self._steps_per_epoch)
        return DivergenceError(step // self._steps_per_epoch + 1, step, rate, self._last_good)

    @staticmethod
    def judged(norm: torch.Tensor, scaler: torch.amp.GradScaler) -> torch.Tensor:
        """The gradient's norm, or 0 while the loss is scaled up: then it may overflow because of the scale alone. The
        scaler skips such a step and halves the scale; at a scale of 1 or less an overflow is no longer excused."""
        if not scaler.is_enabled():
            return norm
        return torch.where(scaler.scale(torch.ones_like(norm)) > 1, 0.0, norm)  # type: ignore[arg-type]

    def _heard(self) -> int:
        if self._underway and not self._underway[1].query():
            return -1
        answer = int(self._underway[0]) if self._underway else -1
        asked = self._first.to("cpu", non_blocking=True), torch.cuda.Event()
        asked[1].record(torch.cuda.current_stream(self._first.device))
        self._underway = asked
        return answer
