"""Owns the proof that costs are right: exact counts worked out elsewhere, and three ways of counting that agree.
Refuses training and data.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytest import CaptureFixture, MonkeyPatch

from harness import cost as command
from harness.counting import cost as counting
from harness.counting import measured
from harness.counting.closed_form import PRODUCTS, Item, items
from harness.counting.cost import CountError, cost_of
from harness.counting.measured import Subject
from harness.counting.modules import macs_by_module, named
from harness.counting.show import overview
from variants.catalog import CATALOG, config_of
from variants.config import ViTConfig
from variants.fields import UsageError, difference, from_text

ROOT = Path(__file__).parents[1]
KEYS = ["variant", "dataset", "params", "params_without_head", "macs", "macs_without_head", "attention_macs"]
KEYS += ["activations", "activations_without_head", "by_module"]
PARAMS = [
    ("vanilla", 6_268_810),
    ("compact", 119_051),
    ("compact-cls", 119_098),
    ("patch2", 2_727_562),
    ("patch2-conv", 6_482_138),
    ("vit-lite-7-4", 3_716_874),
    ("cvt-7-4", 3_716_619),
    ("cct-7-3x1", 3_760_139),
    ("small-p4", 2_692_426),
]
SMALL = ViTConfig(image_size=8, num_classes=5, patch=2, width=16, depth=2, heads=4, mlp_width=24, pool="mean")
CHANGES = [  # every field; a comma sets two together
    "image_size=12 num_classes=0 num_classes=7 resize=16 resize=8 resize=4",
    "tokenizer=linear tokenizer=conv-stem tokenizer=cct-conv tokenizer=shifted patch=4",
    "tokenizer=conv-stem,stem_width=5 tokenizer=cct-conv,patch=1 tokenizer=cct-conv,patch=8",
    "width=24 depth=1 heads=2 mlp_width=40 pool=cls pool=seq pool=cls,final_norm=pooled",
    "position=sincos position=none position_std=1 token_std=1 relative_bias=true relative_bias=true,pool=cls",
    "attention=merged attention=per-head attention=per-head,relative_bias=true,mask_diagonal=true",
    "attention_scale=width attention_scale=learned mask_diagonal=true qkv_bias=false",
    "activation=gelu-tanh mlp_out_activation=true residual=rezero residual=cct norm_eps=1e-6",
    "final_norm=pooled final_norm=none head_activation=true init=torch init=cct",
    "dropout=.1 attention_dropout=.1 head_dropout=.1 drop_path=.1 drop_path=.1,drop_path_shape=constant",
]
CONFIGS = {name: config_of(name) for name, config in CATALOG.items() if type(config) is ViTConfig}
for change in " ".join(CHANGES).split():
    CONFIGS[change] = from_text(SMALL, dict(pair.split("=") for pair in change.split(",")))


def need_fvcore() -> None:
    pytest.importorskip("fvcore.nn", reason="fvcore, whose count is compared, is not installed")


def total(layers: list[Item], what: str, kinds: tuple[str, ...] | None = None) -> int:
    return sum(getattr(layer, what) for layer in layers if kinds is None or layer.kind in kinds)


def hide(monkeypatch: MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(("name", "params"), PARAMS)
def test_parameters_are_the_published_ones(name: str, params: int) -> None:
    assert cost_of(name, config_of(name), "c10", check=False).params == params
    assert total(items(config_of(name)), "params") == params


def test_patch2_costs_what_its_source_printed() -> None:
    headless = dataclasses.replace(config_of("patch2"), num_classes=0)
    assert Subject(headless).product_macs == total(items(headless), "macs", PRODUCTS) == 910_986_624  # no norms
    bare = cost_of("patch2", headless, "c10")
    assert (bare.params, bare.macs, bare.activations_without_head) == (2_725_632, 915_674_304, 10_735_212)
    full = cost_of("patch2", config_of("patch2"), "c10")
    assert (full.params_without_head, full.macs_without_head) == (bare.params, bare.macs)
    assert (full.macs, full.activations_without_head) == (915_676_224, 10_735_212)
    assert full.attention_macs == 9 * 2 * 257**2 * 192  # layers, products, tokens x tokens x width


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_three_counts_agree(config: ViTConfig) -> None:
    """Compared here one by one, so that `check=True` is not its own judge."""
    need_fvcore()
    layers, subject = items(config), Subject(config)
    assert total(layers, "params") == subject.params
    assert total(layers, "macs", PRODUCTS) == subject.product_macs
    assert total(layers, "macs") == subject.flops.total()
    assert total(layers, "activations") == subject.activations.total()
    assert macs_by_module(layers) == named(subject.flops.by_module())


def test_every_axis_is_varied() -> None:
    varied = {name for config in CONFIGS.values() for name in difference(SMALL, config)}
    assert varied == {field.name for field in dataclasses.fields(ViTConfig)}


def test_modules_add_up() -> None:
    found = cost_of("vit-224", config_of("vit-224"), "c10", check=False)
    assert found.by_module is not None and found.by_module[""] == found.macs
    direct = sum(count for path, count in found.by_module.items() if path and "." not in path)
    assert found.macs == direct + 4 * 3 * 224**2  # the resize belongs to no module
    layers = sum(count for path, count in found.by_module.items() if path.count(".") == 1 and path.startswith("blocks"))
    assert layers == found.by_module["blocks"]
    assert {"blocks.5.attention", "blocks.5.mlp", "tokenizer", "head"} <= found.by_module.keys()


def test_timm_by_hand() -> None:
    """vit_tiny: 12 layers of width 192 on 65 tokens; timm's own module tells its parameters."""
    need_fvcore()
    timm = pytest.importorskip("timm", reason="timm, whose model is counted, is not installed")
    found = cost_of("timm", config_of("timm"), "c10")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=10)
    assert found.params == sum(p.numel() for p in model.parameters())
    assert found.params_without_head == 5_362_762 - 1930
    assert found.attention_macs == 12 * 2 * 65**2 * 192
    linear, norms = 12 * 65 * 12 * 192**2, 25 * 5 * 65 * 192
    assert found.macs_without_head == 64 * 48 * 192 + linear + found.attention_macs + norms
    rows = 64 + 12 * 65 * (3 + 1 + 1 + 4 + 1)  # of width 192: qkv, weights v, projection, MLP
    assert found.activations_without_head == 192 * rows + 12 * 3 * 65**2


def test_a_net_without_attention_and_one_that_cannot_be_told() -> None:
    need_fvcore()
    pytest.importorskip("timm", reason="timm, whose models are counted, is not installed")
    found = cost_of("timm:resnet10t", config_of("timm:resnet10t"), "c10")
    assert found.attention_macs == 0 and found.macs_without_head == (found.macs or 0) - 512 * 10
    levit = cost_of("timm:levit_128s", config_of("timm:levit_128s", 224), "c10")
    assert levit.attention_macs is None and levit.params_without_head is None


@pytest.mark.parametrize("attribute", ["params", "product_macs"])
def test_disagreement_with_torch_raises(monkeypatch: MonkeyPatch, attribute: str) -> None:
    monkeypatch.setattr(Subject, attribute, property(lambda subject: 12_345))
    with pytest.raises(CountError, match=r"compact: the closed form counts [\d,]+ .*12,345"):
        cost_of("compact", config_of("compact"), "c10")
    assert cost_of("compact", config_of("compact"), "c10", check=False).params == 119_051


def test_disagreement_with_fvcore_raises(monkeypatch: MonkeyPatch, capsys: CaptureFixture) -> None:
    need_fvcore()
    monkeypatch.setattr(measured, "_fused_macs", lambda inputs, outputs: 0)  # what fvcore does by itself
    with pytest.raises(CountError, match="counts 915,676,224 MACs, fvcore 687,410,880"):
        cost_of("patch2", config_of("patch2"), "c10")
    assert command.main(["--variant", "patch2"]) == 1
    assert "fvcore 687,410,880" in capsys.readouterr().err


def test_counting_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    cost_of("compact", config_of("compact"), "c10")
    assert torch.equal(torch.rand(4), expected)


def test_json_is_one_object_a_line(capsys: CaptureFixture) -> None:
    assert command.main(["--variant", "compact", "patch2-conv", "--dataset", "c100", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(line) for line in lines] == [KEYS, KEYS]
    assert [(line["variant"], line["dataset"]) for line in lines] == [("compact", "c100"), ("patch2-conv", "c100")]
    assert lines[0]["params"] == 119_051 + 90 * 49
    assert command.main(["--variant", "patch2", "--set", "variant.num_classes=0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] == 915_674_304


def test_overview_has_a_line_for_each_variant(capsys: CaptureFixture) -> None:
    assert command.main(["--dataset", "digits"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[2 : 2 + len(CATALOG)]] == list(CATALOG)
    assert 'vit-224: its 11,022,730 parameters are not S3\'s "~22M"' in out


def test_without_fvcore_the_closed_form_answers_and_says_so(monkeypatch: MonkeyPatch, capsys: CaptureFixture) -> None:
    hide(monkeypatch, "fvcore", "fvcore.nn")
    assert command.main(["--variant", "patch2", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["macs"] == 915_676_224
    assert printed.err.count("\n") == 1 and "fvcore is not installed" in printed.err
    assert command.main(["--variant", "patch2", "--table"]) == 0
    assert "blocks.8.attention" in (out := capsys.readouterr().out) and "915,676,224" in out


def test_without_fvcore_a_timm_model_is_unknown(monkeypatch: MonkeyPatch) -> None:
    pytest.importorskip("timm", reason="timm, whose model is counted, is not installed")
    hide(monkeypatch, "fvcore", "fvcore.nn")
    found = cost_of("timm", config_of("timm"), "c10")
    assert found.params == 5_362_762 and found.macs is None and found.by_module is None
    assert overview([found]).splitlines()[-1].split() == ["timm", "5,362,762", "-", "-", "-", "-"]


def test_without_torch_the_closed_form_answers_and_says_so(monkeypatch: MonkeyPatch, capsys: CaptureFixture) -> None:
    monkeypatch.setattr(counting, "importable", lambda package: package not in ("torch", "fvcore.nn"))
    assert command.main(["--variant", "compact", "timm", "--json"]) == 0
    printed = capsys.readouterr()
    first, second = (json.loads(line) for line in printed.out.splitlines())
    assert first["params"] == 119_051 and second["params"] is None and list(second) == KEYS
    assert "torch is not installed" in printed.err


def test_summary_with_and_without_torchinfo(monkeypatch: MonkeyPatch, capsys: CaptureFixture) -> None:
    with monkeypatch.context() as hidden:
        hide(hidden, "torchinfo")
        assert command.main(["--variant", "compact", "--summary"]) == 0
    out = capsys.readouterr().out
    assert "torchinfo is not installed" in out and "119,051" in out
    pytest.importorskip("torchinfo", reason="torchinfo, whose summary is shown, is not installed")
    assert command.main(["--variant", "compact", "--summary"]) == 0
    out = capsys.readouterr().out
    assert "Total params: 119,051" in out and "mult-adds" not in out


def test_table_is_fvcores(capsys: CaptureFixture) -> None:
    need_fvcore()
    assert command.main(["--variant", "patch2", "--table"]) == 0
    out = capsys.readouterr().out
    assert "#flops" in out and "#activations" in out and "0.916G" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--variant", "nope"], "unknown variant 'nope'"),
        (["--dataset", "c1000"], "did you mean c100"),
        (["--variant", "compact", "--set", "variant.widht=3"], "did you mean width"),
        (["--variant", "compact", "--set", "variant.patch=5"], "does not divide"),
        (["--variant", "compact", "--set", "recipe.lr=1"], "recipe"),
        (["--json", "--table"], "--json"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command.main(argv)


def test_unknown_variant_exits_with_2_and_near_matches() -> None:
    argv = [sys.executable, "-m", "harness.cost", "--variant", "compakt"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and ran.stdout == ""
    assert "compakt" in ran.stderr and "did you mean compact" in ran.stderr


@pytest.mark.parametrize("module", ["harness.counting.closed_form", "harness.cost"])
def test_planning_a_count_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'fvcore', 'timm'}} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
