"""Every study is what it says: changes of one field, full grids, no two rows alike; and plans are quick to make."""

import time
from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path

import pytest

from harness.config import RunConfig, resolve
from harness.datasets import DATASETS
from harness.evidence.published import PUBLISHED_NUMBERS
from harness.recipes import PUBLISHED
from harness.studies import STUDIES
from harness.study import Row, Study, changed_fields, changes, grid
from harness.sweeping.plan import on_device, plan
from harness.sweeping.status import statuses
from variants.catalog import CATALOG
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
C10 = DATASETS["c10"]


def forms() -> Iterator[tuple[str, Study]]:
    for name, study in STUDIES.items():
        yield name, study
        if study.quick:
            yield f"{name} --quick", study.quick


FORMS = dict(forms())


def resolved(study: Study, dataset: str) -> list[RunConfig]:
    return [row.resolve(DATASETS[dataset], holdout=study.holdout) for row in study.rows]


# --- what a machine checks of every study ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_every_study_can_be_planned(name):
    """Seed by seed; no two of its rows are the same run or have one title; each is called what its records are."""
    study = FORMS[name]
    planned = plan(study, DATASETS)
    assert len(planned) == study.run_count and len({row.title for row in study.rows}) == len(study.rows)
    assert [run.number for run in planned] == list(range(len(planned)))
    assert [run.config.seed for run in planned] == sorted(run.config.seed for run in planned)
    assert {run.config.holdout for run in planned} == {study.holdout}
    assert study.question.endswith(("?", ".")) and study.seeds == tuple(range(len(study.seeds)))
    for run in planned:
        config = run.config
        assert run.row.name == (config.variant_name, ", ".join((config.recipe_name, *sorted(config.overrides))))


@pytest.mark.parametrize("name", FORMS)
def test_no_study_flips_digits(name):
    """But under Lee's recipe, whose code mirrors SVHN."""
    study = FORMS[name]
    for dataset in {"svhn", *study.datasets} - {"c10", "c100"}:
        flipped = [c for c in resolved(study, dataset) if "flip" in c.recipe.augment]
        assert {c.recipe_source for c in flipped} <= {"lee"}


@pytest.mark.parametrize("name", [name for name, study in FORMS.items() if study.kind == "changes"])
def test_each_row_differs_from_the_base_in_exactly_one_field(name):
    check_changes(FORMS[name])


def check_changes(study: Study) -> None:
    for dataset in study.datasets:
        base, *others = resolved(study, dataset)
        for row, other in zip(study.rows[1:], others):
            assert len(changed_fields(base, other)) == 1, (row.label, changed_fields(base, other))
    assert all(row.label for row in study.rows) and not study.factors


@pytest.mark.parametrize("name", [name for name, study in FORMS.items() if study.kind == "grid"])
def test_a_grid_is_full_and_each_factor_owns_its_fields(name):
    check_grid(FORMS[name])


def check_grid(study: Study) -> None:
    levels = [list(dict.fromkeys(row.levels[i] for row in study.rows)) for i in range(len(study.factors))]
    assert sorted(row.levels for row in study.rows) == sorted(product(*levels))
    assert len(study.rows) == prod(map(len, levels)) and min(map(len, levels)) > 1
    for dataset in study.datasets:
        base, *_ = configs = resolved(study, dataset)
        by_levels = {row.levels: config for row, config in zip(study.rows, configs)}
        owned: list[set[str]] = []  # by each factor: what changes when it alone leaves the base
        for i, of_factor in enumerate(levels):
            alone = [(*study.base.levels[:i], level, *study.base.levels[i + 1 :]) for level in of_factor]
            owned.append({field for levels in alone for field in changed_fields(base, by_levels[levels])})
        assert all(owned) and sum(map(len, owned)) == len(set().union(*owned)), "two factors change one field"
        for row, config in zip(study.rows, configs):
            moved = [fields for fields, own, was in zip(owned, row.levels, study.base.levels) if own != was]
            assert set(changed_fields(base, config)) <= set().union(*moved), row.label


@pytest.mark.parametrize("name", [name for name in FORMS if name.endswith("--quick")])
def test_small_forms_are_small(name):
    full, small = STUDIES[name.split()[0]], FORMS[name]
    assert small.datasets == ("digits",) and small.quick is None
    assert small.run_count <= 6
    assert small.kind == full.kind and set(small.factors) <= set(full.factors) and small.holdout == full.holdout


# --- what the machine's eyes are worth -------------------------------------------------------------------------------


def test_changed_fields_sees_what_it_should():
    base = resolve("small-p4", C10)
    assert changed_fields(base, base) == changed_fields(base, resolve("small-p4", C10, seed=7)) == []
    assert changed_fields(base, resolve("small-p4", C10, settings=["recipe.lr=.1"])) == ["recipe.lr"]
    assert changed_fields(base, resolve("small-p4", C10, settings=["recipe.train_share=.1"])) == ["recipe.train_share"]
    assert changed_fields(base, resolve("small-p4", C10, holdout=0.1)) == ["holdout"]
    two = resolve("small-p4", C10, settings=["recipe.drop_path=.1"])
    assert changed_fields(base, two) == ["recipe.drop_path", "variant.drop_path"]
    assert {"variant_type", "variant.model", "variant.width"} <= set(changed_fields(base, resolve("timm", C10)))


def test_a_change_of_two_fields_does_not_pass():
    base = Row("small-p4", "common", label="base")
    check_changes(changes("?", base, {"drop path": "variant.drop_path=0.1"}))
    with pytest.raises(AssertionError, match="drop path"):
        check_changes(changes("?", base, {"drop path": "recipe.drop_path=0.1"}))


def test_a_later_setting_takes_the_place_of_its_like():
    row = Row("compact", "quick", ("recipe.epochs=3", "recipe.lr=1e-2"))
    other = row.but("recipe.epochs=1 variant=vanilla recipe=s1 variant.pool=mean", label="x")
    assert other == Row("vanilla", "s1", ("recipe.lr=1e-2", "recipe.epochs=1", "variant.pool=mean"), "x")
    shorter = row.resolve(DATASETS["digits"], epochs=2)
    assert (shorter.recipe.epochs, shorter.recipe.lr) == (2, 0.01)
    assert shorter.recipe.warmup_epochs == pytest.approx(0.2), "a tenth of the epochs, as the recipe has it"


# --- what the studies ask --------------------------------------------------------------------------------------------


def test_main_study_is_the_user_s_table():
    runs = plan(STUDIES["main"], DATASETS)
    assert len(runs) == 8 * 3 * 5 and {run.config.dataset for run in runs} == {"c10", "c100", "svhn"}
    families = {"vanilla", "compact", "patch2"}
    assert {run.row.variant for run in runs if run.row.recipe == "published"} == {*families, "patch2-conv"}
    assert {run.row.variant for run in runs if run.row.recipe == "common"} == {*families, "timm"}
    assert runs[0].row.variant == "compact" and runs[23].row.variant == "patch2-conv", "cheapest first"


def test_every_published_number_is_planned():
    study = STUDIES["published"]
    planned = {(row.name, dataset) for dataset in study.datasets for row in study.rows}
    assert {((number.variant, number.recipe), number.dataset) for number in PUBLISHED_NUMBERS} <= planned
    on_imagenet = {"vit-base-224"}  # which no study is made on
    assert {row.variant for row in study.rows if row.recipe == "published"} == set(PUBLISHED) - on_imagenet
    assert {row.recipe for row in study.rows} == {"published", "s3"}


def test_studies_share_their_base_s_runs():
    bases = ["patch-size", "position", "tokenizer", "attention", "label-smoothing", "drop-path", "schedule", "budget"]
    assert len({STUDIES[name].base.resolve(C10).plan_id for name in [*bases, "data-fraction", "optimizer"]}) == 1


@pytest.mark.parametrize("variant", CATALOG)
def test_every_variant_is_given_the_same_trials(variant):
    planned, tuned = STUDIES["tuning"], STUDIES["tuning"].narrowed([variant])
    assert [(row.recipe, row.settings) for row in tuned.rows] == [(row.recipe, row.settings) for row in planned.rows]
    configs = {row.levels: row.resolve(C10, holdout=tuned.holdout) for row in tuned.rows}
    assert len({config.plan_id for config in configs.values()}) == len(configs) == 12
    regularisation = {levels[0]: config for levels, config in configs.items()}
    assert [config.variant.drop_path for config in regularisation.values()] == [0, 0, 0.1]
    assert [config.recipe.mix for config in regularisation.values()] == ["none", "either", "either"]


# --- narrowing -------------------------------------------------------------------------------------------------------


def test_narrowing_a_table_gives_a_row_to_whom_it_has_none():
    study = STUDIES["main"].narrowed(variants=["timm", "cct-7-3x1"], datasets=["c10"], seeds=[7])
    assert {(row.variant, row.recipe) for row in study.rows} == {
        ("timm", "common"), ("cct-7-3x1", "published"), ("cct-7-3x1", "common"),
    }  # fmt: skip
    assert (study.datasets, study.seeds) == (("c10",), (7,))
    assert isinstance(study, Study) and STUDIES["main"].narrowed() == STUDIES["main"]


def test_another_variant_or_recipe_takes_the_base_s_place():
    study = STUDIES["pooling"].narrowed(variants=["vanilla"], recipes=["common"])
    assert [(row.variant, row.recipe, row.settings) for row in study.rows] == [
        ("vanilla", "common", row.settings) for row in STUDIES["pooling"].rows
    ]
    with pytest.raises(UsageError, match="only with compact; give one name"):
        STUDIES["pooling"].narrowed(variants=["vanilla", "patch2"])


def test_narrowing_a_grid_keeps_what_was_asked_for():
    study = STUDIES["recipe-vs-architecture"].narrowed(variants=["timm", "vanilla"], recipes=["s1"])
    assert [row.levels for row in study.rows] == [("vanilla", "s1"), ("timm", "s1")]
    with pytest.raises(UsageError, match="no row with recipe lee"):
        STUDIES["recipe-vs-architecture"].narrowed(recipes=["lee"])


# --- large plans -----------------------------------------------------------------------------------------------------


def test_ten_thousand_runs_are_planned_within_seconds():
    rates = {str(i): f"recipe.lr={1e-4 + i * 1e-5}" for i in range(50)}
    decays = {str(i): f"recipe.weight_decay={i * 1e-4}" for i in range(40)}
    start_s = time.process_time()
    runs = plan(grid("?", Row("small-p4", "common"), {"lr": rates, "decay": decays}), DATASETS)
    names = {run.config.run_id for run in on_device(runs, "bf16", True)}
    assert len(runs) == len(names) == 10_000
    assert {status.state for status in statuses(runs, Path("no-such-folder"))} == {"missing"}
    assert time.process_time() - start_s < 5
