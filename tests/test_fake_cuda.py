"""On a GPU that is only made up: no recipe's batches and no variant's training step make the host wait for the device
or mix devices. Values and speed need a real one: the tests marked `cuda`."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.config import RunConfig, resolve
from harness.data import corrupt, pipeline
from harness.data.augment import mixing
from harness.data.augment.steps import FLOAT_STEPS
from harness.data.load import ImageData
from harness.data.pipeline import Batch, Scaling, scaling, to_device, training_batches
from harness.datasets import CORRUPTION_NAMES, CORRUPTION_STRENGTHS, DATASETS
from harness.recipes import AUGMENTATIONS, PUBLISHED, RECIPES, Recipe, fitted
from harness.training import loop, setup, step
from harness.training.setup import Stepping, Training, data_generator
from tests.copies import of_one_block, random_split
from tests.fake_cuda import GPU, WaitsError, fake_cuda, moved
from variants.catalog import CATALOG

C10 = DATASETS["c10"]
SPLIT = random_split(10)
DATA = ImageData(C10, SPLIT, SPLIT, "", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
RECIPES_AND_PARTS = {
    **{name: fitted(recipe, C10) for name, recipe in RECIPES.items()},
    **{f"{name}, bilinear": Recipe(augment=(name,), interpolation="bilinear") for name in AUGMENTATIONS},
    **{
        f"{name} for each image": Recipe(mix=name, mix_per_image=True) for name in ("none", "mixup", "cutmix", "either")
    },  # type: ignore[arg-type]
}


# --- batches ---------------------------------------------------------------------------------------------------------


def batches(recipe: Recipe, kind: type[Scaling] = Scaling) -> list[Batch]:
    with fake_cuda() as gpu:
        split, scale = to_device(SPLIT, GPU), scaling(DATA, recipe, GPU)
        with gpu.strict():
            given = kind(scale.factor_CHW, scale.shift_CHW, scale.mean_C11)
            return list(training_batches(split, recipe, given, data_generator(0, 1)))


@pytest.mark.parametrize("name", RECIPES_AND_PARTS)
def test_no_recipe_s_batches_wait(monkeypatch, name):
    monkeypatch.setattr(pipeline, "CHUNK_BYTES", 8 * 3 * 32 * 32)  # two chunks
    found = batches(replace(RECIPES_AND_PARTS[name], batch_size=4))
    assert [len(batch.labels) for batch in found] == [4, 4, 2]
    is_float = any(step in RECIPES_AND_PARTS[name].augment for step in FLOAT_STEPS)
    for batch in found:
        assert batch.images.shape[1:] == (3, 32, 32)
        assert batch.images.dtype == (torch.float32 if is_float else torch.uint8)
        for part in (batch.images, batch.labels, *(batch.mix or ())):
            assert part.device == GPU and len(part) == len(batch.labels)


class Asking(Scaling):
    def __call__(self, images):
        assert images.sum().item() >= 0
        return super().__call__(images)


def test_a_planted_wait_in_the_pipeline_is_refused():
    with pytest.raises(WaitsError, match="_local_scalar_dense"):
        batches(Recipe(augment=("erase",)), Asking)


@pytest.mark.parametrize(("options", "why"), [({}, "blocking copy"), ({"non_blocking": True}, "not pinned")])
def test_a_planted_copy_that_waits_is_refused(monkeypatch, options, why):
    monkeypatch.setattr(mixing, "to_device", lambda tensor, device: tensor.to(device, **options))
    with pytest.raises(WaitsError, match=why):
        batches(RECIPES["common"])


def test_corruptions_wait_for_nothing_but_their_constants():
    made_once = corrupt.jpeg_constants, corrupt.bell
    for function in made_once:  # on a machine with a GPU, others may have made real ones
        function.cache_clear()
    try:
        with fake_cuda() as gpu:
            images, corruptions = to_device(SPLIT, GPU).images, corrupt.Corruptions()
            list(corruptions.of(images))
            with gpu.strict():
                found = list(corruptions.of(images))
    finally:
        for function in made_once:
            function.cache_clear()
    assert len(found) == len(CORRUPTION_NAMES) * CORRUPTION_STRENGTHS
    assert all(out.device == GPU and out.shape == images.shape and out.is_contiguous() for _, _, out in found)


# --- training steps --------------------------------------------------------------------------------------------------


class OverError(Exception):
    """All steps of the epoch are done; what comes after them may wait."""


def train_on_fake_cuda(
    config: RunConfig, model: nn.Module, monkeypatch: pytest.MonkeyPatch, graph: bool = True, parts: int = 1
) -> list[Batch]:
    """One epoch of the real loop, strictly from its first batch to its last."""
    real, seen = setup.training_batches, []

    def strictly(*args, **rest):
        with gpu.strict():
            for batch in real(*args, **rest):
                yield batch
                seen.append(batch)
        raise OverError

    monkeypatch.setattr(setup, "training_batches", strictly)
    with fake_cuda() as gpu:
        split, scale = to_device(SPLIT, GPU), scaling(DATA, config.recipe, GPU)
        training = Training(config, moved(model), split, split, scale, Stepping(graph, parts))
        with pytest.raises(OverError):
            next(loop.train(training))
    return seen


def a_step(name: str, recipe: str) -> RunConfig:
    return resolve(name, C10, recipe, epochs=1, batch_size=8, settings=["recipe.ema=0.9", *of_one_block(name)])


@pytest.mark.parametrize("name", CATALOG)
def test_no_variant_s_step_waits(monkeypatch, name):
    """Forward, backward, clipping, watch, optimiser and average, over a full batch and a short one."""
    config = a_step(name, "published" if name in PUBLISHED else "common")
    model = config.variant.module()
    before = [p.shape for p in model.parameters()]
    assert len(train_on_fake_cuda(config, model, monkeypatch)) == 2
    assert [p.shape for p in model.parameters()] == before and all(p.device == GPU for p in model.parameters())


@pytest.mark.parametrize("name", ["compact", "resnet18"])
def test_a_step_without_graph_does_not_wait_either(monkeypatch, name):
    config = a_step(name, "common")
    assert len(train_on_fake_cuda(config, config.variant.module(), monkeypatch, graph=False)) == 2


def test_the_parts_of_a_batch_do_not_wait_either(monkeypatch):
    config = a_step("compact", "common")
    assert config.recipe.mix != "none"
    assert len(train_on_fake_cuda(config, config.variant.module(), monkeypatch, parts=3)) == 2


def test_a_scaled_step_of_fp16_does_not_wait_either(monkeypatch):
    """The scaler's overflow flag goes into the fused optimiser on the device; the step itself is followed in fp32."""
    config, real, scalers = replace(a_step("vanilla", "published"), precision="fp16"), setup.gradient_scaler, []

    def kept(*args):
        scalers.append(real(*args))
        return scalers[-1]

    monkeypatch.setattr(setup, "gradient_scaler", kept)
    monkeypatch.setattr(step, "autocast", lambda *_: nullcontext())
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    assert len(train_on_fake_cuda(config, config.variant.module(), monkeypatch)) == 2
    assert scalers[0].is_enabled() and scalers[0]._scale.device == GPU


class Planted(nn.Module):
    def __init__(self, model: nn.Module, kind: str):
        super().__init__()
        self.model, self.kind, self.constant = model, kind, torch.zeros(3, 1, 1)  # a constant that is no buffer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kind == "item" and images.mean().item() > 1e9:
            return self.model(images)
        if self.kind == "constant":
            images = images + self.constant
        if self.kind == "gradient":
            images.requires_grad_().register_hook(lambda gradient: gradient * gradient.norm().item())
        return self.model(images)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("item", "_local_scalar_dense"), ("constant", "two devices"), ("gradient", "_local_scalar_dense")],
)
def test_a_planted_wait_in_a_model_is_refused(monkeypatch, kind, why):
    config = a_step("compact", "quick")
    with pytest.raises(WaitsError, match=why):
        train_on_fake_cuda(config, Planted(config.variant.module(), kind), monkeypatch)
