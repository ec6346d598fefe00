"""Compact: mc-ViT and its baseline c-ViT (S2, "CVT based on ViT from scratch"), one field apart.

S2 states the shape; tintn/vision-transformer-from-scratch, whose config it is, states the rest (N(0, .02) weights, tanh
GELU). 119,147 parameters with sequence pooling, 119,194 with a class token (10 classes, 32 pixels): derived, not
published. That code has no final norm. It is kept here, and costs accuracy early on: under S2's constant rate of 1e-2,
ten passes reach about 53 % with it and 63 % without (a holdout of CIFAR-10, three seeds; see CHANGELOG.md).
"""

from dataclasses import replace

from variants.config import ViTConfig

COMPACT = ViTConfig(
    patch=4,
    width=48,
    depth=4,
    heads=4,
    mlp_width=192,
    pool="seq",
    activation="gelu-tanh",
    init="normal",
)
COMPACT_CLS = replace(COMPACT, pool="cls")
