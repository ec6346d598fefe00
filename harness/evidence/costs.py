"""What each variant of the catalogue costs at each data set's shape, as `harness.cost --write` left it: known without
any run, so that a table can show the cost of what nobody has trained yet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.counting.cost import file_name
from harness.datasets import DATASETS
from harness.evidence.cells import Cell, Costs
from harness.evidence.quality import finite
from harness.records.read import parsed
from variants.catalog import CATALOG
from variants.fields import UsageError

COSTS = ("params", "params_without_head", "macs", "macs_without_head", "attention_macs", "activations_without_head")


def read_costs(folder: Path) -> Costs:
    """Of what the folder holds; a variant or data set without a file is absent."""
    found = {}
    for name in CATALOG:
        for dataset in DATASETS.values():
            path = folder / file_name(name, dataset)
            if path.is_file():
                found[name, dataset.name] = _numbers(path, name, dataset.name)
    return found


def _numbers(path: Path, variant: str, dataset: str) -> dict[str, float | None]:
    try:
        plain: Any = parsed("no JSON", path.read_bytes())
        if not isinstance(plain, dict) or (plain.get("variant"), plain.get("dataset")) != (variant, dataset):
            raise ValueError(f"it is not that of {variant} on {dataset}")
        if lacking := [name for name in COSTS if name not in plain]:
            raise ValueError(f"it has no {', '.join(lacking)}")
        return {name: finite(plain[name]) for name in COSTS}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} holds no cost: {reason}\nwrite it again: python -m harness.cost --write") from None


def cost_of_cell(cell: Cell, costs: Costs) -> Mapping[str, float | None]:
    """The catalogue's, of a variant as it stands there; of any other what its records hold. A model with other
    parameters is another model, whatever it is called."""
    own = {name: cell.cost(name) for name in COSTS}
    plain = cost_of_plain(costs, cell.variant, cell.overrides, cell.dataset)
    return plain if plain and own["params"] in (None, plain["params"]) else own


def cost_of_plain(costs: Costs, variant: str, settings: tuple[str, ...], dataset: str) -> Mapping[str, float | None]:
    """The catalogue's cost of a variant as it stands there; nothing of one with fields of its own changed."""
    return {} if changed_fields_of(settings) else costs.get((variant, dataset), {})


def changed_fields_of(settings: tuple[str, ...]) -> list[str]:
    """Of what was set for a cell, what changes its variant: the recipe's fields change no cost."""
    return [text.removeprefix("variant.") for text in settings if text.startswith("variant.")]
