"""What a person sees of a training: a bar or a line an epoch, the rate, and the time that is left."""

import errno
import os
import sys
from pathlib import Path

import pytest
import torch

from harness.config import resolve
from harness.data.load import load
from harness.data.pipeline import DeviceSplit, scaling, to_device
from harness.datasets import DATASETS
from harness.experiment import trained_again
from harness.training import loop
from harness.training.checkpoint import Checkpoints, Position
from harness.training.loop import train
from harness.training.progress import Progress, duration
from harness.training.setup import Training, build_model


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


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The clock, to be set."""
    now = [0.0]
    monkeypatch.setattr("harness.training.progress.time.monotonic", lambda: now[0])
    return now


def shown_on(monkeypatch, tty: bool) -> Screen:
    monkeypatch.setattr(sys, "stdout", screen := Screen(tty))
    return screen


@pytest.mark.parametrize("tty", [True, False])
def test_progress(tty, now, monkeypatch):
    """On a terminal a bar with loss, accuracy, rate and time left; elsewhere one line an epoch and nothing between."""
    screen = shown_on(monkeypatch, tty)
    progress = Progress("compact c10", 2, 100)
    now[0] = 10.0
    progress.batch(1, 50, torch.tensor([100.0, 25.0]))
    assert bool(screen.text) == tty
    if tty:
        shown = ("compact c10", "epoch 1/2", "loss 2.000", "accuracy 50.0%", "5 images/s", "30 s left", "#####...")
        assert all(words in screen.text for words in shown)
    now[0] = 25.0
    progress.epoch(EPOCH)
    assert "test loss 1.500 accuracy 40.0%" in screen.text and "25 s left\n" in screen.text
    assert screen.text.endswith("\n") != tty, "the bar is below the line"
    progress.close()
    assert screen.text[-1] == ("\r" if tty else "\n"), "nothing of the bar is left"


def test_quiet_is_quiet(now, monkeypatch):
    screen = shown_on(monkeypatch, True)
    progress = Progress("compact c10", 2, 100, quiet=True)
    now[0] = 10.0
    progress.batch(1, 50, torch.tensor([100.0, 25.0]))
    progress.epoch(EPOCH)
    progress.judging("under corruptions", 100, lambda: None)(50)
    progress.close()
    assert screen.text == ""


class Closed(Screen):
    """Takes nothing, for this reason."""

    def __init__(self, number: int, tty: bool):
        super().__init__(tty)
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("tty", [True, False])
def test_progress_that_cannot_be_shown_ends_no_training(tty, now, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed(errno.EIO, tty))
    progress = Progress("compact digits", 2, 100)
    for epoch in (1, 2):
        now[0] += 10.0
        progress.batch(epoch, 50, torch.tensor([100.0, 25.0]))
        progress.epoch(EPOCH | {"epoch": epoch})
    progress.judging("under corruptions", 100, lambda: None)(50)
    progress.close()
    monkeypatch.setattr(sys, "stdout", Closed(errno.EPIPE, tty))
    with pytest.raises(BrokenPipeError):
        Progress("", 1, 100).epoch(EPOCH)


@pytest.mark.parametrize("tty", [True, False])
def test_progress_of_a_run_that_goes_on_within_an_epoch(tty, now, monkeypatch):
    """What another process trained took none of this one's time: 10 images in 10 s leave 100 s for 100."""
    screen = shown_on(monkeypatch, tty)
    progress = Progress("", 3, 100)
    now[0] = 50.0  # restoring
    progress.begin(190)
    now[0] = 55.0
    progress.batch(2, 95, torch.tensor([95.0, 0.0]))
    assert not tty or ("1 images/s" in screen.text and "1 min 45 s left" in screen.text)
    now[0] = 60.0
    progress.epoch(EPOCH | {"epoch": 2})
    assert "1 min 40 s left" in screen.text


def test_the_loop_tells_the_progress_where_it_begins(tmp_path, monkeypatch):
    """A run that goes on after 1 of 3 batches of 32 images in the second of two epochs begins at the 129th image."""
    settings = ["variant.depth=1"]
    config = resolve("compact", DATASETS["digits"], "quick", epochs=2, batch_size=32, settings=settings)
    data, device = load("digits", Path("data")), torch.device("cpu")
    split = to_device(data.train, device)
    few, scale = DeviceSplit(split.images[:96], split.labels[:96]), scaling(data, config.recipe, device)
    begun = []

    class Heard(Progress):
        def begin(self, images):
            begun.append(images)

    for at in (None, (1, 0), (2, 0), (2, 1), (3, 0)):
        monkeypatch.setattr(loop, "restore", lambda checkpoints, training, at=at: [Position(*at) if at else Position()])
        training = Training(config, build_model(config, device), few, few, scale)
        list(train(training, Heard("", 2, 96, quiet=True), Checkpoints(tmp_path, {}) if at else None))
    assert begun == [0, 0, 96, 128, 192]


def test_a_run_that_is_repeated_in_part_counts_that_part_and_leaves_a_clean_line(monkeypatch):
    screen = shown_on(monkeypatch, True)
    settings = ["variant.depth=1"]
    config = resolve("compact", DATASETS["digits"], "quick", epochs=5, batch_size=512, settings=settings)
    epochs = trained_again(config, Path("data"), torch.device("cpu"), 2)
    next(epochs)
    assert "epoch 1/2" in screen.text
    epochs.close()
    assert screen.text.endswith(("\n", "\r"))


def test_durations():
    assert [duration(s) for s in (3.4, 245, 7620)] == ["3 s", "4 min 05 s", "2 h 07 min"]
