"""The plain Vision Transformer (arXiv:2010.11929): blocks, pooling, the body that assembles what a ViTConfig names, and
the rules by which its weights start. Whatever is unusual about a variant is a field of its config.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import init

from variants.attention import Attention
from variants.config import ViTConfig
from variants.fields import UsageError
from variants.position import Position, RelativeBias
from variants.tokenizer import TOKENIZERS, resized

# --- blocks ---


def activation(config: ViTConfig) -> nn.Module:
    return nn.GELU(approximate="tanh" if config.activation == "gelu-tanh" else "none")


class Mlp(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()
        self.expand = nn.Linear(config.width, config.mlp_width)
        self.activation = activation(config)
        self.contract = nn.Linear(config.mlp_width, config.width)
        self.out_activation = activation(config) if config.mlp_out_activation else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        hidden_BNM = self.dropout(self.activation(self.expand(x_BND)))
        return self.dropout(self.out_activation(self.contract(hidden_BNM)))


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): a branch is left out for a whole sample, the others scaled up."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch_BND: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return branch_BND
        keep_B11 = torch.rand(branch_BND.shape[0], 1, 1, device=branch_BND.device) >= self.rate
        return branch_BND * (keep_B11 / (1 - self.rate)).to(branch_BND.dtype)


def drop_path_rate(config: ViTConfig, layer: int) -> float:
    if config.drop_path_shape == "constant" or config.depth == 1:
        return config.drop_path
    return config.drop_path * layer / (config.depth - 1)


class Block(nn.Module):
    """Attention and MLP as two residual branches; `residual` says how they are joined."""

    def __init__(self, config: ViTConfig, layer: int):
        super().__init__()
        self.residual = config.residual
        self.norm_attention = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = Mlp(config)
        self.drop_path = DropPath(drop_path_rate(config, layer))
        if config.residual == "rezero":  # arXiv:2003.04887: each branch starts switched off
            self.gain_attention = nn.Parameter(torch.zeros(1))
            self.gain_mlp = nn.Parameter(torch.zeros(1))

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        attended_BND = self.attention(self.norm_attention(x_BND))
        if self.residual == "rezero":
            x_BND = x_BND + self.drop_path(self.gain_attention * attended_BND)
            return x_BND + self.drop_path(self.gain_mlp * self.mlp(self.norm_mlp(x_BND)))
        x_BND = x_BND + self.drop_path(attended_BND)
        if self.residual == "cct":  # Compact Transformers carry on from the normed tokens, not from their sum
            x_BND = self.norm_mlp(x_BND)
            return x_BND + self.drop_path(self.mlp(x_BND))
        return x_BND + self.drop_path(self.mlp(self.norm_mlp(x_BND)))


# --- pooling: from many tokens to one vector ---


class ClassToken(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        return tokens_BND[:, 0]


class Mean(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        return tokens_BND.mean(dim=1)


class SequencePool(nn.Module):
    """A learned weighted mean of the tokens (arXiv:2104.05704)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.score = nn.Linear(config.width, 1)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        return (self.weights(tokens_BND).transpose(1, 2) @ tokens_BND).squeeze(1)

    def weights(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """B x N x 1"""
        return self.score(tokens_BND).softmax(dim=1)


POOLS = {"cls": ClassToken, "mean": Mean, "seq": SequencePool}


# --- the body ---


class ViT(nn.Module):
    """images (B, 3, H, W), normalised -> logits (B, classes)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        self.tokenizer = TOKENIZERS[config.tokenizer](config)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width)) if config.pool == "cls" else None
        self.position = nn.Identity() if config.position == "none" else Position(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.norm = nn.Identity() if config.final_norm == "none" else nn.LayerNorm(config.width, eps=config.norm_eps)
        self.head_activation = activation(config) if config.head_activation else nn.Identity()
        self.pool = POOLS[config.pool](config)
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.head = nn.Linear(config.width, config.num_classes) if config.num_classes else nn.Identity()
        initialise(self, config)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        pooled_BD = self.pool(self.head_activation(self.features(images_BCHW)))
        if self.config.final_norm == "pooled":
            pooled_BD = self.norm(pooled_BD)
        return self.head(self.head_dropout(pooled_BD))

    def features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """The tokens before the head, (B, N, D); the class token, if there is one, comes first."""
        tokens_BND = self.embed(images_BCHW)
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return tokens_BND if self.config.final_norm == "pooled" else self.norm(tokens_BND)

    def embed(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        tokens_BND = self.tokenizer(resized(images_BCHW, self.config.resize))
        if self.class_token is not None:
            tokens_BND = torch.cat([self.class_token.expand(tokens_BND.shape[0], -1, -1), tokens_BND], dim=1)
        return self.dropout(self.position(tokens_BND))

    def attention_maps(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """One (B, heads, N, N) tensor a layer, computed in the open whatever implementation the config names."""
        tokens_BND, maps = self.embed(images_BCHW), []
        for block in self.blocks:
            maps.append(block.attention.probabilities(block.norm_attention(tokens_BND)))  # type: ignore
            tokens_BND = block(tokens_BND)
        return maps

    def pooling_weights(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, N): how much each token counts in sequence pooling. UsageError for another pooling."""
        if not isinstance(self.pool, SequencePool):
            raise UsageError(f"it has no sequence pooling: pool={self.config.pool}")
        return self.pool.weights(self.head_activation(self.features(images_BCHW))).squeeze(-1)


# --- how weights start ---


_trunc_normal = partial(init.trunc_normal_, std=0.02)

# From a layer's weight to its start, drawn from torch's current generator, which the caller has seeded.
RULES: dict[str, Callable[[torch.Tensor], object]] = {
    "trunc-normal": _trunc_normal,
    "trunc-normal-linear": _trunc_normal,
    "normal": partial(init.normal_, std=0.02),
    "kaiming": init.kaiming_normal_,
    "xavier": init.xavier_normal_,
    # a convolution over patches counts as the linear layer from a flattened patch that it is
    "xavier-flat": lambda weight: init.xavier_normal_(weight.flatten(1)),
    "cct": lambda weight: init.kaiming_normal_(weight) if weight.ndim == 4 else _trunc_normal(weight),
}

# The layers that a rule leaves as torch made them, biases included.
LEFT_ALONE: dict[str, type[nn.Module] | tuple[()]] = {"torch": nn.Module, "trunc-normal-linear": nn.Conv2d}


def initialise(model: nn.Module, config: ViTConfig) -> None:
    left_alone = LEFT_ALONE.get(config.init, ())
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not isinstance(module, left_alone):
            RULES[config.init](module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif (isinstance(module, Position) and isinstance(module.table, nn.Parameter)) or isinstance(
            module, RelativeBias
        ):
            init.normal_(module.table, std=config.position_std)
    if isinstance(token := getattr(model, "class_token", None), nn.Parameter):
        init.normal_(token, std=config.token_std)
