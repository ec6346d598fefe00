"""Studies find their runs: by what was run, never by its name. Every record here is made up."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.datasets import DATASETS
from harness.evidence.captions import conclusions
from harness.evidence.cells import read_evidence
from harness.evidence.findings import changes_text, findings
from harness.evidence.paper import macros
from harness.studies import STUDIES
from harness.studies import changes as study_of_changes
from harness.study import Row, Study
from tests.test_effects import POOLING, POOLS, SEQ, found, only, write_row, write_rows

# --- which runs belong to which study ---------------------------------------------------------------------------------


def test_a_study_needs_its_base_and_another_row(tmp_path: Path) -> None:
    write_row(tmp_path, POOLING.rows[1], (60.0,))
    write_row(tmp_path, POOLING.rows[2], (60.0,))
    assert found(tmp_path) == []
    write_row(tmp_path, POOLING.rows[0], (None,))
    assert found(tmp_path) == []
    write_row(tmp_path, POOLING.rows[0], (60.0,), first_seed=1)
    assert [effect.difference.n for effect in only(tmp_path).effects] == [0, 0]


def test_a_table_of_rows_is_compared_with_the_first_that_was_run(tmp_path: Path) -> None:
    rows = Study("Who?", (Row("compact", "common"), Row("vanilla", "common"), Row("patch2", "common")))
    write_row(tmp_path, rows.rows[1], (60.0,))
    write_row(tmp_path, rows.rows[2], (61.0,))
    instance = only(tmp_path, rows)
    assert instance.base.label == "vanilla common"
    assert [(e.label, e.against) for e in instance.effects] == [
        ("compact common", "vanilla common"),
        ("patch2 common", "vanilla common"),
    ]


def test_rows_that_only_their_settings_tell_apart_are_called_by_these(tmp_path: Path) -> None:
    rows = Study("Who?", tuple(Row("compact", "common", (f"variant.depth={depth}",)) for depth in (4, 5)))
    write_rows(tmp_path, rows, [(60.0,), (61.0,)])
    assert [line.label for line in only(tmp_path, rows).lines] == [row.title for row in rows.rows]


def test_a_shortened_study_is_found_beside_the_planned_one(tmp_path: Path) -> None:
    write_rows(tmp_path, POOLING, [(60.0,), (61.0,)], epochs=10)
    assert (only(tmp_path).name, only(tmp_path).title) == ("pooling", "pooling on CIFAR-10, 10 epochs, fp32")
    write_rows(tmp_path, POOLING, [(70.0,), (73.0,)])
    planned, short = found(tmp_path)
    assert (planned.name, short.name) == ("pooling", "pooling-e10")
    assert [one.effects[0].difference.mean for one in (planned, short)] == pytest.approx([3, 1])


def test_the_budget_of_one_row_makes_no_second_study(tmp_path: Path) -> None:
    budget = study_of_changes("More?", SEQ, {f"{n} passes": f"recipe.epochs={n}" for n in (50, 200)})
    write_rows(tmp_path, budget, [(60.0,), (58.0,), (61.0,)])
    assert [line.config.recipe.epochs for line in only(tmp_path, budget).lines] == [100, 50, 200]


def test_rows_that_so_few_passes_do_not_allow_are_left_out(tmp_path: Path) -> None:
    cycles = study_of_changes("Restarts?", SEQ, {"4 cycles": "recipe.cycles=4", **POOLS})
    write_row(tmp_path, cycles.rows[0], (60.0,), epochs=2)
    write_row(tmp_path, cycles.rows[2], (61.0,), epochs=2)
    assert [line.label for line in only(tmp_path, cycles).lines] == ["pool=seq", "pool=cls", "pool=mean"]


def test_precisions_and_compilation_are_not_mixed(tmp_path: Path) -> None:
    write_row(tmp_path, POOLING.rows[0], (60.0,))
    write_row(tmp_path, POOLING.rows[1], (61.0,), precision="bf16", compile=True)
    assert found(tmp_path) == []
    write_row(tmp_path, POOLING.rows[0], (63.0,), precision="bf16", compile=True)
    write_row(tmp_path, POOLING.rows[2], (61.0,))
    fast, plain = found(tmp_path)
    assert (fast.name, plain.name) == ("pooling-bf16-compiled", "pooling-fp32-eager")
    assert [fast.effects[0].difference.mean, plain.effects[1].difference.mean] == pytest.approx([-2, 1])
    assert [line.label for line in plain.lines if line.scores] == ["pool=seq", "pool=mean"]


def test_a_small_form_says_so_and_one_with_its_own_name_comes_once(tmp_path: Path) -> None:
    small = study_of_changes("Works?", Row("compact", "quick", label="pool=seq"), POOLS, datasets=("digits",))
    write_rows(tmp_path, small, [(60.0,), (61.0,)], dataset="digits")
    study = replace(POOLING, quick=small)
    assert only(tmp_path, study).quick and only(tmp_path, study).title.startswith("pooling (quick form) on digits")
    both = findings(read_evidence([tmp_path]), {"pooling": study, "small": small})
    assert [(one.study_name, one.quick) for one in both] == [("small", False)]


def test_a_study_on_held_out_images_reads_these_alone(tmp_path: Path) -> None:
    held_out = replace(POOLING, holdout=0.1)
    write_rows(tmp_path, POOLING, [(90.0,), (80.0,)])
    assert found(tmp_path, held_out) == []
    write_rows(tmp_path, held_out, [(60.0,), (61.0,)], holdout=0.1)
    instance = only(tmp_path, held_out)
    assert instance.effects[0].difference.mean == pytest.approx(1)
    assert "validation images" in instance.title
    assert only(tmp_path).effects[0].difference.mean == pytest.approx(-10)


def test_a_study_moved_to_another_variant_counts_once_all_its_rows_were_run(tmp_path: Path) -> None:
    moved = POOLING.narrowed(variants=["vanilla"])
    write_rows(tmp_path, moved, [(60.0,), (61.0,)])
    assert found(tmp_path) == [], "two cells of something else"
    write_row(tmp_path, moved.rows[2], (62.0,))
    assert (only(tmp_path).moved_to, only(tmp_path).name) == ("vanilla", "pooling")
    write_rows(tmp_path, POOLING, [(60.0,), (61.0,)])
    assert [one.name for one in found(tmp_path)] == ["pooling", "pooling-vanilla"]


def test_records_that_lack_a_field_are_in_no_study(tmp_path: Path) -> None:
    write_rows(tmp_path, POOLING, [(60.0,), (61.0,)])
    for path in tmp_path.glob("*/config.json"):
        path.write_text(path.read_text().replace('"variant_type"', '"of_type"'))
    assert found(tmp_path) == []


def test_every_study_of_the_suite_is_found_again(tmp_path: Path) -> None:
    """As planned, one seed: whatever a study plans, its own records answer it."""
    for study in STUDIES.values():
        for row in study.rows[: max(2, (len(study.rows) + 1) // 2)]:
            write_row(tmp_path, row, (60.0,), dataset=study.datasets[0], holdout=study.holdout)
    names = {one.study_name for one in findings(read_evidence([tmp_path])) if not one.quick and not one.moved_to}
    assert names == set(STUDIES)


SMALL = {name: study.quick for name, study in STUDIES.items() if study.quick}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_form_is_found_as_itself_alone(name: str, tmp_path: Path) -> None:
    for row in SMALL[name].rows:
        write_row(tmp_path, row, (60.0,), dataset="digits", holdout=SMALL[name].holdout)
    assert [(one.study_name, one.quick) for one in findings(read_evidence([tmp_path]))] == [(name, True)]


def test_cells_of_another_study_make_no_fragment(tmp_path):
    """The main table on CIFAR-100 holds seven cells of a grid that is planned on CIFAR-10; with one more it is half."""
    for row in STUDIES["main"].rows:
        for dataset in ("c10", "c100"):
            write_row(tmp_path, row, (60.0, 61.0), dataset=dataset)
    write_row(tmp_path, Row("compact", "s1"), (60.0, 61.0), dataset="c100")
    assert {one.study_name for one in findings(read_evidence([tmp_path]))} == {"main"}
    grid = STUDIES["recipe-vs-architecture"]
    for row in grid.rows:
        write_row(tmp_path, row, (60.0, 61.0), dataset="c100")
    assert [one.dataset for one in found(tmp_path, grid)] == ["c100"], "all of it counts anywhere"


@pytest.mark.parametrize("variant", ["vanilla", "timm:resnet18"])
def test_tuning_another_model_is_found_once_all_of_its_cells_were_tried(tmp_path: Path, variant: str) -> None:
    """On half of the passes that the study plans; the last of the twelve fails."""
    tuned = STUDIES["tuning"].narrowed([variant])
    *most, _ = [(float(60 + place),) for place in range(len(tuned.rows))]
    write_rows(tmp_path, tuned, most, holdout=0.1, epochs=100)
    assert findings(read_evidence([tmp_path])) == []
    write_rows(tmp_path, tuned, [*([()] * len(most)), (None,)], holdout=0.1, epochs=100)
    (instance,) = findings(read_evidence([tmp_path]))
    assert instance.title == f"tuning on CIFAR-10, validation images, {variant}, 100 epochs, fp32"
    (told,) = conclusions(instance)
    assert told.startswith(
        f"Chosen for {variant} among 12 cells (n = 1), 1 of which failed: regularisation=heavy, lr=2e-3,"
    )


def test_a_choice_is_told_as_the_recipe_that_was_trained(tmp_path: Path) -> None:
    """No study mirrors digits, and the passes are part of the recipe."""
    rows = [(80.0,), *[(70.0,)] * 11]
    write_rows(tmp_path, STUDIES["tuning"], rows, dataset="svhn", holdout=0.1, epochs=50)
    (instance,) = findings(read_evidence([tmp_path]))
    assert conclusions(instance)[-1].endswith(
        " As a recipe: common, epochs=50, recipe.augment=crop, recipe.lr=5e-4, recipe.mix=none."
    )


def test_studies_that_choose_are_no_findings_of_the_abstract(tmp_path: Path) -> None:
    for variant in ("compact", "vanilla"):
        write_rows(tmp_path, STUDIES["tuning"].narrowed([variant]), [(60.0,)] * 12, holdout=0.1)
    found = findings(read_evidence([tmp_path]))
    assert [one.moved_to for one in found] == ["compact", "vanilla"], "and no other study takes their cells for its own"
    told = macros(read_evidence([tmp_path]), STUDIES["main"], found)["abstractFinding"]
    assert told == "No study of single ingredients has been run yet."


def test_what_was_not_run_is_no_comparison(tmp_path):
    rows = STUDIES["neighbours"].rows
    for row in rows[:3]:
        write_row(tmp_path, row, (60.0, 61.0))
    write_row(tmp_path, rows[3], (62.0,))
    evidence = read_evidence([tmp_path])
    text = macros(evidence, STUDIES["main"], findings(evidence))["abstractFinding"]
    assert "1 study with 3 comparisons has been run so far" in text and text.endswith(
        ", 1 has one seed and decides nothing."
    )


# --- what a row changes -----------------------------------------------------------------------------------------------


def test_a_machine_states_what_a_row_changes() -> None:
    def text(row: Row, other: Row) -> str:
        return changes_text(row.resolve(DATASETS["c10"]), other.resolve(DATASETS["c10"]))

    base = Row("compact", "common")
    assert text(base, base) == "—"
    assert text(base, base.but("variant.pool=cls", label="a lie")) == "variant.pool: seq → cls"
    assert text(base, base.but("recipe.augment=crop,flip")) == "recipe.augment without randaugment"
    assert text(base, base.but("recipe.augment=crop,flip,randaugment,erase")) == "recipe.augment with erase"
    assert text(base, base.but("recipe.augment=none")) == "recipe.augment without crop, flip, randaugment"
    assert text(base, base.but("recipe.augment=crop,trivialaugment")) == (
        "recipe.augment: crop, flip, randaugment → crop, trivialaugment"
    )
    assert text(base, base.but("recipe.drop_path=0.1")) == "variant.drop_path: 0.0 → 0.1", "one change, said once"
    assert text(base, base.but("recipe.train_share=0.5")) == "recipe.train_share: 1.0 → 0.5"
    assert text(base, base.but("variant=timm")).startswith("in ")
