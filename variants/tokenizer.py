"""The step from an image to a row of tokens, one class for each way of doing it, and the resizing before it."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from variants.config import ViTConfig


def resized(images_BCHW: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear to `size` pixels, smoothed first where it shrinks; 0 leaves the images as they are."""
    if not size:
        return images_BCHW
    shrinks = size < images_BCHW.shape[-1]
    return F.interpolate(images_BCHW, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)


class LinearTokenizer(nn.Module):
    """Non-overlapping patches, each mapped by the same linear layer (written as a strided convolution)."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.conv = nn.Conv2d(3, config.width, config.patch, stride=config.patch)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.conv(images_BCHW).flatten(2).transpose(1, 2)


class ConvStem(nn.Module):
    """A 3x3 convolution and a GELU before the patches."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.stem = nn.Conv2d(3, config.stem_width, 3, padding=1)
        self.activation = nn.GELU()
        self.conv = nn.Conv2d(config.stem_width, config.width, config.patch, stride=config.patch)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.conv(self.activation(self.stem(images_BCHW))).flatten(2).transpose(1, 2)


class CctConv(nn.Module):
    """Compact Transformers' tokenizer (arXiv:2104.05704): bias-free 3x3 convolutions, each with ReLU and a max-pool
    that halves the image; a patch of 2, 4, 8 pixels takes 1, 2, 3 of them."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        halvings = config.patch.bit_length() - 1
        widths = [3] + [64] * (halvings - 1) + [config.width]
        if halvings == 0:
            widths = [3, config.width]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(widths))
        self.halve = nn.MaxPool2d(3, stride=2, padding=1) if halvings else nn.Identity()

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        x = images_BCHW
        for conv in self.convs:
            x = self.halve(F.relu(conv(x)))
        return x.flatten(2).transpose(1, 2)


class ShiftedTokenizer(nn.Module):
    """Shifted patch tokenization (arXiv:2112.13492): the image and its four half-patch diagonal shifts, side by side
    in the channels, cut into patches, normed and mapped."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.patch = config.patch
        self.norm = nn.LayerNorm(15 * config.patch**2, eps=config.norm_eps)
        self.linear = nn.Linear(15 * config.patch**2, config.width)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        half = self.patch // 2
        moves = [
            (half, -half, half, -half),
            (-half, half, half, -half),
            (half, -half, -half, half),
            (-half, half, -half, half),
        ]
        stacked = torch.cat([images_BCHW, *(F.pad(images_BCHW, move) for move in moves)], dim=1)
        patches_BND = F.unfold(stacked, self.patch, stride=self.patch).transpose(1, 2)
        return self.linear(self.norm(patches_BND))


TOKENIZERS = {"linear": LinearTokenizer, "conv-stem": ConvStem, "cct-conv": CctConv, "shifted": ShiftedTokenizer}
