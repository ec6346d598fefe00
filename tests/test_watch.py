"""A loss that is no longer a number is named with its step, and a GPU is never waited for."""

import math

import pytest
import torch

from harness.config import resolve
from harness.data.load import load
from harness.data.pipeline import scaling, to_device
from harness.datasets import DATASETS
from harness.experiment import build_model
from harness.training import loop, watch
from harness.training.loop import Compute, train
from harness.training.optimiser import learning_rate
from harness.training.progress import Progress
from harness.training.watch import DivergenceError, Watch

CONFIG = resolve("compact", DATASETS["digits"], "quick", epochs=3)
RECIPE = CONFIG.recipe


def watching(steps_per_epoch: int = 10) -> Watch:
    return Watch(RECIPE, steps_per_epoch, torch.device("cpu"))


def seeing(found: Watch, *values: float) -> Watch:
    for step, value in enumerate(values):
        found.see(torch.tensor(value, dtype=torch.float64), step)
    return found


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_bad_step_is_named_with_its_epoch_and_rate(bad):
    found = seeing(watching(), *[1.0] * 23, bad, 1.0, bad)
    with pytest.raises(DivergenceError) as told:
        found.check()
    rate = learning_rate(RECIPE, 23, 10)
    assert f"epoch 3, step 23 (learning rate {rate:.3g})" in str(told.value)
    assert "before it there was no whole epoch" in str(told.value)
    found.epoch({"epoch": 2, "train_loss": 0.123456})
    with pytest.raises(DivergenceError, match=r"the last good loss was 0\.1235, over epoch 2"):
        found.check()
    seeing(watching(), 1.0, 2.0).check()


class Slow:
    """As if the device came to what it was asked only after some questions."""

    patience = 3

    def __init__(self):
        self.left = self.patience

    def record(self, stream):
        assert stream == "its stream"

    def query(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_device_that_lags_is_asked_again_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(watch.torch.cuda, "Event", Slow)
    monkeypatch.setattr(watch.torch.cuda, "current_stream", lambda device: "its stream")
    found, heard = watching(), []
    for step in range(12):
        found.see(torch.tensor(math.nan if step == 2 else 1.0), step)
        heard.append(found._heard())
    # asked at step 0 (good), answered at 4 and asked again, answered at 8
    assert heard == [-1] * 8 + [2] + [-1] * 3
    with pytest.raises(DivergenceError, match="step 2 "):
        found.check(wait=True)


CUDA = pytest.param("cuda", marks=pytest.mark.cuda)


@pytest.mark.parametrize("name", ["cpu", CUDA])
def test_a_bad_step_ends_the_run(monkeypatch, name):
    """On the CPU it is the last one; a GPU may be given some more until the host hears of it."""
    device, steps, real = torch.device(name), [], loop.batch_loss

    def batch_loss(*args):
        loss, sums = real(*args)
        steps.append(len(steps))
        return (loss, sums * math.nan) if len(steps) == 4 else (loss, sums)

    monkeypatch.setattr(loop, "batch_loss", batch_loss)
    data = load("digits", None)  # type: ignore[arg-type]
    config = resolve("compact", DATASETS["digits"], "quick", epochs=1, batch_size=2)
    model = build_model(config, device)
    splits = to_device(data.train, device), to_device(data.test, device)
    parts = Compute(model, config), *splits, scaling(data, config.recipe, device)
    with pytest.raises(DivergenceError, match="epoch 1, step 3 "):
        list(train(config, model, *parts, Progress("", 1, 1437, quiet=True)))
    assert len(steps) == 4 if name == "cpu" else len(steps) < 500, "of 719"
