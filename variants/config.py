"""The configuration of a plain Vision Transformer: a frozen record with a field for each axis along which small ViTs
differ. Importing it needs no torch; `module()` builds the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from variants.fields import Count, CountOrZero, NotNegative, Positive, Rate, UsageError, check_fields

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ViTConfig:
    """A plain Vision Transformer. Two configs that differ in one field are an ablation of that field."""

    image_size: Count = 32
    num_classes: CountOrZero = 10  # 0 builds the model without its head
    resize: CountOrZero = 0  # images are resized to this many pixels on the device; 0 leaves them

    tokenizer: Literal["linear", "conv-stem", "cct-conv", "shifted"] = "linear"
    patch: Count = 4  # pixels a token covers along each side
    stem_width: Count = 32  # channels of a conv-stem's first convolution

    width: Count = 192
    depth: Count = 9
    heads: Count = 12
    mlp_width: Count = 384

    pool: Literal["cls", "mean", "seq"] = "cls"  # the class token exists exactly when it is pooled
    position: Literal["learned", "sincos", "none"] = "learned"
    position_std: NotNegative = 0.02
    token_std: NotNegative = 0.02
    relative_bias: bool = False

    attention: Literal["fused", "merged", "per-head"] = "fused"
    attention_scale: Literal["head", "width", "learned"] = "head"
    mask_diagonal: bool = False
    qkv_bias: bool = True

    activation: Literal["gelu", "gelu-tanh"] = "gelu"
    mlp_out_activation: bool = False  # a second activation, after the MLP's second layer
    residual: Literal["pre-norm", "rezero", "cct"] = "pre-norm"
    norm_eps: Positive = 1e-5
    final_norm: Literal["tokens", "pooled", "none"] = "tokens"
    head_activation: bool = False  # an activation between the final norm and the pooling
    init: Literal[
        "torch", "trunc-normal", "trunc-normal-linear", "normal", "kaiming", "xavier", "xavier-flat", "cct"
    ] = "trunc-normal"

    dropout: Rate = 0.0
    attention_dropout: Rate = 0.0
    head_dropout: Rate = 0.0
    drop_path: Rate = 0.0
    drop_path_shape: Literal["linear", "constant"] = "linear"  # over depth: rising from 0, or the same everywhere

    def __post_init__(self) -> None:
        check_fields(self)
        if self.input_size % self.patch:
            raise UsageError(f"patch={self.patch} does not divide the image's {self.input_size} pixels")
        if self.width % self.heads:
            raise UsageError(f"heads={self.heads} does not divide width={self.width}")
        if self.tokenizer == "cct-conv" and self.patch & (self.patch - 1):
            raise UsageError(f"patch={self.patch}: the cct-conv tokenizer halves the image, a power of two is needed")
        if self.tokenizer == "shifted" and self.patch < 2:
            raise UsageError("patch=1: the shifted tokenizer moves the image by half a patch, at least 2 is needed")
        if self.position == "sincos" and self.width % 4:
            raise UsageError(f"width={self.width}: sincos positions need a multiple of 4")
        if self.mask_diagonal and self.tokens < 2:
            raise UsageError("mask_diagonal: the only token would have nothing to look at")

    @property
    def input_size(self) -> int:
        """Pixels along a side of what the tokenizer sees."""
        return self.resize or self.image_size

    @property
    def grid(self) -> int:
        return self.input_size // self.patch

    @property
    def tokens(self) -> int:
        return self.grid**2 + (self.pool == "cls")

    @property
    def shape_name(self) -> str:
        """A short readable name that says what it is without saying what it is called."""
        return f"vit-d{self.width}l{self.depth}p{self.patch}"

    def module(self) -> nn.Module:
        from variants.vit import ViT

        return ViT(self)
