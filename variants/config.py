"""Owns ViTConfig: one frozen record with a field for each axis along which small ViTs differ; it validates itself.
Refuses to build anything: importing it needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from variants.fields import UsageError, check_fields

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ViTConfig:
    """A plain Vision Transformer. Two configs that differ in one field are an ablation of that field."""

    image_size: int = 32
    num_classes: int = 10  # 0 builds the model without its head
    resize: int = 0  # images are resized to this many pixels on the device; 0 leaves them

    tokenizer: Literal["linear", "conv-stem", "cct-conv", "shifted"] = "linear"
    patch: int = 4  # pixels a token covers along each side
    stem_width: int = 32  # channels of a conv-stem's first convolution

    width: int = 192
    depth: int = 9
    heads: int = 12
    mlp_width: int = 384

    pool: Literal["cls", "mean", "seq"] = "cls"  # the class token exists exactly when it is pooled
    position: Literal["learned", "sincos", "none"] = "learned"
    position_std: float = 0.02
    token_std: float = 0.02
    relative_bias: bool = False

    attention: Literal["fused", "merged", "per-head"] = "fused"
    attention_scale: Literal["head", "width", "learned"] = "head"
    mask_diagonal: bool = False
    qkv_bias: bool = True

    activation: Literal["gelu", "gelu-tanh"] = "gelu"
    mlp_out_activation: bool = False  # a second activation, after the MLP's second layer
    residual: Literal["pre-norm", "rezero", "cct"] = "pre-norm"
    norm_eps: float = 1e-5
    final_norm: Literal["tokens", "pooled", "none"] = "tokens"
    head_activation: bool = False  # an activation between the final norm and the pooling
    init: Literal[
        "torch", "trunc-normal", "trunc-normal-linear", "normal", "kaiming", "xavier", "xavier-flat", "cct"
    ] = "trunc-normal"

    dropout: float = 0.0
    attention_dropout: float = 0.0
    head_dropout: float = 0.0
    drop_path: float = 0.0
    drop_path_shape: Literal["linear", "constant"] = "linear"  # over depth: rising from 0, or the same everywhere

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_sizes()
        self._check_rates()

    def _check_sizes(self) -> None:
        for name in ("image_size", "patch", "stem_width", "width", "depth", "heads", "mlp_width"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if self.num_classes < 0 or self.resize < 0:
            raise UsageError("num_classes and resize cannot be negative")
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

    def _check_rates(self) -> None:
        for name in ("dropout", "attention_dropout", "head_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: a probability below 1 is needed")
        if self.position_std < 0 or self.token_std < 0 or self.norm_eps <= 0:
            raise UsageError("position_std and token_std cannot be negative, norm_eps must be positive")

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
