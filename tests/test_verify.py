"""harness.verify: a run trained again is itself, a record that was touched is found out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import verify
from harness.config import RunConfig, resolve
from harness.data.load import load
from harness.datasets import DATASETS
from harness.experiment import run_cell
from harness.records.read import DIRTY, Run, problems_of
from tests.resealed import reseal
from variants.fields import UsageError

CPU = ["--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    settings = ["variant.depth=1"]
    config = resolve("compact", DATASETS["digits"], "quick", epochs=2, batch_size=128, settings=settings)
    return run_cell(config, Path("data"), tmp_path_factory.mktemp("runs"), torch.device("cpu"), quiet=True)


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run.folder, tmp_path / run.folder.name))


def edit(folder: Path, file: str, **changes) -> None:
    """As if it had been written like that: the seal is renewed."""
    path = folder / file
    if file != "result.json":
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        changes = {}
    reseal(folder, **changes)


def edit_epoch(folder: Path, number: int, **changes) -> None:
    lines = lines_of(folder)
    lines[number - 1] |= changes
    (folder / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    reseal(folder)


def predictions(folder: Path, **changes) -> None:
    with np.load(folder / "predictions.npz") as arrays:
        stored = dict(arrays)
    np.savez(folder / "predictions.npz", **(stored | changes))  # type: ignore[arg-type]
    reseal(folder)


def complaints(folder: Path) -> list[str]:
    return [problem for problem in problems_of(folder) if problem != DIRTY]  # of a checkout that is being worked on


# --- trained again ---------------------------------------------------------------------------------------------------


def test_a_run_is_itself(run, capsys):
    assert complaints(run.folder) == []
    assert verify.main([str(run.folder), *CPU]) == 0
    assert "2 of 2 epochs: equal to the last bit" in capsys.readouterr().out


def test_as_json(run, copy, capsys):
    words = [str(run.folder), str(copy), *CPU, "--json", "--first", "1"]
    edit_epoch(copy, 1, train_loss=9.0)
    assert verify.main(words) == 1
    same, other = json.loads(capsys.readouterr().out)["runs"]
    assert same["folder"] == str(run.folder) and (same["epochs"], same["planned_epochs"]) == (1, 2)
    assert same["differences"] == [] and other["differences"][0].startswith("epoch 1 differs: train_loss 9.0 against")
    edit(copy, "config.json", seed=1)
    assert verify.main(["--records", str(run.folder.parent), str(copy.parent), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["records"] == 2 and told["unsealed"] == 0
    assert any("its fields give" in problem for problem in told["problems"][str(copy)])
    assert verify.main(["--records", str(run.folder.parent), "--json"]) == 0 or DIRTY in capsys.readouterr().out


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def confidence_moved(folder: Path) -> None:
    with np.load(folder / "predictions.npz") as arrays:
        confidence = arrays["confidence"].copy()
    confidence[7] = np.nextafter(confidence[7], np.float32(0))
    predictions(folder, confidence=confidence)


def every_image_twice(folder: Path) -> None:
    with np.load(folder / "predictions.npz") as arrays:
        predictions(folder, **{name: np.tile(values, 2) for name, values in arrays.items()})


DIFFERING = {
    "an epoch": (
        lambda f: edit_epoch(f, 2, train_loss=lines_of(f)[1]["train_loss"] * (1 + 1e-15)),
        "epoch 2 differs: train_loss",
    ),
    "an epoch without its rate": (lambda f: edit_epoch(f, 1, lr=None), "epoch 1 differs: lr None against "),
    "one confidence": (confidence_moved, "0 predictions differ, confidences by at most"),
    "every image twice": (every_image_twice, "2 of 2 epochs: 720 predictions are recorded of 360 images"),
}


@pytest.mark.parametrize("how", DIFFERING)
def test_what_was_touched_and_contradicts_nothing_is_found_by_training_again(copy, how, capsys):
    touch, expected = DIFFERING[how]
    touch(copy)
    assert complaints(copy) == []
    assert verify.main([str(copy), *CPU]) == 1
    assert expected in capsys.readouterr().out


def test_only_the_first_epochs(copy, capsys):
    edit_epoch(copy, 2, train_loss=1.0)
    assert verify.main([str(copy), "--first", "1", *CPU]) == 0
    assert "1 of 2 epochs: equal to the last bit" in capsys.readouterr().out


def test_other_surroundings_are_named(copy, capsys):
    edit(copy, "env.json", torch="1.0", data_digest="0" * 64)
    assert verify.main([str(copy), "--first", "1", *CPU]) == 0
    printed = capsys.readouterr().out
    assert "note: torch was 1.0, is" in printed
    assert f"note: data_digest was {'0' * 64}, is {load('digits', Path('data')).digest}\n" in printed


def test_it_is_trained_with_as_many_threads_as_it_was(run, capsys):
    as_trained = torch.get_num_threads()
    try:
        torch.set_num_threads(as_trained + 1)
        assert verify.main([str(run.folder), *CPU]) == 0
        assert torch.get_num_threads() == as_trained + 1
    finally:
        torch.set_num_threads(as_trained)
    told = capsys.readouterr().out
    assert f"note: with {as_trained} thread" in told and "equal to the last bit" in told and "threads was" not in told


def test_what_cannot_be_verified(copy, tmp_path):
    edit(copy, "result.json", outcome="failed", reason="it fell")
    with pytest.raises(UsageError, match="it fell"):
        verify.main([str(copy), *CPU])
    with pytest.raises(UsageError, match=r"no finished run: there is no result\.json"):
        verify.main([str(tmp_path), *CPU])
    with pytest.raises(UsageError, match="which run"):
        verify.main([])
    with pytest.raises(UsageError, match="no such folder"):
        verify.main(["--records", str(tmp_path / "none")])


def test_what_no_training_depends_on_is_no_reason_against_it(copy, capsys):
    edit(copy, "env.json", dirty=True, platform=None)
    moved = copy.rename(copy.with_name("elsewhere"))
    assert len(complaints(moved)) == 2
    assert verify.main([str(moved), "--first", "1", *CPU]) == 0
    assert "elsewhere, 1 of 2 epochs: equal to the last bit" in capsys.readouterr().out


# --- of a class of somebody's own ------------------------------------------------------------------------------------

OWN = """
import dataclasses
from pathlib import Path

from variants.config import ViTConfig

with Path({marks!r}).open("a") as marks:
    marks.write("x")


@dataclasses.dataclass(frozen=True)
class Mine(ViTConfig):
    pass


MINE = Mine(width=48, depth=1, heads=2, patch=4)
"""


@pytest.fixture
def own(tmp_path) -> tuple[Path, Path, Path]:
    """A record, the file that its class is of, and one that grows whenever that file is run."""
    file, marks = tmp_path / "mine.py", tmp_path / "marks"
    file.write_text(OWN.format(marks=str(marks)))
    config: RunConfig = resolve(f"{file}:MINE", DATASETS["digits"], "quick", epochs=1)
    run = run_cell(config, Path("data"), tmp_path / "runs", torch.device("cpu"), quiet=True)
    marks.unlink()
    return run.folder, file, marks


def test_a_check_of_records_runs_nothing_that_they_name(own, capsys):
    folder, _, marks = own
    assert complaints(folder) == []
    verify.main(["--records", str(folder.parent)])
    assert not marks.exists()
    edit(folder, "env.json", dirty=False)
    assert verify.main(["--records", str(folder.parent)]) == 0
    assert "1 of them are of a class of somebody's own: their identity is not checked" in capsys.readouterr().out


def test_only_the_file_that_a_run_was_made_with_is_run(own, capsys):
    folder, file, marks = own
    assert verify.main([str(folder), *CPU]) == 0 and marks.read_text() == "x"
    assert "1 of 1 epochs: equal to the last bit" in capsys.readouterr().out
    file.write_text(file.read_text() + "# another line\n")
    with pytest.raises(UsageError, match=r"cannot be trained again: .*mine\.py is not, or no longer, the code that"):
        verify.main([str(folder), *CPU])
    file.unlink()
    with pytest.raises(UsageError, match=r"cannot be trained again: its variant file .*mine\.py does not exist"):
        verify.main([str(folder), *CPU])
    assert marks.read_text() == "x"


# --- records ---------------------------------------------------------------------------------------------------------


# A file, what is changed in it, and what is said.
EDITED = [
    ("config.json", {"run_id": "x"}, "run_id is x, its fields give"),
    ("config.json", {"seed": 1}, "its fields give"),
    ("config.json", {"recipe": {"lr": 1.0, "speed": 2}}, "its recipe lacks attention_dropout"),
    ("env.json", {"source_digest": None}, "env.json has no source_digest"),
    ("result.json", {"test_accuracy": 0.99}, "test_accuracy is 0.99, the epochs say"),
    ("result.json", {"test_accuracy": 99}, "test_accuracy is 99, no share"),
    ("result.json", {"best_test_accuracy": 0.999}, "best_test_accuracy is 0.999, the epochs say"),
    ("result.json", {"split": "val"}, "split is 'val' with a holdout of 0.0"),
    ("cost.json", {"params": 1}, "count the model differently"),
    ("epochs.jsonl", {"epoch": 1}, "does not count 1, 2, 3"),
    ("predictions.npz", {"predicted": np.zeros(360, np.uint16)}, "its predictions are right in"),
    ("predictions.npz", {"confidence": np.ones(3, np.float32)}, "(360,) labels, (360,) classes and (3,) confidences"),
]


@pytest.mark.parametrize(("file", "changes", "expected"), EDITED)
def test_a_record_that_was_touched(copy, file, changes, expected, monkeypatch, capsys):
    """What contradicts itself is not trained again either; what the environment says is no reason against it."""
    if file == "epochs.jsonl":
        edit_epoch(copy, 2, **changes)
    elif file == "predictions.npz":
        predictions(copy, **changes)
    else:
        edit(copy, file, **changes)
    refused(copy, expected, capsys)
    if file != "env.json":
        monkeypatch.setattr("harness.experiment.trained_again", None)
        with pytest.raises(UsageError, match=f"{copy.name} cannot be trained again: ") as refusal:
            verify.main([str(copy), *CPU])
        assert "\n" not in str(refusal.value)


def refused(folder: Path, expected: str, capsys) -> None:
    assert expected in " / ".join(complaints(folder)), complaints(folder)
    assert verify.main(["--records", str(folder.parent)]) == 1
    printed = capsys.readouterr().out
    assert expected in printed and "1 records in" in printed and "0 without complaint" in printed


def test_a_record_that_lost_an_epoch_or_lies_elsewhere(copy, capsys):
    refused(copy.rename(copy.with_name("elsewhere")), "the folder's name is not the run's", capsys)
    folder = copy.with_name("elsewhere").rename(copy)
    (folder / "epochs.jsonl").write_text(json.dumps(lines_of(folder)[0]) + "\n")
    refused(reseal(folder), "1 epochs are recorded, the result says 2 and 2 were planned", capsys)


def test_a_folder_that_may_not_be_read_is_a_complaint(copy, monkeypatch, capsys):
    """Made up, since who runs the tests may be allowed everything."""

    def refused(path: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as closed:
        closed.setattr(Path, "read_bytes", refused)
        assert verify.main(["--records", str(copy.parent)]) == 1
    assert f"{copy}\n  cannot be read: result.json: Permission denied\n1 records in" in capsys.readouterr().out
    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(UsageError, match=f"^{copy.parent} cannot be read: Permission denied$"):
        verify.main(["--records", str(copy.parent)])


def test_a_failed_record_needs_a_reason_and_no_predictions(copy):
    edit(copy, "result.json", outcome="failed", reason="it fell", test_accuracy=None, best_test_accuracy=None)
    (copy / "predictions.npz").unlink()
    reseal(copy)
    assert complaints(copy) == []
    edit(copy, "result.json", reason=None)
    assert complaints(copy) == ["it failed for no reason"]
