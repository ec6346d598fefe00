"""A study's tables and figures show what it found, the report writes and removes them, bold means best and
distinguishable, and captions say how a table came about. Every record here is made up."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.evidence.captions import RULE, made_with
from harness.evidence.cells import read_evidence
from harness.evidence.figures.drawing import data_digest, drawn, read_digest
from harness.evidence.figures.studies import study_figures
from harness.evidence.findings import findings
from harness.evidence.paper import write_tables
from harness.evidence.tables.study import study_tables
from harness.evidence.writing import Table
from harness.report import main
from harness.studies import STUDIES
from harness.studies import changes as study_of_changes
from harness.studies import grid as study_of_grid
from harness.study import Row, Study
from tests.test_effects import BY_HAND, GRID, GRID_ROWS, POOLING, found, only, write_row, write_rows
from tests.test_report import table, write_run


def cells(table: Table, row: int) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row]))


# --- tables


def test_the_table_of_a_study_by_hand(tmp_path: Path) -> None:
    """cls is above the base in 2 of the 9 pairs of runs, mean in 8 and even in 1; the rest is in test_effects.py."""
    write_rows(tmp_path, POOLING, BY_HAND)
    (table,) = study_tables(only(tmp_path))
    base, cls, mean = (cells(table, row) for row in range(3))
    assert table.name == "study-pooling"
    assert (base["row"], base["changed"], base["effect (points)"], base["verdict"]) == ("pool=seq", "—", "—", "base")
    assert base["accuracy (%)"] == "61.00 ± 2.48 (3)"
    assert cls["changed"] == "variant.pool: seq → cls"
    assert (cls["effect (points)"], cls["pairs"]) == ("-1.00 ± 1.24", "3")
    assert (cls["p"], cls["Holm p"], cls["sign-flip p (smallest)"]) == ("0.0742", "0.0742", "0.25 (0.25)")
    assert (cls["seeds to resolve"], cls["verdict"]) == ("5", "not distinguishable")
    assert (mean["p"], mean["Holm p"], mean["verdict"]) == ("0.000832", "0.00166", "better")
    assert [row["probability of improvement"].split(" ")[0] for row in (base, cls, mean)] == ["—", "0.22", "0.94"]
    assert (mean["params (M)"], mean["MACs (G)"], mean["minutes"]) == ("0.119", "0.00894", "10.0")


def test_one_seed_is_undecided_and_has_no_probability(tmp_path: Path) -> None:
    write_rows(tmp_path, POOLING, [(60.0, 61.0), (61.0,)])
    (table,) = study_tables(only(tmp_path))
    cls, mean = cells(table, 1), cells(table, 2)
    assert (cls["effect (points)"], cls["pairs"], cls["Holm p"]) == ("+1.00", "1 (1 unpaired)", "—")
    assert (cls["verdict"], cls["probability of improvement"]) == ("undecided", "—")
    assert set(mean.values()) - {"—"} == {"pool=mean", "variant.pool: seq → mean", "0", "not run"}


def test_captions_say_what_was_run(tmp_path: Path) -> None:
    small = study_of_changes("Works?", Row("compact", "quick", label="pool=seq"), {"pool=cls": "variant.pool=cls"})
    write_rows(tmp_path / "short", POOLING, [(60.0, 61.0), (61.0,)], epochs=10, precision="bf16", compile=True)
    write_rows(tmp_path / "small", small, [(60.0,), (61.0,)], dataset="digits")
    held_out = replace(POOLING, holdout=0.1)
    write_rows(tmp_path / "held", held_out, [(60.0,), (61.0,)], holdout=0.1)
    studies = {"short": POOLING, "small": replace(POOLING, quick=small), "held": held_out}
    short, quick, held = (study_tables(only(tmp_path / name, of))[0].caption for name, of in studies.items())
    assert "Every row was given 10 epochs instead of those that the study plans" in short
    assert "500,000 images seen" in short and "step was compiled" in short and "Nothing is tested" in short
    assert "quick form" in quick and "instead of" not in quick
    assert "Validation accuracy on CIFAR-10 after the last planned epoch, a holdout of 10%" in held


def test_a_row_that_is_the_base_on_this_data_set_says_so(tmp_path: Path) -> None:
    """Where nothing may be mirrored, a row without the flip is its base: a difference of 0 would be no finding."""
    base = Row("compact", "common", label="crop+flip").but("recipe.augment=crop,flip")
    study = study_of_changes("Flips?", base, {"crop": "recipe.augment=crop", "pool=cls": "variant.pool=cls"})
    write_rows(tmp_path, study, [(62.0, 63.1, 63.9), (), (60.0, 61.0, 62.0)], dataset="svhn")
    (table,) = study_tables(only(tmp_path, study))
    assert (cells(table, 1)["verdict"], cells(table, 1)["effect (points)"]) == ("same cell as crop+flip", "—")
    assert "adjusted for the one comparison" in table.caption
    assert table.conclusions[-1] == "crop: the same cell as crop+flip on this data set."
    assert table.bold == {(0, table.columns.index("accuracy (%)"))}, "its second self is no rival"
    write_rows(tmp_path, study, [(60.0, 61.0), (61.0, 62.5)])
    on_c10 = next(one for one in found(tmp_path, study) if one.dataset == "c10")
    assert on_c10.effects[0].label == "crop"


def test_the_tables_of_a_grid(tmp_path: Path) -> None:
    write_rows(tmp_path, GRID, GRID_ROWS)
    effects, grid, variance = study_tables(only(tmp_path, GRID))
    assert [table.name for table in (effects, grid, variance)] == [
        "study-pooling",
        "study-pooling-cells",
        "study-pooling-variance",
    ]
    assert (cells(effects, 1)["level"], cells(effects, 1)["averaged over"]) == ("recipe=s1", "variant")
    assert cells(effects, 1)["effect (points)"] == "+2.15 ± 1.91"
    assert [(row[0], row[1], row[2].split(" ")[0]) for row in grid.rows] == [
        ("compact", "common", "60.50"),
        ("compact", "s1", "64.70"),
        ("vanilla", "common", "62.50"),
        ("vanilla", "s1", "62.60"),
    ]
    assert [row[0] for row in variance.rows] == ["variant", "recipe", "variant × recipe", "seeds"]
    assert sum(float(row[1]) for row in variance.rows) == pytest.approx(100, abs=0.2)
    assert effects.conclusions and not grid.conclusions
    assert r"\begin{table*}" in effects.to_latex() and r"\begin{table}" in variance.to_latex()


def test_a_level_s_change_is_stated_by_machine(tmp_path: Path) -> None:
    rates = {name: f"recipe.lr={name}" for name in ("1e-3", "3e-3")}
    factors = {"pool": {"seq": "", "cls": "variant.pool=cls"}, "lr": rates}
    study = study_of_grid("Rate?", Row("compact", "common"), factors)
    write_rows(tmp_path, study, [(60.0,)] * 4)
    assert [row[1] for row in study_tables(only(tmp_path, study))[0].rows] == [
        "variant.pool: seq → cls",
        "recipe.lr: 0.001 → 0.003",
    ]


# --- figures


def figures(root: Path, study: Study) -> dict[str, dict]:
    return {plan.name: plan.data for plan in study_figures(only(root, study)) if not plan.lacking}


def test_a_forest_has_a_line_for_each_comparison_in_the_order_of_the_study(tmp_path: Path) -> None:
    """Of the rows in their other order: both are worse than the first, and as clear as if they were better."""
    write_rows(tmp_path, POOLING, BY_HAND[::-1])
    assert [effect.verdict for effect in only(tmp_path).effects] == ["worse", "worse"]
    (name, data) = next(iter(figures(tmp_path, POOLING).items()))
    assert (name, data["x_label"]) == ("forest-pooling", "points of test accuracy against pool=seq")
    assert [(row["label"], row["n"], row["clear"]) for row in data["rows"]] == [
        ("pool=cls", 3, True),
        ("pool=mean", 3, True),
    ]
    assert [row["mean"] for row in data["rows"]] == pytest.approx([-3, -2])
    assert data["rows"][1]["half"] == pytest.approx(0.248414, abs=1e-5)


def test_a_forest_without_a_pair_is_not_drawn(tmp_path: Path) -> None:
    write_row(tmp_path, POOLING.rows[0], (60.0,))
    write_row(tmp_path, POOLING.rows[1], (60.0,), first_seed=1)
    assert figures(tmp_path, POOLING) == {}


def test_scaling_curves_are_of_budgets_and_shares_alone(tmp_path: Path) -> None:
    base = Row("compact", "common", label="200 passes")
    budget = study_of_changes("?", base, {f"{n} passes": f"recipe.epochs={n}" for n in (50, 100)})
    share = study_of_changes("?", base, {f"{n} %": f"recipe.train_share={n / 100}" for n in (10, 50)})
    for name, study in (("budget", budget), ("share", share)):
        write_rows(tmp_path / name, study, [(60.0, 62.0), (50.0,), (55.0,)])
    (line,) = figures(tmp_path / "budget", budget)["scaling-pooling"]["lines"]
    assert [(point["x"], point["mean"], point["n"]) for point in line["points"]] == [
        (50, 50, 1),
        (100, pytest.approx(55), 1),
        (200, 61, 2),
    ]
    assert [point["half"] is None for point in line["points"]] == [True, True, False]
    assert figures(tmp_path / "share", share)["scaling-pooling"]["ticks"] == [[10, "10"], [50, "50"], [100, "100"]]
    write_rows(tmp_path / "pools", POOLING, BY_HAND)
    assert set(figures(tmp_path / "pools", POOLING)) == {"forest-pooling"}
    mixed = study_of_changes("?", base, {"50 passes": "recipe.epochs=50", "pool=cls": "variant.pool=cls"})
    write_rows(tmp_path / "mixed", mixed, [(60.0,), (61.0,), (62.0,)])
    assert set(figures(tmp_path / "mixed", mixed)) == {"forest-pooling"}, "two rows have as many passes"


def test_an_interaction_has_a_line_for_each_level_of_the_first_factor(tmp_path: Path) -> None:
    write_rows(tmp_path, GRID, GRID_ROWS[:3])
    data = figures(tmp_path, GRID)["interaction-pooling"]
    assert (data["legend"], data["x_label"], data["ticks"]) == ("variant", "recipe", [[0, "common"], [1, "s1"]])
    points = {line["name"]: [(point["x"], point["mean"]) for point in line["points"]] for line in data["lines"]}
    assert points == {"compact": [(0, 60.5), (1, pytest.approx(64.7))], "vanilla": [(0, 62.5)]}


# --- the report


def write_pooling(root: Path, seeds: int = 3) -> None:
    """The suite's own study, as it plans it."""
    for place, row in enumerate(STUDIES["pooling"].rows):
        write_row(root, row, [60 + place + seed / (1 + place) for seed in range(seeds)])


def report(tmp_path: Path, runs: str = "runs", out: str = "paper") -> Path:
    (tmp_path / runs).mkdir(exist_ok=True)
    words = ["--results", str(tmp_path / runs), "--out", str(tmp_path / out), "--bench", str(tmp_path / "nothing")]
    assert main(words) == 0
    return tmp_path / out


def test_the_report_has_every_study_that_was_run_whatever_the_main_table_is(tmp_path: Path, capsys) -> None:
    write_pooling(tmp_path / "runs")
    out = report(tmp_path)
    printed = capsys.readouterr().out
    sentences = [line.strip() for line in printed.split("pooling on CIFAR-10, 100 epochs, fp32:\n")[1].splitlines()]
    assert len(sentences) == 2 and sentences[0].startswith("pool=cls: +0.50 ± 1.24 points against pool=seq (n = 3")
    markdown = (out / "tables/study-pooling.md").read_text()
    assert all(f"\n* {sentence.split(': ')[0]}: " in markdown for sentence in sentences)
    assert "such a difference" not in (out / "tables/study-pooling.tex").read_text()
    (instance,) = findings(read_evidence([tmp_path / "runs"]))
    for name, data in ((plan.name, plan.data) for plan in study_figures(instance)):
        assert read_digest(out / f"figures/{name}.png") == data_digest(data)
        assert data_digest(data).encode() in (out / f"figures/{name}.pdf").read_bytes()


def test_the_figures_of_a_study_are_drawn_to_the_same_bytes(tmp_path: Path) -> None:
    write_rows(tmp_path, GRID, GRID_ROWS)
    plans = study_figures(only(tmp_path, GRID))
    assert [plan.name for plan in plans] == ["forest-pooling", "interaction-pooling"]
    assert [drawn(plan, {}) for plan in plans] == [drawn(plan, {}) for plan in plans]


def test_tables_of_studies_that_the_records_no_longer_hold_go_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "study-mine.md").write_text("somebody's own")
    write_tables([Table("study-a", ("x",), (("1",),), "")], tmp_path)
    lines = write_tables([Table("study-b", ("x",), (("1",),), "")], tmp_path)
    assert lines[-1] == "tables/study-a: removed, it was made of other records"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("study-b.csv", "study-b.md", "study-b.tex"),
        "study-mine.md",
    ]


# --- bold in the main table, and how it is written --------------------------------------------------------------------


def test_the_main_table_is_bold_in_one_column_and_undecided_in_another(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.60, 0.61, 0.62)):
        write_run(tmp_path, "compact", "c10", seed, accuracy)
        write_run(tmp_path, "vanilla", "c10", seed, 0.9 + seed / 1000)
        write_run(tmp_path, "vanilla", "c100", seed, 0.5)
    write_run(tmp_path, "vanilla", "c10", 3, None)
    write_run(tmp_path, "compact", "svhn", 0, 0.6)
    write_run(tmp_path, "vanilla", "svhn", 0, 0.9)
    shown = table(tmp_path, "main")
    assert [(shown.rows[i][0], shown.columns[j]) for i, j in shown.bold] == [("vanilla", "CIFAR-10 (%)")]
    assert "| **90.10 ± 0.25 (3, 1 failed)** |" in shown.to_markdown()
    assert r"& \textbf{90.10 $\pm$ 0.25 (3, 1 failed)} &" in shown.to_latex()
    assert "**" not in shown.to_csv() and "90.10 ± 0.25" in shown.to_csv()
    assert RULE in shown.caption and "Undecided for SVHN: " in shown.caption


# --- what captions say ------------------------------------------------------------------------------------------------


def test_what_runs_were_made_with(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, "compact", "c10", seed, epochs=100)
    write_run(tmp_path, "vanilla", "c10", 0, None, env={"device_name": "never finished"})
    told = "Trained on GPU A, in bf16, with torch 2.15.0, n = 2, 100 epochs, 5,000,000 images seen."
    assert made_with(read_evidence([tmp_path]).cells) == told and made_with([]) == ""
    write_run(tmp_path, "patch2", "c10", 0, env={"torch": None, "device_name": "CPU B"}, images_seen=None)
    for number in range(5):
        write_run(tmp_path, f"v{number}", "c10", 0, epochs=20 + number, images_seen=7, config={"precision": "fp32"})
    sentence = made_with(read_evidence([tmp_path]).cells, "n")
    assert sentence == (
        "Trained on CPU B and GPU A, in bf16 and fp32, with torch 2.15.0 and unknown, 20 to 100 epochs, 7 or 5,000,000 "
        "or unknown images seen."
    ), "more budgets than one names one by one"
