"""What a ViTConfig costs for one image, layer by layer, as plain arithmetic: no model is built and torch is not
imported, so a plan or a report can ask at once. `harness.counting.cost` checks it against what tools count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from variants.config import ViTConfig

Kind = Literal["matmul", "attention", "norm", "resample", "table"]
PRODUCTS = ("matmul", "attention")  # the kinds that FlopCounterMode counts too

COLUMNS = ("params", "macs", "activations")
LEVELS = 3  # blocks.0.attention and blocks.0.mlp are named, what is inside them is not
NORM_OPS = 5  # an element, fvcore's estimate for a norm with weights
RESIZE_OPS = 4  # an element of a bilinear resize, fvcore's estimate


@dataclass(frozen=True)
class Item:
    """One layer, or one parameter that belongs to no layer; an activation is an element of a product's result."""

    path: str  # as in the nn.Module tree; "" is the model itself
    kind: Kind  # matmul: linear, convolution; attention: q k^T and weights v; table: parameters that multiply nothing
    params: int = 0
    macs: int = 0
    activations: int = 0


def total(layers: Iterable[Item], column: str) -> int:
    return sum(getattr(layer, column) for layer in layers)


def by_module(layers: Iterable[Item]) -> dict[str, dict[str, int]]:
    """COLUMNS of each module down to LEVELS, its parts included; "" is the whole model."""
    rows: dict[str, dict[str, int]] = {}
    for layer in layers:
        parts = layer.path.split(".") if layer.path else []
        for level in range(min(len(parts), LEVELS) + 1):
            row = rows.setdefault(".".join(parts[:level]), dict.fromkeys(COLUMNS, 0))
            for column in COLUMNS:
                row[column] += getattr(layer, column)
    return rows


def items(config: ViTConfig) -> Iterator[Item]:
    """The model layer by layer, in the order of its forward pass."""
    if config.resize >= config.image_size:  # shrinking is antialiased, an operator that fvcore leaves out
        yield Item("", "resample", macs=RESIZE_OPS * 3 * config.resize**2)
    yield from TOKENIZERS[config.tokenizer](config)
    if config.pool == "cls":
        yield Item("class_token", "table", params=config.width)
    if config.position == "learned":
        yield Item("position", "table", params=config.tokens * config.width)
    for layer in range(config.depth):
        yield from _block(config, f"blocks.{layer}")
    if config.final_norm != "none":
        yield _norm("norm", 1 if config.final_norm == "pooled" else config.tokens, config.width)
    if config.pool == "seq":
        yield _linear("pool.score", config.tokens, config.width, 1)
        yield Item("pool", "matmul", macs=config.tokens * config.width, activations=config.width)
    if config.num_classes:
        yield _linear("head", 1, config.width, config.num_classes)


def _linear(path: str, rows: int, inputs: int, outputs: int, bias: bool = True) -> Item:
    return Item(path, "matmul", (inputs + bias) * outputs, rows * inputs * outputs, rows * outputs)


def _conv(path: str, side: int, kernel: int, inputs: int, outputs: int, bias: bool = True) -> Item:
    """A convolution is a linear layer on each cell of its output, `side` cells along each side."""
    return _linear(path, side**2, inputs * kernel**2, outputs, bias)


def _norm(path: str, rows: int, width: int) -> Item:
    return Item(path, "norm", params=2 * width, macs=NORM_OPS * rows * width)


def _linear_tokenizer(config: ViTConfig) -> Iterator[Item]:
    yield _conv("tokenizer.conv", config.grid, config.patch, 3, config.width)


def _conv_stem(config: ViTConfig) -> Iterator[Item]:
    yield _conv("tokenizer.stem", config.input_size, 3, 3, config.stem_width)
    yield _conv("tokenizer.conv", config.grid, config.patch, config.stem_width, config.width)


def _cct_conv(config: ViTConfig) -> Iterator[Item]:
    convs = max(config.patch.bit_length() - 1, 1)
    widths = [3, *[64] * (convs - 1), config.width]
    for i in range(convs):
        side = config.input_size >> i  # each convolution but the first finds a halved image
        yield _conv(f"tokenizer.convs.{i}", side, 3, widths[i], widths[i + 1], bias=False)


def _shifted(config: ViTConfig) -> Iterator[Item]:
    pixels = 15 * config.patch**2  # five images of three channels
    yield _norm("tokenizer.norm", config.grid**2, pixels)
    yield _linear("tokenizer.linear", config.grid**2, pixels, config.width)


TOKENIZERS = {"linear": _linear_tokenizer, "conv-stem": _conv_stem, "cct-conv": _cct_conv, "shifted": _shifted}


def _block(config: ViTConfig, path: str) -> Iterator[Item]:
    yield _norm(f"{path}.norm_attention", config.tokens, config.width)
    yield from _attention(config, f"{path}.attention")
    yield _norm(f"{path}.norm_mlp", config.tokens, config.width)
    yield _linear(f"{path}.mlp.expand", config.tokens, config.width, config.mlp_width)
    yield _linear(f"{path}.mlp.contract", config.tokens, config.mlp_width, config.width)
    if config.residual == "rezero":
        yield Item(path, "table", params=2)


def _attention(config: ViTConfig, path: str) -> Iterator[Item]:
    tokens, width = config.tokens, config.width
    yield _linear(f"{path}.qkv", tokens, width, 3 * width, config.qkv_bias)
    yield Item(path, "attention", macs=tokens**2 * width, activations=config.heads * tokens**2)  # q k^T
    yield Item(path, "attention", macs=tokens**2 * width, activations=tokens * width)  # weights v
    yield _linear(f"{path}.proj", tokens, width, width)
    if config.attention_scale == "learned":
        yield Item(path, "table", params=config.heads)
    if config.relative_bias:
        yield Item(f"{path}.relative_bias", "table", params=config.heads * (2 * config.grid - 1) ** 2)
