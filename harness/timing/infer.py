"""Owns the benchmark of inference: the forward pass as the suite evaluates it against the textbook's, by batch size.
Refuses to time data or their way to the device.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from harness.config import RunConfig
from harness.records.benchmarks import Comparison
from harness.timing.pipeline import OURS
from harness.timing.turns import Way, take_turns, timed, titled
from harness.training.device import autocast
from harness.training.setup import build_model, compiled_forward
from variants.config import ViTConfig

LEAST_S = 0.05  # of repeated passes, so that the clock's own grain does not count
TEXTBOOK = "eager, float32, attention in the open"


def compare_inference(config: RunConfig, device: torch.device, batch_size: int, rounds: int) -> Comparison:
    model = build_model(config, device).eval()
    forward, plain = compiled_forward(model, config), textbook(config, model, device)
    side = config.variant.image_size
    images = torch.randn(batch_size, 3, side, side, device=device)

    @torch.no_grad()
    def ours() -> None:
        with autocast(device, config.precision):
            forward(images)

    @torch.no_grad()
    def theirs() -> None:
        plain(images)

    repeats, ways = {}, {}
    for name, once in ((OURS, ours), (TEXTBOOK, theirs)):
        repeats[name], ways[name] = repeated(timed(once, device))
    timings = take_turns(ways, rounds)
    latency = {name: 1000 * timings.median_s(name) / repeats[name] for name in ways}
    facts = {"latency_ms": latency[OURS], "baseline_latency_ms": latency[TEXTBOOK]}
    facts |= {"precision": config.precision, "compile": config.compile}
    amounts = {name: float(batch_size * repeats[name]) for name in ways}
    return timings.compare(
        titled(f"infer {config.variant_name} batch {batch_size}", config),
        *("images/s", amounts, (OURS, TEXTBOOK)),
        facts=facts,
    )


def textbook(config: RunConfig, model: nn.Module, device: torch.device) -> nn.Module:
    """The same weights; a model that is not our plain body is only left uncompiled."""
    variant: Any = config.variant
    open_config = replace(variant, attention="merged") if type(variant) is ViTConfig else variant
    plain = build_model(replace(config, variant=open_config), device).eval()
    plain.load_state_dict(model.state_dict())
    return plain


def repeated(once: Way) -> tuple[int, Way]:
    """As many passes in a row as fill the least time; the first two compile and warm up."""
    once()
    once()
    count = max(1, round(LEAST_S / max(once(), 1e-9)))
    return count, lambda: sum(once() for _ in range(count))
