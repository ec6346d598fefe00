"""Self-attention: three implementations over the same weights, with its scale, biases and masks. The config chooses."""

import torch
import torch.nn.functional as F
from torch import nn

from variants.config import ViTConfig
from variants.position import RelativeBias


class Attention(nn.Module):
    """Multi-head self-attention. The weights are the same whichever way they are computed with.

    `fused` calls PyTorch's scaled_dot_product_attention, `merged` multiplies all heads at once in the open,
    `per-head` treats one head after the other with its own slice of the weights.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.heads, self.head_width = config.heads, config.width // config.heads
        self.implementation = config.attention
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.qkv_bias)
        self.proj = nn.Linear(config.width, config.width)
        self.dropout_rate = config.attention_dropout
        self.out_dropout = nn.Dropout(config.dropout)
        self.scale = (config.width if config.attention_scale == "width" else self.head_width) ** -0.5
        self.temperature = None
        if config.attention_scale == "learned":  # locality self-attention, arXiv:2112.13492
            self.temperature = nn.Parameter(torch.full((config.heads,), self.scale))
        self.mask_diagonal = config.mask_diagonal
        self.relative_bias = RelativeBias(config) if config.relative_bias else None

    def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
        if self.implementation == "per-head":
            mixed_BND = self._per_head(x_BND)
        else:
            q, k, v = self._qkv_BHNd(x_BND)
            mix = self._fused if self.implementation == "fused" else self._merged
            mixed_BND = mix(q, k, v).transpose(1, 2).flatten(2)
        return self.out_dropout(self.proj(mixed_BND))

    def probabilities(self, x_BND: torch.Tensor) -> torch.Tensor:
        """Who looks at whom, B x heads x N x N, without dropout."""
        q, k, _ = self._qkv_BHNd(x_BND)
        return self._scores(q, k, self._bias(x_BND)).softmax(dim=-1)

    def _qkv_BHNd(self, x_BND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = self.qkv(x_BND).unflatten(-1, (3, self.heads, self.head_width)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v  # unbound at once, their gradients are stacked once, not added up from three full tensors

    def _bias(self, x: torch.Tensor) -> torch.Tensor | None:
        """What is added to the scaled scores of x (..., N, width): relative positions, and -inf on a masked diagonal;
        H or 1 x N x N."""
        bias = self.relative_bias() if self.relative_bias is not None else None
        if self.mask_diagonal:
            tokens = x.shape[-2]
            own = torch.eye(tokens, dtype=torch.bool, device=x.device)
            bias = (x.new_zeros(1, tokens, tokens) if bias is None else bias).masked_fill(own, float("-inf"))
        return bias

    def _scores(self, q: torch.Tensor, k: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        scores = q @ k.transpose(-2, -1) * self._scale_H11()
        return scores if bias is None else scores + bias

    def _scale_H11(self) -> torch.Tensor | float:
        return self.scale if self.temperature is None else self.temperature[:, None, None]

    def _fused(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        bias, scale = self._bias(q), self.scale
        if self.temperature is not None:  # SDPA takes one number, so a learned scale goes into the queries
            q, scale = q * self._scale_H11(), 1.0
        rate = self.dropout_rate if self.training else 0.0
        bias = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate, scale=scale)

    def _merged(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = self._scores(q, k, self._bias(q)).softmax(dim=-1)
        return F.dropout(weights, self.dropout_rate, self.training) @ v

    def _per_head(self, x_BND: torch.Tensor) -> torch.Tensor:
        shape = (3, self.heads, self.head_width)
        weight = self.qkv.weight.unflatten(0, shape)
        qkv_bias = None if self.qkv.bias is None else self.qkv.bias.unflatten(0, shape)
        bias, mixed = self._bias(x_BND), []
        for head in range(self.heads):
            q, k, v = (
                F.linear(x_BND, weight[i, head], None if qkv_bias is None else qkv_bias[i, head]) for i in range(3)
            )
            scale = self.scale if self.temperature is None else self.temperature[head]
            scores = q @ k.transpose(-2, -1) * scale
            if bias is not None:
                scores = scores + bias[head % bias.shape[0]]
            mixed.append(F.dropout(scores.softmax(dim=-1), self.dropout_rate, self.training) @ v)
        return torch.cat(mixed, dim=-1)
