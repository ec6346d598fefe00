"""Benchmarks of models without their data: the forward pass as the suite evaluates it against the textbook's, and the
plain body against timm's VisionTransformer of the same shape.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from harness.config import RunConfig
from harness.records.benchmarks import Comparison
from harness.timing.turns import OURS, Rounds, repeated, take_turns, titled
from harness.training.device import autocast
from harness.training.setup import build_model, compiled_forward
from variants.config import ViTConfig
from variants.fields import UsageError, difference

TEXTBOOK = "eager, float32, attention in the open"
TIMM = "timm's VisionTransformer, the same shape"
SHARED = {"image_size", "num_classes", "patch", "width", "depth", "heads", "mlp_width", "qkv_bias", "norm_eps", "init"}
SHARED |= {"token_std", "position_std", "drop_path_shape"}


def compare_inference(config: RunConfig, device: torch.device, batch_size: int, rounds: int) -> Comparison:
    """The forward pass on one batch that lies on the device."""
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

    timings, counts = _in_turn({OURS: ours, TEXTBOOK: theirs}, device, batch_size, rounds)
    latency = {name: 1000 * timings.median_s(name) / count for name, count in counts.items()}
    facts = {"latency_ms": latency[OURS], "baseline_latency_ms": latency[TEXTBOOK]}
    facts |= {"precision": config.precision, "compile": config.compile}
    title = titled(f"infer {config.variant_name} batch {batch_size}", config)
    return timings.compare(title, "images/s", (OURS, TEXTBOOK), device.type, facts)


def textbook(config: RunConfig, model: nn.Module, device: torch.device) -> nn.Module:
    """The same weights; a model that is not our plain body is only left uncompiled."""
    variant: Any = config.variant
    open_config = replace(variant, attention="merged") if type(variant) is ViTConfig else variant
    plain = build_model(replace(config, variant=open_config), device).eval()
    plain.load_state_dict(model.state_dict())
    return plain


def compare_bodies(config: RunConfig, device: torch.device, rounds: int) -> Comparison:
    """Forward and backward, both eager, in training mode, on one batch; without dropout, which a recipe may add."""
    ours, theirs = build_model(config, device), timms(config.variant).to(device)
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert counts[0] == counts[1], counts
    size, side = config.recipe.batch_size, config.variant.image_size
    images = torch.randn(size, 3, side, side, device=device)
    labels = torch.arange(size, device=device) % config.variant.num_classes

    def step(model: nn.Module) -> None:
        with autocast(device, config.precision):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        model.zero_grad(set_to_none=True)

    works = {OURS: partial(step, ours.train()), TIMM: partial(step, theirs.train())}
    timings, _ = _in_turn(works, device, size, rounds)
    facts = {"params": counts[0], "precision": config.precision}
    title = titled(f"body {config.variant_name} batch {size}", config)
    return timings.compare(title, "images/s", (OURS, TIMM), device.type, facts)


def _in_turn(
    works: dict[str, Callable[[], None]], device: torch.device, batch_size: int, rounds: int
) -> tuple[Rounds, dict[str, int]]:
    """The rounds, and how often each work was done in one."""
    found = {name: repeated(work, device, batch_size) for name, work in works.items()}
    timings = take_turns({name: way for name, (_, way) in found.items()}, rounds)
    return timings, {name: count for name, (count, _) in found.items()}


def timms(variant: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    odd = set(difference(variant, ViTConfig())) - SHARED if type(variant) is ViTConfig else {"its class"}
    if odd:
        raise UsageError(f"timm's VisionTransformer has no such {', '.join(sorted(odd))}: choose a plain ViT")
    return VisionTransformer(
        img_size=variant.image_size,
        patch_size=variant.patch,
        num_classes=variant.num_classes,
        embed_dim=variant.width,
        depth=variant.depth,
        num_heads=variant.heads,
        mlp_ratio=variant.mlp_width / variant.width,
        qkv_bias=variant.qkv_bias,
        norm_layer=partial(nn.LayerNorm, eps=variant.norm_eps),  # type: ignore[arg-type]
    )
