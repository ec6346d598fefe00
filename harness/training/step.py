"""One training step of the loop, and how it notices that a loss is no longer a number."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from harness.data.pipeline import Batch
from harness.recipes import Recipe
from harness.training.device import as_graph, autocast, generators_kept
from harness.training.optimiser import clip_gradients, gradient_norm, learning_rate, set_rate
from harness.training.setup import Training, derive


class Step:
    """Loss, gradient, clipping, optimiser, average and sums. Never makes the host wait for a GPU, where a whole batch's
    step is one CUDA graph: the host copies the batch and three numbers to where the graph reads them, and starts it."""

    def __init__(self, training: Training):
        self.training, recipe, device = training, training.config.recipe, training.device
        self.weights = [p for p in training.model.parameters() if p.requires_grad]
        self.watch = LossWatch(recipe, training.steps_per_epoch, device, len(training.seeds))
        training.failures = self.watch.failures
        # Of each seed over an epoch's images: loss, correct.
        self.totals = torch.zeros(len(training.seeds), 2, dtype=torch.float64, device=device)
        self.replay, start_s = None, time.perf_counter()
        if training.is_graph:
            self.replay = self._recorded()
            training.graph_seconds = time.perf_counter() - start_s

    def __call__(self, batch: Batch, number: int) -> None:
        """`number`: of the step in the whole run, from 0."""
        training, now = self.training, self._now(number)
        if training.world.size > 1:  # dropout's numbers of each process, whatever happened before
            torch.manual_seed(derive("dropout", *training.seeds, training.world.rank, number))
        if self.replay is None:
            self.now = now
            self._compute(batch)
        else:
            for on_device, value in zip(self.now, now):
                on_device.fill_(value)
            if batch.labels.shape[-1] < training.whole_batch:
                self._compute(batch)
            else:
                for mine, given in zip(tensors_of(self.batch), tensors_of(batch)):
                    mine.copy_(given)
                self.replay()
        if training.device.type == "cpu":  # a GPU is asked after the epoch
            self.watch.check()

    def _now(self, number: int) -> "Now":
        training, average = self.training, self.training.average
        rate = learning_rate(training.config.recipe, number, training.steps_per_epoch)
        return Now(rate, number, average.weight(number) if average else 0.0)

    def _compute(self, batch: Batch) -> None:
        training, recipe, optimiser, now = self.training, self.training.config.recipe, self.training.optimiser, self.now
        set_rate(optimiser, now.rate)
        sums = torch.zeros_like(self.totals)
        for part, together in training.parts(batch):
            with together:
                with autocast(training.device, training.config.precision):
                    loss, own = training.loss_of(part)
                training.scaler.scale(loss.sum()).backward()  # type: ignore[union-attr]  # a product is a tensor
            sums = sums + own
        training.world.sum(sums)
        training.scaler.unscale_(optimiser)
        norm = gradient_norm(self.weights, len(training.seeds))
        clip_gradients(self.weights, recipe, norm)
        self.watch.see(sums[..., 0] + self.watch.judged(norm, training.scaler), now.number)
        training.scaler.step(optimiser)
        training.scaler.update()
        optimiser.zero_grad(set_to_none=True)
        if training.average is not None:
            training.average.update(training.model, now.weight)
        self.totals += sums

    def _recorded(self) -> Callable[[], None]:
        """Recording takes steps for real: what they change is put back, in the memory that the graph knows."""
        training, device = self.training, self.training.device
        self.batch = training.whole_example()
        self.now = Now(*(torch.tensor(value, device=device) for value in self._now(0)))
        for group in training.optimiser.param_groups:
            group["capturable"] = True
        training.model.train()
        before = {id(tensor): (tensor.detach().clone(), tensor) for tensor in self._state()}  # which keeps its id
        with generators_kept(device):
            replay = as_graph(lambda: self._compute(self.batch), device)
        with torch.no_grad():
            for tensor in self._state():  # moments that were not there are zero at first
                tensor.copy_(before[id(tensor)][0] if id(tensor) in before else torch.zeros_like(tensor))
        return replay

    def _state(self) -> list[torch.Tensor]:
        """All that a step changes, but for the sums, which begin anew with each epoch."""
        training = self.training
        models = [training.model, *([training.average.model] if training.average else [])]
        found = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
        found += [value for state in training.optimiser.state.values() for value in state.values()]
        return [*found, self.watch.first_bad]


class Now(NamedTuple):
    """What differs from step to step. For a graph these are tensors."""

    rate: Any
    number: Any
    weight: Any  # of the weights in their average


def tensors_of(batch: Batch) -> tuple[torch.Tensor, ...]:
    return batch.images, batch.labels, *(batch.mix or ())


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
        self.first_bad = torch.full((seeds,), -1, dtype=torch.int64, device=device)  # step of each seed
        self.last_good: list[dict[str, Any] | None] = [None] * seeds  # the line of the last whole epoch

    def see(self, value: torch.Tensor, step: int | torch.Tensor) -> None:
        self.first_bad.copy_(torch.where((self.first_bad < 0) & ~torch.isfinite(value), step, self.first_bad))

    def check(self) -> None:
        for seed, bad in enumerate(self.first_bad.tolist()):
            if bad >= 0 and seed not in self.failures:
                self.failures[seed] = self._reason(seed, bad)
        if len(self.failures) == len(self.first_bad):
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
