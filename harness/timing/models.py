"""Benchmarks of models without their data: the forward pass as the suite evaluates it against the textbook's, the plain
body against timm's VisionTransformer of the same shape, and the three ways of computing attention.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from harness.config import RunConfig
from harness.records.benchmarks import Comparison
from harness.timing.turns import OURS, configured, repeated, take_turns, titled
from harness.training.device import autocast
from harness.training.setup import build_model, compiled_forward
from variants.attention import Attention
from variants.config import ViTConfig
from variants.fields import UsageError, difference

BODY = "patch2"  # a plain ViT that timm's class can express
TEXTBOOK = "eager, float32, attention in the open"
TIMM = "timm's VisionTransformer, the same shape"
SHARED = {"image_size", "num_classes", "patch", "width", "depth", "heads", "mlp_width", "qkv_bias", "norm_eps", "init"}
SHARED |= {"token_std", "position_std", "drop_path_shape"}


def compare_inference(args: Namespace) -> Iterator[Comparison]:
    """The forward pass on one batch that lies on the device."""
    device, configs = configured(args, args.variant)
    for config in configs:
        model = build_model(config, device).eval()
        forward, plain = compiled_forward(model, config), textbook(config, model, device)
        for size in args.batch_sizes:
            side = config.variant.image_size
            images = torch.randn(size, 3, side, side, device=device)
            ways = {
                OURS: repeated(partial(_predict, forward, images, config.precision), device, size),
                TEXTBOOK: repeated(partial(_predict, plain, images, "fp32"), device, size),
            }
            timings = take_turns(ways, args.rounds)
            facts = {
                "latency_ms": 1000 * size / timings.speed(OURS),
                "baseline_latency_ms": 1000 * size / timings.speed(TEXTBOOK),
                "precision": config.precision,
                "compile": config.compile,
            }
            title = titled(f"infer {config.variant_name} batch {size}", config)
            yield timings.compare(title, "images/s", OURS, TEXTBOOK, facts)


@torch.no_grad()
def _predict(forward: Callable[[torch.Tensor], Any], images: torch.Tensor, precision: str) -> None:
    with autocast(images.device, precision):
        forward(images)


def textbook(config: RunConfig, model: nn.Module, device: torch.device) -> nn.Module:
    """The same weights; a model that is not our plain body is only left uncompiled."""
    variant: Any = config.variant
    open_config = replace(variant, attention="merged") if type(variant) is ViTConfig else variant
    plain = build_model(replace(config, variant=open_config), device).eval()
    plain.load_state_dict(model.state_dict())
    return plain


def compare_bodies(args: Namespace) -> Iterator[Comparison]:
    """Forward and backward, both eager, in training mode, on one batch; without dropout, which a recipe may add."""
    device, (config,) = configured(args, [BODY])
    models = {OURS: build_model(config, device).train(), TIMM: timms(config.variant).to(device).train()}
    counts = [sum(p.numel() for p in model.parameters()) for model in models.values()]
    assert counts[0] == counts[1], counts
    size, side = config.recipe.batch_size, config.variant.image_size
    images = torch.randn(size, 3, side, side, device=device)
    labels = torch.arange(size, device=device) % config.variant.num_classes

    def step(model: nn.Module) -> None:
        with autocast(device, config.precision):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        model.zero_grad(set_to_none=True)

    ways = {name: repeated(partial(step, model), device, size) for name, model in models.items()}
    facts = {"params": counts[0], "precision": config.precision}
    title = titled(f"body {config.variant_name} batch {size}", config)
    yield take_turns(ways, args.rounds).compare(title, "images/s", OURS, TIMM, facts)


WIDTHS = {48: 4, 192: 3, 384: 12}  # width and heads of compact, timm and vanilla


def compare_attention(args: Namespace) -> Iterator[Comparison]:
    """Of each width and number of tokens."""
    device, (config,) = configured(args, [BODY])
    for width, heads in WIDTHS.items():
        for tokens in args.tokens:
            yield from _compare_layers(config, ViTConfig(width=width, heads=heads), tokens, device, args.rounds)


def _compare_layers(
    config: RunConfig, plain: ViTConfig, tokens: int, device: torch.device, rounds: int
) -> Iterator[Comparison]:
    """One layer, forward and backward: fused, and all heads at once in the open, each against head after head."""
    size = config.recipe.batch_size
    x_BND = torch.randn(size, tokens, plain.width, device=device, requires_grad=True)

    def step(layer: nn.Module) -> None:
        with autocast(device, config.precision):
            loss = layer(x_BND).square().mean()
        loss.backward()
        layer.zero_grad(set_to_none=True)

    layers = {
        "fused": Attention(replace(plain, attention="fused")),
        "merged": Attention(replace(plain, attention="merged")),
        "per-head": Attention(replace(plain, attention="per-head")),
    }
    ways = {name: repeated(partial(step, layer.to(device)), device, size) for name, layer in layers.items()}
    timings = take_turns(ways, rounds)
    for name in ("fused", "merged"):
        batch = "" if size == 64 else f", batch {size}"
        title = titled(f"attention {name} {tokens} tokens, width {plain.width}{batch}", config)
        facts = {"heads": plain.heads, "batch_size": size, "precision": config.precision}
        yield timings.compare(title, "images/s", name, "per-head", facts)


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
