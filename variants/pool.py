"""Owns the step from many tokens to one vector.
Refuses norms and classifiers.
"""

import torch
from torch import nn

from variants.config import ViTConfig


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
        weights_BN1 = self.score(tokens_BND).softmax(dim=1)
        return (weights_BN1.transpose(1, 2) @ tokens_BND).squeeze(1)


POOLS = {"cls": ClassToken, "mean": Mean, "seq": SequencePool}
