"""The table of costs: a line for each variant of the catalogue at each shape of data, and for each altered variant that
was run, with the cost that its record holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.datasets import DATASETS, title
from harness.evidence.cells import Cell, Costs, Evidence
from harness.evidence.costs import COSTS, changed_fields_of, cost_of_plain
from harness.evidence.tables.captions import sentences
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import whole

COLUMNS = (
    *("variant", "pixels", "classes", "data sets", "params", "params without head", "MACs", "MACs without head"),
    *("attention share of MACs (%)", "activations without head"),
)


@dataclass
class CostLine:
    variant: str
    pixels: int | None
    classes: int | None
    values: Mapping[str, float | None]
    datasets: list[str] = field(default_factory=list)


def cost_lines(groups: Sequence[Cell], costs: Costs) -> list[CostLine]:
    """Data set by data set; two lines of one variant and shape differ in what they cost."""
    lines: dict[tuple, CostLine] = {}
    found = [*_of_catalogue(costs), *(_of_group(group, costs) for group in groups)]
    for one in sorted(found, key=lambda one: dataset_order(one.datasets[0])):
        line = lines.setdefault((one.variant, one.pixels, one.classes, *one.values.values()), one)
        line.datasets += [name for name in one.datasets if name not in line.datasets]
    return list(lines.values())


def _of_catalogue(costs: Costs) -> Iterator[CostLine]:
    for (variant, dataset), values in costs.items():
        shape = DATASETS[dataset]
        yield CostLine(variant, shape.image_size, shape.num_classes, values, [dataset])


def _of_group(group: Cell, costs: Costs) -> CostLine:
    shape, label = group.setting("variant") or {}, ", ".join((group.variant, *changed_fields_of(group.overrides)))
    pixels, classes = shape.get("image_size"), shape.get("num_classes")
    return CostLine(label, pixels, classes, cost_of_cell(group, costs), [group.dataset])


def cost_of_cell(group: Cell, costs: Costs) -> Mapping[str, float | None]:
    """The catalogue's, of a variant as it stands there; of any other what its records hold. A model with other
    parameters is another model, whatever it is called."""
    own = {name: group.cost(name) for name in COSTS}
    plain = cost_of_plain(costs, group.variant, group.overrides, group.dataset)
    return plain if plain and own["params"] in (None, plain["params"]) else own


def dataset_order(name: str) -> tuple[int, str]:
    """The known ones as they are listed, then a person's own."""
    known = list(DATASETS)
    return known.index(name) if name in known else len(known), name


def cost_table(evidence: Evidence) -> Table:
    lines = sorted(cost_lines(evidence.cells, evidence.costs), key=_order)
    caption = sentences(
        "What each variant costs at each shape of data. MACs (multiply-accumulates; FLOPs = 2 x MACs) are those of one "
        "image and include the attention products. Activations are the outputs of layers and products, counted on the "
        "explicit attention path.",
        "Variants of the catalogue were counted without a run, others are as their runs recorded them."
        if evidence.costs
        else "",
        evidence.source,
    )
    return Table("cost", COLUMNS, tuple(_cells(line) for line in lines), caption)


def _order(line: CostLine) -> tuple:
    return dataset_order(line.datasets[0]), line.values["params"] or 0, line.variant, line.datasets


def _cells(line: CostLine) -> tuple[str, ...]:
    macs, attention = line.values["macs"], line.values["attention_macs"]
    share = f"{100 * attention / macs:.1f}" if macs and attention is not None else HOLE
    numbers = [whole(line.values[name]) for name in COSTS if name != "attention_macs"]
    shape = [HOLE if size is None else str(size) for size in (line.pixels, line.classes)]
    return line.variant, *shape, ", ".join(map(title, line.datasets)), *numbers[:-1], share, numbers[-1]
