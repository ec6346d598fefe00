"""Owns Cost, what a model costs for one image, and the agreement of several ways of counting it.
Refuses to give a number that two of them disagree about.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.counting.closed_form import PRODUCTS, Item, items
from harness.counting.modules import macs_by_module, named, table_by_module
from variants.config import ViTConfig

if TYPE_CHECKING:
    from harness.counting.measured import Subject


class CountError(RuntimeError):
    """Two ways of counting disagree, so neither can be believed."""


@dataclass(frozen=True)
class Cost:
    """For one image; None is unknown. MACs contain attention and, as in fvcore, 5 for each element of a norm."""

    variant: str
    dataset: str
    params: int | None = None
    params_without_head: int | None = None
    macs: int | None = None
    macs_without_head: int | None = None
    attention_macs: int | None = None  # q k^T and weights v of all layers
    activations: int | None = None  # elements of every product's result, attention in the open
    activations_without_head: int | None = None
    by_module: dict[str, int] | None = None  # MACs by path in the module tree: with its parts, "" the whole model


def cost_of(variant_name: str, config: Any, dataset_name: str, check: bool = True) -> Cost:
    """What `config` costs; `check` compares all ways of counting that are installed and raises CountError."""
    if type(config) is not ViTConfig:
        return _measured(variant_name, config, dataset_name, check)
    layers = items(config)
    if check and importable("torch"):
        _check(variant_name, layers, _subject(config))
    return _from_closed_form(variant_name, layers, dataset_name)


def module_counts(config: Any) -> dict[str, dict[str, int]]:
    """Parameters, MACs and activations of each module, its parts included, in the order of the forward pass."""
    return table_by_module(items(config)) if type(config) is ViTConfig else _subject(config).by_module


def importable(package: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fvcore imports what torch calls deprecated
            importlib.import_module(package)
    except ImportError:
        return False
    return True


def missing() -> list[str]:
    """One line for each counter that is not installed, saying what is lost."""
    lines = []
    if not importable("torch"):
        lines.append("torch is not installed: the numbers are the closed form's, unchecked; timm models are unknown")
    elif not importable("fvcore.nn"):
        lines.append(
            "fvcore is not installed (pip install fvcore): the numbers are the closed form's, checked by torch's own "
            "counter alone; MACs of timm models are unknown"
        )
    return lines


def _subject(config: Any) -> Subject:
    from harness.counting.measured import Subject  # needs torch, which the closed form does not

    return Subject(config)


def _total(layers: Sequence[Item], what: str) -> int:
    return sum(getattr(layer, what) for layer in layers)


def _from_closed_form(variant_name: str, layers: Sequence[Item], dataset_name: str) -> Cost:
    body = [layer for layer in layers if layer.path != "head"]
    return Cost(
        variant=variant_name,
        dataset=dataset_name,
        params=_total(layers, "params"),
        params_without_head=_total(body, "params"),
        macs=_total(layers, "macs"),
        macs_without_head=_total(body, "macs"),
        attention_macs=_total([layer for layer in layers if layer.kind == "attention"], "macs"),
        activations=_total(layers, "activations"),
        activations_without_head=_total(body, "activations"),
        by_module=macs_by_module(layers),
    )


def _check(name: str, layers: Sequence[Item], subject: Subject) -> None:
    products = [layer for layer in layers if layer.kind in PRODUCTS]
    ours = f"{name}: the closed form"
    _agree("parameters", ours, _total(layers, "params"), "the module", subject.params)
    _agree("MACs without norms", ours, _total(products, "macs"), "FlopCounterMode", subject.product_macs)
    if importable("fvcore.nn"):
        _agree("MACs", ours, _total(layers, "macs"), "fvcore", subject.flops.total())
        _agree("activations", ours, _total(layers, "activations"), "fvcore", subject.activations.total())


def _agree(what: str, first: str, count: int, second: str, other: int) -> None:
    if count != other:
        raise CountError(f"{first} counts {count:,} {what}, {second} {other:,}")


def _measured(variant_name: str, config: Any, dataset_name: str, check: bool) -> Cost:
    """Of a model that the closed form does not know: fvcore's numbers, held against FlopCounterMode."""
    if not importable("torch"):
        return Cost(variant_name, dataset_name)
    from harness.counting import measured

    subject = _subject(config)
    heads = measured.head_paths(subject.module)
    params = (subject.params, _without(heads, subject.params, subject.params_by_module))
    if not importable("fvcore.nn"):
        return Cost(variant_name, dataset_name, *params)
    flops, activations = subject.flops, subject.activations
    by_operator, by_module = flops.by_operator(), flops.by_module()
    if check:
        counted = measured.product_macs(by_operator)
        _agree("MACs without norms", f"{variant_name}: fvcore", counted, "FlopCounterMode", subject.product_macs)
    macs = int(flops.total())
    return Cost(
        variant_name,
        dataset_name,
        *params,
        macs,
        _without(heads, macs, by_module),
        measured.attention_macs(by_operator),
        int(activations.total()),
        _without(heads, activations.total(), activations.by_module()),
        named(by_module, subject.levels),
    )


def _without(heads: Sequence[str] | None, total: int, by_module: Mapping[str, int]) -> int | None:
    return None if heads is None else int(total) - int(sum(by_module[path] for path in heads))
