"""Resized: the ImageNet-shaped ViT of HarshTomar1234/vision_transformer-ViT- (S3), small images resized to 224 pixels.

S3's README prints "~22M" parameters beside an example of this shape; that is a 12-layer ViT-Small. This configuration
(6 layers) has half of that: `python -m harness.cost --variant vit-224` prints the count.
"""

from variants.config import ViTConfig

VIT_224 = ViTConfig(
    resize=224,
    patch=16,
    width=384,
    depth=6,
    heads=6,
    mlp_width=1536,
    pool="cls",
    norm_eps=1e-6,
    init="trunc-normal-linear",
    dropout=0.1,
    attention_dropout=0.1,
)
