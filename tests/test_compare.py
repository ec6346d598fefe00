"""harness.compare says what two sides' records say, by values worked out by hand. Records come from the real writer, or
are the reference runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compare import main
from harness.config import RunConfig, resolve
from harness.datasets import DATASETS
from harness.records.schema import RESULT_FIELDS
from harness.records.write import RunWriter
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"
A = resolve("compact", DATASETS["c10"], "common")
B = resolve("compact", DATASETS["c10"], "common", settings=["variant.pool=mean", "recipe.lr=2e-3"])

LABELS = np.repeat(np.arange(10, dtype=np.uint16), 10)


def predicted(right: int, labels: np.ndarray = LABELS) -> dict[str, np.ndarray]:
    """The first images right, the others one class too high; sure of all of them at .8."""
    guesses = np.where(np.arange(labels.size) < right, labels, (labels + 1) % 10).astype(np.uint16)
    return {"labels": labels, "predicted": guesses, "confidence": np.full(labels.size, 0.8, np.float32)}


def write(root: Path, config: RunConfig, accuracy: float | None, predictions: Any = None, **changes: Any) -> Path:
    """`accuracy=None` is a failed run. Keys that no result has go into the environment."""
    env = {"device": "cpu", "device_name": "CPU A", "data_digest": "d" * 64}
    env |= {name: value for name, value in changes.items() if name not in RESULT_FIELDS}
    result: dict[str, Any] = dict.fromkeys(name for name in RESULT_FIELDS if name != "schema")
    result |= {"outcome": "failed" if accuracy is None else "ok", "split": "test", "test_accuracy": accuracy}
    result |= {"train_seconds": 120.0, "shared_device": False, "reason": "it fell" if accuracy is None else None}
    writer = RunWriter(root / config.run_id)
    writer.begin(config.to_plain(), env, {"params": 1_000_000, "macs": 2_000_000})
    writer.finish(result | {name: value for name, value in changes.items() if name in RESULT_FIELDS}, predictions)
    return writer.folder


def seeds(config: RunConfig, *numbers: int) -> list[RunConfig]:
    return [replace(config, seed=number) for number in numbers]


@pytest.fixture
def cells(tmp_path):
    """A: 50, 60, 70 and a seed of its own; B: 51, 62, 73 and one that failed."""
    for config, right in zip(seeds(A, 0, 1, 2, 7), (50, 60, 70, 10)):
        write(tmp_path, config, right / 100, predicted(right))
    for config, right in zip(seeds(B, 0, 1, 2, 5), (51, 62, 73, None)):
        write(tmp_path, config, right and right / 100, predicted(right) if right else None)
    return tmp_path


def told(capsys, *words: Any) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def plain(capsys, *words: Any) -> dict[str, Any]:
    return json.loads(told(capsys, *words, "--json"))


def test_two_cells_by_hand(cells, capsys):
    """Differences 1, 2, 3 by seed: 2 +- 2.4841, p = .07418, sign-flip 2 of 8; d = mean / sd = 2: 5 seeds.
    A alone: 50, 60, 70, 10: mean 47.5, squares add up to 2075, se sqrt(2075 / 3 / 4) = 13.15, t(3) = 3.1824: 41.85.
    B is sure at .8 and right in .51, .62, .73: off by 29, 18, 7 points; mean 18. 120 s are 2 minutes."""
    found = plain(capsys, A.cell_id, B.cell_id, "--results", cells)
    difference, a, b = found["difference"], found["a"], found["b"]
    assert (difference["n"], difference["dropped"]) == (3, 1)
    assert difference["mean"] == pytest.approx(2) and difference["half"] == pytest.approx(2.4841, abs=1e-4)
    assert difference["t_p"] == pytest.approx(0.07418, abs=1e-5)
    assert difference["sign_flip_p"] == difference["smallest_sign_flip_p"] == 0.25
    assert found["seeds_to_resolve"] == 5
    assert a["accuracy"] == {"mean": 47.5, "half": pytest.approx(41.85, abs=0.01), "n": 4}
    assert b["seeds"] == [0, 1, 2] and b["failed"] == 1
    assert b["calibration_error"]["mean"] == pytest.approx(18, abs=1e-4) and b["train_minutes"]["mean"] == 2
    assert (b["params"], b["macs"], b["device"]) == (1_000_000, 2_000_000, "CPU A")
    stated = {row["field"]: (row["a"], row["b"]) for row in found["config"]}
    assert stated["variant.pool"] == (["seq"], ["mean"]) and stated["recipe.lr"] == ([0.001], [0.002])
    assert set(stated) == {"variant.pool", "recipe.lr", "seed"} and found["made_with"] == []
    text = told(capsys, A.cell_id, B.cell_id, "--results", cells)
    assert "+2.00 ± 2.48 (n = 3), paired t: p = 0.074" in text and "80 % power needs 5 seeds" in text
    assert "on one side alone: 1 seed\n" in text and "1 failed, left out" in text and "47.50 ± 41.85 (4)" in text
    assert "variant.pool: seq -> mean" in text


def test_images_by_hand(cells, capsys):
    """Seed 1: B has the first 62 of 100 images right and A the first 60, so 2 alone. McNemar: 2 x 1/4. The interval of
    a share of .02 of 100: like Poisson's, 0 to about 5. The images gained: 50 (class 5), 60 and 61 (class 6), 70 to 72
    (class 7), each in one of three seeds and one of ten of its class."""
    found = plain(capsys, A.cell_id, B.cell_id, "--results", cells)
    assert [(pair["seed_a"], pair["seed_b"]) for pair in found["images"]] == [(0, 0), (1, 1), (2, 2)]
    pair = found["images"][1]
    assert pair["counts"] == {"both": 60, "only_first": 0, "only_second": 2, "neither": 38}
    assert pair["mcnemar_p"] == 0.5 and pair["difference"] == pytest.approx(2)
    assert pair["interval"][0] == 0 and 4 <= pair["interval"][1] <= 6
    changed = {row["label"]: row["difference"] for row in found["classes"] if row["difference"]}
    assert changed == pytest.approx({7: 10, 6: 20 / 3, 5: 10 / 3})
    assert [row["label"] for row in found["classes"]][:3] == [7, 6, 5]


def test_one_seed_is_undecided_and_a_shared_device_gives_no_minutes(tmp_path, capsys):
    folders = [write(tmp_path, A, 0.5, shared_device=True), write(tmp_path, B, 0.51, device_name="CPU B")]
    text = told(capsys, *folders)
    assert "+1.00 (n = 1), undecided" in text and "p =" not in text and "power" not in text
    assert "no predictions to compare (there is no predictions.npz)" in text
    found = plain(capsys, *folders)
    assert found["a"]["train_minutes"] is None and found["b"]["train_minutes"]["mean"] == 2
    assert [row["field"] for row in found["made_with"]] == ["device_name"]


def test_other_labels_are_said_to_be_other_data(tmp_path, capsys):
    first = write(tmp_path, A, 0.5, predicted(50))
    second = write(tmp_path, B, 0.5, predicted(50, LABELS[::-1].copy()), data_digest="e" * 64)
    text = told(capsys, first, second)
    assert "the data differ, so no image is compared" in text and "image by image" not in text
    assert "data_digest: dddddddddddd -> eeeeeeeeeeee" in text


def test_refused(cells, tmp_path, capsys):
    other = write(tmp_path, replace(A, dataset="c100"), 0.5)
    held = write(tmp_path, replace(A, holdout=0.1), None, outcome="ok", split="val", val_accuracy=0.5)
    half = tmp_path / "half"
    RunWriter(half).begin(A.to_plain(), {}, {})
    failed = replace(B, seed=5).run_id
    for words, reason in (
        ((A.run_id, other), "c10 and B on c100"),
        ((A.run_id, held), r"test and B on val \(holdout 0.1\)"),
        ((A.run_id, A.cell_id), "compared with itself"),
        ((A.run_id, failed), "failed \\(it fell\\)"),
        ((A.run_id, half), "unfinished"),
        ((A.run_id, B.cell_id[:-2]), f"did you mean .*{B.cell_id}"),
        ((A.run_id, "?"), "it holds 14 others"),
        ((A.run_id, "x", "--results", tmp_path / "none"), "no such folder"),
        (("a", "b", "--results", tmp_path / "half"), "there is no finished run"),
    ):
        with pytest.raises(UsageError, match=reason) as refusal:
            main([*map(str, words), *([] if "--results" in words else ["--results", str(cells)])])
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("accuracy", "shown"), [(None, 50), (0.2, 20)])
def test_of_two_records_of_a_run_the_first_that_is_done_counts(cells, tmp_path, capsys, accuracy, shown):
    """Or of two copies: each seed counts once."""
    write(tmp_path / "a", A, accuracy, accuracy and predicted(20))
    found = plain(capsys, A.run_id, B.cell_id, "--results", tmp_path / "a", cells)
    assert found["a"]["accuracy"]["mean"] == shown
    found = plain(capsys, A.cell_id, B.cell_id, "--results", tmp_path / "a", cells)
    assert (found["a"]["seeds"], found["a"]["failed"]) == ([0, 1, 2, 7], 0)
    assert found["a"]["accuracy"]["mean"] == pytest.approx((shown + 60 + 70 + 10) / 4)


def test_the_reference_runs(capsys, monkeypatch):
    """Two single runs of other seeds: their images are compared, their seeds are not."""
    monkeypatch.chdir(ROOT)
    runs = [REFERENCE / f"c10-vit-d48l4p4-e10-{end}" for end in ("s0-298330dc95", "s1-94f25cb488")]
    if not all((run / "result.json").is_file() for run in runs):
        pytest.skip("these reference runs are not in this checkout")
    text = told(capsys, *(run.name for run in runs), "--results", REFERENCE)
    assert "seed: 0 -> 1" in text and "seed 0 against 1" in text and "undecided: no seed is on both sides" in text
    for run in runs:
        assert f"{100 * json.loads((run / 'result.json').read_text())['test_accuracy']:.2f} (1)" in text
