"""Owns what each variant costs, as the records tell it: one line for each variant and shape of data.
Refuses to count anything itself: a cost that no run recorded is a hole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.datasets import title
from harness.evidence.cells.groups import Evidence, Group
from harness.evidence.cells.rows import datasets_of
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import whole

FIELDS = ("params", "params_without_head", "macs", "macs_without_head", "attention_macs", "activations_without_head")
COLUMNS = (
    *("variant", "pixels", "classes", "data sets", "params", "params without head", "MACs", "MACs without head"),
    *("attention share of MACs (%)", "activations without head"),
)


@dataclass
class CostLine:
    variant: str
    pixels: int | None
    classes: int | None
    values: dict[str, float | None]
    datasets: list[str] = field(default_factory=list)


def cost_lines(groups: Sequence[Group]) -> list[CostLine]:
    """In the order of the data sets' names; two lines of one variant and shape differ in what they cost."""
    lines: dict[tuple, CostLine] = {}
    for dataset in datasets_of(groups):
        for group in (group for group in groups if group.dataset == dataset):
            shape = group.setting("variant") or {}
            pixels, classes = shape.get("image_size"), shape.get("num_classes")
            values = {name: group.cost(name) for name in FIELDS}
            key = (variant_label(group), pixels, classes, *values.values())
            line = lines.setdefault(key, CostLine(key[0], pixels, classes, values))
            if dataset not in line.datasets:
                line.datasets.append(dataset)
    return list(lines.values())


def variant_label(group: Group) -> str:
    """The variant with those overrides that are its own: the recipe's change no cost."""
    own = [text.removeprefix("variant.") for text in group.overrides if text.startswith("variant.")]
    return ", ".join((group.variant, *own))


def cost_table(evidence: Evidence) -> Table:
    lines = sorted(cost_lines(evidence.groups), key=_order)
    caption = (
        "What each variant costs at each shape of data. MACs (multiply-accumulates; FLOPs = 2 x MACs) are those of one "
        "image and include the attention products. Activations are the outputs of layers and products, counted on the "
        "explicit attention path. " + evidence.source
    )
    return Table("cost", COLUMNS, tuple(_cells(line) for line in lines), caption)


def _order(line: CostLine) -> tuple:
    return line.values["params"] or 0, line.variant, line.pixels or 0, line.classes or 0, line.datasets


def _cells(line: CostLine) -> tuple[str, ...]:
    macs, attention = line.values["macs"], line.values["attention_macs"]
    share = f"{100 * attention / macs:.1f}" if macs and attention is not None else HOLE
    numbers = [whole(line.values[name]) for name in FIELDS if name != "attention_macs"]
    shape = [HOLE if size is None else str(size) for size in (line.pixels, line.classes)]
    return line.variant, *shape, ", ".join(map(title, line.datasets)), *numbers[:-1], share, numbers[-1]
