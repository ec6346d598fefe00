"""What a person sees of a training: a bar or a line an epoch, the rate, and the time that is left."""

import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from harness.config import resolve
from harness.data.load import load
from harness.data.pipeline import DeviceSplit, scaling, to_device
from harness.datasets import DATASETS
from harness.experiment import build_model, trained_again
from harness.training.checkpoint import Position
from harness.training.loop import Compute, train
from harness.training.progress import Progress, duration


class Screen:
    def __init__(self, tty: bool):
        self.tty, self.text = tty, ""

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


EPOCH = {
    "epoch": 1,
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "test_loss": 1.5,
    "test_accuracy": 0.4,
    "seconds": 20.0,
}


@pytest.mark.parametrize("tty", [True, False])
def test_progress(tty, monkeypatch):
    """On a terminal a bar with loss, accuracy, rate and time left; elsewhere one line an epoch and nothing between."""
    now = [0.0]
    monkeypatch.setattr("harness.training.progress.time.monotonic", lambda: now[0])
    screen = Screen(tty)
    progress = Progress("compact c10", 2, 100, screen)  # type: ignore[arg-type]
    now[0] = 10.0
    progress.batch(1, 50, torch.tensor([100.0, 25.0]))
    assert bool(screen.text) == tty
    if tty:
        for words in ("epoch 1/2", "loss 2.000", "accuracy 50.0%", "5 images/s", "30 s left", "#####..."):
            assert words in screen.text
    now[0] = 25.0
    progress.epoch(EPOCH)
    assert "test loss 1.500 accuracy 40.0%" in screen.text and "25 s left" in screen.text
    assert screen.text.endswith("\n") != tty


@pytest.mark.parametrize("tty", [True, False])
def test_progress_of_a_run_that_goes_on_within_an_epoch(tty, monkeypatch):
    """What another process trained took none of this one's time: 10 images in 10 s leave 100 s for 100."""
    now = [0.0]
    monkeypatch.setattr("harness.training.progress.time.monotonic", lambda: now[0])
    screen = Screen(tty)
    progress = Progress("", 3, 100, screen)  # type: ignore[arg-type]
    now[0] = 50.0  # restoring
    progress.begin(190)
    now[0] = 55.0
    progress.batch(2, 95, torch.tensor([95.0, 0.0]))
    assert not tty or ("1 images/s" in screen.text and "1 min 45 s left" in screen.text)
    now[0] = 60.0
    progress.epoch(EPOCH | {"epoch": 2})
    assert "1 min 40 s left" in screen.text


def test_the_loop_tells_the_progress_where_it_begins():
    """A run that goes on after 1 of 3 batches of 32 images in the second of two passes begins at the 129th image."""
    config = resolve("compact", DATASETS["digits"], "quick", epochs=2, settings=["recipe.batch_size=32"])
    data, device = load("digits", None), torch.device("cpu")  # type: ignore[arg-type]
    split = to_device(data.train, device)
    few, scale = DeviceSplit(split.images[:96], split.labels[:96]), scaling(data, config.recipe, device)
    begun = []

    class Heard(Progress):
        def begin(self, images):
            begun.append(images)

    class Found:
        carried: ClassVar = {}

        def __init__(self, *at):
            self.at = Position(*at)

        def restored(self, parts):
            return self.at

        def due(self):
            return False

        def save(self, position, parts):
            pass

    for keeper in (None, Found(1, 0), Found(2, 0), Found(2, 1), Found(3, 0)):
        model = build_model(config, device)
        parts = config, model, Compute(model, config), few, few, scale
        list(train(*parts, Heard("", 2, 96, quiet=True), keeper))  # type: ignore[arg-type]
    assert begun == [0, 0, 96, 128, 192]


def test_a_run_that_is_repeated_in_part_counts_that_part_and_leaves_the_bar_s_line(monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen := Screen(True))
    config = resolve("compact", DATASETS["digits"], "quick", epochs=5)
    epochs = trained_again(config, Path("data"), torch.device("cpu"), 2)
    next(epochs)
    assert "epoch 1/2" in screen.text and not screen.text.endswith("\n")
    epochs.close()
    assert screen.text.endswith("\n")


def test_durations():
    assert [duration(s) for s in (3.4, 245, 7620)] == ["3 s", "4 min 05 s", "2 h 07 min"]
