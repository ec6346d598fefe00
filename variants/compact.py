"""Compact: mc-ViT and its baseline c-ViT (S2, francischen0724), one field apart.

S2 adds sequence pooling to tintn/vision-transformer-from-scratch, whose class-token model is its baseline: N(0, .02)
weights, tanh GELU, and no norm after the last block. 119,051 parameters with sequence pooling, 119,098 with a class
token (10 classes, 32 pixels), counted from that code. Published: 77.25 % on CIFAR-10, 47.21 % on CIFAR-100; tintn
prints 75.5 % for the class token.
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
    final_norm="none",
    init="normal",
)
COMPACT_CLS = replace(COMPACT, pool="cls")
