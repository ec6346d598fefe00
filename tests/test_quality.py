"""What stands beside accuracy: calibration, confusion, learning curves, selection, time to targets, robustness. Every
record and every prediction here is made up, every number worked out by hand."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.datasets import CORRUPTION_NAMES
from harness.evidence.cells import read_evidence
from harness.evidence.figures.cells import confusion_data, reliability_data, robustness_data
from harness.evidence.figures.costs import pareto_front, tradeoff_data
from harness.evidence.figures.drawing import drawn, styles
from harness.evidence.paper import all_figures, write_figures
from harness.evidence.quality import Quality, Reached, mean_corruption_error
from harness.evidence.tables.quality import chosen
from tests.resealed import reseal
from tests.test_report import MAIN, cell_of, table, write_run

THREE: dict[str, Any] = {"config": {"variant": {"image_size": 32, "num_classes": 3}}}


def predict(run: Path, labels: list[int], predicted: list[int], confidence: list[float]) -> Path:
    classes = {"labels": np.array(labels, "uint16"), "predicted": np.array(predicted, "uint16")}
    np.savez(run / "predictions.npz", **classes, confidence=np.array(confidence, "float32"))  # type: ignore[arg-type]
    return reseal(run)


def two_runs(root: Path) -> None:
    """Four images of classes 0, 0, 1, 1 and none of class 2.

    Seed 0: three right, two of them at .9 (bin 14), one at .5 (bin 8); wrong at .5. Errors: bin 14 |2 - 1.8| = .2,
    bin 8 |1 - 1| = 0: .05 of 4 images. Confidence 2.8 / 4 = .7 against .75: -5 points.
    Seed 1: one right at 1; wrong at 1, 1 and .5: |1 - 3| + .5 = 2.5: .625. Confidence 3.5 / 4 against .25: +62.5.
    """
    right = write_run(root, "compact", "c10", 0, 0.75, test_nll=0.5, **THREE)
    predict(right, [0, 0, 1, 1], [0, 0, 1, 2], [0.9, 0.9, 0.5, 0.5])
    wrong = write_run(root, "compact", "c10", 1, 0.25, test_nll=1.5, **THREE)
    predict(wrong, [0, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 0.5])


def quality(root: Path) -> Quality:
    (cell,) = read_evidence([root]).cells
    assert cell.quality
    return cell.quality


# --- what predictions add up to


def test_two_runs_by_hand(tmp_path: Path) -> None:
    """Bins of both runs: .5 three times (one right), .9 twice (both right), 1 three times (one right).

    Table: NLL (.5 + 1.5) / 2; error (5 + 62.5) / 2 = 33.75, se 28.75, t(1) 12.7062: 365.30; over (-5 + 62.5) / 2.
    """
    two_runs(tmp_path)
    found = quality(tmp_path)
    assert found.calibration_errors == pytest.approx([5, 62.5])
    assert found.confusion_KK.tolist() == [[3, 1, 0], [2, 1, 1], [0, 0, 0]]
    (panel,) = reliability_data(read_evidence([tmp_path]).cells, "c10")["panels"]
    assert panel["bin"] == [7, 13, 14] and panel["share"] == pytest.approx([37.5, 25, 37.5])
    assert panel["confidence"] == pytest.approx([50, 90, 100])
    assert panel["accuracy"] == pytest.approx([100 / 3, 100, 100 / 3]) and panel["error"] == pytest.approx(33.75)
    write_run(tmp_path, "vanilla", "c10", 0)
    shown = table(tmp_path, "calibration")
    (row,) = shown.rows
    assert row[:6] == ("compact", "published", "CIFAR-10", "1.000", "33.75 ± 365.30", "+28.75")
    assert row[6:] == ("25.00 (class 1)", "75.00 (class 0)", "2")
    assert "Without predictions, and left out: 1 cell." in shown.caption


@pytest.mark.parametrize(
    ("break_", "reason"),
    [
        (lambda run: (run / "predictions.npz").write_bytes(b"PK\x03\x04 cut off") and reseal(run), "zip"),
        (lambda run: predict(run, [0, 1], [0, 11], [0.5, 0.5]), "outside 0 to 9"),
        (lambda run: predict(run, [0, 1], [0, 1], [0.5, math.nan]), "outside 0 to 1"),
        (lambda run: predict(run, [], [], []), "no image"),
    ],
)
def test_broken_predictions_are_named_and_left_out(tmp_path: Path, capsys, break_: Any, reason: str) -> None:
    predict(write_run(tmp_path, "compact", "c10", 0), [0, 1], [0, 1], [1, 1])
    break_(write_run(tmp_path, "compact", "c10", 1))
    assert quality(tmp_path).n == 1
    error = capsys.readouterr().err
    assert "compact-c10-published-s1: its predictions cannot be used" in error and reason in error


# --- their figures


def test_at_most_eight_diagrams_and_four_matrices_say_so(tmp_path: Path) -> None:
    for number in range(9):
        predict(write_run(tmp_path, f"v{number}", "c10", 0), [0, 1], [0, 1], [1, 1])
    groups = read_evidence([tmp_path]).cells
    for data, most in ((reliability_data(groups, "c10"), 8), (confusion_data(groups, "c10"), 4)):
        assert [panel["row"][0] for panel in data["panels"]] == [f"v{number}" for number in range(most)]
        assert data["of"] == 9


def test_the_new_figures_are_drawn_to_the_same_bytes(tmp_path: Path) -> None:
    two_runs(tmp_path)
    accuracies = {kind: [0.5, 0.4, 0.3, 0.2, 0.1] for kind in CORRUPTION_NAMES}
    on_gpu: dict[str, Any] = {"corruption_accuracy": accuracies, "energy_joules": 7200.0}
    for variant in ("vanilla", "patch2"):
        predict(write_run(tmp_path, variant, "c10", 0, 0.6, **on_gpu), [0, 1], [0, 1], [1, 0.4])
    planned = {plan.name: plan for plan in all_figures(read_evidence([tmp_path]), MAIN) if not plan.lacking}
    looks = styles([("compact", "published"), ("vanilla", "published"), ("patch2", "published")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a layout that collapsed, say
        for name in ("reliability-c10", "confusion-c10", "robustness-c10", "accuracy-vs-energy"):
            assert drawn(planned[name], looks) == drawn(planned[name], looks)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "compact", "c10", 0, None)
    evidence = read_evidence([tmp_path / "runs"])
    lines = write_figures(all_figures(evidence, MAIN), evidence, tmp_path)
    assert "figures/reliability-c10: skipped, no finished run has predictions" in lines
    assert "figures/robustness-c10: skipped, no finished run was tested on corrupted images" in lines
    assert [line for line in lines if "accuracy-vs-energy: skipped" in line]


# --- the front


def test_the_front_by_hand() -> None:
    """(1, 50) and (4, 70) are on it; dearer and no better: (2, 50), (3, 40), (5, 70); as dear and worse: (4, 60)."""
    points = [(4, 60), (1, 50), (3, 40), (5, 70), (4, 70), (2, 50)]
    assert pareto_front([{"x": x, "mean": mean} for x, mean in points]) == [[1, 50], [4, 70]]
    assert pareto_front([]) == []


def test_energy_is_of_one_device_and_alone(tmp_path: Path) -> None:
    write_run(tmp_path, "compact", "c10", 0, energy_joules=3600.0)
    write_run(tmp_path, "vanilla", "c10", 0, energy_joules=7200.0)
    write_run(tmp_path, "patch2", "c10", 0, energy_joules=1.0, env={"device_name": "GPU B"})
    write_run(tmp_path, "timm", "c10", 0, recipe="common", energy_joules=1.0, shared_device=True)
    data = tradeoff_data(read_evidence([tmp_path]).cells, "energy")
    (panel,) = data["panels"]
    assert [point["x"] for point in panel["points"]] == [1, 2]  # watt-hours
    assert panel["front"] == [[1, 50]]
    assert data["heading"] == "on GPU A; 1 cell measured elsewhere left out"


# --- selection


def test_selection_bias_by_hand(tmp_path: Path) -> None:
    """Gains 1 and 3: mean 2, se 1, t(1) 12.7062. A run without a best epoch and a failed one take no part."""
    for seed, best in enumerate((0.61, 0.63, None)):
        write_run(tmp_path, "compact", "c10", seed, 0.6, best_test_accuracy=best)
    write_run(tmp_path, "compact", "c10", 3, None)
    write_run(tmp_path, "vanilla", "c10", 0, 0.9, best_test_accuracy=0.9)
    shown = table(tmp_path, "selection-bias")
    assert shown.rows[0][3:] == ("2", "60.00", "62.00", "+2.00", "12.71", "+3.00")
    assert shown.rows[1][3:] == ("1", "90.00", "90.00", "+0.00", "—", "+0.00")
    assert "Over all 3 runs: +1.33 points on average, +3.00 at most." in shown.caption


# --- curves and targets


def test_a_curve_has_the_epochs_that_every_seed_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """.2, .6 and .4 of three epochs; .4, none and .8: means .3 and .6 at the first and the last. A third is broken."""
    epochs(write_run(tmp_path, "compact", "c10", 0), [0.2, 0.6, 0.4])
    epochs(write_run(tmp_path, "compact", "c10", 1), [0.4, None, 0.8])
    broken = write_run(tmp_path, "compact", "c10", 2)
    (broken / "epochs.jsonl").write_text("[")
    reseal(broken)
    (cell,) = read_evidence([tmp_path]).cells
    found = cell.curves.series["test_accuracy"]
    assert cell.curves is cell.curves and cell.curves.n == 2
    assert (found["epoch"], found["mean"]) == ([1, 3], pytest.approx([30, 60]))
    assert (found["low"], found["high"]) == ([20, 40], [40, 80])
    assert capsys.readouterr().err.count("its curve cannot be read") == 1


def epochs(run: Path, accuracies: list[float | None], **columns: list[Any]) -> Path:
    lines = []
    for number, accuracy in enumerate(accuracies):
        line = {"epoch": number + 1, "test_accuracy": accuracy, "seconds": 60.0, "images_seen": 100_000 * (number + 1)}
        lines.append(json.dumps(line | {name: values[number] for name, values in columns.items()}))
    (run / "epochs.jsonl").write_text("\n".join(lines))
    return reseal(run)


def test_a_target_is_reached_once_and_stays_reached(tmp_path: Path) -> None:
    """By its very number, and a later fall changes nothing; an epoch without an accuracy took its time."""
    epochs(write_run(tmp_path, "compact", "c10", 0), [0.2, None, 0.7, 0.1, 0.72])
    (cell,) = read_evidence([tmp_path]).cells
    (reached,) = cell.curves.reached
    assert reached[20] == Reached(100_000, 60)
    assert reached[50] == reached[70] == Reached(300_000, 180) and 80 not in reached


def test_targets_by_hand(tmp_path: Path) -> None:
    """compact: both seeds reach 50 %, after 1 and 2 epochs of 100,000 images, in 1 and 3 minutes; 60 % one of them."""
    epochs(write_run(tmp_path, "compact", "c10", 0), [0.5, 0.6])
    epochs(write_run(tmp_path, "compact", "c10", 1), [0.4, 0.5], seconds=[60.0, 120.0])
    epochs(write_run(tmp_path, "vanilla", "c10", 0, shared_device=True), [0.3, 0.5])
    epochs(write_run(tmp_path, "patch2", "c10", 0), [0.6, 0.6], seconds=[None, 60.0])
    epochs(write_run(tmp_path, "compact", "c100", 0), [0.05, 0.07])
    epochs(write_run(tmp_path, "compact", "svhn", 0), [0.7, 0.7])
    shown = table(tmp_path, "targets")
    names = [name for target in (50, 60, 70) for name in (f"{target}% (M)", f"{target}% (min)")]
    assert shown.columns == ("variant", "recipe", "data set", *names, "device")
    none = "— (0 of 1)", "—"
    assert {(row[0], row[2]): row[3:] for row in shown.rows} == {
        ("compact", "CIFAR-10"): ("0.150", "2.0", "0.200 (1 of 2)", "2.0", "— (0 of 2)", "—", "GPU A"),
        ("compact", "CIFAR-100"): (*none, *none, *none, "GPU A"),
        ("compact", "SVHN"): ("0.100", "1.0", "0.100", "1.0", "0.100", "1.0", "GPU A"),
        ("vanilla", "CIFAR-10"): ("0.200", "—", *none, *none, "—"),
        ("patch2", "CIFAR-10"): ("0.100", "—", "0.100", "—", *none, "GPU A"),  # its first epoch has no time
    }
    assert "No run on CIFAR-100 reaches 10%." in shown.caption
    assert "nothing is chosen by it" in shown.caption
    assert chosen({10, 20, 30, 50, 60, 70, 80, 85, 90}) == [50, 70, 80, 90], "evenly from those that are reached"


# --- robustness


def test_mean_corruption_error_by_hand() -> None:
    """Errors: noise .6 / 1.2 = 50 %; blur 1.0 / .8 = 125 %: 87.5 %. The mean of the single ratios is another number."""
    own, vanilla = {"noise": [0.8, 0.6], "blur": [0.6, 0.4]}, {"noise": [0.8, 0.0], "blur": [0.7, 0.5]}
    assert mean_corruption_error(own, vanilla) == pytest.approx(87.5)
    for other in ({}, {"noise": [0.8, 0.0]}, {**vanilla, "blur": [0.7]}, {**vanilla, "blur": [1, 1]}):
        assert mean_corruption_error(own, other) is None, "other corruptions, or no error to compare with"


def corrupted(root: Path, variant: str, accuracy: float, seed: int = 0, **more: Any) -> Path:
    accuracies = {kind: [accuracy] * 5 for kind in CORRUPTION_NAMES}
    return write_run(root, variant, more.pop("dataset", "c10"), seed, 0.9, corruption_accuracy=accuracies, **more)


def test_the_robustness_table_by_hand(tmp_path: Path) -> None:
    """compact: (.5 + .7) / 2 = .6, se .1 x 12.7062 = 127.06; error .4 against vanilla's .2 under its own recipe."""
    for seed, accuracy in enumerate((0.5, 0.7)):
        corrupted(tmp_path, "compact", accuracy, seed, recipe="common")
    corrupted(tmp_path, "vanilla", 0.8, recipe="common")
    corrupted(tmp_path, "vanilla", 0.6)
    corrupted(tmp_path, "patch2", 0.7)
    corrupted(tmp_path, "patch2", 0.7, dataset="svhn")
    write_run(tmp_path, "timm", "c10", 0, recipe="common")
    shown = table(tmp_path, "robustness")
    row = dict(zip(shown.columns, next(row for row in shown.rows if row[0] == "compact")))
    assert (row["clean (%)"], row["corrupted (%)"], row["blur (%)"]) == ("90.00", "60.00 ± 127.06 (2)", "60.00")
    errors = {row[:3]: row[5:7] for row in shown.rows}
    assert errors == {
        ("compact", "common", "CIFAR-10"): ("200.0", "vanilla, common"),
        ("vanilla", "common", "CIFAR-10"): ("100.0", "vanilla, common"),
        ("vanilla", "published", "CIFAR-10"): ("100.0", "vanilla, published"),
        ("patch2", "published", "CIFAR-10"): ("75.0", "vanilla, published"),
        ("patch2", "published", "SVHN"): ("—", "—"),
    }
    (line,) = robustness_data(read_evidence([tmp_path]).cells, "svhn")["lines"]
    assert line["accuracy"] == pytest.approx([90, *[70] * 5]), "the clean one first"
    assert "left out: 1 cell." in shown.caption
    assert r"noise (\%)" not in shown.to_latex() and "noise (%)" in shown.to_csv()


def test_the_reference_is_the_unchanged_vanilla_under_the_same_changes_of_the_recipe(tmp_path: Path) -> None:
    short, deep = {"overrides": ["epochs=10"]}, {"overrides": ["epochs=10", "variant.depth=3"]}
    corrupted(tmp_path, "vanilla", 0.6)
    corrupted(tmp_path, "vanilla", 0.8, config=short)
    corrupted(tmp_path, "vanilla", 0.9, config=deep)
    corrupted(tmp_path, "compact", 0.9, config=short)
    corrupted(tmp_path, "compact", 0.9, config={"overrides": ["recipe.lr=1"]})
    shown = table(tmp_path, "robustness")
    column = "mean corruption error (%)"
    assert cell_of(shown, column, variant="vanilla", recipe="published, epochs=10, variant.depth=3") == "50.0"
    assert cell_of(shown, column, variant="compact", recipe="published, epochs=10") == "50.0"
    assert cell_of(shown, column, variant="compact", recipe="published, recipe.lr=1") == "25.0"  # of the published one
    assert cell_of(shown, "against", variant="compact", recipe="published, recipe.lr=1") == "vanilla, published"


def test_of_two_references_neither_counts(tmp_path: Path) -> None:
    for precision in ("bf16", "fp32"):
        corrupted(tmp_path, "vanilla", 0.8, cell=precision, config={"precision": precision})
    corrupted(tmp_path, "compact", 0.9)
    shown = table(tmp_path, "robustness")
    assert cell_of(shown, "against", variant="compact") == "—"
    assert cell_of(shown, "against", variant="vanilla", recipe="published [bf16]") == "vanilla, published [bf16]"


@pytest.mark.parametrize("wrong", [{"noise": [0.5, None]}, {"noise": []}, {}])
def test_unusable_corruption_accuracies_are_named(tmp_path: Path, capsys, wrong: Any) -> None:
    write_run(tmp_path, "compact", "c10", 0, corruption_accuracy=wrong)
    assert table(tmp_path, "robustness").rows == ()
    assert "its corruption_accuracy cannot be used" in capsys.readouterr().err
