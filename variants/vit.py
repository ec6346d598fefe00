"""Owns the one plain ViT body: it assembles the parts that a ViTConfig names (arXiv:2010.11929).
Refuses any behaviour that is not a field of the config.
"""

import torch
from torch import nn

from variants.config import ViTConfig
from variants.initialise import initialise
from variants.layers import Block, activation
from variants.pool import POOLS
from variants.position import Position
from variants.resize import resized
from variants.tokenizer import TOKENIZERS


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
            tokens_BND = torch.cat([self.class_token.expand(len(tokens_BND), -1, -1), tokens_BND], dim=1)
        return self.dropout(self.position(tokens_BND))

    def attention_maps(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """One (B, heads, N, N) tensor a layer, computed in the open whatever implementation the config names."""
        tokens_BND, maps = self.embed(images_BCHW), []
        for block in self.blocks:
            maps.append(block.attention_map(tokens_BND))  # type: ignore[operator]
            tokens_BND = block(tokens_BND)
        return maps
