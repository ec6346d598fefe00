"""Owns the benchmark of the plain body against timm's VisionTransformer of the same shape, forward and backward.
Refuses configs that timm's class cannot express.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from harness.config import RunConfig
from harness.records.benchmarks import Comparison
from harness.timing.goals import goal
from harness.timing.infer import repeated
from harness.timing.pipeline import OURS
from harness.timing.turns import take_turns, timed, titled
from harness.training.device import autocast
from harness.training.setup import build_model
from variants.config import ViTConfig
from variants.fields import UsageError, difference

TIMM = "timm's VisionTransformer, the same shape"
SHARED = {"image_size", "num_classes", "patch", "width", "depth", "heads", "mlp_width", "qkv_bias", "norm_eps", "init"}
SHARED |= {"token_std", "position_std", "drop_path_shape"}


def compare_bodies(config: RunConfig, device: torch.device, rounds: int) -> Comparison:
    """Both eager, in training mode, on one batch; without dropout, which a recipe may add."""
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

    repeats, ways = {}, {}
    for name, model in ((OURS, ours.train()), (TIMM, theirs.train())):
        repeats[name], ways[name] = repeated(timed(partial(step, model), device))
    title = titled(f"body {config.variant_name} batch {size}", config)
    amounts = {name: float(size * repeats[name]) for name in ways}
    facts = {"params": counts[0], "precision": config.precision}
    timings = take_turns(ways, rounds)
    return timings.compare(title, "images/s", amounts, (OURS, TIMM), goal(device.type, title), facts)


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
