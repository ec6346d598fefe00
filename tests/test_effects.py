"""Studies say what their records say, by values worked out by hand. Every record here is made up."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.config import RunConfig
from harness.datasets import DATASETS
from harness.evidence.captions import conclusions
from harness.evidence.cells import read_evidence
from harness.evidence.effects import Best, best_of
from harness.evidence.findings import Finding, findings
from harness.evidence.tables.study import study_tables
from harness.records.schema import RESULT_FIELDS
from harness.records.write import RunWriter
from harness.statistics.paired import paired
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


def found(root: Path, study: Study = POOLING) -> list[Finding]:
    return findings(read_evidence([root]), {"pooling": study})


def only(root: Path, study: Study = POOLING) -> Finding:
    (instance,) = found(root, study)
    return instance


# --- effects ----------------------------------------------------------------------------------------------------------

BY_HAND = ((60.0, 61.0, 62.0), (59.0, 59.5, 61.5), (62.0, 63.1, 63.9))


def test_effects_by_hand(tmp_path: Path) -> None:
    """cls - seq: -1, -1.5, -.5: mean -1, sd .5, +- 4.30265 x .5 / sqrt 3. With two degrees of freedom
    p = 1 - |t| / sqrt(t^2 + 2). mean - seq: 2, 2.1, 1.9: mean 2, sd .1; Holm doubles the smaller p alone.
    """
    write_rows(tmp_path, POOLING, BY_HAND)
    cls, mean = only(tmp_path).effects
    p_cls, p_mean = (1 - t / math.sqrt(t**2 + 2) for t in (math.sqrt(12), 20 * math.sqrt(3)))
    assert (cls.label, cls.against, cls.difference.n) == ("pool=cls", "pool=seq", 3)
    assert cls.difference.mean == pytest.approx(-1) and cls.difference.half == pytest.approx(1.24207, abs=1e-5)
    assert cls.difference.t_p == cls.holm_p == pytest.approx(p_cls)
    assert mean.difference.mean == pytest.approx(2) and mean.difference.half == pytest.approx(0.248414, abs=1e-5)
    assert (mean.difference.t_p, mean.holm_p) == (pytest.approx(p_mean), pytest.approx(2 * p_mean))
    assert (cls.verdict, mean.verdict) == ("not distinguishable", "better")
    assert cls.difference.sign_flip_p == cls.difference.smallest_sign_flip_p == 0.25
    assert conclusions(only(tmp_path))[1] == (
        "pool=mean: +2.00 ± 0.25 points against pool=seq (n = 3, Holm p = 0.00166): better."
    )


def test_the_family_is_one_study_on_one_data_set(tmp_path: Path) -> None:
    """.7, 1, 1.3: t = 1 / (.3 / sqrt 3), p = .0287 on each of two data sets; doubled, nothing could be told apart."""
    for dataset in ("c10", "svhn"):
        write_rows(tmp_path, POOLING, [(60.0, 61.0, 62.0), (60.7, 62.0, 63.3)], dataset=dataset)
    first, second = found(tmp_path)
    assert (first.name, second.name) == ("pooling-c10", "pooling-svhn")
    for instance in (first, second):
        effect = instance.effects[0]
        assert effect.holm_p == effect.difference.t_p
        assert effect.holm_p == pytest.approx(0.0287, abs=5e-5) and effect.verdict == "better"


SAME = "undecided, every pair differs by the same, which leaves the test no spread; sign-flip p = 0.5."
ONE_PAIR = "undecided, one pair says nothing of the spread."
CLS_BY_HAND = "-1.00 ± 1.24 points against pool=seq (n = 3, Holm p = 0.0742): not distinguishable; 80 % power"


@pytest.mark.parametrize(
    ("cls", "mean", "told"),
    [
        (
            (None, 62.0, 61.5, 70.0),
            (*[None] * 7, 70.0),
            [
                "+0.25 ± 9.53 points against pool=seq (n = 2, 2 seeds unpaired",
                "undecided, no seed is on both sides (against pool=seq).",
            ],
        ),
        ((None,), (), ["undecided, 1 run failed and none done.", "not run."]),
        ((None,), (59.0, 59.5, 61.5), ["undecided, 1 run failed and none done.", CLS_BY_HAND]),  # no part of the family
        (
            (61.0, 62.0),
            (70.0,),
            [
                f"+1.00 points against pool=seq (n = 2, 1 seed unpaired): {SAME}",
                f"+10.00 points against pool=seq (n = 1, 2 seeds unpaired): {ONE_PAIR}",
            ],
        ),
    ],
)
def test_what_cannot_be_compared_is_said_and_no_part_of_the_family(tmp_path: Path, cls, mean, told) -> None:
    write_rows(tmp_path, POOLING, [BY_HAND[0], cls, mean])
    for label, sentence, wanted in zip(POOLS, conclusions(only(tmp_path)), told):
        assert sentence.startswith(f"{label}: {wanted}")


# --- grids ------------------------------------------------------------------------------------------------------------

GRID_ROWS = ((60.0, 61.0), (64.0, 65.4), (62.0, 63.0), (62.0, 63.2))  # compact common, s1; vanilla common, s1


def test_main_effects_by_hand(tmp_path: Path) -> None:
    """variant: ((62 - 60) + (62 - 64)) / 2 = 0 and ((63 - 61) + (63.2 - 65.4)) / 2 = -.1.
    recipe: ((64 - 60) + (62 - 62)) / 2 = 2 and ((65.4 - 61) + (63.2 - 63)) / 2 = 2.3.
    """
    write_rows(tmp_path, GRID, GRID_ROWS)
    variant, recipe = only(tmp_path, GRID).effects
    assert (variant.label, variant.against, variant.averaged_over) == ("variant=vanilla", "variant=compact", "recipe")
    assert (recipe.label, recipe.against, recipe.averaged_over) == ("recipe=s1", "recipe=common", "variant")
    assert (variant.difference.mean, recipe.difference.mean) == pytest.approx((-0.05, 2.15))
    assert recipe.difference.spread == pytest.approx(0.3 / math.sqrt(2))
    p = 1 - 2 / math.pi * math.atan(2.15 / 0.15)  # t = mean / (spread / sqrt 2), one degree of freedom
    assert recipe.difference.t_p == pytest.approx(p) and recipe.holm_p == pytest.approx(2 * p)


@pytest.mark.parametrize(
    ("rows", "variant", "recipe"),
    [
        (
            GRID_ROWS[:3],
            f"+2.00 points against variant=compact, averaged over recipe (common) (n = 2): {SAME}",
            "+4.20 ± 2.54 points against recipe=common, averaged over variant (compact) (n = 2, Holm p = 0.0303)",
        ),
        (
            [*GRID_ROWS[:3], (62.0,)],
            "+0.00 points against variant=compact, averaged over recipe (n = 1, 1 seed unpaired)",
            "+2.00 points against recipe=common, averaged over variant (n = 1, 1 seed unpaired): undecided",
        ),
        (GRID_ROWS[:2], "not run.", "+4.20 ± 2.54 points"),
        ([*GRID_ROWS[:2], (None,)], "undecided, no seed is on both sides", "+4.20 ± 2.54 points"),  # tried, if in vain
    ],
)
def test_a_grid_with_holes_averages_over_what_both_sides_have(tmp_path: Path, rows, variant, recipe) -> None:
    write_rows(tmp_path, GRID, rows)
    instance = only(tmp_path, GRID)
    first, second = conclusions(instance)
    assert first.startswith(f"variant=vanilla: {variant}") and second.startswith(f"recipe=s1: {recipe}")
    assert instance.shares == []


def test_three_factors_have_main_effects_and_shares(tmp_path: Path) -> None:
    """Each effect is the mean of four differences: of 8 cells 60 to 67 in the order of the rows it is 4, 2 and 1.

    Of the squares of half of them, 4, 1 and 1/4, and of seeds 1/2 above and below, 1/4: 5.5 in all.
    """
    fields = {"a": "variant.depth=5", "b": "variant.pool=cls", "c": "recipe.lr=0.002"}
    study = study_of_grid("?", Row("compact", "common"), {name: {"0": "", "1": one} for name, one in fields.items()})
    write_rows(tmp_path, study, [(60.0 + place, 61.0 + place) for place in range(8)])
    instance = only(tmp_path, study)
    assert [effect.difference.mean for effect in instance.effects] == pytest.approx([4, 2, 1])
    assert [effect.averaged_over for effect in instance.effects] == ["b and c", "a and c", "a and b"]
    shares = {share.source: 5.5 * share.found for share in instance.shares}
    assert shares == pytest.approx(dict.fromkeys(shares, 0) | {"a": 4, "b": 1, "c": 0.25, "seeds": 0.25})
    assert len(shares) == 8
    assert [share.by_chance for share in instance.shares] == pytest.approx([1 / 15] * 7 + [8 / 15])
    told = "The variance over 2 seeds a cell falls on a 73% (7%), b 18% (7%), c 5% (7%), a × b 0% (7%), "
    assert conclusions(instance)[-1].startswith(told)


# --- gaps between published models ------------------------------------------------------------------------------------

FAMILIES = STUDIES["recipe-vs-architecture"]


def write_grid(root: Path, accuracy, seeds: int = 3) -> None:
    for row in FAMILIES.rows:
        write_row(root, row, [accuracy(*row.levels, seed) for seed in range(seeds)])


def test_a_gap_by_hand(tmp_path):
    """compact under s2 reaches 50 + seed, vanilla under s1 80; compact under s1 60 + seed, vanilla under s2 74.
    Seed 0: a gap of 30, of which the model ((74 - 50) + (80 - 60)) / 2 = 22 and the recipe 8; each seed lowers the gap
    and the model's part by 1.
    """
    corners = {("compact", "s2"): 50, ("compact", "s1"): 60, ("vanilla", "s1"): 80, ("vanilla", "s2"): 74}
    write_grid(tmp_path, lambda v, r, seed: corners.get((v, r), 70) + (seed if v == "compact" else 0))
    (instance,) = found(tmp_path, FAMILIES)
    gap = next(gap for gap in instance.gaps if gap.first == "compact under s2" and gap.second == "vanilla under s1")
    assert (gap.whole.mean, gap.model.mean, gap.recipe.mean) == pytest.approx((29, 21, 8))
    assert gap.whole.half == pytest.approx(gap.model.half) and gap.recipe.spread == 0 and gap.whole.n == 3
    assert len(instance.gaps) == 6, "every pair of four families"
    sentence = next(s for s in conclusions(instance) if s.startswith("From compact under s2 to vanilla under s1"))
    assert "+29.00 ± 2.48 points (n = 3), of which the model +21.00 ± 2.48 and the recipe" in sentence
    table = next(table for table in study_tables(instance) if table.name.endswith("-gaps"))
    assert ("compact under s2", "vanilla under s1", "+29.00 ± 2.48", "+21.00 ± 2.48") in {row[:4] for row in table.rows}


def test_a_gap_needs_its_four_corners_on_one_seed(tmp_path):
    for row in FAMILIES.rows:
        if row.levels != ("vanilla", "s2"):
            write_row(tmp_path, row, (60.0, 61.0))
    (instance,) = found(tmp_path, FAMILIES)
    pairs = {(gap.first.split()[0], gap.second.split()[0]) for gap in instance.gaps}
    assert ("compact", "vanilla") not in pairs and ("compact", "patch2") in pairs


# --- what is chosen ---------------------------------------------------------------------------------------------------

RATES = {"0.001": "", "0.003": "recipe.lr=0.003", "0.01": "recipe.lr=0.01"}

MODELS = {name: f"variant={name}" for name in ("compact", "vanilla")}

TUNED = replace(
    study_of_grid("Which rate?", Row("compact", "common"), {"variant": MODELS, "lr": RATES}), holdout=0.1
)  # rows: compact at the three rates, vanilla at the three

TUNED_ROWS = [(60.0, 61.0), (63.0, 63.4), (62.0, 63.0), (70.0, 72.0), (70.0, 72.0), (69.0, 69.0)]


FAILED_ROWS = [(60.0, 61.0), (63.0, None), (62.0, 63.0), (None, None), (70.0, 72.0), (None, 69.0)]


@pytest.mark.parametrize(
    ("rows", "chosen"),  # best cell, mean, seeds, cells that failed
    [
        (TUNED_ROWS, [("compact, lr=0.003", 63.2, 2, 0), ("vanilla, lr=0.001", 71, 2, 0)]),  # of a tie the first
        (TUNED_ROWS[:-1], [("compact, lr=0.003", 63.2, 2, 0)]),  # not all of vanilla's were tried
        ([*TUNED_ROWS[:-1], (69.0,)], [("compact, lr=0.003", 63, 1, 0), ("vanilla, lr=0.001", 70, 1, 0)]),
        (FAILED_ROWS, [("compact, lr=0.01", 62.5, 2, 1), ("vanilla, lr=0.003", 71, 2, 2)]),  # tried, and not chosen
    ],
)
def test_the_best_cell_of_each_variant_is_chosen_by_held_out_images(tmp_path: Path, rows, chosen) -> None:
    write_rows(tmp_path, TUNED, rows, holdout=0.1)
    found = only(tmp_path, TUNED).choices
    assert [(f"variant={best}", *rest) for best, *rest in chosen] == [
        (one.best.label, one.mean, one.seeds, one.failed) for one in found
    ]


def test_a_choice_says_how_clear_it_was(tmp_path: Path) -> None:
    for name, rows in {"all": TUNED_ROWS, "failed": FAILED_ROWS}.items():
        write_rows(tmp_path / name, TUNED, rows, holdout=0.1)
    assert (
        "Chosen for compact among 3 cells (n = 2): variant=compact, lr=0.003, with 63.20% on the validation images, "
        "0.70 points ahead of variant=compact, lr=0.01. As a recipe: common, recipe.lr=0.003."
    ) in conclusions(only(tmp_path / "all", TUNED))
    assert (
        "Chosen for vanilla among 3 cells (n = 2), 2 of which failed: variant=vanilla, lr=0.003, with 71.00% on the "
        "validation images. As a recipe: common, recipe.lr=0.003."
    ) in conclusions(only(tmp_path / "failed", TUNED))


def test_sums_in_another_order_are_a_tie(tmp_path: Path) -> None:
    """The same three accuracies of 5,000 images, whose sums as floats differ in the last bit by their order."""
    first, again = ([100 * right / 5000 for right in of] for of in ((4071, 4481, 4018), (4105, 4447, 4018)))
    assert sum(first) > sum(again) and sum(first) == pytest.approx(sum(again), abs=1e-9)
    write_rows(tmp_path, TUNED, [again, first, (1.0,) * 3, *TUNED_ROWS[3:]], holdout=0.1)
    assert only(tmp_path, TUNED).choices[0].best.label == "variant=compact, lr=0.001"


def test_nothing_is_chosen_on_test_images(tmp_path: Path) -> None:
    study = replace(TUNED, holdout=0.0)
    write_rows(tmp_path, study, TUNED_ROWS)
    assert only(tmp_path, study).shared_seeds == [0, 1] and only(tmp_path, study).choices == []


# --- what is bold -----------------------------------------------------------------------------------------------------

BEST = {0: 80.0, 1: 80.0, 2: 80.0}


def behind(spread: float) -> dict[int, float]:
    """One point behind on average: by 1 - spread, 1 and 1 + spread. With three pairs, t = sqrt(3) / spread, and the
    two-sided p = 1 - t / sqrt(t^2 + 2)."""
    return {0: 79 + spread, 1: 79.0, 2: 79 - spread}


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ([behind(0.2495), BEST, None, behind(0.3573), {}], Best(row=1)),  # .02 and .04 become .04 and .04
        ([BEST, behind(0.3573)], Best(row=0)),  # one comparison is not adjusted
        ([behind(0.3075), BEST, behind(0.3573)], Best()),  # .03 and .04 become .06
        ([BEST, behind(0.4055)], Best()),  # .0504
        ([], Best()),
        ([None, BEST, {}], Best()),  # alone
        ([BEST, dict(BEST)], Best()),  # tied
        ([BEST, behind(0.1), {0: 70.0}], Best(undecided=True)),  # one rival has one seed
        ([BEST, {7: 70.0, 8: 70.5}], Best(undecided=True)),  # no seed in common
        ([BEST, {seed: value - 1 for seed, value in BEST.items()}], Best(undecided=True)),  # no spread
    ],
)
def test_the_best_is_bold_where_every_test_survives_holm(column: list, found: Best) -> None:
    assert best_of(column) == found


def test_means_and_shared_seeds_must_point_the_same_way() -> None:
    """The first has the better mean because of a seed that the second has not; on the shared ones it is worse."""
    first = {0: 79.0, 1: 79.1, 2: 79.2, 3: 99.0}
    second = {0: 80.0, 1: 80.0, 2: 80.1}
    assert paired(first, second).t_p == pytest.approx(0.003, abs=2e-3)
    assert best_of([first, second]) == Best()
