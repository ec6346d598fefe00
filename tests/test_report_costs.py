"""Tables and figures take the costs of the catalogue from results/cost: complete before anything is trained."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.config import resolve
from harness.datasets import DATASETS
from harness.evidence.cells import Evidence, read_costs, read_evidence
from harness.evidence.figures.costs import sizes_data
from harness.evidence.paper import all_tables
from harness.evidence.writing import Table
from harness.studies import STUDIES
from harness.study import Row, Study
from tests.test_report import cell_of, write_run
from variants.catalog import CATALOG
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
COSTS = read_costs(ROOT / "results" / "cost")
MAIN = STUDIES["main"]

SHAPES = len({(of.image_size, of.num_classes) for of in DATASETS.values()})


def table(evidence: Evidence, name: str, study: Study = MAIN) -> Table:
    return {one.name: one for one in all_tables(evidence, study)}[name]


def test_the_main_table_has_every_cost_and_pass_before_anything_is_trained(tmp_path: Path) -> None:
    shown = table(read_evidence([tmp_path], COSTS), "main")
    heads = {row[:2]: row[2:5] for row in shown.rows}
    assert heads.keys() == {row.name for row in MAIN.rows}
    assert all("—" not in head for head in heads.values())
    assert heads["patch2", "common"] == ("200", "2.73", "0.916")
    assert heads["vanilla", "published"][1:] == ("6.27", "0.428")
    for row in MAIN.rows:
        passes = resolve(row.variant, DATASETS["c10"], row.recipe).recipe.epochs
        assert heads[row.name][0] == str(passes)
    assert all(set(row[5:]) == {"—"} for row in shown.rows)


@pytest.mark.parametrize(
    ("variant", "overrides", "counted", "shown"),
    [
        ("vanilla", ["variant.width=96"], 1_234_567, "1.23"),  # an altered variant: never the catalogue's
        ("patch2", ["variant.depth=2"], None, "—"),
        ("vanilla", ["epochs=10", "recipe.lr=0.1"], None, "6.27"),  # the recipe's fields change no cost
        ("compact", [], 222_000, "0.222"),  # of another size: the catalogue may have changed since
        ("mine.py:NET", [], 777_000, "0.777"),  # no file of the catalogue's costs
        ("mine.py:NET", [], None, "—"),
    ],
)
def test_a_cell_has_the_cost_of_its_record_or_of_the_catalogue(tmp_path, variant, overrides, counted, shown) -> None:
    cost = {"params": counted, "macs": counted}
    write_run(tmp_path, variant, "c10", config={"overrides": overrides}, cost=cost)
    recipe = ", ".join(["published", *overrides])
    evidence = read_evidence([tmp_path], COSTS)
    assert cell_of(table(evidence, "main"), "params (M)", variant=variant, recipe=recipe) == shown
    changed = [text.removeprefix("variant.") for text in overrides if text.startswith("variant.")]
    lines = [row[4] for row in table(evidence, "cost").rows if row[0] == ", ".join([variant, *changed])]
    assert counted is None or f"{counted:,}" in lines


def test_a_planned_row_with_an_altered_variant_is_a_hole(tmp_path: Path) -> None:
    study = replace(MAIN, rows=(Row("compact", "common", ("variant.pool=mean",)), Row("compact", "common")))
    shown = table(read_evidence([tmp_path], COSTS), "main", study)
    assert [row[3] for row in shown.rows] == ["—", "0.119"]


def test_the_cost_table_lists_the_catalogue_once_a_shape(tmp_path: Path) -> None:
    shown = table(read_evidence([tmp_path], COSTS), "cost")
    assert [row[0] for row in shown.rows].count("vanilla") == SHAPES
    assert {row[0] for row in shown.rows} == set(CATALOG) and len(shown.rows) == SHAPES * len(CATALOG)
    assert cell_of(shown, "data sets", variant="vanilla", pixels="32", classes="10") == "CIFAR-10, SVHN"
    share = cell_of(shown, "attention share of MACs (%)", variant="patch2", pixels="32", classes="10")
    assert share == f"{100 * 9 * 2 * 257**2 * 192 / 915_676_224:.1f}"
    assert cell_of(shown, "activations without head", variant="patch2", pixels="32", classes="10") == "10,735,212"
    first = [row[4] for row in shown.rows if row[1:3] == ("32", "10")]
    assert first == sorted(first, key=lambda text: int(text.replace(",", "")))


def test_a_run_of_a_catalogue_variant_adds_no_line(tmp_path: Path) -> None:
    told = COSTS["vanilla", "c10"]
    write_run(tmp_path, "vanilla", "c10", cost={"params": told["params"], "macs": None})
    shown = table(read_evidence([tmp_path], COSTS), "cost")
    assert len(shown.rows) == SHAPES * len(CATALOG)
    assert cell_of(shown, "MACs", variant="vanilla", pixels="32", classes="10") == f"{told['macs']:,}"


def test_the_sizes_are_those_of_the_whole_catalogue_at_the_study_s_first_data_set(tmp_path: Path) -> None:
    cost = {"params": 400_000, "macs": 5_000_000}
    write_run(tmp_path, "compact", "c10", config={"overrides": ["variant.width=96"]}, cost=cost)
    bars = sizes_data(read_evidence([tmp_path]).cells, COSTS, "c10")["bars"]
    sizes = {bar["variant"]: bar["params"] for bar in bars}
    assert sizes.keys() == {*CATALOG, "compact, width=96"} and [*sizes.values()] == sorted(sizes.values())
    assert {(bar["pixels"], bar["classes"]) for bar in bars} == {(32, 10)}
    assert sizes["resnet18"] == 11_173_962 and sizes["compact, width=96"] == 400_000
    small = {bar["variant"]: bar["params"] for bar in sizes_data((), COSTS, "digits")["bars"]}
    assert small["vanilla"] == 6_245_770


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"variant": "compact", "dataset": "c10", "params": 1}'])
def test_a_file_that_holds_no_cost_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "compact-c10.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"compact-c10\.json holds no cost") as told:
        read_costs(tmp_path)
    assert "harness.cost --write" in str(told.value)
    assert read_costs(tmp_path / "nowhere") == {}
