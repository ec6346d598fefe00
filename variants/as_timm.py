"""A variant as timm has it: which variants are timm's VisionTransformer (or another of its models) in other words, what
stands in the way of the others, and the names under which the same weights lie there.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from variants.config import ViTConfig
from variants.timm_baseline import TimmConfig, from_scratch

# The fields that timm's VisionTransformer has no word for, with what it does instead.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "tokenizer": ("linear",),
    "pool": ("cls", "mean"),
    "position": ("learned", "none"),
    "relative_bias": (False,),
    "attention_scale": ("head",),
    "mask_diagonal": (False,),
    "mlp_out_activation": (False,),
    "residual": ("pre-norm",),
    "head_activation": (False,),
}

# Ours -> timm's; the rest of a name is the same. A norm after the pooling is timm's fc_norm.
NAMES = {
    "tokenizer.conv.": "patch_embed.proj.",
    "class_token": "cls_token",
    "position.table": "pos_embed",
    ".norm_attention.": ".norm1.",
    ".norm_mlp.": ".norm2.",
    ".attention.": ".attn.",
    ".mlp.expand.": ".mlp.fc1.",
    ".mlp.contract.": ".mlp.fc2.",
}


def obstacles(config: Any) -> list[str]:
    """The fields for which timm has no model of this kind; empty where it has."""
    if type(config) is TimmConfig:
        return ["small_stem=True"] if config.small_stem else []
    if type(config) is not ViTConfig:
        return [f"{type(config).__name__} is a class of its own"]
    values = {name: getattr(config, name) for name in PLAIN}
    return [f"{name}={value}" for name, value in values.items() if value not in PLAIN[name]]


def arguments(config: ViTConfig) -> dict[str, Any]:
    """Of timm's VisionTransformer. Images that the config resizes are to be resized before."""
    ratio = config.mlp_width / config.width
    if int(config.width * ratio) != config.mlp_width:  # it is multiplied and cut off over there
        ratio = math.nextafter(ratio, math.inf)
    return {
        "img_size": config.input_size,
        "patch_size": config.patch,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": ratio,
        "num_classes": config.num_classes,
        "qkv_bias": config.qkv_bias,
        "class_token": config.pool == "cls",
        "global_pool": "token" if config.pool == "cls" else "avg",
        "pos_embed": "learn" if config.position == "learned" else "none",
        "final_norm": config.final_norm != "none",
        "fc_norm": config.final_norm == "pooled",
        "act_layer": "gelu_tanh" if config.activation == "gelu-tanh" else "gelu",
        "norm_layer": partial(nn.LayerNorm, eps=config.norm_eps),
    }


def twin(config: Any) -> nn.Module:
    """Timm's own module for a config without obstacles, as timm starts it."""
    if type(config) is TimmConfig:
        from variants.timm_model import create

        return create(from_scratch(config))
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**arguments(config))


def code_of(config: Any) -> str:
    """How somebody builds it who has timm alone."""
    if type(config) is TimmConfig:
        given = {"img_size": config.input_size, "patch_size": config.patch, "num_classes": config.num_classes}
        words = ", ".join(f"{name}={value}" for name, value in given.items() if value or name == "num_classes")
        return f'timm.create_model("{config.model}", {words})  # without img_size where it takes none'
    given = {**arguments(config), "norm_layer": None}
    words = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
    return f"VisionTransformer({words}, norm_layer=partial(LayerNorm, eps={config.norm_eps}))"


def timms_name(config: Any, name: str) -> str:
    """Of one of our tensors."""
    if type(config) is TimmConfig:
        return name.removeprefix("model.")
    if name.startswith("norm."):
        return f"fc_{name}" if config.final_norm == "pooled" else name
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def to_timm(config: Any, ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {timms_name(config, name): value for name, value in ours.items()}


def from_timm(config: Any, theirs: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Timm's tensors under our names, which the state `ours` has; one that no name of ours stands for keeps its own."""
    back = {timms_name(config, name): name for name in ours}
    return {back.get(name, name): value for name, value in theirs.items()}
