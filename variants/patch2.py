"""Patch-2: the plain patch-2 ViT of jordandeklerk/ViT-pytorch (S0), and the model that its 96.80 % came from (S0n).

S0's README prints the accuracy of its notebook's 6.48 M conv-stem model beside the 2.73 M model; they are two variants
here. PATCH2 without its head: 2,725,632 parameters, 915,674,304 MACs, 10,735,212 activations.
"""

from variants.config import ViTConfig

PATCH2 = ViTConfig(
    patch=2,
    width=192,
    depth=9,
    heads=12,
    mlp_width=384,
    pool="cls",
    norm_eps=1e-6,
    init="trunc-normal-linear",  # its patch convolution keeps torch's default
)

PATCH2_CONV = ViTConfig(
    tokenizer="conv-stem",
    patch=2,
    stem_width=32,
    width=256,
    depth=8,
    heads=8,
    mlp_width=1024,
    pool="mean",
    relative_bias=True,
    residual="rezero",
    head_activation=True,
    init="kaiming",
)
