"""Runs that start from weights: what they take over, that none is ever taken for one from scratch, what is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from harness import run, sweep, verify
from harness.commands import run_command
from harness.config import RunConfig, plan_id, resolve, run_config_from_plain
from harness.data.load import load as load_data
from harness.datasets import DATASETS
from harness.evidence.cells import read_evidence
from harness.evidence.names import name_of
from harness.records.read import Run, contradictions, load_runs
from harness.training.setup import build_model, starting_from
from variants.as_timm import to_timm
from variants.catalog import config_of
from variants.config import ViTConfig
from variants.fields import UsageError
from variants.weights import FILE, Card, digest_of, start, tensors_of, to_bytes

CPU = torch.device("cpu")
TINY = ["variant.depth=1", "variant.width=32", "variant.heads=2", "variant.mlp_width=32"]
TINY += ["recipe.warmup_epochs=0", "recipe.batch_size=64"]
HALF = (1, 3, 5, 8, 9)  # those that look most alike


def words(dataset: str, out: Path, *more: str, epochs: int = 20, lr: float = 3e-3) -> list[str]:
    shared = ["--recipe", "quick", "--device", "cpu", "--quiet", "--no-weights", "--out", str(out)]
    return [
        "--variant",
        "compact",
        "--dataset",
        dataset,
        "--epochs",
        str(epochs),
        *shared,
        "--set",
        *TINY,
        f"recipe.lr={lr}",
        *more,
    ]


def trained(dataset: str, out: Path, *more: str) -> Run:
    before = {one.folder for one in load_runs([out])}
    assert run.main(words(dataset, out, *more)) == 0
    (record,) = (one for one in load_runs([out]) if one.folder not in before)
    return record


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The folder of a run on digits."""
    out = tmp_path_factory.mktemp("source")
    asked = [word for word in words("digits", out, epochs=8, lr=1e-2) if word != "--no-weights"]
    assert run.main(asked) == 0
    (record,) = load_runs([out])
    assert record.result["test_accuracy"] > 0.75
    return record.folder


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> str:
    """Half of the digits, twenty training images of each, as a folder of images."""
    root = tmp_path_factory.mktemp("data") / "half"
    data = load_data("digits", Path("data"))
    for name, split, most in (("train", data.train, 20), ("test", data.test, 30)):
        for label in HALF:
            folder = root / name / str(label)
            folder.mkdir(parents=True)
            for number, index in enumerate(np.flatnonzero(split.labels == label)[:most]):
                Image.fromarray(split.images[index]).save(folder / f"{number}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module")
def moved(source, half, tmp_path_factory) -> Run:
    return trained(half, tmp_path_factory.mktemp("moved"), "--weights", str(source))


# --- what is taken over ----------------------------------------------------------------------------------------------


def started_from(config: RunConfig, place: Path) -> RunConfig:
    (started,) = starting_from([config], place)
    return started


def gain(moved: Run, scratch: Run) -> float:
    return moved.result["test_accuracy"] - scratch.result["test_accuracy"]


def test_half_of_the_classes_are_learned_sooner_than_from_scratch(moved, half, tmp_path):
    scratch = trained(half, tmp_path)
    assert gain(moved, scratch) > 0.1 and moved.result["test_nll"] < scratch.result["test_nll"] - 0.2
    assert moved.config["variant"]["num_classes"] == 5


def test_at_another_image_size_too(source, half, tmp_path):
    big = trained(f"{half}@12", tmp_path, "--weights", str(source))
    scratch = trained(f"{half}@12", tmp_path)
    assert big.config["variant"]["image_size"] == 12
    assert gain(big, scratch) > 0.1 and big.result["test_nll"] < scratch.result["test_nll"] - 0.2


def test_everything_but_the_head_is_taken_and_that_is_the_seed_s(source):
    config = resolve("compact", replace(DATASETS["digits"], num_classes=5), "quick", settings=TINY, seed=3)
    fresh = build_model(config, CPU).state_dict()
    started = build_model(started_from(config, source), CPU).state_dict()
    given = tensors_of(source)
    for name, value in started.items():
        expected = fresh[name] if name.startswith("head.") else given[name]
        assert torch.equal(value, expected), name
    same = replace(config, variant=replace(config.variant, num_classes=10))
    assert torch.equal(build_model(started_from(same, source), CPU).head.weight, given["head.weight"])  # type: ignore


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_positions_are_interpolated_and_the_class_token_keeps_its_own(pool, tmp_path):
    small = ViTConfig(image_size=8, patch=2, width=4, heads=1, depth=1, mlp_width=4, pool=pool)
    model: Any = small.module()
    extra = small.tokens - 16
    rows = torch.arange(4.0)[:, None].expand(4, 4)
    with torch.no_grad():
        model.position.table[0, extra:] = rows.reshape(16, 1).expand(16, 4)
        model.position.table[0, :extra] = 77.0
    file = written(tmp_path, model)
    large: Any = replace(small, image_size=16).module()
    start(large, file, digest_of(tensors_of(file)))
    table = large.position.table[0].detach()
    assert (table[:extra] == 77).all()
    grid = table[extra:, 0].reshape(8, 8)
    assert torch.allclose(grid, grid[:, :1].expand(8, 8), atol=1e-5), "columns are alike, as they were"
    assert torch.allclose(grid[2:6, 0], torch.arange(4.0) / 2 + 0.75, atol=0.2) and (grid.diff(dim=0) > 0).all()
    assert torch.equal(large.blocks[0].mlp.expand.weight, model.blocks[0].mlp.expand.weight)


def test_relative_positions_are_interpolated_too(tmp_path):
    small = replace(BASE, relative_bias=True, heads=1)
    model: Any = small.module()
    size, large_size = 2 * small.grid - 1, 2 * 8 - 1
    rows = torch.arange(size) - size // 2.0  # how far below the other cell lies
    with torch.no_grad():
        model.blocks[0].attention.relative_bias.table[:] = rows[:, None].expand(size, size).reshape(1, -1)
    file = written(tmp_path, model)
    large: Any = replace(small, image_size=16).module()
    start(large, file, digest_of(tensors_of(file)))
    table = large.blocks[0].attention.relative_bias.table.detach().reshape(large_size, large_size)
    assert torch.allclose(table, table[:, :1].expand_as(table), atol=1e-5) and table[7, 7].abs() < 1e-5
    middle = table[5:10, 0]
    assert torch.allclose(middle, torch.arange(-2.0, 3) * size / large_size, atol=0.05), "half the distance, half of it"


def written(folder: Path, model: Any, **said: Any) -> Path:
    kind = "vit" if isinstance(model.config, ViTConfig) else "timm"
    card = Card("mine", kind, asdict(model.config), "made up", tuple("abc"), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    path = folder / FILE
    path.write_bytes(to_bytes(model.state_dict(), replace(card, **said)))
    return path


# --- timm's files ----------------------------------------------------------------------------------------------------


def timms_file(folder: Path, model: Any) -> Path:
    """As timm publishes it: its own names, and nothing of ours."""
    path = folder / "timms.safetensors"
    safetensors.torch.save_file(to_timm(model.config, model.state_dict()), path, {"format": "pt"})
    return path


def test_timm_s_own_file_starts_a_timm_model_at_another_size_with_other_classes(tmp_path):
    published: Any = replace(config_of("timm:vit_tiny_patch16_224", 224, 1000)).module()
    file = timms_file(tmp_path, published)
    model: Any = config_of("timm:vit_tiny_patch16_224", 64, 7).module()
    start(model, file, digest_of(tensors_of(file)))
    theirs, mine = published.model.state_dict(), model.model.state_dict()
    changed = {name for name in mine if mine[name].shape != theirs[name].shape}
    assert changed == {"head.weight", "head.bias", "pos_embed"} and mine["pos_embed"].shape[1] == 4 * 4 + 1
    assert torch.equal(mine["pos_embed"][:, 0], theirs["pos_embed"][:, 0])
    assert all(torch.equal(mine[name], theirs[name]) for name in mine.keys() - changed)


def test_it_starts_a_variant_that_is_timm_s_in_other_words(tmp_path):
    config = replace(config_of("patch2", 16, 10), depth=1)
    model, other = config.module(), config.module()
    file = timms_file(tmp_path, model)
    start(other, file, digest_of(tensors_of(file)))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(other.parameters(), model.parameters()))


def test_without_a_network_the_way_by_file_is_told(monkeypatch):
    def create_model(*args: Any, **words: Any) -> Any:
        raise OSError("cannot find the requested files")

    monkeypatch.setattr("timm.create_model", create_model)
    with pytest.raises(UsageError, match="--weights FILE, without pretrained=true"):
        replace(config_of("timm:resnet10t"), pretrained=True).module()


# --- never taken for a run from scratch ------------------------------------------------------------------------------


def test_what_it_started_from_is_part_of_what_it_is(moved, source):
    config, again = moved.config, run_config_from_plain(moved.config)
    assert contradictions(moved) == [] and again.run_id == moved.folder.name
    assert config["weights"] == str(source / FILE) and config["weights_digest"] == digest_of(tensors_of(source))
    scratch = replace(again, weights="", weights_digest="", overrides=())
    assert scratch.run_id != again.run_id and scratch.cell_id != again.cell_id and scratch.plan_id != again.plan_id
    assert plan_id(config) == again.plan_id and plan_id(scratch.to_plain()) == scratch.plan_id
    assert not {"weights", "weights_digest"} & scratch.to_plain().keys(), "a record from scratch is what it was"
    elsewhere = replace(again, weights="/elsewhere/other.safetensors")
    assert elsewhere.run_id == again.run_id and replace(again, weights_digest="0" * 64).run_id != again.run_id


def test_reports_show_it_as_another_row(moved, source, half, tmp_path):
    scratch = trained(half, tmp_path)
    rows = [cell.row for cell in read_evidence([tmp_path, moved.folder.parent]).cells]
    assert len(rows) == len(set(rows)) == 2
    (mine,) = (row for row in rows if f"weights={source.name}" in row[1])
    assert name_of(scratch.config)[2] == name_of(moved.config)[2][:-1] and mine[0] == "compact"
    plain = resolve("vanilla", DATASETS["c10"], "published")
    started = replace(plain, weights="my/best.safetensors", weights_digest="0" * 64)
    assert name_of(plain.to_plain())[1:] == ("published", ()), "what is compared with published numbers"
    assert name_of(started.to_plain())[1:] == ("published", ("weights=best",))


def test_the_same_tensors_are_the_same_start_wherever_they_lie(source, tmp_path):
    config = resolve("compact", DATASETS["digits"], "quick", settings=TINY)
    first = started_from(config, source)
    model: Any = config.variant.module()
    model.load_state_dict(tensors_of(source))
    (tmp_path / "copy").mkdir()
    copy = written(tmp_path / "copy", model, accuracy=0.5)
    assert started_from(config, copy).run_id == first.run_id
    with torch.no_grad():
        model.head.bias[0] += 1e-6
    other = started_from(config, written(tmp_path / "copy", model))
    assert other.run_id != first.run_id


def test_verify_repeats_it_from_the_same_weights_alone(moved, source, capsys, monkeypatch, tmp_path):
    assert verify.main([str(moved.folder), "--device", "cpu", "--quiet"]) == 0
    assert "equal to the last bit" in capsys.readouterr().out
    hidden = source.rename(source.with_name("hidden"))
    try:
        with pytest.raises(UsageError, match="which is not there: --weights"):
            verify.main([str(moved.folder), "--device", "cpu", "--quiet"])
        assert verify.main([str(moved.folder), "--device", "cpu", "--quiet", "--weights", str(hidden)]) == 0
    finally:
        hidden.rename(source)
    other = written(tmp_path, run_config_from_plain(moved.config).variant.module())
    with pytest.raises(UsageError, match="no longer holds the weights"):
        verify.main([str(moved.folder), "--device", "cpu", "--quiet", "--weights", str(other)])


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    ({"width": 64}, r"another architecture: width=64 instead of 32"),
    ({"attention_scale": "width"}, r"attention_scale=width instead of head"),
    (
        {"mask_diagonal": True, "norm_eps": 1e-3},
        r"mask_diagonal=True instead of False, norm_eps=0.001 instead of 1e-05",
    ),
    ({"patch": 4}, r"patch=4 instead of 2"),
]
BASE = ViTConfig(image_size=8, patch=2, width=32, heads=2, depth=1, mlp_width=32)


@pytest.mark.parametrize(("fields", "told"), REFUSED)
def test_another_architecture_is_refused_though_every_tensor_fits(fields, told, tmp_path):
    file = written(tmp_path, replace(BASE, **fields).module())
    with pytest.raises(UsageError, match=told):
        start(BASE.module(), file, digest_of(tensors_of(file)))


def test_what_does_not_shape_the_model_may_differ(tmp_path):
    other = replace(BASE, dropout=0.1, drop_path=0.2, init="cct", attention="merged", num_classes=3, image_size=12)
    file = written(tmp_path, other.module())
    start(BASE.module(), file, digest_of(tensors_of(file)))


def test_a_vit_does_not_start_from_a_timm_model_nor_from_a_foreign_file(tmp_path):
    file = written(tmp_path, config_of("timm:resnet10t", 32, 10).module())
    with pytest.raises(UsageError, match="class=TimmConfig instead of ViTConfig"):
        start(BASE.module(), file, digest_of(tensors_of(file)))
    safetensors.torch.save_file({"x": torch.zeros(2)}, file)
    with pytest.raises(UsageError, match="another architecture: no class_token"):
        start(BASE.module(), file, digest_of(tensors_of(file)))


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    model: Any = BASE.module()
    with torch.no_grad():
        model.head.bias[1] = torch.nan
    file = written(tmp_path, model)
    with pytest.raises(UsageError, match=r"not a number \(NaN\): head.bias$"):
        start(BASE.module(), file, digest_of(tensors_of(file)))


def test_a_dry_run_finds_out_that_they_do_not_fit(source, tmp_path, capsys):
    wide = words("digits", tmp_path, "variant.mlp_width=64", "--weights", str(source), "--dry-run")
    wide.remove("variant.mlp_width=32")
    with pytest.raises(UsageError, match="mlp_width=32 instead of 64"):
        run.main(wide)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--weights", ""], "a path is needed"),
        (["--weights", "nosuch"], "there is no such file"),
        (["--weights", "."], "--no-weights"),
        (["--weights", "pickle.safetensors"], "no whole safetensors file"),
    ],
)
def test_a_start_from_nothing_usable_exits_2(more, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": 1}, "pickle.safetensors")
    with pytest.raises(SystemExit) as left:
        run_command(run.main, words("digits", tmp_path / "out", *more))
    assert left.value.code == 2 and told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_pretrained_and_weights_are_two_starts(source):
    config = resolve("timm:resnet10t", DATASETS["c10"], "s3", settings=["variant.pretrained=true"])
    with pytest.raises(UsageError, match="leave out that or --weights"):
        started_from(config, source)


# --- many ------------------------------------------------------------------------------------------------------------


def test_every_run_of_a_study_starts_from_the_same_weights(source, half, tmp_path, capsys):
    """Each is the run that harness.run makes; they are told from those from scratch; what does not fit fails alone."""
    out, few = ["--out", str(tmp_path), "--device", "cpu", "--no-weights"], ["--dataset", half, "--epochs", "1"]
    asked = ["pooling", "--quick", *few, "--seeds", "1", *out]
    wide = run.main(["--variant", "compact", "--recipe", "quick", *few[:2], "--epochs", "1", *out[:4], "--quiet"])
    weights = next(path for path in tmp_path.glob(f"*/{FILE}"))
    assert wide == 0 and sweep.main([*asked, "--weights", str(weights), "--jobs", "1"]) == 1
    assert "pool=seq instead of cls" in capsys.readouterr().err
    (started,) = (one for one in load_runs([tmp_path]) if one.config.get("weights_digest"))
    assert started.config["variant_name"] == "compact" and started.config["weights"] == str(weights)
    assert sweep.main([*asked, "--weights", str(weights), "--status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["done"] == 1
    same = started_from(replace(run_config_from_plain(started.config), overrides=()), weights)
    assert same.run_id == started.folder.name
