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
    """What `config` costs; `check` compares all ways of counting that are installed and raises CountError. Without
    fvcore only the parameters of a model that is no ViTConfig are known."""
    if type(config) is ViTConfig:
        layers = items(config)
        if check:
            _check_closed_form(f"{variant_name}: the closed form", layers, _subject(config))
        rows = named = by_module(layers)
        heads: list[str] | None = ["head"]
        attention = total([layer for layer in layers if layer.kind == "attention"], "macs")
    else:
        subject = _subject(config)
        if check and has_fvcore():
            counted = subject.fvcore_product_macs
            _agree("MACs without norms", f"{variant_name}: fvcore", counted, "FlopCounterMode", subject.product_macs)
        rows, named, heads, attention = subject.rows, subject.by_module, subject.heads, subject.attention_macs
    macs = {path: row["macs"] for path, row in named.items() if row.get("macs")}
    return Cost(
        variant_name,
        dataset_name,
        *_with_and_without_head(rows, heads, "params"),
        *_with_and_without_head(rows, heads, "macs"),
        attention,
        *_with_and_without_head(rows, heads, "activations"),
        macs or None,
    )


def _with_and_without_head(
    rows: Mapping[str, Mapping[str, int]], heads: Sequence[str] | None, column: str
) -> tuple[int | None, int | None]:
    whole = rows[""].get(column)
    if whole is None or heads is None:
        return whole, None
    return whole, whole - sum(rows[path][column] for path in heads if path in rows)


def _check_closed_form(ours: str, layers: Sequence[Item], subject: Subject) -> None:
    products = [layer for layer in layers if layer.kind in PRODUCTS]
    _agree("parameters", ours, total(layers, "params"), "the module", subject.params)
    _agree("MACs without norms", ours, total(products, "macs"), "FlopCounterMode", subject.product_macs)
    if has_fvcore():
        for column, words in (("macs", "MACs"), ("activations", "activations")):
            _agree(words, ours, total(layers, column), "fvcore", subject.rows[""][column])


def _agree(what: str, first: str, count: int, second: str, other: int) -> None:
    if count != other:
        raise CountError(f"{first} counts {count:,} {what}, {second} {other:,}")


def _subject(config: Any) -> Subject:
    from harness.counting.measured import Subject  # needs torch, which the closed form does not

    return Subject(config)


def importable(package: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fvcore imports what torch calls deprecated
            importlib.import_module(package)
    except ImportError:
        return False
    return True


def has_fvcore() -> bool:
    return importable("fvcore.nn")


# --- the files of results/cost ----------------------------------------------------------------------------------------


def file_name(variant_name: str, dataset: Dataset) -> str:
    return f"{variant_name}-{dataset.name}.json"


def catalogue_cost(variant_name: str, dataset: Dataset, check: bool = True) -> dict[str, Any]:
    """The cost as a record has it, with the shape that it holds for and with all counts of each module."""
    config = config_of(variant_name, dataset.image_size, dataset.num_classes)
    cost = dataclasses.asdict(cost_of(variant_name, config, dataset.name, check))
    totals = {name: value for name, value in cost.items() if name not in ("variant", "dataset", "by_module")}
    shape = {"image_size": dataset.image_size, "num_classes": dataset.num_classes}
    modules = by_module(items(config)) if type(config) is ViTConfig else _subject(config).by_module
    return {"variant": variant_name, "dataset": dataset.name, **shape, **totals, "modules": modules}


def file_bytes(cost: Mapping[str, Any]) -> bytes:
    """JSON with a line for each number and each module, so that a difference is seen at a glance."""
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in cost.items() if name != "modules"]
    modules = [f"  {json.dumps(path)}: {json.dumps(counts)}" for path, counts in cost["modules"].items()]
    lines.append(' "modules": {\n' + ",\n".join(modules) + "\n }")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
