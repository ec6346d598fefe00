"""Owns the small parts that every body shares: the MLP, stochastic depth, the residual block.
Refuses to know about images, tokens or classes.
"""

import torch
from torch import nn

from variants.attention import Attention
from variants.config import ViTConfig


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

    def attention_map(self, x_BND: torch.Tensor) -> torch.Tensor:
        return self.attention.probabilities(self.norm_attention(x_BND))
