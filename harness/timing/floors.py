"""Owns the two floors under a training step: its FLOPs over the measured matrix rate, its bytes over the measured
bandwidth; whichever takes longer bounds the step.
Refuses data sheets: both rates are measured on the device at hand.
"""

import statistics
from dataclasses import dataclass
from functools import cache

import torch

from harness.config import RunConfig
from harness.counting.closed_form import items
from harness.counting.cost import Cost
from harness.timing.turns import timed
from harness.training.device import DTYPES
from variants.config import ViTConfig

TRIES = 7
MATRIX_SIDE = {"cpu": 1536, "cuda": 8192}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
PARAMETER_ACCESSES = 10  # weight read forward and backward, gradient written; then read with m, v, weight; 3 written
RESULT_ACCESSES = 5  # written and read forward, read again backward, where its gradient is written and read


@dataclass(frozen=True)
class Floors:
    """Seconds that no step of this config on this device can go below; None where the variant cannot be counted."""

    flops_s: float | None
    bytes_s: float | None

    @property
    def bound_s(self) -> float | None:
        known = [seconds for seconds in (self.flops_s, self.bytes_s) if seconds is not None]
        return max(known) if known else None


def floors(config: RunConfig, cost: Cost, device: torch.device) -> Floors:
    flops, moved = step_flops(config, cost), step_bytes(config)
    return Floors(
        None if flops is None else flops / matrix_rate(device, config.precision),
        None if moved is None else moved / bandwidth(device),
    )


def step_flops(config: RunConfig, cost: Cost) -> float | None:
    """Forward, and twice that backward; 2 FLOPs a MAC."""
    return None if cost.macs is None else 6.0 * cost.macs * config.recipe.batch_size


def step_bytes(config: RunConfig) -> float | None:
    """The least traffic if every product is one kernel with all that is elementwise fused into it, and attention
    weights are never written. Parameters and their moments are float32."""
    if type(config.variant) is not ViTConfig:
        return None
    layers = items(config.variant)
    params = sum(layer.params for layer in layers)
    scores = config.variant.depth * config.variant.heads * config.variant.tokens**2
    results = sum(layer.activations for layer in layers) - scores
    width = DTYPES[config.precision].itemsize
    return 4.0 * PARAMETER_ACCESSES * params + 1.0 * width * RESULT_ACCESSES * results * config.recipe.batch_size


@cache
def matrix_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of one large square product, the median of a few."""
    side, dtype = MATRIX_SIDE[device.type], DTYPES[precision]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2.0 * side**3 / _median_s(lambda: a @ b, device)


@cache
def bandwidth(device: torch.device) -> float:
    """Bytes/s of a large copy, reading and writing both counted."""
    source = torch.zeros(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * source.numel() / _median_s(lambda: target.copy_(source), device)


def _median_s(work, device: torch.device) -> float:
    once = timed(work, device)
    once()
    return statistics.median(once() for _ in range(TRIES))
