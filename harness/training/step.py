"""One training step of the loop, and how it notices that a loss is no longer a number."""

from typing import Any

import torch

from harness.data.pipeline import Batch
from harness.recipes import Recipe
from harness.training.device import autocast
from harness.training.optimiser import clip_gradients, gradient_norm, learning_rate, set_rate
from harness.training.setup import Training


class Step:
    """Loss, gradient, clipping, optimiser and average. Never makes the host wait for a GPU."""

    def __init__(self, training: Training):
        self.training, recipe = training, training.config.recipe
        self.weights = [p for p in training.model.parameters() if p.requires_grad]
        self.watch = LossWatch(recipe, training.steps_per_epoch, training.device, len(training.seeds))
        training.failures = self.watch.failures

    def __call__(self, batch: Batch, number: int) -> torch.Tensor:
        """Sums over the batch's images, of each seed: loss, correct. `number`: of the step in the whole run, from 0."""
        training, recipe, optimiser = self.training, self.training.config.recipe, self.training.optimiser
        set_rate(optimiser, learning_rate(recipe, number, training.steps_per_epoch))
        with autocast(training.device, training.config.precision):
            loss, sums = training.loss_of(batch)
        training.scaler.scale(loss.sum()).backward()  # type: ignore[union-attr]  # a tensor's product is a tensor
        training.scaler.unscale_(optimiser)
        norm = gradient_norm(self.weights, len(training.seeds))
        clip_gradients(self.weights, recipe, norm)
        self.watch.see(sums[..., 0] + self.watch.judged(norm, training.scaler), number)
        if training.device.type == "cpu":  # a GPU is asked after the epoch
            self.watch.check()
        training.scaler.step(optimiser)
        training.scaler.update()
        optimiser.zero_grad(set_to_none=True)
        if training.average is not None:
            training.average.update(training.model, number)
        return sums


class DivergenceError(RuntimeError):
    """The loss or its gradient is no longer a number, in every seed that was trained."""

    def __init__(self, reasons: dict[int, str]):
        super().__init__(reasons[0])
        self.reasons = reasons


class LossWatch:
    """Notices the first step of each seed whose loss or gradient is not finite. `see` is called after every step and
    never makes the host wait for a GPU; `check` reads the answer into `failures`, and raises when no seed is left."""

    def __init__(self, recipe: Recipe, steps_per_epoch: int, device: torch.device, seeds: int = 1):
        self._recipe, self._steps_per_epoch = recipe, steps_per_epoch
        self.failures: dict[int, str] = {}  # why, by the seed's place
        self._first = torch.full((seeds,), -1, dtype=torch.int64, device=device)  # the first bad step
        self.last_good: list[dict[str, Any] | None] = [None] * seeds  # the line of the last whole epoch

    def see(self, value: torch.Tensor, step: int) -> None:
        self._first = torch.where((self._first < 0) & ~torch.isfinite(value), step, self._first)

    def check(self) -> None:
        for seed, bad in enumerate(self._first.tolist()):
            if bad >= 0 and seed not in self.failures:
                self.failures[seed] = self._reason(seed, bad)
        if len(self.failures) == len(self._first):
            raise DivergenceError(self.failures)

    def _reason(self, seed: int, step: int) -> str:
        rate, last = learning_rate(self._recipe, step, self._steps_per_epoch), self.last_good[seed]
        before = "before it there was no whole epoch"
        if last:
            before = f"the last good loss was {last['train_loss']:.4g}, over epoch {last['epoch']}"
        place = f"epoch {step // self._steps_per_epoch + 1}, step {step} (learning rate {rate:.3g})"
        return f"the loss or its gradient is not finite at {place}; {before}"

    @staticmethod
    def judged(norm: torch.Tensor, scaler: torch.amp.GradScaler) -> torch.Tensor:
        """The gradient's norm, or 0 while the loss is scaled up: then it may overflow because of the scale alone. The
        scaler skips such a step and halves the scale; at a scale of 1 or less an overflow is no longer excused."""
        if not scaler.is_enabled():
            return norm
        return torch.where(scaler.scale(torch.ones_like(norm)) > 1, 0.0, norm)  # type: ignore[arg-type]
