"""What torch.compile is given: one graph for every variant, and a fresh count of shapes for every cell."""

import dataclasses

import pytest
import torch

from harness.config import resolve
from harness.data.load import load
from harness.data.pipeline import DeviceSplit, scaling, to_device
from harness.datasets import DATASETS
from harness.recipes import PUBLISHED
from harness.training import loop
from harness.training.estimate import blank_batch
from harness.training.progress import Progress
from variants.catalog import CATALOG
from variants.config import ViTConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "recipe"), [(n, "common") for n in CATALOG] + [(n, "published") for n in PUBLISHED])
def test_the_loss_of_every_variant_is_one_graph(name, recipe):
    """Under bf16 autocast, mixing included; `fullgraph` raises at the first break. Tracing alone needs no compiler."""
    changes = ["variant.resize=32"] if name == "vit-224" else []
    changes += ["variant.depth=1"] if isinstance(CATALOG[name], ViTConfig) else []
    config = resolve(name, DATASETS["c10"], recipe, batch_size=4, settings=changes)
    model = config.variant.module().train()
    torch._dynamo.reset()
    traced = torch.compile(loop.batch_loss, backend="eager", fullgraph=True, dynamic=False)
    with torch.autocast("cpu", torch.bfloat16):
        loss, sums = traced(model, blank_batch(32, 4, config.recipe, CPU), config.recipe)
    loss.backward()
    assert loss.isfinite() and sums.shape == (2,)


def test_a_long_sweep_goes_on_compiling(monkeypatch):
    """PyTorch stops compiling a function after 8 shapes; ten cells in one process must all be compiled."""
    graphs = []

    def counting(module, inputs):
        graphs.append(module)
        return module.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: real(f, backend=counting, **kw))
    data = load("digits", None)  # type: ignore[arg-type]
    few = DeviceSplit(*(x[:40] for x in (to_device(data.train, CPU).images, to_device(data.train, CPU).labels)))
    for heads in range(1, 11):
        changes = [f"variant.width={4 * heads}", f"variant.heads={heads}", "variant.depth=1"]
        config = resolve("compact", DATASETS["digits"], "quick", epochs=1, compile=True, settings=changes)
        model, before = config.variant.module(), len(graphs)
        compute, scale = loop.Compute(model, config), scaling(data, config.recipe, CPU)
        assert loop.warm_up(config, model, compute, few, few, scale) is not None
        warm = len(graphs)
        assert warm >= before + 3, "two batch sizes and the evaluation"
        list(loop.train(config, model, compute, few, few, scale, Progress("", 1, 40, quiet=True)))
        assert len(graphs) == warm, "nothing is compiled once the clock runs"


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
