"""A loss that is no longer a number is named with its step, and no GPU waits for that; fp16 has a gradient scaler,
whose skipped steps are no divergence."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.config import RunConfig, resolve
from harness.data.load import load
from harness.data.pipeline import DeviceSplit, scaling, to_device
from harness.datasets import DATASETS
from harness.experiment import run_cell
from harness.training import setup
from harness.training.checkpoint import PATTERN, read_state
from harness.training.estimate import blank_batch
from harness.training.evaluate import judged, read
from harness.training.loop import train
from harness.training.optimiser import learning_rate
from harness.training.setup import Training, build_model
from harness.training.signals import StoppedError
from harness.training.step import DivergenceError, LossWatch
from tests.copies import of_one_block
from tests.test_resume import CPU, assert_same, stopping_after
from tests.test_resume import SETTINGS as WITH_STATE
from variants.catalog import CATALOG

GradScaler = torch.amp.GradScaler


def config(epochs: int = 1, settings: Sequence[str] = (), precision: str = "fp16") -> RunConfig:
    settings = [*settings, *({"variant.depth=1"} - set(settings))]
    return resolve("compact", DATASETS["digits"], "quick", epochs=epochs, settings=settings, precision=precision)


def on_digits(config: RunConfig, device: torch.device, images: int | None = None) -> Training:
    data = load("digits", Path("data"))
    train_split, eval_split = to_device(data.train, device), to_device(data.test, device)
    few = DeviceSplit(train_split.images[:images], train_split.labels[:images])
    scale = scaling(data, config.recipe, device)
    return Training(config, build_model(config, device), few, few if images else eval_split, scale)


def one_step(monkeypatch, scaler: GradScaler, batch_loss: Callable | None = None) -> tuple[nn.Module, nn.Module]:
    """The model before and after a step on 32 images."""
    monkeypatch.setattr(setup, "gradient_scaler", lambda device, precision: scaler)
    if batch_loss is not None:
        monkeypatch.setattr(setup, "batch_loss", batch_loss)
    training = on_digits(config(), CPU, 32)
    (epoch,) = train(training)
    assert math.isfinite(epoch.line["train_loss"])
    return build_model(config(), CPU), training.model


def moved(models: tuple[nn.Module, nn.Module]) -> float:
    before, after = (model.parameters() for model in models)
    return max((p - q).abs().max().item() for p, q in zip(before, after, strict=True))


def test_fp16_learns_as_fp32_does_and_says_so(tmp_path):
    half, full = (run_cell(config(2, precision=p), Path("data"), tmp_path, CPU, quiet=True) for p in ("fp16", "fp32"))
    assert half.config["precision"] == "fp16" and half.config["run_id"] != full.config["run_id"]
    assert half.result["test_accuracy"] > 0.5
    for one, other in zip(half.epochs(), full.epochs(), strict=True):
        for name in ("train_loss", "test_loss"):
            assert one[name] == pytest.approx(other[name], rel=0.05) and one[name] != other[name], name


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "resnet18"])  # 20 s a step, in float16 on a CPU
def test_every_variant_has_what_fp16_needs_on_a_cpu(name):
    recipe = resolve(name, DATASETS["c10"], "common", batch_size=4, settings=of_one_block(name))
    model, batch = recipe.variant.module().train(), blank_batch(32, 4, recipe.recipe, CPU)
    with torch.autocast("cpu", torch.float16):
        loss, _ = setup.batch_loss(model, batch, recipe.recipe)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_evaluation_is_in_fp16_too():
    data, seen = load("digits", None), []  # type: ignore[arg-type]
    split, scale = to_device(data.test, CPU), scaling(data, config().recipe, CPU)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for precision in ("fp32", "bf16", "fp16"):
        read(judged(model, model, split, scale, precision))[0]
    assert seen == [torch.float32, torch.bfloat16, torch.float16]


# --- the scale -------------------------------------------------------------------------------------------------------


def test_a_step_that_overflows_is_skipped_and_the_scale_falls(monkeypatch):
    scaler = GradScaler("cpu", init_scale=2.0**40)
    assert moved(one_step(monkeypatch, scaler)) == 0 and scaler.get_scale() == 2.0**39
    scaler = GradScaler("cpu", init_scale=2.0**4)
    assert moved(one_step(monkeypatch, scaler)) > 0 and scaler.get_scale() == 2.0**4


def test_what_is_clipped_and_watched_is_the_unscaled_gradient(monkeypatch):
    norms, real = [], nn.utils.get_total_norm

    def watched(gradients):
        norms.append(real(gradients).item())
        return torch.tensor(norms[-1])

    monkeypatch.setattr(nn.utils, "get_total_norm", watched)
    for power in (0, 8):
        one_step(monkeypatch, GradScaler("cpu", init_scale=2.0**power))
    assert norms[0] == pytest.approx(norms[1], rel=0.01)


def endless(*args, real=setup.batch_loss):
    """A finite loss whose gradient is not."""
    loss, sums = real(*args)
    return loss * math.inf, sums


def not_a_number(*args, real=setup.batch_loss):
    loss, sums = real(*args)
    return loss, sums * math.nan


def test_a_gradient_is_excused_by_the_scale_alone(monkeypatch):
    assert moved(one_step(monkeypatch, GradScaler("cpu", init_scale=2.0), endless)) == 0
    with pytest.raises(DivergenceError, match="epoch 1, step 0 "):
        one_step(monkeypatch, GradScaler("cpu", init_scale=1.0), endless)


def test_a_loss_that_is_no_number_is_not_excused(monkeypatch):
    with pytest.raises(DivergenceError, match="epoch 1, step 0 "):
        one_step(monkeypatch, GradScaler("cpu"), not_a_number)


# --- the watch -------------------------------------------------------------------------------------------------------
RECIPE = resolve("compact", DATASETS["digits"], "quick", epochs=3).recipe


def watching(steps_per_epoch: int = 10) -> LossWatch:
    return LossWatch(RECIPE, steps_per_epoch, CPU)


def seeing(found: LossWatch, *values: float) -> LossWatch:
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
    found = seeing(watching(), *[1.0] * 23, bad)
    found.last_good = [{"epoch": 2, "train_loss": 0.123456}]
    with pytest.raises(DivergenceError, match=r"the last good loss was 0\.1235, over epoch 2"):
        found.check()
    seeing(watching(), 1.0, 2.0).check()


CUDA = pytest.param("cuda", marks=pytest.mark.cuda)


@pytest.mark.parametrize("name", ["cpu", CUDA])
def test_a_bad_step_ends_the_run(monkeypatch, name):
    """On the CPU it is the last one; a GPU is asked after the epoch."""
    steps, real = [], setup.batch_loss

    def batch_loss(*args):
        loss, sums = real(*args)
        steps.append(len(steps))
        return (loss, sums * math.nan) if len(steps) == 4 else (loss, sums)

    monkeypatch.setattr(setup, "batch_loss", batch_loss)
    settings = ["variant.depth=1"]
    one_epoch = resolve("compact", DATASETS["digits"], "quick", epochs=1, batch_size=2, settings=settings)
    with pytest.raises(DivergenceError, match="epoch 1, step 3 "):
        list(train(on_digits(one_epoch, torch.device(name))))
    assert len(steps) == (4 if name == "cpu" else 719)


# --- going on --------------------------------------------------------------------------------------------------------


def test_a_stopped_fp16_run_ends_as_if_it_had_not_been_stopped(tmp_path, monkeypatch):
    """The scale is one that changes all the time: one that began again would skip other steps."""
    scalers = []

    def changing(device: torch.device, precision: str) -> GradScaler:
        scalers.append(GradScaler("cpu", init_scale=2.0**24, growth_interval=7, enabled=precision == "fp16"))
        return scalers[-1]

    monkeypatch.setattr(setup, "gradient_scaler", changing)
    cell = partial(run_cell, config(2, WITH_STATE), Path("data"), device=CPU, quiet=True)
    whole = cell(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stopping_after(patch, 60)
        with pytest.raises(StoppedError):
            cell(tmp_path / "stopped")
    (saved,) = (tmp_path / "stopped").glob(f"*/{PATTERN}")
    assert read_state(saved)["scaler"]["scale"] == scalers[1].get_scale() != 2.0**24
    assert_same(cell(tmp_path / "stopped"), whole)
    assert scalers[0].state_dict() == scalers[2].state_dict()
