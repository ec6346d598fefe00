"""What torch.compile is given: one graph for every variant, none after the warm-up, and a fresh count of shapes for
every cell."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.config import RunConfig, resolve
from harness.data.load import load
from harness.data.pipeline import DeviceSplit, Scaling, scaling, to_device
from harness.datasets import DATASETS
from harness.experiment import run_cell
from harness.recipes import PUBLISHED
from harness.timing.turns import made_up
from harness.training.evaluate import batch_size, judged, read
from harness.training.loop import train
from harness.training.setup import Stepping, Training, forget_compiled_for_others, prepared, warm_up
from tests.copies import of_one_block, random_split
from variants.catalog import CATALOG

CPU = torch.device("cpu")


def a_short_epoch(name: str, recipe: str) -> RunConfig:
    how: Any = {"epochs": 1, "batch_size": 4, "precision": "bf16", "compile": True}
    return resolve(name, DATASETS["c10"], recipe, settings=of_one_block(name), **how)


def without_asking(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
    """Traces and differentiates. A whole graph may hold `.item()`, at which a GPU would be waited for: not this one."""
    asking = [node.target for node in module.graph.nodes if node.target in ("item", "tolist", "nonzero")]
    assert not asking, f"{asking} in the graph"
    return torch._dynamo.lookup_backend("aot_eager")(module, inputs)


def trained_in_whole_graphs(config: RunConfig, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The real loop over a full and a short batch, with the real loop's compiled functions, but for the machine code,
    which needs a compiler. How many graphs the warm-up made, and how many there were at the end."""
    real, split = torch.compile, random_split(6)
    whole = {"backend": without_asking, "fullgraph": True, "dynamic": False}  # fullgraph raises at the first break
    monkeypatch.setattr(torch, "compile", lambda function, **_: real(function, **whole))
    zeros = torch.zeros(3, 32, 32)
    few, scale = to_device(split, CPU), Scaling(zeros + 1 / 255, zeros, zeros[:, :1, :1])
    training = Training(config, model, few, few, scale)
    torch._dynamo.utils.counters.clear()
    graphs = torch._dynamo.utils.counters["stats"]
    warm_up(training)
    warm = graphs["unique_graphs"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        (epoch,) = train(training)
    assert math.isfinite(epoch.line["train_loss"])
    return warm, graphs["unique_graphs"]


@pytest.mark.parametrize("name", CATALOG)
def test_every_variant_trains_in_whole_graphs_that_the_warm_up_made(monkeypatch, name):
    """Under bf16 autocast; those that no recipe was published for are mixed image by image."""
    config = a_short_epoch(name, "published" if name in PUBLISHED else "common")
    forget_compiled_for_others.cache_clear()
    warm, in_all = trained_in_whole_graphs(config, config.variant.module(), monkeypatch)
    assert warm == in_all == 2, "a step and the evaluation"


class Asking(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images * images.mean().item())


def test_what_a_gpu_would_be_waited_for_is_found(monkeypatch):
    config = a_short_epoch("compact", "quick")
    forget_compiled_for_others.cache_clear()
    with pytest.raises(Exception, match=r"\['item'\] in the graph"):
        trained_in_whole_graphs(config, Asking(config.variant.module()), monkeypatch)


@pytest.fixture
def graphs(monkeypatch) -> list:
    """What is compiled, and run as it is."""
    graphs, real = [], torch.compile

    def counting(module, inputs):
        graphs.append(module)
        return module.forward

    monkeypatch.setattr(torch, "compile", lambda f, **kw: real(f, backend=counting, **kw))
    torch._dynamo.reset()
    forget_compiled_for_others.cache_clear()
    return graphs


def small(heads: int, *settings: str, **rest) -> RunConfig:
    changes = [f"variant.width={4 * heads}", f"variant.heads={heads}", "variant.depth=1", *settings]
    rest = {"epochs": 1, "batch_size": 32, **rest}
    return resolve("compact", DATASETS["digits"], "quick", compile=True, settings=changes, **rest)


def test_a_long_sweep_goes_on_compiling(graphs):
    """PyTorch stops compiling a function after 8 shapes; nine cells in one process must all be compiled."""
    data = load("digits", None)  # type: ignore[arg-type]
    few = DeviceSplit(*(x[:40] for x in (to_device(data.train, CPU).images, to_device(data.train, CPU).labels)))
    for heads in range(1, 10):
        config = small(heads)
        before = len(graphs)
        training = Training(config, config.variant.module(), few, few, scaling(data, config.recipe, CPU))
        assert warm_up(training) is not None
        warm = len(graphs)
        assert warm == before + 2, "a whole batch and the evaluation; the last batch, of 8 images, is not compiled for"
        list(train(training))
        assert len(graphs) == warm, "nothing is compiled once the clock runs"


def test_parts_of_a_short_batch_are_compiled_with_those_of_a_whole_one(graphs):
    """Where they have as many images: what they count in their batch is another number."""
    config, data = small(2), made_up(DATASETS["digits"], 2 * 32 - 1, 8)
    training = prepared(config, config.variant.module(), data, (data.train, data.test), Stepping(accumulate=4))
    warm_up(training)
    assert len(graphs) == 2
    list(train(training))
    assert len(graphs) == 2


def test_seeds_of_one_cell_are_compiled_once(tmp_path, graphs):
    """From data to record, the evaluation under corruptions included; another cell is compiled again."""

    def trained(heads: int, seed: int) -> int:
        config = small(heads, "recipe.ema=0.9", "recipe.mix=either", seed=seed, batch_size=512)
        assert run_cell(config, Path("data"), tmp_path, CPU, quiet=True).ok
        return len(graphs)

    assert [trained(1, seed) for seed in (0, 1, 2)] == [2, 2, 2]
    assert [trained(2, seed) for seed in (0, 1)] == [4, 4]
    assert trained(1, seed=3) == 6


def test_a_compiled_evaluation_has_batches_of_one_size_and_the_same_results():
    data = load("digits", None)  # type: ignore[arg-type]
    config, split = small(2), to_device(data.test, CPU)
    scale, model = scaling(data, config.recipe, CPU), small(2).variant.module()
    sizes: list[int] = []

    def forward(images):
        sizes.append(len(images))
        return model(images)

    larger = DeviceSplit(split.images.repeat(3, 1, 1, 1), split.labels.repeat(3))  # 1080 images, 1024 at once
    own, other = (
        read(judged(model, model, larger, scale, "fp32"))[0],
        read(judged(model, forward, larger, scale, "fp32"))[0],
    )
    assert (own.predicted == other.predicted).all() and own.accuracy == other.accuracy
    assert sizes == [540, 540] and abs(own.nll - other.nll) < 1e-6


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
    training = Training(config, model, few, few, scaling(data, config.recipe, CPU))
    training.config = dataclasses.replace(config, compile=True)  # without the machine code, which needs a compiler
    assert warm_up(training) is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
