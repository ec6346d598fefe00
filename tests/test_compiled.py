"""What torch.compile is given: one graph for every variant, none after the warm-up, and a fresh count of shapes for
every cell."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from harness.config import RunConfig, resolve
from harness.data.load import load
from harness.data.pipeline import DeviceSplit, Scaling, scaling, to_device
from harness.datasets import DATASETS
from harness.recipes import PUBLISHED
from harness.training import loop
from harness.training.progress import Progress
from tests.copies import random_split
from variants.catalog import CATALOG
from variants.config import ViTConfig

CPU = torch.device("cpu")


def of_one_block(name: str, recipe: str) -> RunConfig:
    changes = ["variant.resize=32"] if name == "vit-224" else []
    changes += ["variant.depth=1"] if isinstance(CATALOG[name], ViTConfig) else []
    return resolve(
        name, DATASETS["c10"], recipe, epochs=1, batch_size=4, precision="bf16", compile=True, settings=changes
    )


def without_asking(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
    """Traces and differentiates. A whole graph may hold `.item()`, at which a GPU would be waited for: not this one."""
    asking = [node.target for node in module.graph.nodes if node.target in ("item", "tolist", "nonzero")]
    assert not asking, f"{asking} in the graph"
    return torch._dynamo.lookup_backend("aot_eager")(module, inputs)


def trained_in_whole_graphs(config: RunConfig, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The real loop over one batch, with the real loop's compiled functions, but for the machine code, which needs a
    compiler. How many graphs there were after the warm-up, and at the end."""
    real, split = torch.compile, random_split(4)
    whole = {"backend": without_asking, "fullgraph": True, "dynamic": False}  # fullgraph raises at the first break
    monkeypatch.setattr(torch, "compile", lambda function, **_: real(function, **whole))
    few, scale = to_device(split, CPU), Scaling(torch.ones(3, 32, 32) / 255, torch.zeros(3, 32, 32))
    compute = loop.Compute(model, config)
    torch._dynamo.utils.counters.clear()
    graphs = torch._dynamo.utils.counters["stats"]
    loop.warm_up(config, model, compute, few, few, scale)
    warm = graphs["unique_graphs"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        (epoch,) = loop.train(config, model, compute, few, few, scale, Progress("", 1, len(few), quiet=True))
    assert math.isfinite(epoch.line["train_loss"])
    return warm, graphs["unique_graphs"]


@pytest.mark.parametrize("name", CATALOG)
def test_every_variant_trains_in_whole_graphs_that_the_warm_up_made(monkeypatch, name):
    """Under bf16 autocast; those that no recipe was published for are mixed image by image."""
    config = of_one_block(name, "published" if name in PUBLISHED else "common")
    warm, in_all = trained_in_whole_graphs(config, config.variant.module(), monkeypatch)
    assert warm == in_all >= 2, "a step and the evaluation at least"


class Asking(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images * images.mean().item())


class Counting(nn.Module):
    """Its steps are compiled anew each time: a number that changes is taken for a constant."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.model(images * (1 + 0 * self.calls))


@pytest.mark.parametrize(("kind", "error"), [(Asking, r"\['item'\] in the graph"), (Counting, "[Rr]ecompil")])
def test_what_breaks_a_graph_or_compiles_again_is_found(monkeypatch, kind, error):
    config = of_one_block("compact", "quick")
    with pytest.raises(Exception, match=error):
        trained_in_whole_graphs(config, kind(config.variant.module()), monkeypatch)


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
