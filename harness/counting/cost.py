"""What a model costs for one image: the closed form for every ViTConfig, fvcore's count for other models, and the check
that all ways of counting agree. Also the files of results/cost, which a report reads before anything is trained.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.counting.closed_form import PRODUCTS, Item, by_module, items, total
from harness.datasets import Dataset
from variants.catalog import config_of
from variants.config import ViTConfig

if TYPE_CHECKING:
    from harness.counting.measured import Subject

Rows = Mapping[str, Mapping[str, int]]  # counts by path in the module tree: with its parts, "" the whole model


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
    by_module: dict[str, int] | None = None  # MACs


def cost_of(variant_name: str, config: Any, dataset_name: str, check: bool = True) -> Cost:
    """What `config` costs; `check` compares all ways of counting that are installed and raises CountError. Without
    fvcore only the parameters of a model that is no ViTConfig are known."""
    return _counted(variant_name, config, dataset_name, check)[0]


def _counted(variant_name: str, config: Any, dataset_name: str, check: bool) -> tuple[Cost, Rows]:
    heads: list[str] | None = ["head"]
    if type(config) is ViTConfig:
        layers = list(items(config))
        rows = by_module(layers)
        attention = total([layer for layer in layers if layer.kind == "attention"], "macs")
        if check:
            _check_closed_form(f"{variant_name}: the closed form", layers, _subject(config))
    else:
        subject = _subject(config)
        rows, heads, attention = subject.by_module, subject.heads, subject.attention_macs
        if check and has_fvcore():
            counted = subject.fvcore_product_macs
            _agree("MACs without norms", f"{variant_name}: fvcore", counted, "FlopCounterMode", subject.product_macs)
    counts: dict[str, Any] = {"attention_macs": attention}
    for column, whole in rows[""].items():
        counts[column] = whole
        if heads is not None:
            counts[f"{column}_without_head"] = whole - sum(rows[path][column] for path in heads if path in rows)
    macs = {path: row["macs"] for path, row in rows.items() if row.get("macs")} or None
    return Cost(variant_name, dataset_name, **counts, by_module=macs), rows


def _check_closed_form(ours: str, layers: Sequence[Item], subject: Subject) -> None:
    products = [layer for layer in layers if layer.kind in PRODUCTS]
    _agree("parameters", ours, total(layers, "params"), "the module", subject.params)
    _agree("MACs without norms", ours, total(products, "macs"), "FlopCounterMode", subject.product_macs)
    if has_fvcore():
        _agree("MACs", ours, total(layers, "macs"), "fvcore", int(subject.flops.total()))
        _agree("activations", ours, total(layers, "activations"), "fvcore", int(subject.activations.total()))


def _agree(what: str, first: str, count: int, second: str, other: int) -> None:
    if count != other:
        raise CountError(f"{first} counts {count:,} {what}, {second} {other:,}")


def _subject(config: Any) -> Subject:
    from harness.counting.measured import Subject  # needs torch, which the closed form does not

    return Subject(config)


def installed(package: str) -> bool:
    """And can be imported: what fvcore itself imports may be missing."""
    try:
        with warnings.catch_warnings(record=True):  # fvcore imports what torch calls deprecated
            importlib.import_module(package)
    except ImportError:
        return False
    return True


def has_fvcore() -> bool:
    return installed("fvcore.nn")


# --- the files of results/cost ----------------------------------------------------------------------------------------


def file_name(variant_name: str, dataset: Dataset) -> str:
    return f"{variant_name}-{dataset.name}.json"


def file_bytes(variant_name: str, dataset: Dataset, check: bool = True) -> bytes:
    """The cost as a record has it, the shape that it holds for and all counts of each module: JSON with a line for each
    number and each module, so that a difference is seen at a glance."""
    config = config_of(variant_name, dataset.image_size, dataset.num_classes)
    cost, modules = _counted(variant_name, config, dataset.name, check)
    shape = {"image_size": dataset.image_size, "num_classes": dataset.num_classes}
    values = {"variant": variant_name, "dataset": dataset.name, **shape, **dataclasses.asdict(cost)}
    values.pop("by_module")
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
    rows = [f"  {json.dumps(path)}: {json.dumps(counts)}" for path, counts in modules.items()]
    lines.append(' "modules": {\n' + ",\n".join(rows) + "\n }")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
