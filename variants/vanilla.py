"""Vanilla: the ViT of omihub777/ViT-CIFAR (S1), the same net as KunViT (S4), quirks included.

What is unusual: attention is divided by sqrt(width), a second GELU follows the MLP's second layer, class token and
positions start from N(0, 1), "patch 8" means 8 patches a side. 6,268,810 parameters with 10 classes at 32 pixels.
Its AutoAugment and label smoothing are opt-in flags over there: without them its users report about 85 %.
"""

from variants.config import ViTConfig

VANILLA = ViTConfig(
    patch=4,
    width=384,
    depth=7,
    heads=12,
    mlp_width=384,
    pool="cls",
    attention_scale="width",
    mlp_out_activation=True,
    position_std=1.0,
    token_std=1.0,
    final_norm="pooled",
    init="torch",
)
