"""How a gap between two published models falls on model and recipe; which studies count as run; what is counted."""

from pathlib import Path

import pytest

from harness.evidence.cells.groups import read_evidence
from harness.evidence.findings.conclusions import conclusions
from harness.evidence.findings.gaps import gaps_of
from harness.evidence.findings.instances import Instance, instances
from harness.evidence.prose import macros
from harness.evidence.tables.study import study_tables
from harness.studies import STUDIES
from tests.test_effects import write_row

GRID = STUDIES["recipe-vs-architecture"]


def of(root: Path, name: str) -> list[Instance]:
    return [one for one in instances(read_evidence([root])) if one.study_name == name and not one.quick]


def write_grid(root: Path, accuracy, seeds: int = 3) -> None:
    for row in GRID.rows:
        write_row(root, row, [accuracy(*row.levels, seed) for seed in range(seeds)])


def test_a_gap_by_hand(tmp_path):
    """compact under s2 reaches 50 + seed, vanilla under s1 80; compact under s1 60 + seed, vanilla under s2 74.
    Seed 0: a gap of 30, of which the model ((74 - 50) + (80 - 60)) / 2 = 22 and the recipe 8; each seed lowers the gap
    and the model's part by 1.
    """
    corners = {("compact", "s2"): 50, ("compact", "s1"): 60, ("vanilla", "s1"): 80, ("vanilla", "s2"): 74}
    write_grid(tmp_path, lambda v, r, seed: corners.get((v, r), 70) + (seed if v == "compact" else 0))
    (instance,) = of(tmp_path, "recipe-vs-architecture")
    gap = next(gap for gap in gaps_of(instance) if gap.first == "compact under s2" and gap.second == "vanilla under s1")
    assert (gap.whole.mean, gap.model.mean, gap.recipe.mean) == pytest.approx((29, 21, 8))
    assert gap.whole.half == pytest.approx(gap.model.half) and gap.recipe.spread == 0 and gap.whole.n == 3
    assert len(gaps_of(instance)) == 6, "every pair of four families"
    sentence = next(s for s in conclusions(instance) if s.startswith("From compact under s2 to vanilla under s1"))
    assert "+29.00 ± 2.48 points (n = 3), of which the model +21.00 ± 2.48 and the recipe" in sentence
    table = next(table for table in study_tables(instance) if table.name.endswith("-gaps"))
    assert ("compact under s2", "vanilla under s1", "+29.00 ± 2.48", "+21.00 ± 2.48") in {row[:4] for row in table.rows}


def test_a_gap_needs_its_four_corners_on_one_seed(tmp_path):
    for row in GRID.rows:
        if row.levels != ("vanilla", "s2"):
            write_row(tmp_path, row, (60.0, 61.0))
    (instance,) = of(tmp_path, "recipe-vs-architecture")
    pairs = {(gap.first.split()[0], gap.second.split()[0]) for gap in gaps_of(instance)}
    assert ("compact", "vanilla") not in pairs and ("compact", "patch2") in pairs


def test_cells_of_another_study_make_no_fragment(tmp_path):
    """The main table on CIFAR-100 holds seven cells of a grid that is planned on CIFAR-10."""
    for row in STUDIES["main"].rows:
        for dataset in ("c10", "c100"):
            write_row(tmp_path, row, (60.0, 61.0), dataset=dataset)
    found = instances(read_evidence([tmp_path]))
    assert {one.study_name for one in found} == {"main"}
    for row in GRID.rows:
        write_row(tmp_path, row, (60.0, 61.0), dataset="c100")
    assert [one.dataset for one in of(tmp_path, "recipe-vs-architecture")] == ["c100"], "all of it counts anywhere"


def test_what_was_not_run_is_no_comparison(tmp_path):
    rows = STUDIES["neighbours"].rows
    for row in rows[:3]:
        write_row(tmp_path, row, (60.0, 61.0))
    write_row(tmp_path, rows[3], (62.0,))
    evidence = read_evidence([tmp_path])
    text = macros(evidence, STUDIES["main"], instances(evidence))["abstractFinding"]
    assert "1 study with 3 comparisons has been run so far" in text and text.endswith(
        ", 1 has one seed and decides nothing."
    )


def test_a_small_form_that_is_a_study_of_its_own_is_told_once(tmp_path):
    for row in STUDIES["quick"].rows:
        write_row(tmp_path, row, (60.0, 61.0), dataset="digits")
    assert [one.study_name for one in instances(read_evidence([tmp_path]))] == ["quick"]
