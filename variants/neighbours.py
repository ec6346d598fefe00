"""Neighbours: other published ViTs for small images, whose numbers stand beside ours.

ViT-Lite, CVT and CCT are Compact Transformers (arXiv:2104.05704): no qkv bias, the residual after the first norm,
positions from a wide normal. SMALL_P4 is the base model of Lee et al. (arXiv:2112.13492): 2,692,426 parameters with 10
classes at 32 pixels; the printed 2.8 M fits Tiny-ImageNet. VIT_224 is the ImageNet-shaped ViT of
HarshTomar1234/vision_transformer-ViT- (S3), small images resized to 224 pixels. S3's README prints "~22M" parameters
beside an example of this shape; that is a 12-layer ViT-Small, and these 6 layers have half of that. VIT_BASE_224 is
S3's model for ImageNet itself, a ViT-Base; with `variant.pool=mean` it is what S3 calls pooling="avg".
"""

from dataclasses import replace

from variants.config import ViTConfig

VIT_LITE = ViTConfig(
    patch=4,
    width=256,
    depth=7,
    heads=4,
    mlp_width=512,
    pool="cls",
    qkv_bias=False,
    residual="cct",
    position_std=0.2,
    token_std=0.0,
    init="cct",
)
CVT = replace(VIT_LITE, pool="seq")
CCT = replace(CVT, tokenizer="cct-conv", patch=2)

SMALL_P4 = ViTConfig(
    patch=4,
    width=192,
    depth=9,
    heads=12,
    mlp_width=384,
    pool="cls",
    qkv_bias=False,
    position_std=1.0,
    token_std=1.0,
    final_norm="pooled",
    init="xavier-flat",
    drop_path_shape="constant",
)

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

VIT_BASE_224 = ViTConfig(resize=224, patch=16, width=768, depth=12, heads=12, mlp_width=3072, pool="cls")
