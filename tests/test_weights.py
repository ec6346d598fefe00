"""The weights that a run leaves: those that were judged, with what they are of, to be loaded without harness/."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from harness import run
from harness.config import RunConfig, resolve
from harness.data.load import load as load_data
from harness.datasets import DATASETS
from harness.experiment import Options, run_cell, run_seeds
from harness.records.read import DIRTY, Run, problems_of, run_state, whole_run
from harness.records.schema import FILES, WEIGHTS
from harness.training.signals import StoppedError
from tests.copies import Runs, image_folder
from tests.test_resume import stopping_after
from variants.catalog import build, config_of
from variants.fields import UsageError
from variants.weights import card_of, load, tensors_of, to_bytes

CPU, ROOT = torch.device("cpu"), Path(__file__).resolve().parents[1]
TINY = ("variant.depth=1", "variant.width=16", "variant.mlp_width=16")


def config(*settings: str, **rest: Any) -> RunConfig:
    average = () if any("ema" in text for text in settings) else ("recipe.ema=0.99",)
    settings = (*TINY, *average, *settings)
    return resolve("compact", DATASETS["digits"], "quick", epochs=1, settings=settings, **rest)


def train(out: Path, config: RunConfig, **options: Any) -> Run:
    return run_cell(config, Path("data"), out, CPU, quiet=True, options=Options(**options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    return train(tmp_path_factory.mktemp("trained"), config(label="mine"))


@torch.no_grad()
def predictions_of(place: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of the test set, by the file alone."""
    model, card, images = load(place), card_of(place), load_data("digits", Path("data")).test.images
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (card.mean, card.std))
    confidence, predicted = model((pixels - mean) / std).softmax(dim=1).max(dim=1)
    return predicted.numpy(), confidence.numpy()


def assert_is_what_was_judged(run: Run) -> None:
    predicted, confidence = predictions_of(run.folder)
    recorded = run.predictions()
    assert np.array_equal(predicted, recorded["predicted"])
    np.testing.assert_allclose(confidence, recorded["confidence"], atol=1e-5)


@pytest.mark.parametrize("settings", [("recipe.ema=0",), ("recipe.scaling=half",), ("variant.pool=cls",)])
def test_the_weights_are_those_that_were_judged(tmp_path, settings):
    assert_is_what_was_judged(train(tmp_path, config(*settings)))


def test_of_a_run_with_an_average_the_average_is_kept(trained, tmp_path):
    assert_is_what_was_judged(trained)
    plain = train(tmp_path, config("recipe.ema=0"))
    mine, theirs = (tensors_of(one.folder)["head.weight"] for one in (trained, plain))
    assert not torch.allclose(mine, theirs)


def test_a_timm_model_comes_back_too(trained, tmp_path):
    """With a batch norm's statistics, and without asking for pretrained weights."""
    asked = replace(config_of("timm:resnet10t", 32, 3), pretrained=True)
    model: Any = replace(asked, pretrained=False).module()
    model(torch.rand(4, 3, 32, 32))
    card = replace(card_of(trained.folder), variant_type="timm", variant=asdict(asked))
    (tmp_path / "mine.safetensors").write_bytes(to_bytes(model.state_dict(), card))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load(tmp_path / "mine.safetensors")(images), model.eval()(images))


def test_each_of_several_seeds_keeps_its_own(tmp_path):
    runs = run_seeds([config(seed=seed) for seed in (0, 1)], Path("data"), tmp_path, CPU, quiet=True)
    for one in runs:
        assert_is_what_was_judged(one)
        assert card_of(one.folder).run_id == one.folder.name
    first, second = (tensors_of(one.folder) for one in runs)
    assert not torch.equal(first["head.weight"], second["head.weight"])


def test_the_file_says_what_it_is(trained):
    card = card_of(trained.folder / WEIGHTS)
    assert card.config == config().variant and card.variant_name == "compact" and card.dataset == "digits"
    assert card.classes == tuple("0123456789") and card.run_id == trained.config["run_id"] == trained.folder.name
    assert (card.split, card.accuracy) == ("test", trained.result["test_accuracy"])
    assert load(trained.folder).training is False and load(trained.folder).config == card.config
    judged = train(trained.folder.parent, config(holdout=0.9))
    assert (card_of(judged.folder).split, card_of(judged.folder).accuracy) == ("val", judged.result["val_accuracy"])


def test_classes_of_a_folder_are_called_as_its_folders_are(tmp_path):
    image_folder(tmp_path / "insects")
    words = ["--variant", "compact", "--dataset", f"folder:{tmp_path / 'insects'}", "--recipe", "quick", "--quiet"]
    assert run.main([*words, "--epochs", "1", "--device", "cpu", "--out", str(tmp_path), "--set", *TINY]) == 0
    (file,) = tmp_path.glob(f"*/{WEIGHTS}")
    assert card_of(file).classes == ("ant", "bee", "cow") and load(file)(torch.zeros(1, 3, 12, 12)).shape == (1, 3)


# --- where there are some, and where not ------------------------------------------------------------------------------


def test_without_weights_a_record_is_whole(trained, tmp_path):
    bare = train(tmp_path, config(), weights=False)
    assert {path.name for path in bare.folder.iterdir()} == set(FILES) and set(problems_of(bare.folder)) <= {DIRTY}
    assert {path.name for path in trained.folder.iterdir()} == {*FILES, WEIGHTS}
    assert WEIGHTS not in whole_run(trained.folder).result["files"], "they may be deleted"
    with pytest.raises(UsageError, match="--no-weights"):
        load(bare.folder)
    words = ["--variant", "compact", "--dataset", "digits", "--recipe", "quick", "--epochs", "1", "--device", "cpu"]
    words += ["--set", *TINY, "recipe.train_share=0.1", "--holdout", "0.9", "--out", str(tmp_path / "x"), "--quiet"]
    assert run.main([*words, "--no-weights"]) == 0 and not list((tmp_path / "x").glob(f"*/{WEIGHTS}"))


def test_a_record_that_is_replaced_or_set_aside_takes_its_weights_along(tmp_path):
    asked = config(holdout=0.9)
    folder = train(tmp_path, asked).folder
    first = (folder / WEIGHTS).read_bytes()
    train(tmp_path, asked, fresh=True, weights=False)
    assert (tmp_path / f"replaced-{folder.name}" / WEIGHTS).read_bytes() == first and not (folder / WEIGHTS).exists()
    train(tmp_path, asked, fresh=True)
    second = (folder / WEIGHTS).read_bytes()
    (folder / "epochs.jsonl").write_text("spoilt")
    train(tmp_path, asked)
    assert (tmp_path / f"unreadable-{folder.name}" / WEIGHTS).read_bytes() == second and (folder / WEIGHTS).exists()


def test_what_was_stopped_has_none_until_it_is_finished(trained, tmp_path, monkeypatch):
    asked = config()
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        stopping_after(patch, 20)
        train(tmp_path, asked)
    folder = tmp_path / asked.run_id
    assert run_state(folder) == "unfinished" and not (folder / WEIGHTS).exists()
    train(tmp_path, asked)
    mine, theirs = tensors_of(folder), tensors_of(trained.folder)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_loading_imports_nothing_of_the_harness(trained):
    code = (
        "import sys; from variants.weights import card_of, load; model = load(sys.argv[1]); card_of(sys.argv[1]);"
        "print(type(model).__name__, sorted(m for m in sys.modules if m.split('.')[0] in ('harness', 'timm', 'tests')))"
    )
    done = subprocess.run([sys.executable, "-c", code, trained.folder], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "ViT []\n", done.stderr


# --- what is no such file ---------------------------------------------------------------------------------------------


def rewritten(path: Path, tensors: dict[str, torch.Tensor], **said: Any) -> Path:
    """The same file with other tensors, and some of what it says changed."""
    with safetensors.safe_open(path, "pt") as file:
        old = file.metadata()
    changed = {name: json.dumps(value) for name, value in said.items()}
    safetensors.torch.save_file(tensors, path, {**old, **changed})
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def of_another_program(path: Path) -> None:
    safetensors.torch.save_file(tensors_of(path), path)


def a_pickle(path: Path) -> None:
    torch.save(Runs(path.parent / "ran"), path)


def of_another_architecture(path: Path) -> None:
    rewritten(path, build("compact", 8).state_dict())


def without_its_head(path: Path) -> None:
    rewritten(path, {name: value for name, value in tensors_of(path).items() if "head" not in name})


def of_a_class_of_somebodys_own(path: Path) -> None:
    rewritten(path, tensors_of(path), variant_type="Mine@0123456789abcdef")


def with_a_mean_that_is_none(path: Path) -> None:
    rewritten(path, tensors_of(path), mean="grey")


def with_a_config_that_is_none(path: Path) -> None:
    rewritten(path, tensors_of(path), variant=[1])


def with_a_field_of_other_code(path: Path) -> None:
    rewritten(path, tensors_of(path), variant={"depht": 1})


SPOILT = {
    cut: "no whole safetensors file",
    of_another_program: "was not written by this suite",
    a_pickle: "no whole safetensors file",
    of_another_architecture: "another architecture: .*, which it has not and 50 more",
    without_its_head: "another architecture: no head.weight; no head.bias$",
    of_a_class_of_somebodys_own: r"build it yourself, then load\(PATH, model\)",
    with_a_field_of_other_code: "did you mean depth",
    with_a_mean_that_is_none: "was not written by this suite",
    with_a_config_that_is_none: "was not written by this suite",
    Path.unlink: "there is no such file",
}


@pytest.mark.parametrize(("spoil", "told"), SPOILT.items(), ids=[spoil.__name__ for spoil in SPOILT])
def test_what_is_no_such_file_is_said(trained, tmp_path, spoil, told):
    path = tmp_path / WEIGHTS
    path.write_bytes((trained.folder / WEIGHTS).read_bytes())
    spoil(path)
    with pytest.raises(UsageError, match=told):
        load(path)
    assert not (tmp_path / "ran").exists()


def test_a_model_of_ones_own_is_filled(trained):
    model = config().variant.module()
    assert load(trained.folder, model) is model and not model.training
    with pytest.raises(UsageError, match="another architecture"):
        load(trained.folder, config_of("compact", 8).module())
