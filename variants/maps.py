"""What a trained model's attention and first layer say: where it looks, as numbers to be drawn. `model.attention_maps`
gives the maps; these functions read them, for any variant, whether it has a class token or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import nn

from variants.fields import UsageError
from variants.tokenizer import ShiftedTokenizer


@dataclass(frozen=True)
class Layout:
    """Of a row of tokens: those before the patches (class token, registers), then the patches row by row."""

    prefix: int
    grid: int  # patches along a side
    has_class_token: bool  # it comes first

    def on_patches(self, weights: torch.Tensor) -> torch.Tensor:
        """(..., tokens) -> (..., grid, grid)."""
        return weights[..., self.prefix :].unflatten(-1, (self.grid, self.grid))


def layout_of(model: nn.Module, tokens: int) -> Layout:
    """UsageError where what follows the first tokens is no square of patches."""
    inner: Any = getattr(model, "model", model)  # timm's own, in our wrapper
    grid = _grid_of(model, inner) or isqrt(tokens - getattr(inner, "num_prefix_tokens", 0))
    prefix = tokens - grid**2
    if not 0 <= prefix == getattr(inner, "num_prefix_tokens", prefix):
        raise UsageError(f"its {tokens} tokens are no square of patches")
    token = getattr(inner, "cls_token", getattr(inner, "class_token", None))
    return Layout(prefix, grid, prefix > 0 and token is not None)


def _grid_of(model: nn.Module, inner: Any) -> int | None:
    """None where neither the config nor timm's patch embedding says."""
    rows, columns = getattr(getattr(inner, "patch_embed", None), "grid_size", None) or (None, None)
    return getattr(model.config, "grid", rows if rows == columns else None)


def query_weights(map_BHNN: torch.Tensor, layout: Layout) -> torch.Tensor:
    """B x N: the class token alone asks, or all patches alike."""
    weights_BN = map_BHNN.new_zeros(map_BHNN.shape[0], map_BHNN.shape[-1])
    weights_BN[:, slice(0, 1) if layout.has_class_token else slice(layout.prefix, None)] = 1
    return weights_BN / weights_BN.sum(1, keepdim=True)


def rollout(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """B x N x N: how much of each token of the image goes into each at the end, if half of a layer's output is its
    input and half its attention, all heads alike (Abnar and Zuidema, arXiv:2005.00928)."""
    flow_BNN = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype, device=maps[0].device)
    for map_BHNN in maps:
        flow_BNN = (map_BHNN.mean(1) @ flow_BNN + flow_BNN) / 2
    return flow_BNN


def mean_distance(map_BHNN: torch.Tensor, layout: Layout, patch_pixels: float) -> torch.Tensor:
    """B x H: how far a patch looks, in pixels between the centres of patches: the mean over its attention to patches,
    then over all patches (as in arXiv:2010.11929)."""
    steps = torch.arange(layout.grid, device=map_BHNN.device)
    centres = patch_pixels * torch.cartesian_prod(steps, steps).to(map_BHNN.dtype)
    between_BHPP = map_BHNN[..., layout.prefix :, layout.prefix :]
    far = (between_BHPP * torch.cdist(centres, centres)).sum(-1)
    return (far / between_BHPP.sum(-1).clamp_min(1e-12)).mean(-1)


def position_similarity(model: nn.Module) -> torch.Tensor:
    """P x P: cosine between the position embeddings of the patches. UsageError for a model that adds none."""
    inner: Any = getattr(model, "model", model)
    table = getattr(getattr(inner, "position", None), "table", getattr(inner, "pos_embed", None))
    if not isinstance(table, torch.Tensor) or table.ndim != 3:
        raise UsageError("it adds no embedding of its position to a patch")
    grid = _grid_of(model, inner) or isqrt(table.shape[1])
    unit_PD = nn.functional.normalize(table[0, -(grid**2) :].detach(), dim=-1)  # those of other tokens come first
    return unit_PD @ unit_PD.T


def first_filters(model: nn.Module) -> tuple[torch.Tensor, bool]:
    """What the first layer multiplies pixels with, filters x images x 3 x height x width (the shifted tokenizer sees
    five images, the others one), and whether it cuts the image into patches."""
    for module in model.modules():
        if isinstance(module, ShiftedTokenizer):
            weight = module.linear.weight * module.norm.weight
            return weight.detach().unflatten(1, (5, 3, module.patch, module.patch)), True
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            return module.weight.detach().unsqueeze(1), module.kernel_size == module.stride
    raise UsageError("its first layer is no convolution over three colours")
