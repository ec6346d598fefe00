"""What a variant of the catalogue costs at a data set's shape, as a file of results/cost holds it: known before
anything is trained.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from harness.counting.cost import cost_of, module_counts
from harness.datasets import Dataset
from variants.catalog import config_of


def file_name(variant_name: str, dataset: Dataset) -> str:
    return f"{variant_name}-{dataset.name}.json"


def catalogue_cost(variant_name: str, dataset: Dataset, check: bool = True) -> dict[str, Any]:
    """The cost as a record has it, with the shape that it holds for and with all counts of each module."""
    config = config_of(variant_name, dataset.image_size, dataset.num_classes)
    cost = dataclasses.asdict(cost_of(variant_name, config, dataset.name, check))
    totals = {name: value for name, value in cost.items() if name not in ("variant", "dataset", "by_module")}
    shape = {"image_size": dataset.image_size, "num_classes": dataset.num_classes}
    return {"variant": variant_name, "dataset": dataset.name, **shape, **totals, "modules": module_counts(config)}


def file_bytes(cost: Mapping[str, Any]) -> bytes:
    """JSON with a line for each number and each module, so that a difference is seen at a glance."""
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in cost.items() if name != "modules"]
    modules = [f"  {json.dumps(path)}: {json.dumps(counts)}" for path, counts in cost["modules"].items()]
    lines.append(' "modules": {\n' + ",\n".join(modules) + "\n }")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
