"""Owns the proof that bold means best and distinguishable, and that captions say how a table came about.
Refuses to train: the seeds' accuracies are planted on either side of every line that the rule draws.
"""

from pathlib import Path

import pytest

from harness.evidence.cells.groups import read_evidence
from harness.evidence.findings.best import RULE, Best, best_of, best_sentence
from harness.evidence.tables.captions import made_with
from harness.evidence.writing import Table
from harness.statistics.paired import paired
from tests.test_report import table, write_run

BEST = {0: 80.0, 1: 80.0, 2: 80.0}


def behind(spread: float) -> dict[int, float]:
    """One point behind on average: by 1 - spread, 1 and 1 + spread. With three pairs, t = sqrt(3) / spread, and the
    two-sided p = 1 - t / sqrt(t^2 + 2)."""
    return {0: 79 + spread, 1: 79.0, 2: 79 - spread}


# --- which cell is bold


def test_the_planted_p_values_are_what_they_are_said_to_be() -> None:
    spreads = {0.2495: 0.02, 0.3075: 0.03, 0.3573: 0.04, 0.4055: 0.0504}
    for spread, p in spreads.items():
        assert paired(behind(spread), BEST).t_p == pytest.approx(p, abs=3e-4)


def test_the_best_is_bold_where_every_test_survives_holm() -> None:
    """.02 and .04 become .04 and .04."""
    assert best_of([behind(0.2495), BEST, None, behind(0.3573), {}]) == Best(row=1)
    assert best_of([BEST, behind(0.3573)]) == Best(row=0)  # one comparison is not adjusted


def test_near_misses_are_not_bold() -> None:
    assert best_of([behind(0.3075), BEST, behind(0.3573)]) == Best()  # .03 and .04 become .06
    assert best_of([BEST, behind(0.4055)]) == Best()  # .0504


def test_alone_tied_or_run_once_is_not_bold() -> None:
    assert best_of([]) == best_of([None, BEST, {}]) == Best()
    assert best_of([BEST, dict(BEST)]) == Best()
    assert best_of([BEST, behind(0.1), {0: 70.0}]) == Best(undecided=True)  # one rival has one seed
    assert best_of([BEST, {7: 70.0, 8: 70.5}]) == Best(undecided=True)  # no seed in common
    assert best_of([BEST, {seed: value - 1 for seed, value in BEST.items()}]) == Best(undecided=True)  # no spread


def test_means_and_shared_seeds_must_point_the_same_way() -> None:
    """The first has the better mean because of a seed that the second has not; on the shared ones it is worse."""
    first = {0: 79.0, 1: 79.1, 2: 79.2, 3: 99.0}
    second = {0: 80.0, 1: 80.0, 2: 80.1}
    assert paired(first, second).t_p == pytest.approx(0.003, abs=2e-3)
    assert best_of([first, second]) == Best()


def test_the_sentence_names_what_is_undecided() -> None:
    assert best_sentence({"a": Best(row=1), "b": Best()}) == RULE
    assert "Undecided for b, c: " in best_sentence({"a": Best(), "b": Best(undecided=True), "c": Best(undecided=True)})


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


# --- how bold is written


def test_bold_cells_are_escaped_like_others() -> None:
    shown = Table("t", ("name", "x"), (("a_b*c & 5%", "-1.50"), ("plain", "2")), "", bold=frozenset({(0, 0), (0, 1)}))
    assert shown.to_markdown().splitlines()[1:4] == [
        "| --- | ---: |",
        r"| **a\_b\*c &amp; 5%** | **-1.50** |",
        "| plain | 2 |",
    ]
    assert r"\textbf{a\_b*c \& 5\%} & \textbf{$-$1.50} \\" in shown.to_latex()
    assert shown.to_csv().splitlines()[1] == "a_b*c & 5%,-1.50"


def test_bold_follows_its_column_when_latex_leaves_one_out() -> None:
    shown = Table("t", ("a", "b", "c"), (("1", "2", "3"),), "", ("b",), frozenset({(0, 2)}))
    assert r"1 & \textbf{3} \\" in shown.to_latex()


# --- what captions say


def test_what_runs_were_made_with(tmp_path: Path) -> None:
    write_run(tmp_path, "compact", "c10", 0, epochs=100)
    write_run(tmp_path, "compact", "c10", 1, epochs=100)
    write_run(tmp_path, "vanilla", "c10", 0, None, env={"device_name": "never finished"})
    groups = read_evidence([tmp_path]).groups
    assert made_with(groups) == (
        "Trained on GPU A, in bf16, with torch 2.15.0, n = 2, 100 epochs, 5,000,000 images seen."
    )
    assert made_with(groups, "device", "precision", "n", "epochs", "images") == "Trained with torch 2.15.0."
    assert made_with([]) == ""


def test_mixed_and_unknown_things_are_named_in_captions(tmp_path: Path) -> None:
    write_run(tmp_path, "compact", "c10", 0, env={"torch": None, "device_name": "CPU B"}, images_seen=None)
    write_run(tmp_path, "vanilla", "c10", 0, epochs=10, config={"precision": "fp32"})
    for number in range(5):
        write_run(tmp_path, f"v{number}", "c10", 0, epochs=20 + number, images_seen=7)
    sentence = made_with(read_evidence([tmp_path]).groups)
    assert "on CPU B and GPU A, in bf16 and fp32, with torch 2.15.0 and unknown," in sentence
    assert "10 to 100 epochs" in sentence  # more budgets than one names one by one
    assert "7 or 500,000 or unknown images seen" in sentence
