"""Owns the proof that studies find their runs and say what these say, by values worked out by hand.
Refuses to train: every record here is made up.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig
from harness.datasets import DATASETS
from harness.evidence.cells.groups import read_evidence
from harness.evidence.findings.changed import changes, changes_text
from harness.evidence.findings.chosen import choices_of
from harness.evidence.findings.conclusions import conclusions
from harness.evidence.findings.effects import effects_of
from harness.evidence.findings.grids import shared_seeds, shares_of
from harness.evidence.findings.instances import Instance, instances
from harness.evidence.prose import macros
from harness.records.schema import RESULT_FIELDS
from harness.records.write import RunWriter
from harness.studies import STUDIES
from harness.studies import changes as study_of_changes
from harness.studies import grid as study_of_grid
from harness.study import Row, Study

SEQ = Row("compact", "published", label="pool=seq")  # 100 passes
POOLS = {"pool=cls": "variant.pool=cls", "pool=mean": "variant.pool=mean"}
POOLING = study_of_changes("Which pool?", SEQ, POOLS)
GRID = study_of_grid(
    "Which of the two?",
    Row("compact", "common"),
    {
        "variant": {name: f"variant={name}" for name in ("compact", "vanilla")},
        "recipe": {name: f"recipe={name}" for name in ("common", "s1")},
    },
)
COST = {"params": 119_051, "macs": 8_943_072}


def write_record(root: Path, config: RunConfig, accuracy: float | None, **result: Any) -> None:
    """As the suite leaves it, with the identity that its fields give; `accuracy` in percent, None for a failed run."""
    plain, split = config.to_plain(), "val" if config.holdout else "test"
    facts = {"device": "cuda", "device_name": "GPU A", "torch": "2.15.0", "data_digest": f"digest of {config.dataset}"}
    values: dict[str, Any] = dict.fromkeys(name for name in RESULT_FIELDS if name != "schema")
    values |= {"outcome": "failed" if accuracy is None else "ok", "split": split, "shared_device": False}
    values |= {"images_seen": config.recipe.epochs * 50_000, "train_seconds": 600.0}
    values[f"{split}_accuracy"] = None if accuracy is None else accuracy / 100
    writer = RunWriter(root / plain["run_id"])
    writer.begin(plain, facts, COST)
    writer.finish(values | result)


def write_row(
    root: Path, row: Row, accuracies: Sequence[float | None], dataset: str = "c10", first_seed: int = 0, **how: Any
) -> None:
    for seed, accuracy in enumerate(accuracies, first_seed):
        write_record(root, row.resolve(DATASETS[dataset], seed=seed, **how), accuracy)


def write_rows(root: Path, study: Study, rows: Sequence[Sequence[float | None]], **how: Any) -> None:
    for row, accuracies in zip(study.rows, rows):
        write_row(root, row, accuracies, **how)


def found(root: Path, study: Study = POOLING) -> list[Instance]:
    return instances(read_evidence([root]), {"pooling": study})


def only(root: Path, study: Study = POOLING) -> Instance:
    (instance,) = found(root, study)
    return instance


# --- effects


BY_HAND = ((60.0, 61.0, 62.0), (59.0, 59.5, 61.5), (62.0, 63.1, 63.9))


def test_effects_by_hand(tmp_path: Path) -> None:
    """cls - seq: -1, -1.5, -.5: mean -1, sd .5, +- 4.30265 x .5 / sqrt 3. With two degrees of freedom
    p = 1 - |t| / sqrt(t^2 + 2). mean - seq: 2, 2.1, 1.9: mean 2, sd .1; Holm doubles the smaller p alone.
    """
    write_rows(tmp_path, POOLING, BY_HAND)
    cls, mean = effects_of(only(tmp_path))
    p_cls, p_mean = (1 - t / math.sqrt(t**2 + 2) for t in (math.sqrt(12), 20 * math.sqrt(3)))
    assert (cls.label, cls.against, cls.difference.n) == ("pool=cls", "pool=seq", 3)
    assert cls.difference.mean == pytest.approx(-1) and cls.difference.half == pytest.approx(1.24207, abs=1e-5)
    assert cls.difference.t_p == cls.holm_p == pytest.approx(p_cls)
    assert mean.difference.mean == pytest.approx(2) and mean.difference.half == pytest.approx(0.248414, abs=1e-5)
    assert (mean.difference.t_p, mean.holm_p) == (pytest.approx(p_mean), pytest.approx(2 * p_mean))
    assert (cls.verdict, mean.verdict) == ("not distinguishable", "better")
    assert cls.difference.sign_flip_p == cls.difference.smallest_sign_flip_p == 0.25
    assert conclusions(only(tmp_path)) == [
        "pool=cls: -1.00 ± 1.24 points against pool=seq (n = 3, Holm p = 0.0742): not distinguishable; 80 % power "
        "would need 5 seeds.",
        "pool=mean: +2.00 ± 0.25 points against pool=seq (n = 3, Holm p = 0.00166): better.",
    ]


def test_worse_is_said(tmp_path: Path) -> None:
    write_rows(tmp_path, POOLING, [(62.0, 63.1, 63.9), (60.0, 61.0, 62.0)])
    assert effects_of(only(tmp_path))[0].verdict == "worse"


def test_the_family_is_one_study_on_one_data_set(tmp_path: Path) -> None:
    """.7, 1, 1.3: t = 1 / (.3 / sqrt 3), p = .0287 on each of two data sets; doubled, nothing could be told apart."""
    for dataset in ("c10", "svhn"):
        write_rows(tmp_path, POOLING, [(60.0, 61.0, 62.0), (60.7, 62.0, 63.3)], dataset=dataset)
    first, second = found(tmp_path)
    assert (first.name, second.name) == ("pooling-c10", "pooling-svhn")
    for instance in (first, second):
        effect = effects_of(instance)[0]
        assert effect.holm_p == effect.difference.t_p
        assert effect.holm_p == pytest.approx(0.0287, abs=5e-5) and effect.verdict == "better"


def test_seeds_without_a_partner_are_left_out_and_counted(tmp_path: Path) -> None:
    write_row(tmp_path, POOLING.rows[0], (60.0, 61.0, 62.0))
    write_row(tmp_path, POOLING.rows[1], (62.0, 62.0, 70.0), first_seed=1)
    write_row(tmp_path, POOLING.rows[2], (70.0,), first_seed=7)
    cls, mean = effects_of(only(tmp_path))
    assert (cls.difference.n, cls.difference.dropped, cls.difference.mean) == (2, 2, pytest.approx(0.5))
    assert (mean.difference.n, mean.verdict) == (0, "undecided")
    first, second = conclusions(only(tmp_path))
    assert "(n = 2, 2 seeds unpaired, Holm p = 0.5)" in first
    assert second == "pool=mean: undecided, no seed is on both sides (against pool=seq)."


def test_rows_that_failed_or_were_not_run_are_holes_and_no_part_of_the_family(tmp_path: Path) -> None:
    extra = study_of_changes("Which pool?", SEQ, {**POOLS, "depth=5": "variant.depth=5"})
    write_row(tmp_path, extra.rows[0], (60.0, 61.0, 62.0))
    write_row(tmp_path, extra.rows[1], (None,))
    write_row(tmp_path, extra.rows[3], (59.0, 59.5, 61.5))
    cls, mean, depth = effects_of(only(tmp_path, extra))
    assert depth.holm_p == depth.difference.t_p
    assert (cls.verdict, mean.verdict) == ("undecided", "not run")
    assert conclusions(only(tmp_path, extra))[:2] == [
        "pool=cls: undecided, 1 run failed and none done.",
        "pool=mean: not run.",
    ]


def test_one_pair_is_undecided_and_so_is_the_same_difference_every_time(tmp_path: Path) -> None:
    write_rows(tmp_path, POOLING, [(60.0, 61.0), (61.0, 62.0), (70.0,)])
    cls, mean = effects_of(only(tmp_path))
    assert (cls.verdict, cls.holm_p, mean.verdict, mean.holm_p) == ("undecided", None, "undecided", None)
    assert conclusions(only(tmp_path)) == [
        "pool=cls: +1.00 points against pool=seq (n = 2): undecided, every pair differs by the same, which leaves the "
        "test no spread; sign-flip p = 0.5.",
        "pool=mean: +10.00 points against pool=seq (n = 1, 1 seed unpaired): undecided, one pair says nothing of the "
        "spread.",
    ]


def test_ties_cannot_be_told_apart(tmp_path: Path) -> None:
    write_rows(tmp_path, POOLING, [(60.0, 61.0), (60.0, 61.0)])
    assert conclusions(only(tmp_path))[0] == (
        "pool=cls: +0.00 ± 0.00 points against pool=seq (n = 2, Holm p = 1): not distinguishable."
    )


# --- which runs belong to which study


def test_a_study_needs_its_base_and_another_row(tmp_path: Path) -> None:
    write_row(tmp_path, POOLING.rows[1], (60.0,))
    write_row(tmp_path, POOLING.rows[2], (60.0,))
    assert found(tmp_path) == []
    write_row(tmp_path, POOLING.rows[0], (None,))
    assert found(tmp_path) == []
    write_row(tmp_path, POOLING.rows[0], (60.0,), first_seed=1)
    assert [effect.difference.n for effect in effects_of(only(tmp_path))] == [0, 0]


def test_a_table_of_rows_is_compared_with_the_first_that_was_run(tmp_path: Path) -> None:
    rows = Study("Who?", (Row("compact", "common"), Row("vanilla", "common"), Row("patch2", "common")))
    write_row(tmp_path, rows.rows[1], (60.0,))
    write_row(tmp_path, rows.rows[2], (61.0,))
    instance = only(tmp_path, rows)
    assert instance.base.label == "vanilla common"
    assert [(e.label, e.against) for e in effects_of(instance)] == [
        ("compact common", "vanilla common"),
        ("patch2 common", "vanilla common"),
    ]


def test_rows_that_only_their_settings_tell_apart_are_called_by_these(tmp_path: Path) -> None:
    rows = Study("Who?", tuple(Row("compact", "common", (f"variant.depth={depth}",)) for depth in (4, 5)))
    write_rows(tmp_path, rows, [(60.0,), (61.0,)])
    assert [line.label for line in only(tmp_path, rows).lines] == [row.title for row in rows.rows]


def test_a_shortened_study_is_found_beside_the_planned_one(tmp_path: Path) -> None:
    write_rows(tmp_path, POOLING, [(60.0,), (61.0,)], epochs=10)
    assert (only(tmp_path).name, only(tmp_path).title) == ("pooling", "pooling on CIFAR-10, 10 passes, fp32")
    write_rows(tmp_path, POOLING, [(70.0,), (73.0,)])
    planned, short = found(tmp_path)
    assert (planned.name, short.name) == ("pooling", "pooling-e10")
    assert [effects_of(one)[0].difference.mean for one in (planned, short)] == pytest.approx([3, 1])


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
    assert [effects_of(fast)[0].difference.mean, effects_of(plain)[1].difference.mean] == pytest.approx([-2, 1])
    assert [line.label for line in plain.lines if line.scores] == ["pool=seq", "pool=mean"]


def test_a_small_form_says_so_and_one_with_its_own_name_comes_once(tmp_path: Path) -> None:
    small = study_of_changes("Works?", Row("compact", "quick", label="pool=seq"), POOLS, datasets=("digits",))
    write_rows(tmp_path, small, [(60.0,), (61.0,)], dataset="digits")
    study = replace(POOLING, quick=small)
    assert only(tmp_path, study).quick and only(tmp_path, study).title.startswith("pooling (quick form) on digits")
    both = instances(read_evidence([tmp_path]), {"pooling": study, "small": small})
    assert [(one.study_name, one.quick) for one in both] == [("small", False)]


def test_a_study_on_held_out_images_reads_these_alone(tmp_path: Path) -> None:
    held_out = replace(POOLING, holdout=0.1)
    write_rows(tmp_path, POOLING, [(90.0,), (80.0,)])
    assert found(tmp_path, held_out) == []
    write_rows(tmp_path, held_out, [(60.0,), (61.0,)], holdout=0.1)
    instance = only(tmp_path, held_out)
    assert effects_of(instance)[0].difference.mean == pytest.approx(1)
    assert "validation images" in instance.title
    assert effects_of(only(tmp_path))[0].difference.mean == pytest.approx(-10)


def test_a_study_moved_to_another_variant_counts_once_all_its_rows_were_run(tmp_path: Path) -> None:
    moved = POOLING.narrowed(variants=["vanilla"])
    write_rows(tmp_path, moved, [(60.0,), (61.0,)])
    assert found(tmp_path) == [], "two cells of something else"
    write_row(tmp_path, moved.rows[2], (62.0,))
    assert (only(tmp_path).moved_to, only(tmp_path).name) == ("vanilla", "pooling")
    write_rows(tmp_path, POOLING, [(60.0,), (61.0,)])
    assert [one.name for one in found(tmp_path)] == ["pooling", "pooling-vanilla"]


def test_one_cell_under_two_labels_is_not_compared_with_itself(tmp_path: Path) -> None:
    """Where nothing may be mirrored, a row without the flip is its base: a difference of 0 would be no finding."""
    base = Row("compact", "common", label="crop+flip").but("recipe.augment=crop,flip")
    study = study_of_changes("Flips?", base, {"crop": "recipe.augment=crop", **POOLS})
    write_rows(tmp_path, study, [(60.0, 61.0), (), (61.0, 62.5)], dataset="svhn")
    instance = only(tmp_path, study)
    assert [effect.label for effect in effects_of(instance)] == ["pool=cls", "pool=mean"]
    assert conclusions(instance)[-1] == "crop: the same cell as crop+flip on this data set."
    write_rows(tmp_path, study, [(60.0, 61.0), (61.0, 62.5)])
    on_c10 = next(one for one in found(tmp_path, study) if one.dataset == "c10")
    assert effects_of(on_c10)[0].label == "crop"


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
    names = {one.study_name for one in instances(read_evidence([tmp_path])) if not one.quick and not one.moved_to}
    assert names == set(STUDIES)


SMALL = {name: study.quick for name, study in STUDIES.items() if study.quick}


@pytest.mark.parametrize("name", SMALL)
def test_a_small_form_is_found_as_itself_alone(name: str, tmp_path: Path) -> None:
    for row in SMALL[name].rows:
        write_row(tmp_path, row, (60.0,), dataset="digits", holdout=SMALL[name].holdout)
    assert [(one.study_name, one.quick) for one in instances(read_evidence([tmp_path]))] == [(name, True)]


# --- what a row changes


def test_a_machine_states_what_a_row_changes() -> None:
    def text(row: Row, other: Row) -> str:
        return changes_text(changes(row.resolve(DATASETS["c10"]), other.resolve(DATASETS["c10"])))

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


# --- grids


GRID_ROWS = ((60.0, 61.0), (64.0, 65.4), (62.0, 63.0), (62.0, 63.2))  # compact common, s1; vanilla common, s1


def test_main_effects_by_hand(tmp_path: Path) -> None:
    """variant: ((62 - 60) + (62 - 64)) / 2 = 0 and ((63 - 61) + (63.2 - 65.4)) / 2 = -.1.
    recipe: ((64 - 60) + (62 - 62)) / 2 = 2 and ((65.4 - 61) + (63.2 - 63)) / 2 = 2.3.
    """
    write_rows(tmp_path, GRID, GRID_ROWS)
    variant, recipe = effects_of(only(tmp_path, GRID))
    assert (variant.label, variant.against, variant.averaged_over) == ("variant=vanilla", "variant=compact", "recipe")
    assert (recipe.label, recipe.against, recipe.averaged_over) == ("recipe=s1", "recipe=common", "variant")
    assert (variant.difference.mean, recipe.difference.mean) == pytest.approx((-0.05, 2.15))
    assert recipe.difference.spread == pytest.approx(0.3 / math.sqrt(2))
    p = 1 - 2 / math.pi * math.atan(2.15 / 0.15)  # t = mean / (spread / sqrt 2), one degree of freedom
    assert recipe.difference.t_p == pytest.approx(p) and recipe.holm_p == pytest.approx(2 * p)


def test_shares_of_the_variance_by_hand(tmp_path: Path) -> None:
    """Cells 60, 62 / 62, 60 with two seeds 1 above and below: no main effect, interaction 8 x 1, seeds 8 x 1."""
    write_rows(tmp_path, GRID, [(59.0, 61.0), (61.0, 63.0), (61.0, 63.0), (59.0, 61.0)])
    shares = shares_of(only(tmp_path, GRID))
    assert [share.source for share in shares] == ["variant", "recipe", "variant × recipe", "seeds"]
    assert [share.found for share in shares] == pytest.approx([0, 0, 0.5, 0.5])
    assert [share.by_chance for share in shares] == pytest.approx([1 / 7, 1 / 7, 1 / 7, 4 / 7])
    assert conclusions(only(tmp_path, GRID))[-1] == (
        "The variance over 2 seeds a cell falls on variant 0% (14%), recipe 0% (14%), variant × recipe 50% "
        "(14%), seeds 50% (57%); in brackets what noise alone would give."
    )


def test_a_grid_with_a_hole_averages_over_what_both_sides_have(tmp_path: Path) -> None:
    write_rows(tmp_path, GRID, GRID_ROWS[:3])
    instance = only(tmp_path, GRID)
    variant, recipe = effects_of(instance)
    assert (variant.averaged_over, recipe.averaged_over) == ("recipe (common)", "variant (compact)")
    assert (variant.difference.mean, recipe.difference.mean) == pytest.approx((2.0, 4.2))
    assert shares_of(instance) == [] and shared_seeds(instance) == []
    assert len(conclusions(instance)) == 2


def test_a_seed_that_one_cell_lacks_is_left_out_of_a_grid(tmp_path: Path) -> None:
    write_rows(tmp_path, GRID, [*GRID_ROWS[:3], GRID_ROWS[3][:1]])
    instance = only(tmp_path, GRID)
    for effect, mean in zip(effects_of(instance), (0.0, 2.0)):
        assert (effect.difference.n, effect.difference.dropped, effect.verdict) == (1, 1, "undecided")
        assert effect.difference.mean == pytest.approx(mean, abs=1e-9)
    assert shared_seeds(instance) == [0] and shares_of(instance) == []


def test_a_level_that_was_not_run_is_called_so(tmp_path: Path) -> None:
    write_rows(tmp_path, GRID, GRID_ROWS[:2])
    variant, recipe = conclusions(only(tmp_path, GRID))
    assert variant == "variant=vanilla: not run."
    assert recipe.startswith("recipe=s1: +4.20 ± ")
    write_rows(tmp_path, GRID, [(), (), (None,)])  # tried, if in vain
    assert conclusions(only(tmp_path, GRID))[0].startswith("variant=vanilla: undecided, no seed is on both sides")


def test_three_factors_have_main_effects_and_shares(tmp_path: Path) -> None:
    """Each effect is the mean of four differences: of 8 cells 60 to 67 in the order of the rows it is 4, 2 and 1.

    Of the squares of half of them, 4, 1 and 1/4, and of seeds 1/2 above and below, 1/4: 5.5 in all.
    """
    fields = {"a": "variant.depth=5", "b": "variant.pool=cls", "c": "recipe.lr=0.002"}
    study = study_of_grid("?", Row("compact", "common"), {name: {"0": "", "1": one} for name, one in fields.items()})
    write_rows(tmp_path, study, [(60.0 + place, 61.0 + place) for place in range(8)])
    instance = only(tmp_path, study)
    assert [effect.difference.mean for effect in effects_of(instance)] == pytest.approx([4, 2, 1])
    assert [effect.averaged_over for effect in effects_of(instance)] == ["b and c", "a and c", "a and b"]
    shares = shares_of(instance)
    assert [share.source for share in shares] == ["a", "b", "c", "a × b", "a × c", "b × c", "a × b × c", "seeds"]
    assert [share.found for share in shares] == pytest.approx([of / 5.5 for of in (4, 1, 0.25, 0, 0, 0, 0, 0.25)])
    assert [share.by_chance for share in shares] == pytest.approx([1 / 15] * 7 + [8 / 15])


# --- what is chosen ------------------------------------------------------------------------------------------------

RATES = {"0.001": "", "0.003": "recipe.lr=0.003", "0.01": "recipe.lr=0.01"}
MODELS = {name: f"variant={name}" for name in ("compact", "vanilla")}
TUNED = replace(
    study_of_grid("Which rate?", Row("compact", "common"), {"variant": MODELS, "lr": RATES}), holdout=0.1
)  # rows: compact at the three rates, vanilla at the three
TUNED_ROWS = [(60.0, 61.0), (63.0, 63.4), (62.0, 63.0), (70.0, 72.0), (70.0, 72.0), (69.0, 69.0)]


def test_the_best_cell_of_each_variant_is_chosen_by_held_out_images(tmp_path: Path) -> None:
    """compact: means 60.5, 63.2, 62.5. vanilla: a tie, and the first wins."""
    write_rows(tmp_path, TUNED, TUNED_ROWS, holdout=0.1)
    instance = only(tmp_path, TUNED)
    compact, vanilla = choices_of(instance)
    assert (compact.best.label, compact.mean, compact.seeds) == ("variant=compact, lr=0.003", 63.2, 2)
    assert compact.next and compact.next.label == "variant=compact, lr=0.01"
    assert (compact.lead, compact.cells, compact.failed) == (pytest.approx(0.7), 3, 0)
    assert (vanilla.best.label, vanilla.mean, vanilla.lead) == ("variant=vanilla, lr=0.001", 71.0, 0.0)
    told = conclusions(instance)
    assert (
        "Chosen for compact among 3 cells (n = 2): variant=compact, lr=0.003, with 63.20% on the validation images, "
        "0.70 points ahead of variant=compact, lr=0.01. As a recipe: common, recipe.lr=0.003."
    ) in told
    assert [sentence for sentence in told if sentence.startswith("variant=vanilla: +8.27 ± ")]


def test_sums_in_another_order_are_a_tie(tmp_path: Path) -> None:
    """The same three accuracies of 5,000 images, whose sums as floats differ in the last bit by their order."""
    first, again = ([100 * right / 5000 for right in of] for of in ((4071, 4481, 4018), (4105, 4447, 4018)))
    assert sum(first) > sum(again) and sum(first) == pytest.approx(sum(again), abs=1e-9)
    write_rows(tmp_path, TUNED, [again, first, (1.0,) * 3, *TUNED_ROWS[3:]], holdout=0.1)
    assert choices_of(only(tmp_path, TUNED))[0].best.label == "variant=compact, lr=0.001"


def test_nothing_is_chosen_for_a_variant_before_all_of_its_cells_were_tried(tmp_path: Path) -> None:
    write_rows(tmp_path, TUNED, TUNED_ROWS[:-1], holdout=0.1)
    instance = only(tmp_path, TUNED)
    assert [choice.variant for choice in choices_of(instance)] == ["compact"]
    write_rows(tmp_path / "fewer", TUNED, TUNED_ROWS[:3], holdout=0.1)
    told = conclusions(only(tmp_path / "fewer", TUNED))
    assert told[0] == "variant=vanilla: not run.", "a hole in a study of several seeds is told"
    write_rows(tmp_path, TUNED, [(), (), (), (), (), (69.0,)], holdout=0.1)
    found = choices_of(only(tmp_path, TUNED))
    assert [(choice.seeds, choice.mean) for choice in found] == [(1, 63.0), (1, 70.0)], "seed 0 alone is everyone's"


def test_a_cell_that_failed_was_tried_and_is_not_chosen(tmp_path: Path) -> None:
    """compact's best diverges with its second seed; of vanilla's cells all but one do."""
    rows = [(60.0, 61.0), (63.0, None), (62.0, 63.0), (None, None), (70.0, 72.0), (None, 69.0)]
    write_rows(tmp_path, TUNED, rows, holdout=0.1)
    compact, vanilla = choices_of(only(tmp_path, TUNED))
    assert (compact.best.label, compact.failed) == ("variant=compact, lr=0.01", 1)
    assert (vanilla.best.label, vanilla.failed, vanilla.next) == ("variant=vanilla, lr=0.003", 2, None)
    assert (
        "Chosen for vanilla among 3 cells (n = 2), 2 of which failed: variant=vanilla, lr=0.003, with 71.00% on the "
        "validation images. As a recipe: common, recipe.lr=0.003."
    ) in conclusions(only(tmp_path, TUNED))


def test_nothing_is_chosen_on_test_images(tmp_path: Path) -> None:
    study = replace(TUNED, holdout=0.0)
    write_rows(tmp_path, study, TUNED_ROWS)
    instance = only(tmp_path, study)
    assert shared_seeds(instance) == [0, 1] and choices_of(instance) == []
    assert not [sentence for sentence in conclusions(instance) if "hosen" in sentence]


@pytest.mark.parametrize("variant", ["vanilla", "timm:resnet18"])
def test_tuning_another_model_is_found_once_all_of_its_cells_were_tried(tmp_path: Path, variant: str) -> None:
    """On half of the passes that the study plans; the last of the twelve fails."""
    tuned = STUDIES["tuning"].narrowed([variant])
    *most, _ = [(float(60 + place),) for place in range(len(tuned.rows))]
    write_rows(tmp_path, tuned, most, holdout=0.1, epochs=100)
    assert instances(read_evidence([tmp_path])) == []
    write_rows(tmp_path, tuned, [*([()] * len(most)), (None,)], holdout=0.1, epochs=100)
    (instance,) = instances(read_evidence([tmp_path]))
    assert instance.title == f"tuning on CIFAR-10, validation images, {variant}, 100 passes, fp32"
    (told,) = conclusions(instance)
    assert told.startswith(
        f"Chosen for {variant} among 12 cells (n = 1), 1 of which failed: regularisation=heavy, lr=2e-3,"
    )


def test_a_choice_is_told_as_the_recipe_that_was_trained(tmp_path: Path) -> None:
    """No study mirrors digits, and the passes are part of the recipe."""
    rows = [(80.0,), *[(70.0,)] * 11]
    write_rows(tmp_path, STUDIES["tuning"], rows, dataset="svhn", holdout=0.1, epochs=50)
    (instance,) = instances(read_evidence([tmp_path]))
    assert conclusions(instance)[-1].endswith(
        " As a recipe: common, epochs=50, recipe.augment=crop, recipe.lr=5e-4, recipe.mix=none."
    )


def test_studies_that_choose_are_no_findings_of_the_abstract(tmp_path: Path) -> None:
    for variant in ("compact", "vanilla"):
        write_rows(tmp_path, STUDIES["tuning"].narrowed([variant]), [(60.0,)] * 12, holdout=0.1)
    found = instances(read_evidence([tmp_path]))
    assert [one.moved_to for one in found] == ["compact", "vanilla"], "and no other study takes their cells for its own"
    told = macros(read_evidence([tmp_path]), STUDIES["main"], found)["abstractFinding"]
    assert told == "No study of single ingredients has been run yet."
