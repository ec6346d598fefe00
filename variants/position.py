"""Positions: learned, sine-cosine and relative ones."""

import torch
import torch.nn.functional as F
from torch import nn

from variants.config import ViTConfig


class Position(nn.Module):
    """Adds a position to every token."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        if config.position == "learned":
            self.table = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        else:
            self.register_buffer("table", sincos(config), persistent=False)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        return tokens_BND + self.table


def sincos(config: ViTConfig) -> torch.Tensor:
    """Fixed 2-D positions (arXiv:2205.01580): a quarter of the width each for sin and cos of row and column."""
    steps = torch.arange(config.grid, dtype=torch.float64)
    quarter = config.width // 4
    rates = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / max(quarter - 1, 1))
    waves = steps[:, None] * rates
    rows = waves[:, None].expand(config.grid, config.grid, quarter).flatten(0, 1)
    columns = waves[None].expand(config.grid, config.grid, quarter).flatten(0, 1)
    cells = torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], dim=1)
    extra = torch.zeros(config.tokens - config.grid**2, config.width, dtype=torch.float64)
    return torch.cat([extra, cells]).float().unsqueeze(0)


class RelativeBias(nn.Module):
    """One learned number a head for each offset between two cells (arXiv:1803.02155); 0 at the class token."""

    offsets: torch.Tensor

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.extra = config.tokens - config.grid**2  # the class token, if any, comes first
        self.table = nn.Parameter(torch.zeros(config.heads, (2 * config.grid - 1) ** 2))
        self.register_buffer("offsets", cell_offsets(config.grid), persistent=False)

    def forward(self) -> torch.Tensor:
        bias_HNN = self.table[:, self.offsets.flatten()].unflatten(-1, self.offsets.shape)
        return F.pad(bias_HNN, (self.extra, 0, self.extra, 0))


def cell_offsets(grid: int) -> torch.Tensor:
    """For each pair of cells, the index of their offset in a (2 grid - 1)^2 table."""
    cells = torch.arange(grid**2)
    rows, columns = cells // grid, cells % grid
    down = rows[:, None] - rows[None] + grid - 1
    across = columns[:, None] - columns[None] + grid - 1
    return down * (2 * grid - 1) + across
