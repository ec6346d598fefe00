"""What a model becomes elsewhere gives the same outputs: an ONNX graph of any batch size, timm's module, and back."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from harness import export
from harness.commands import run_command
from variants.as_timm import NAMES, PLAIN, arguments, code_of, from_timm, obstacles, to_timm, twin
from variants.catalog import CATALOG, config_of
from variants.config import ViTConfig
from variants.fields import UsageError
from variants.timm_baseline import TimmConfig
from variants.weights import Card, card_of, load, tensors_of, to_bytes

CLASSES = ("ant", "bee", "cow")
IN_TIMM = {"compact-cls", "patch2", "timm", "vit-224", "small-p4", "vit-base-224"}
QUICK = {"compact-cls", "cct-7-3x1"}  # whose export takes about a second


def small(name: str) -> Any:
    """With all its fields but one layer of ours, and small."""
    config = config_of(name, 32 if name in ("timm", "resnet18") else 16, 3)
    if isinstance(config, TimmConfig):
        return config
    return replace(config, depth=1, resize=config.resize and 32)


def written(folder: Path, config: Any) -> tuple[Path, Any]:
    """The file of a model whose every weight is away from where it starts."""
    torch.manual_seed(0)
    model = config.module().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    name = next((name for name in CATALOG if type(CATALOG[name]) is type(config)), "mine")
    kind = "timm" if isinstance(config, TimmConfig) else "vit"
    card = Card(name, kind, asdict(config), "insects", CLASSES, (0.1, 0.2, 0.3), (0.5, 0.25, 0.4), "some-run")
    path = folder / "model.safetensors"
    path.write_bytes(to_bytes(model.state_dict(), card))
    return path, model


def images_of(config: Any, count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, config.image_size, config.image_size)


def run(*words: Any) -> int:
    with pytest.raises(SystemExit) as left:
        run_command(export.main, [*map(str, words)])
    return left.value.code  # type: ignore[return-value]


# --- timm ------------------------------------------------------------------------------------------------------------


def test_which_variants_are_timm_s_in_other_words():
    assert {name for name in CATALOG if not obstacles(config_of(name))} == IN_TIMM
    assert obstacles(CATALOG["vanilla"]) == ["attention_scale=width", "mlp_out_activation=True"]
    assert obstacles(CATALOG["resnet18"]) == ["small_stem=True"]


PLAIN_ONES = {
    **{name: small(name) for name in sorted(IN_TIMM)},
    "mean": ViTConfig(pool="mean", depth=1),
    "mean, normed when pooled": ViTConfig(pool="mean", final_norm="pooled", depth=1),
    "mean, no norm": ViTConfig(pool="mean", final_norm="none", position="none", depth=1),
    "no whole ratio": ViTConfig(width=48, heads=4, mlp_width=109, depth=1, attention="per-head"),
}


@pytest.mark.parametrize("config", PLAIN_ONES.values(), ids=PLAIN_ONES)
@torch.no_grad()
def test_timm_s_module_with_our_weights_gives_our_outputs_and_back(config):
    torch.manual_seed(0)
    ours: Any = config.module().eval()
    for parameter in ours.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs = twin(config).eval()
    theirs.load_state_dict(to_timm(config, ours.state_dict()))
    images = torch.randn(3, 3, config.input_size, config.input_size)
    torch.testing.assert_close(theirs(images), ours(images), rtol=0, atol=1e-5)
    again: Any = config.module().eval()
    again.load_state_dict(from_timm(config, theirs.state_dict(), again.state_dict()))
    assert torch.equal(again(images), ours(images))


def test_the_field_names_are_those_of_the_config():
    """So that no field that is renamed or added stops to be an obstacle in silence: each is one, or is handed over, or
    changes nothing that is computed."""
    handed_over = {"num_classes", "patch", "width", "depth", "heads", "mlp_width", "qkv_bias", "activation"}
    handed_over |= {"norm_eps", "final_norm", "image_size", "resize"}
    of_training = {"dropout", "attention_dropout", "head_dropout", "drop_path", "drop_path_shape", "attention"}
    of_the_start = {"init", "position_std", "token_std"}
    only_with_an_obstacle = {"stem_width"}
    known = PLAIN.keys() | handed_over | of_training | of_the_start | only_with_an_obstacle
    assert known == asdict(ViTConfig()).keys()


def test_every_name_of_the_key_map_is_one_of_both_sides():
    config = small("patch2")
    ours, theirs = (" ".join(f".{name}" for name in m.state_dict()) for m in (config.module(), twin(config)))
    assert all(name in ours and other in theirs for name, other in NAMES.items())


def test_a_timm_file_comes_back_and_the_code_builds_its_module(tmp_path, monkeypatch, capsys):
    path, model = written(tmp_path, small("small-p4"))
    monkeypatch.chdir(tmp_path)
    assert run(path, "--timm") == 0
    out, file = capsys.readouterr().out, Path("some-run-timm.safetensors")
    assert str(file) in out and "blocks.0.attn.qkv.weight" in tensors_of(file)
    scope = {"VisionTransformer": VisionTransformer, "LayerNorm": torch.nn.LayerNorm}
    exec("from functools import partial", scope)  # noqa: S102
    theirs = eval(out.splitlines()[-1], scope).eval()  # noqa: S307
    theirs.load_state_dict(tensors_of(file))
    images = images_of(model.config)
    torch.testing.assert_close(theirs(images), model(images), rtol=0, atol=1e-5)
    assert torch.equal(load(file)(images), model(images)) and card_of(file) == card_of(path)
    assert torch.equal(load(file, small("small-p4").module())(images), model(images))


@pytest.mark.parametrize("name", sorted(CATALOG.keys() - IN_TIMM))
def test_the_others_name_the_obstacle(name, tmp_path, capsys):
    path, _ = written(tmp_path, small(name))
    assert run(path, "--timm", tmp_path / "x.safetensors") == 2 and not (tmp_path / "x.safetensors").exists()
    field = obstacles(CATALOG[name])[0]
    assert field in capsys.readouterr().err


def test_a_file_of_another_plain_vit_is_still_refused(tmp_path):
    path, _ = written(tmp_path, small("patch2"))
    with pytest.raises(UsageError, match="another architecture"):
        load(path, small("small-p4").module())


def test_arguments_are_those_of_the_code():
    config = small("vit-224")
    assert arguments(config)["img_size"] == 32 and "img_size=32" in code_of(config) and "eps=1e-06" in code_of(config)
    assert "img_size=32, patch_size=4, num_classes=3" in code_of(small("timm"))


# --- ONNX ------------------------------------------------------------------------------------------------------------

needs_onnx = pytest.mark.skipif(
    any(export.importlib.util.find_spec(name) is None for name in export.PACKAGES), reason="needs pip install '.[onnx]'"
)
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CATALOG]


@needs_onnx
@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_onnx_gives_the_logits_of_images_for_any_batch(name, tmp_path, capsys):
    import onnxruntime

    path, model = written(tmp_path, small(name))
    assert run(path, "--onnx", tmp_path / "m.onnx") == 0 and "equal to 0.0001" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 7, 30):
        images = images_of(model.config, count)  # in [0, 1]
        scaled = (images - torch.tensor((0.1, 0.2, 0.3)).view(3, 1, 1)) / torch.tensor((0.5, 0.25, 0.4)).view(3, 1, 1)
        logits: Any = session.run(None, {"images": images.numpy()})[0]
        np.testing.assert_allclose(logits, model(scaled), rtol=0, atol=1e-4)
    (given,), facts = session.get_inputs(), session.get_modelmeta().custom_metadata_map
    side = model.config.image_size
    assert given.shape[1:] == [3, side, side] and isinstance(given.shape[0], str), "any number of images"
    assert json.loads(facts["classes"]) == list(CLASSES) and json.loads(facts["mean"]) == [0.1, 0.2, 0.3]
    assert "[0, 1]" in facts["input"] and json.loads(facts["variant"])["image_size"] == side


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_what_differs_is_refused(tmp_path, error):
    path, model = written(tmp_path, small("compact"))
    export.check(model, card_of(path), lambda images: model(images) + 5e-5, 1e-4)
    with pytest.raises(UsageError, match=r"logits differ by .* at batch 1"):
        export.check(model, card_of(path), lambda images: model(images) + error, 1e-4)


def test_what_cannot_be_exported_is_a_sentence(tmp_path, monkeypatch, capsys):
    path, _ = written(tmp_path, small("compact"))
    assert run(path) == 2 and "--onnx or --timm" in capsys.readouterr().err
    assert run(tmp_path / "absent", "--timm") == 2 and "no weights" in capsys.readouterr().err
    monkeypatch.setattr(export, "PACKAGES", ("onnx_that_is_not_there",))
    assert run(path, "--onnx") == 2 and "pip install '.[onnx]'" in capsys.readouterr().err
    shutil.copy(__file__, path)
    assert run(path, "--timm") == 2 and "no whole safetensors file" in capsys.readouterr().err
