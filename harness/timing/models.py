"""Benchmarks of models without their data: the forward pass as the suite evaluates it against the textbook's, and the
plain body against timm's VisionTransformer of the same shape.
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
