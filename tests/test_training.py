"""Training: the schedule worked by hand, who decays, what the loop counts, and a loss that may not move."""

import math
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.config import resolve
from harness.data.load import load
from harness.data.pipeline import Batch, DeviceSplit, Scaling, scaling, to_device
from harness.datasets import DATASETS
from harness.recipes import PUBLISHED, RECIPES, Recipe, fitted, recipe_of, shortened
from harness.training import device as devices
from harness.training import setup
from harness.training.evaluate import BATCH_IMAGES, judged, read
from harness.training.loop import Epoch, train
from harness.training.optimiser import learning_rate, make_optimiser, parameter_groups
from harness.training.progress import Progress
from harness.training.setup import Average, Training, batch_loss, build_model, derive, warm_up
from harness.training.step import DivergenceError
from variants.catalog import CATALOG, build
from variants.config import ViTConfig
from variants.fields import UsageError

CPU = torch.device("cpu")


# --- the learning rate -----------------------------------------------------------------------------------------------

TEN = Recipe(epochs=10, lr=1.0, lr_min=0.0, warmup_epochs=2)


def test_rate_by_step_worked_by_hand():
    """10 epochs of 5 steps, 10 steps of warm-up: 1/10 at step 0, 1 at steps 9 and 10, then half a cosine over 40."""
    rates = [learning_rate(TEN, step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert rates[10] == 1.0
    assert rates[20] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert rates[30] == pytest.approx(0.5)
    assert rates[49] == pytest.approx((1 + math.cos(math.pi * 39 / 40)) / 2)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_s_rate_stays_in_bounds_for_any_length(name):
    for epochs in (1, 3, 7, RECIPES[name].epochs):
        recipe = shortened(RECIPES[name], epochs)
        rates = [learning_rate(recipe, step, 200) for step in range(epochs * 200)]
        assert all(0 <= rate <= recipe.lr for rate in rates)
        assert all(rates[epochs:])  # S1's first epoch of 200 is at 0
        assert max(rates) == pytest.approx(recipe.lr)


def test_the_loop_uses_the_rate_of_each_step(digits):
    """The rate in the record is that of the epoch's last step, not of the one after it."""
    config = quick("compact", epochs=2)
    few = DeviceSplit(digits[0].images[:96], digits[0].labels[:96])
    lines = [epoch.line for epoch in run(config, few, few, digits[2])]
    assert [line["lr"] for line in lines] == [learning_rate(config.recipe, step, 3) for step in (2, 5)]


def test_first_step_moves_by_the_first_rate(digits):
    """Adam's first step moves each weight by the rate itself."""
    config = quick("compact", settings=["recipe.optimizer=adam", "recipe.weight_decay=0"])
    model = fresh(config)
    before = model.head.weight.detach().clone()
    few = DeviceSplit(digits[0].images[:32], digits[0].labels[:32])
    config = replace(config, recipe=replace(config.recipe, epochs=1, warmup_epochs=1.0))
    list(train(Training(config, model, few, few, digits[2])))
    moved = (model.head.weight - before).abs()
    assert moved.median().item() == pytest.approx(config.recipe.lr, rel=0.01)


# --- who decays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOG)
def test_decay_on_weights_alone(name):
    """Matrices of linear and convolution layers decay; no norm, bias, position, token, gain or temperature does."""
    with torch.device("meta"):
        model = build(name, 32, 10)
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, rest = parameter_groups(model, RECIPES["common"])
    assert decayed["weight_decay"] == RECIPES["common"].weight_decay and rest["weight_decay"] == 0
    forbidden = ("norm", "bias", "position", "pos_embed", "class_token", "cls_token", "gain", "temperature", "table")
    assert not [names[id(p)] for p in decayed["params"] if any(word in names[id(p)] for word in forbidden)]
    assert not [
        names[id(p)] for p in rest["params"] if names[id(p)].endswith(("qkv.weight", "head.weight", "conv.weight"))
    ]
    assert len(decayed["params"]) + len(rest["params"]) == len(names)


def test_decay_on_all():
    groups = parameter_groups(build("vanilla"), RECIPES["s1"])
    assert len(groups) == 1 and groups[0]["weight_decay"] == 5e-5


def test_a_norm_without_gradient_stays_and_a_matrix_shrinks():
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimiser = make_optimiser(model, Recipe(lr=0.1, weight_decay=0.5, warmup_epochs=0))
    for p in model.parameters():
        p.data.fill_(1.0)
        p.grad = torch.zeros_like(p)
    optimiser.step()
    assert model[0].weight.flatten()[0].item() == pytest.approx(0.95)  # 1 - .1 x .5
    assert all(p.flatten()[0].item() == 1.0 for p in (model[0].bias, *model[1].parameters()))


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dataset", ["svhn", "digits"])
def test_no_recipe_flips_digits(name, dataset):
    """But Lee's: its code mirrors SVHN."""
    fitted_recipe = fitted(RECIPES[name], DATASETS[dataset])
    assert ("flip" in fitted_recipe.augment) == (name == "lee")
    config = resolve("compact", DATASETS[dataset], name)
    assert config.recipe.augment == fitted_recipe.augment


def test_the_policy_is_the_data_set_s():
    assert "autoaugment-pil-svhn" in fitted(RECIPES["s1"], DATASETS["svhn"]).augment
    assert fitted(RECIPES["s1"], DATASETS["c100"]).augment == ("crop", "flip", "autoaugment-pil-cifar")


def test_published_names_a_recipe_for_every_family_but_timm():
    assert {name for name in CATALOG if name not in PUBLISHED} >= {"timm", "resnet18"}
    assert recipe_of("published", "vanilla") == ("s1", RECIPES["s1"])
    with pytest.raises(UsageError, match="no recipe was published"):
        recipe_of("published", "timm")


def test_published_values():
    """The facts of the sources that are easiest to get wrong."""
    assert (RECIPES["s1"].optimizer, RECIPES["s1"].weight_decay, RECIPES["s1"].schedule_unit) == ("adam", 5e-5, "epoch")
    assert (RECIPES["s2"].lr, RECIPES["s2"].batch_size, RECIPES["s2"].epochs) == (1e-2, 256, 100)
    assert (RECIPES["s0n"].cycles, RECIPES["s0n"].cutmix_alpha, RECIPES["s0n"].head_dropout) == (4, 0.5, 0.3)
    assert (RECIPES["s0-head"].beta2, RECIPES["s0-head"].clip, RECIPES["s0-head"].lr_min) == (0.99, 3.0, 1e-6)
    assert (RECIPES["cct"].lr, RECIPES["cct"].lr_min, RECIPES["cct"].weight_decay) == (5e-4, 0.0, 0.03)
    assert (RECIPES["lee"].epochs, RECIPES["lee"].warmup_epochs, RECIPES["lee"].mix_prob) == (300, 30, 0.5)
    assert {RECIPES[n].epochs for n in ("s1", "s0n", "s0-head", "cct", "common")} == {200}


# --- the loop --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[DeviceSplit, DeviceSplit, Scaling]:
    data = load("digits", None)  # type: ignore[arg-type]
    return to_device(data.train, CPU), to_device(data.test, CPU), scaling(data, RECIPES["quick"], CPU)


def quick(name: str, **changes):
    return resolve(name, DATASETS["digits"], "quick", **changes)


def fresh(config) -> Any:
    return build_model(config, CPU)


def run(config, train_split, eval_split, scale, model=None) -> list[Epoch]:
    model = fresh(config) if model is None else model
    return list(train(Training(config, model, train_split, eval_split, scale)))


def test_golden_losses_of_five_steps(digits):
    """Five steps of compact under the common recipe on digits. It moves when anything in the flow does: initialisation,
    order, augmentation, mixing, loss, optimiser, schedule. If it moves on purpose, raise harness.config.SEMANTICS."""
    normed = ["variant.final_norm=tokens"]  # as compact was when the losses were written down
    config = resolve("compact", DATASETS["digits"], "common", epochs=1, batch_size=64, settings=normed)
    few = DeviceSplit(digits[0].images[:320], digits[0].labels[:320])
    losses = []
    training = Training(config, fresh(config), few, few, digits[2])
    whole = training.loss_of

    def spy(batch):
        loss, sums = whole(batch)
        losses.append(loss.item())
        return loss, sums

    training.loss_of = spy
    list(train(training))
    assert losses == pytest.approx(GOLDEN, abs=2e-4)


GOLDEN = [2.2976522, 2.3303211, 2.3305812, 2.3523259, 2.2989070]


def test_compact_learns_digits(digits):
    lines = [epoch.line for epoch in run(quick("compact", epochs=4), *digits)]
    assert lines[-1]["test_accuracy"] > 0.7 and lines[-1]["train_loss"] < lines[0]["train_loss"]


def test_same_command_same_result(digits):
    few = DeviceSplit(digits[0].images[:96], digits[0].labels[:96])
    config = resolve(
        "compact", DATASETS["digits"], "common", epochs=2, batch_size=32, settings=["variant.drop_path=.2"]
    )
    first, second = ([e.line["train_loss"] for e in run(config, few, few, digits[2])] for _ in range(2))
    other = [e.line["train_loss"] for e in run(replace(config, seed=1), few, few, digits[2])]
    assert first == second and first != other


@pytest.mark.parametrize("names", [("compact", "patch2"), ("compact", "timm")])
def test_the_loop_feeds_every_variant_the_same_batches(digits, names, monkeypatch):
    fed = {}
    for name in names:
        seen = fed[name] = []

        def stand_in(model, batch, recipe, seen=seen):
            seen.append((batch.images.clone(), batch.labels.clone()))
            loss = sum(p.sum() for p in model.parameters()) * 0
            return loss, torch.zeros(2, dtype=torch.float64)

        monkeypatch.setattr(setup, "batch_loss", stand_in)
        config = resolve(name, DATASETS["digits"], "common", epochs=1, settings=["variant.drop_path=.3"])
        few = DeviceSplit(digits[0].images[:300], digits[0].labels[:300])
        run(config, few, DeviceSplit(few.images[:8], few.labels[:8]), digits[2])
    assert len(fed[names[0]]) == 3
    for (a_images, a_labels), (b_images, b_labels) in zip(fed[names[0]], fed[names[1]]):
        assert torch.equal(a_images, b_images) and torch.equal(a_labels, b_labels)


class Told(nn.Module):
    """Says class 0, with a confidence that grows with the batch's size: a mean over batches would show."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10))

    def forward(self, images):
        logits = self.weight.expand(len(images), 10).clone()
        logits[:, 0] = logits[:, 0] + len(images) / 10
        return logits


def test_short_last_batch_counts_as_what_it_is(digits):
    """70 images in batches of 32: images seen is 70, and the loss is the mean over images, not over batches."""
    labels = torch.zeros(70, dtype=torch.int64)
    split = DeviceSplit(torch.zeros(70, 3, 8, 8, dtype=torch.uint8), labels)
    config = quick("compact", epochs=2, settings=["recipe.label_smoothing=0"])
    model = Told()
    model.weight.requires_grad_(True)
    frozen = replace(config, recipe=replace(config.recipe, lr=1e-30, lr_min=0.0, weight_decay=0.0))
    lines = [e.line for e in run(frozen, split, split, digits[2], model)]
    sizes = torch.tensor([32.0, 32.0, 6.0])
    losses = torch.log(torch.exp(sizes / 10) + 9) - sizes / 10
    assert lines[0]["train_loss"] == pytest.approx(((losses * sizes).sum() / 70).item(), rel=1e-5)
    assert [line["images_seen"] for line in lines] == [70, 140]
    assert lines[0]["train_accuracy"] == 1.0


def test_mixed_labels_share_loss_and_accuracy():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    model = lambda images: logits  # noqa: E731
    from harness.data.augment.mixing import Mix

    mix = Mix(torch.tensor([0.7, 0.7]), torch.zeros(2, 4, dtype=torch.int64), torch.tensor([0.7, 0.7]))
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]), mix)
    loss, sums = batch_loss(model, batch, Recipe(label_smoothing=0.0))  # type: ignore[arg-type]
    low, high = math.log(math.exp(2) + 2) - 2, math.log(math.exp(2) + 2)
    assert loss.item() == pytest.approx(0.7 * low + 0.3 * high)
    assert sums.tolist() == pytest.approx([2 * loss.item(), 1.4])


def test_evaluation_is_in_eval_mode_and_leaves_training_mode(digits):
    """A model that is half noise in train mode is judged without noise, twice the same."""
    model = ViTConfig(image_size=8, width=16, depth=1, heads=2, mlp_width=16, dropout=0.5, drop_path=0.5,
                      drop_path_shape="constant", init="torch").module().train()  # fmt: skip
    first, second = (read(judged(model, model, digits[1], digits[2], "fp32"))[0] for _ in range(2))
    assert model.training and np.array_equal(first.confidence, second.confidence)
    model.eval()
    with torch.no_grad():
        logits = model(digits[2](digits[1].images))
    assert first.accuracy == pytest.approx((logits.argmax(1) == digits[1].labels).double().mean().item())
    assert first.nll == pytest.approx(nn.functional.cross_entropy(logits, digits[1].labels).item(), rel=1e-5)


def test_evaluation_in_several_batches_counts_every_image(digits, monkeypatch):
    model = fresh(quick("compact"))
    whole = read(judged(model, model, digits[1], digits[2], "fp32"))[0]
    monkeypatch.setitem(BATCH_IMAGES, "cpu", 50 * 64 / 1024)  # 50 images of 8 pixels
    parts = read(judged(model, model, digits[1], digits[2], "fp32"))[0]
    assert len(parts.predicted) == 360 and parts.nll == pytest.approx(whole.nll, rel=1e-4)


def test_divergence_in_the_very_last_step_is_caught(digits):
    """The last update ruins the weights after the last training loss was fine: the evaluation shows it."""
    config = quick("compact", epochs=1, batch_size=2000, settings=["recipe.lr=1e30", "recipe.warmup_epochs=0"])
    with pytest.raises(DivergenceError, match="epoch 1, step 0"):
        run(config, *digits)


def test_a_batch_norm_is_not_left_with_one_image():
    from harness.cell import check_batches

    normed = nn.Sequential(nn.BatchNorm2d(3))
    check_batches(normed, 100, 32)
    check_batches(nn.Linear(1, 1), 97, 32)
    with pytest.raises(UsageError, match="last batch of 1"):
        check_batches(normed, 97, 32)


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc's allocator is tuned")
def test_freed_memory_is_kept_for_the_next_step_and_given_back_for_the_next_cell():
    """In a process of its own: page faults of steps that use 20 MB each, and the memory left after a cell."""
    code = """
import resource, torch
from harness.training import device as devices
cpu = torch.device("cpu")
devices.keep_freed_memory(cpu)
def step(): return [torch.ones(2**20) for _ in range(5)]
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step(), step()
before = faults()
for _ in range(20): step()
kept = faults() - before
def resident(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
large = [torch.ones(2**20) for _ in range(100)]
del large
high = resident()
devices.forget_peak_memory(cpu)
print(kept, high - resident())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    faults, given_back = map(int, done.stdout.split())
    assert faults < 5120, "20 steps of 5 x 1024 pages each, had none been kept"
    assert given_back > 3e8


def test_peak_memory_is_forgotten_between_cells():
    devices.forget_peak_memory(CPU)
    low = devices.peak_memory_bytes(CPU)
    if low is None:
        pytest.skip("only Linux tells")
    held = torch.ones(64 * 2**20)
    high = devices.peak_memory_bytes(CPU)
    del held
    devices.forget_peak_memory(CPU)
    after = devices.peak_memory_bytes(CPU)
    assert high is not None and after is not None and high - low > 200 * 2**20 and high - after > 200 * 2**20


def test_average_follows_the_weights(digits):
    model = nn.Linear(2, 1)
    average = Average(model, 0.9)
    start = model.weight.detach().clone()
    model.weight.data += 1
    average.update(model, average.weight(0))  # (1 + 0) / (10 + 0): short at first
    torch.testing.assert_close(average.model.weight, start + 0.9)
    average.update(model, average.weight(10_000))
    torch.testing.assert_close(average.model.weight, start + 0.91)
    few = DeviceSplit(digits[0].images[:96], digits[0].labels[:96])
    lines = [e.line for e in run(quick("compact", epochs=2, settings=["recipe.ema=.95"]), few, few, digits[2])]
    plain = [e.line for e in run(quick("compact", epochs=2), few, few, digits[2])]
    assert lines[-1]["train_loss"] == plain[-1]["train_loss"] and lines[-1]["test_loss"] != plain[-1]["test_loss"]


def test_the_average_has_the_statistics_of_the_model():
    """Running means, variances and counts."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = Average(model, 0.9)
    model(torch.rand(8, 3))
    average.update(model, average.weight(0))
    for mine, theirs in zip(average.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, theirs) and mine is not theirs
    assert any(buffer.any() for buffer in average.model.buffers())


def test_clipping_bounds_the_step(digits):
    few = DeviceSplit(digits[0].images[:64], digits[0].labels[:64])
    gentle = quick("compact", epochs=1, settings=["recipe.clip=1e-9", "recipe.weight_decay=0"])
    model = fresh(gentle)
    before = [p.detach().clone() for p in model.parameters()]
    run(gentle, few, few, digits[2], model)
    moved = max((p - q).abs().max().item() for p, q in zip(model.parameters(), before))
    assert moved < 2e-4  # Adam's epsilon swallows gradients of 1e-9; unclipped, each weight moves by about the rate


def test_seeds_depend_on_purpose_and_parts_alone():
    assert derive("data", 0, 1) == derive("data", 0, 1)
    assert (
        len({derive("data", 0, 1), derive("data", 0, 2), derive("data", 1, 1), derive("init", 0, 1), derive("data", 1)})
        == 5
    )


def on_cuda(recipe: str, **rest) -> Training:
    """Compact on digits, or another variant."""
    device, name = torch.device("cuda"), rest.pop("variant", "compact")
    data, config = load("digits", Path("data")), resolve(name, DATASETS["digits"], recipe, **rest)
    splits = to_device(data.train, device), to_device(data.test, device)
    return Training(config, build_model(config, device), *splits, scaling(data, config.recipe, device))


@pytest.mark.cuda
@pytest.mark.parametrize("name", CATALOG)
def test_every_variant_trains_compiled_on_cuda(name):
    changes = ["variant.resize=32"] if CATALOG[name].resize else []
    training = on_cuda("common", variant=name, epochs=1, precision="bf16", compile=True, settings=changes)
    assert warm_up(training)
    (epoch,) = train(training)
    assert math.isfinite(epoch.line["train_loss"]) and epoch.line["images_seen"] == 1437


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [(), ("recipe.mix=either", "recipe.clip=1.0", "recipe.ema=0.9")])
def test_cuda_graphs_give_the_losses_of_the_eager_step(settings):
    """In float32, over full and short batches: what a replayed graph overwrites must have been read before."""
    lines = {}
    for compiled in (False, True):
        training = on_cuda("quick", epochs=2, compile=compiled, settings=settings)
        warm_up(training)
        lines[compiled] = [epoch.line for epoch in train(training)]
    for eager, graphed in zip(lines[False], lines[True], strict=True):
        for name in ("train_loss", "test_loss"):
            assert graphed[name] == pytest.approx(eager[name], rel=0.02), name


class NoWaiting(Progress):
    """Between the first and the last step of an epoch, any wait of the host for the device is an error."""

    def batch(self, epoch, images, totals):
        torch.cuda.set_sync_debug_mode("error" if images < self.images_per_epoch else "default")


@pytest.mark.cuda
@pytest.mark.parametrize(("compiled", "precision"), [(False, "bf16"), (True, "bf16"), (False, "fp16"), (True, "fp16")])
def test_no_step_waits_for_the_device(compiled, precision, monkeypatch):
    monkeypatch.setattr("harness.data.pipeline.CHUNK_BYTES", 2**17)  # several chunks: the next one must not wait either
    training = on_cuda("common", epochs=1, precision=precision, compile=compiled)
    warm_up(training)
    try:
        list(train(training, NoWaiting("", 1, len(training.train_split), quiet=True)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
