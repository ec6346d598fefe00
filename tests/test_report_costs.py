"""Tables and figures take the costs of the catalogue from results/cost: complete before anything is trained."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.config import resolve
from harness.datasets import DATASETS
from harness.evidence.cells import Evidence, read_costs, read_evidence
from harness.evidence.figures.costs import sizes_data
from harness.evidence.paper import all_tables
from harness.evidence.writing import Table
from harness.report import main
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


NOT_COUNTED: dict[str, Any] = dict.fromkeys(("params", "macs"))


def of_params(count: int, **more: Any) -> dict[str, Any]:
    """A record's cost that no variant of the catalogue has."""
    return {"params": count, "macs": 5_000_000, **more}


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


def test_an_altered_variant_has_the_cost_of_its_record_and_never_the_catalogue_s(tmp_path: Path) -> None:
    altered = {"overrides": ["variant.width=96"]}
    write_run(tmp_path, "vanilla", "c10", config=altered, cost=of_params(1_234_567))
    write_run(tmp_path, "vanilla", "c100", config=altered, cost=NOT_COUNTED)
    write_run(tmp_path, "patch2", "c10", config={"overrides": ["variant.depth=2"]}, cost=NOT_COUNTED)
    evidence = read_evidence([tmp_path], COSTS)
    shown = table(evidence, "main")
    assert cell_of(shown, "params (M)", recipe="published, variant.width=96") == "1.23"
    assert cell_of(shown, "params (M)", recipe="published, variant.depth=2") == "—"
    costs = table(evidence, "cost")
    assert cell_of(costs, "params", variant="vanilla, width=96", classes="10") == "1,234,567"
    assert cell_of(costs, "params", variant="vanilla, width=96", classes="100") == "—"
    assert cell_of(costs, "params", variant="vanilla", pixels="32", classes="10") == "6,268,810"


def test_a_planned_row_with_an_altered_variant_is_a_hole(tmp_path: Path) -> None:
    study = replace(MAIN, rows=(Row("compact", "common", ("variant.pool=mean",)), Row("compact", "common")))
    shown = table(read_evidence([tmp_path], COSTS), "main", study)
    assert [row[3] for row in shown.rows] == ["—", "0.119"]


def test_an_override_of_the_recipe_changes_no_cost(tmp_path: Path) -> None:
    write_run(tmp_path, "vanilla", "c100", config={"overrides": ["epochs=10", "recipe.lr=0.1"]}, cost=NOT_COUNTED)
    shown = table(read_evidence([tmp_path], COSTS), "main")
    assert cell_of(shown, "params (M)", recipe="published, epochs=10, recipe.lr=0.1") == "6.27"


def test_a_record_of_another_size_keeps_its_own_cost(tmp_path: Path) -> None:
    """Whatever it is called: the catalogue may have changed since."""
    write_run(tmp_path, "compact", "c10", cost=of_params(222_000))
    evidence = read_evidence([tmp_path], COSTS)
    assert cell_of(table(evidence, "main"), "params (M)", variant="compact", recipe="published") == "0.222"
    shown = {row[4] for row in table(evidence, "cost").rows if row[:3] == ("compact", "32", "10")}
    assert shown == {"222,000", f"{COSTS['compact', 'c10']['params']:,.0f}"}


def test_a_variant_without_a_file_has_the_cost_of_its_record_or_a_hole(tmp_path: Path) -> None:
    write_run(tmp_path, "mine.py:NET", "c10", recipe="common", cost=of_params(777_000))
    write_run(tmp_path, "other.py:NET", "c10", recipe="common", cost=NOT_COUNTED)
    shown = table(read_evidence([tmp_path], COSTS), "main")
    assert cell_of(shown, "params (M)", variant="mine.py:NET") == "0.777"
    assert cell_of(shown, "params (M)", variant="other.py:NET") == "—"


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
    told = json.loads((ROOT / "results" / "cost" / "vanilla-c10.json").read_text())
    write_run(tmp_path, "vanilla", "c10", cost={"params": told["params"], "macs": None})
    shown = table(read_evidence([tmp_path], COSTS), "cost")
    assert len(shown.rows) == SHAPES * len(CATALOG)
    assert cell_of(shown, "MACs", variant="vanilla", pixels="32", classes="10") == f"{told['macs']:,}"


def test_the_sizes_are_those_of_the_whole_catalogue_at_the_study_s_first_data_set(tmp_path: Path) -> None:
    write_run(tmp_path, "compact", "c10", config={"overrides": ["variant.width=96"]}, cost=of_params(400_000))
    groups = read_evidence([tmp_path]).cells
    bars = {bar["variant"]: bar for bar in sizes_data(groups, COSTS, "c10")["bars"]}
    assert bars.keys() == {*CATALOG, "compact, width=96"}
    assert {(bar["pixels"], bar["classes"]) for bar in bars.values()} == {(32, 10)}
    assert bars["resnet18"]["params"] == 11_173_962 and bars["compact, width=96"]["params"] == 400_000
    small = {bar["variant"]: bar["params"] for bar in sizes_data((), COSTS, "digits")["bars"]}
    assert small["vanilla"] == 6_245_770
    counts = [bar["params"] for bar in sizes_data(groups, COSTS, "c10")["bars"]]
    assert counts == sorted(counts)


def test_a_report_of_no_run_has_costs_and_the_figure_of_sizes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ["--results", str(tmp_path / "empty"), "--cost", str(ROOT / "results" / "cost"), "--out", str(tmp_path)]
    assert main(words) == 0
    with (tmp_path / "tables" / "main.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) == len(MAIN.rows) and not any("—" in row[2:5] for row in rows)
    assert (tmp_path / "figures" / "model-size.png").is_file()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"variant": "compact", "dataset": "c10", "params": 1}'])
def test_a_file_that_holds_no_cost_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "compact-c10.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"compact-c10\.json holds no cost") as told:
        read_costs(tmp_path)
    assert "harness.cost --write" in str(told.value)
    assert read_costs(tmp_path / "nowhere") == {}
