"""Owns how costs are shown: the overview of several variants, the modules and the layers of one.
Refuses to count, and to show a count that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.counting.closed_form import Item, items
from harness.counting.cost import Cost, importable
from harness.counting.modules import table_by_module
from variants.config import ViTConfig

UNKNOWN = "-"


def overview(costs: Sequence[Cost]) -> str:
    """One line a variant."""
    from tabulate import tabulate

    headers = ["variant", "parameters", "MACs", "FLOPs", "attention", "activations"]
    rows = [
        [
            cost.variant,
            _number(cost.params),
            _number(cost.macs),
            _number(None if cost.macs is None else 2 * cost.macs),
            _share(cost.attention_macs, cost.macs),
            _number(cost.activations_without_head),
        ]
        for cost in costs
    ]
    return tabulate(rows, headers=headers, colalign=("left", *["right"] * 5), disable_numparse=True)


def notes(costs: Sequence[Cost]) -> list[str]:
    """What a reader of the overview could take wrongly."""
    lines = [
        "one image; FLOPs = 2 x MACs; MACs as fvcore counts them (its #flops), plus fused attention;",
        "attention: the share of its two products, q k^T and weights v;",
        "activations: the results of all products, attention in the open, without the head",
    ]
    resized = [cost for cost in costs if cost.variant == "vit-224" and cost.params is not None]
    lines += [
        f'vit-224: its {cost.params:,} parameters are not S3\'s "~22M", which fit a ViT-Small of 12 layers; this has 6'
        for cost in resized
    ]
    return lines


def _number(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count:,}"


def _share(part: int | None, whole: int | None) -> str:
    return UNKNOWN if part is None or not whole else f"{100 * part / whole:.1f} %"


def module_table(config: Any) -> str:
    """fvcore's table by module; without fvcore the same columns from the closed form."""
    if importable("fvcore.nn"):
        from harness.counting.measured import Subject

        return Subject(config).table()
    if type(config) is ViTConfig:
        return closed_form_table(items(config))
    return "no table by module: it needs fvcore (pip install fvcore)"


def layer_summary(config: Any) -> str:
    """torchinfo's summary."""
    if not importable("torchinfo"):
        return "no summary of the layers: torchinfo is not installed (pip install torchinfo)"
    from harness.counting.measured import Subject

    return Subject(config).summary()


def closed_form_table(layers: Sequence[Item]) -> str:
    from tabulate import tabulate

    rows = table_by_module(layers).items()
    lines = [[path or "model", *(f"{count:,}" if count else "" for count in row.values())] for path, row in rows]
    headers = ["module", "#parameters", "#flops", "#activations"]
    return tabulate(lines, headers=headers, tablefmt="pipe", colalign=("left", *["right"] * 3), disable_numparse=True)
