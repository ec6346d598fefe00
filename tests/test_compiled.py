"""What torch.compile is given: one graph for every variant, and a fresh count of shapes for every cell."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from harness.config import RunConfig, resolve
from harness.data.load import load
from harness.data.pipeline import DeviceSplit, scaling, to_device
from harness.datasets import DATASETS
from harness.experiment import run_cell
from harness.recipes import PUBLISHED
from harness.training import loop
from harness.training.estimate import blank_batch
from harness.training.evaluate import batch_size, evaluate
from harness.training.progress import Progress
from variants.catalog import CATALOG
from variants.config import ViTConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "recipe"), [(n, "common") for n in CATALOG] + [(n, "published") for n in PUBLISHED])
def test_the_loss_of_every_variant_is_one_graph_for_all_seeds(name, recipe):
    """Under bf16 autocast, mixing included; `fullgraph` raises at the first break. Tracing alone needs no compiler.
    What was compiled for one model serves the next one of the same config, in training and in evaluation."""
    changes = ["variant.resize=32"] if name == "vit-224" else []
    changes += ["variant.depth=1"] if isinstance(CATALOG[name], ViTConfig) else []
    config = resolve(name, DATASETS["c10"], recipe, batch_size=4, settings=changes)
    torch._dynamo.reset()
    counter = CompileCounter()
    traced = torch.compile(loop.batch_loss, backend=counter, fullgraph=True, dynamic=False)
    for _ in range(2):
        model, batch = config.variant.module().train(), blank_batch(32, 4, config.recipe, CPU)
        with torch.autocast("cpu", torch.bfloat16):
            loss, sums = traced(model, batch, config.recipe)
        loss.backward()
        assert loss.isfinite() and sums.shape == (2,)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            torch.compile(model.eval(), backend=counter, fullgraph=True, dynamic=False)(batch.images)
        assert counter.frame_count == 2


@pytest.fixture
def graphs(monkeypatch) -> list:
    """What is compiled, and run as it is."""
    graphs, real = [], torch.compile

    def counting(module, inputs):
        graphs.append(module)
        return module.forward

    monkeypatch.setattr(torch, "compile", lambda f, **kw: real(f, backend=counting, **kw))
    torch._dynamo.reset()
    loop.forget_compiled_for_others.cache_clear()
    return graphs


def small(heads: int, *settings: str, **rest) -> RunConfig:
    changes = [f"variant.width={4 * heads}", f"variant.heads={heads}", "variant.depth=1", *settings]
    return resolve("compact", DATASETS["digits"], "quick", epochs=1, compile=True, settings=changes, **rest)


def test_a_long_sweep_goes_on_compiling(graphs):
    """PyTorch stops compiling a function after 8 shapes; ten cells in one process must all be compiled."""
    data = load("digits", None)  # type: ignore[arg-type]
    few = DeviceSplit(*(x[:40] for x in (to_device(data.train, CPU).images, to_device(data.train, CPU).labels)))
    for heads in range(1, 11):
        config = small(heads)
        model, before = config.variant.module(), len(graphs)
        compute, scale = loop.Compute(model, config), scaling(data, config.recipe, CPU)
        assert loop.warm_up(config, model, compute, few, few, scale) is not None
        warm = len(graphs)
        assert warm == before + 2, "a whole batch and the evaluation; the last batch, of 8 images, is not compiled for"
        list(loop.train(config, model, compute, few, few, scale, Progress("", 1, 40, quiet=True)))
        assert len(graphs) == warm, "nothing is compiled once the clock runs"


@pytest.mark.parametrize("settings", [[], ["recipe.ema=0.9", "recipe.mix=either"]])
def test_seeds_of_one_cell_are_compiled_once(tmp_path, graphs, settings):
    """From data to record, the evaluation under corruptions included; another cell is compiled again."""

    def trained(heads: int, seed: int) -> int:
        assert run_cell(small(heads, *settings, seed=seed), Path("data"), tmp_path, CPU, quiet=True).ok
        return len(graphs)

    assert [trained(1, seed) for seed in (0, 1, 2)] == [2, 2, 2]
    assert [trained(2, seed) for seed in (0, 1)] == [4, 4]
    assert trained(1, seed=3) == 6


def test_a_compiled_evaluation_has_batches_of_one_size_and_the_same_results():
    data = load("digits", None)  # type: ignore[arg-type]
    config, split = small(2), to_device(data.test, CPU)
    scale, model = scaling(data, config.recipe, CPU), small(2).variant.module()

    def judged(split: DeviceSplit) -> tuple[list[int], float]:
        sizes: list[int] = []

        def forward(images):
            sizes.append(len(images))
            return model(images)

        own, other = evaluate(model, model, split, scale, "fp32"), evaluate(model, forward, split, scale, "fp32")
        assert (own.predicted == other.predicted).all() and own.accuracy == other.accuracy
        return sizes, abs(own.nll - other.nll)

    sizes, apart = judged(split)
    assert sizes == [360] and apart == 0
    larger = DeviceSplit(split.images.repeat(3, 1, 1, 1), split.labels.repeat(3))  # 1080 images, 1024 at once
    sizes, apart = judged(larger)
    assert sizes == [540, 540] and apart < 1e-6
    sizes, apart = judged(DeviceSplit(larger.images[:1069], larger.labels[:1069]))  # a prime number
    assert sizes == [1024] and apart < 1e-6, "the rest is not compiled for"


@pytest.mark.parametrize(
    ("images", "compiled", "size"),
    [(10_000, False, 64), (10_000, True, 50), (26_032, False, 64), (26_032, True, 64), (40, True, 40), (64, True, 64)],
)
def test_sizes_of_evaluation(images, compiled, size):
    """SVHN's 26,032 = 16 x 1,627 have no divisor from 33 to 64. An eager run's size does not depend on the split."""
    split = DeviceSplit(torch.empty(images, 3, 32, 32, dtype=torch.uint8), torch.empty(images, dtype=torch.int64))
    assert batch_size(split, compiled) == size


def test_warm_up_leaves_no_trace():
    """Weights and batch statistics are those of the start, and the run is the one it would have been without."""
    data = load("digits", None)  # type: ignore[arg-type]
    few = DeviceSplit(*(x[:40] for x in (to_device(data.train, CPU).images, to_device(data.train, CPU).labels)))
    config = resolve("timm:resnet10t", DATASETS["digits"], "quick", epochs=1)
    model = config.variant.module()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compute, scale = loop.Compute(model, config), scaling(data, config.recipe, CPU)
    pretending = dataclasses.replace(config, compile=True)
    loop.warm_up(pretending, model, compute, few, few, scale)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
