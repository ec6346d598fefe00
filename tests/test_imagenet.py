"""S3's model for ImageNet under its recipe, on made-up images at its size."""

from dataclasses import replace

import pytest
import torch

from harness import run
from harness.config import run_config_from_plain
from harness.recipes import RECIPES
from harness.records.read import load_runs
from harness.training.optimiser import learning_rate
from harness.training.setup import build_model
from tests.copies import image_folder
from variants.catalog import config_of
from variants.weights import load

CPU = torch.device("cpu")
WORDS = ["--variant", "vit-base-224", "--recipe", "published", "--device", "cpu", "--dataset"]


def test_the_warm_up_has_10_000_steps_of_imagenet():
    images, recipe = 1_281_167, RECIPES["s3-imagenet"]
    steps = -(-images // recipe.batch_size)
    rates = [learning_rate(recipe, step, steps) for step in (0, 5_000, 10_000, 10_001, 300 * steps)]
    assert rates[:3] == pytest.approx([0, 5e-4, 1e-3]) and rates[3] < 1e-3 and rates[4] == pytest.approx(0)


def test_a_dry_run_on_a_folder_of_1000_classes_names_its_size(tmp_path, monkeypatch, capsys):
    """torchvision's vit_b_16 has as many parameters, and so has timm's."""
    monkeypatch.setattr("harness.training.estimate.training_rate", lambda *args: 1.0)  # what a step takes
    image_folder(tmp_path / "one", size=8, classes=["n"])
    png = (tmp_path / "one/train/n/0.png").read_bytes()
    for folder in (tmp_path / split / f"n{i:08d}" for split in ("train", "val") for i in range(1000)):
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(png)
    assert run.main([*WORDS, f"folder:{tmp_path}@224", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "parameters 86,567,656  MACs 17,583,342,336" in told
    assert '"image_size": 224' in told and '"recipe_source": "s3-imagenet"' in told


def test_the_mean_needs_neither_class_token_nor_its_position():
    with torch.device("meta"):
        model = replace(config_of("vit-base-224", 224, 1000), pool="mean").module()
    assert sum(p.numel() for p in model.parameters()) == 86_567_656 - 2 * 768


@pytest.mark.parametrize(
    ("pool", "depth", "steps"), [("cls", 1, 10), ("mean", 1, 2), pytest.param("cls", 12, 10, marks=pytest.mark.long)]
)
def test_steps(pool, depth, steps, tmp_path):
    """Two of two images an epoch. Every tensor moves."""
    image_folder(tmp_path / "images", size=240, test="val", classes=("ant", "bee"))
    words = [*WORDS, f"folder:{tmp_path / 'images'}@224", "--epochs", str(steps // 2), "--batch-size", "2"]
    words += ["--holdout", "0.5", "--set", f"variant.pool={pool}", f"variant.depth={depth}"]
    assert run.main([*words, "--out", str(tmp_path / "runs"), "--quiet"]) == 0
    (record,) = load_runs([tmp_path / "runs"])
    losses = [line["train_loss"] for line in record.epochs()]
    print(*losses)
    assert record.result["images_seen"] == 2 * steps and all(0 < loss < 20 for loss in losses)
    config = run_config_from_plain(record.config)
    assert config.variant == replace(config_of("vit-base-224", 224, 2), pool=pool, depth=depth)
    start, end = build_model(config, CPU).state_dict(), load(record.folder / "model.safetensors").state_dict()
    assert start.keys() == end.keys() and not [name for name in start if torch.equal(start[name], end[name])]
