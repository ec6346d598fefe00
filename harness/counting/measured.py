"""What tools count on the real module: fvcore's MACs and activations, torch's FlopCounterMode, torchinfo's layers.
The caller's random numbers stay as they are, and nothing is downloaded.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from harness.counting.closed_form import COLUMNS, LEVELS
from harness.counting.cost import has_fvcore
from variants.timm_baseline import from_scratch

FUSED = "scaled_dot_product_attention"
EXPLICIT = ("bmm", "matmul", "einsum")
# fvcore's names for products. The rest of what it counts (norms, resizing, averaging) are estimates of its own.
PRODUCTS = ("conv", "linear", "addmm", *EXPLICIT, FUSED)


class Subject:
    """One model to be counted. fvcore's "flops" are MACs."""

    def __init__(self, config: Any):
        self.image = torch.zeros(1, 3, config.image_size, config.image_size)
        with torch.random.fork_rng(devices=[]):  # a training run will draw from this generator
            self.module = from_scratch(config).module().eval()

    @property
    def params(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    @property
    def product_macs(self) -> int:
        """By torch's own counter, on an attention that is nothing but matrix products; it sees no norms."""
        with FlopCounterMode(display=False) as counter, sdpa_kernel([SDPBackend.MATH]):
            self.module(self.image)
        return counter.get_total_flops() // 2

    @cached_property
    def flops(self) -> Any:
        """fvcore's FlopCountAnalysis."""
        return self._analysis("FlopCountAnalysis", lambda inputs, outputs: fused_counts(inputs)[0])

    @cached_property
    def activations(self) -> Any:
        """fvcore's ActivationCountAnalysis."""
        return self._analysis("ActivationCountAnalysis", lambda inputs, outputs: fused_counts(inputs)[1])

    def _analysis(self, kind: str, fused: Any) -> Any:
        """With a count for fused attention, which fvcore skips. That element-wise operators count nothing and an
        Identity is not called is expected; what fvcore imports and traces may be deprecated and changes no count."""
        with warnings.catch_warnings(record=True):
            import fvcore.nn

            analysis = getattr(fvcore.nn, kind)(self.module, (self.image,)).set_op_handle(f"aten::{FUSED}", fused)
            return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")

    @cached_property
    def by_module(self) -> dict[str, dict[str, int]]:
        """COLUMNS of each module, its parts included, as `closed_form.by_module` has them: the parameters alone where
        fvcore is absent."""
        levels = LEVELS + hasattr(self.module, "model")  # a wrapper is one level more
        params = {path: sum(p.numel() for p in part.parameters()) for path, part in self.module.named_modules()}
        counts = [params, *((self.flops.by_module(), self.activations.by_module()) if has_fvcore() else ())]
        rows = {path: {column: int(count[path]) for column, count in zip(COLUMNS, counts)} for path in params}
        return {path: row for path, row in rows.items() if path.count(".") < levels and any(row.values())}

    @property
    def fvcore_product_macs(self) -> int:
        by_operator = self.flops.by_operator()
        return int(sum(by_operator.get(name, 0) for name in PRODUCTS))

    @property
    def attention_macs(self) -> int | None:
        """Fused attention is recognised; an explicit product may be attention or anything else."""
        by_operator = self.flops.by_operator() if has_fvcore() else None
        if by_operator is None or any(by_operator.get(name) for name in EXPLICIT):
            return None
        return int(by_operator.get(FUSED, 0))

    @property
    def heads(self) -> list[str] | None:
        """Where the classifier is: an empty list for a model without one, None where it cannot be told."""
        inner: Any = getattr(self.module, "model", self.module)
        found = inner.get_classifier() if hasattr(inner, "get_classifier") else getattr(self.module, "head", None)
        paths = {part: path for path, part in self.module.named_modules()}
        heads = list(found) if isinstance(found, (tuple, list)) else [found]
        heads = [head for head in heads if not isinstance(head, nn.Identity)]
        known = all(isinstance(head, (nn.Linear, nn.Conv2d)) and head in paths for head in heads)
        return [paths[head] for head in heads] if known else None

    def table(self) -> str:
        from fvcore.nn import flop_count_table

        flops, activations = self.flops, self.activations
        with warnings.catch_warnings(record=True):
            return flop_count_table(flops, activations=activations, show_param_shapes=False)

    def summary(self) -> str:
        """torchinfo's layers with shapes and parameters; its mult-adds miss attention, so that line is left out."""
        from torchinfo import summary

        columns = ("input_size", "output_size", "num_params")
        text = str(summary(self.module, input_data=self.image, col_names=columns, depth=4, verbose=0, mode="eval"))
        return "\n".join(line for line in text.splitlines() if "mult-adds" not in line)


def fused_counts(inputs: list[Any]) -> tuple[int, int]:
    """MACs and activations of fused attention: q k^T, then weights v."""
    (*batch, queries, width), (*_, keys, value_width) = (inputs[i].type().sizes() for i in (0, 2))
    rows = torch.Size(batch).numel() * queries
    return rows * keys * (width + value_width), rows * (keys + value_width)
