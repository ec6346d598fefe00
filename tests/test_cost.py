"""Costs are right: exact counts worked out elsewhere, three ways of counting that agree, and the committed files of
results/cost, which `harness.cost --write` makes again byte for byte.
"""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import timm
import torch

from harness import cost as command
from harness.counting import measured
from harness.counting.closed_form import COLUMNS, PRODUCTS, by_module, items
from harness.counting.cost import CountError, cost_of, file_bytes, file_name
from harness.counting.measured import Subject
from harness.datasets import DATASETS
from variants.catalog import CATALOG, config_of
from variants.config import ViTConfig
from variants.fields import UsageError, difference, from_text

ROOT = Path(__file__).parents[1]
COSTS = ROOT / "results" / "cost"
WRITE_AGAIN = "run: python -m harness.cost --write"
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
PATCH2 = (915_676_224, 10_735_212, 10_735_212)  # MACs, activations without the ten of the head
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


def need_fvcore():
    pytest.importorskip("fvcore.nn", reason="fvcore, whose count is compared, is not installed")


def total(layers, column, kinds=("matmul", "attention", "norm", "resample", "table")):
    return sum(getattr(layer, column) for layer in layers if layer.kind in kinds)


def hide(monkeypatch, *modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.parametrize(("name", "params"), PARAMS)
def test_parameters_are_the_published_ones(name, params):
    assert cost_of(name, config_of(name), "c10", check=False).params == params


def test_patch2_costs_what_its_source_printed():
    headless = dataclasses.replace(config_of("patch2"), num_classes=0)
    assert Subject(headless).product_macs == total(items(headless), "macs", PRODUCTS) == 910_986_624  # no norms
    bare = cost_of("patch2", headless, "c10")
    assert (bare.params, bare.macs, bare.activations_without_head) == (2_725_632, 915_674_304, 10_735_212)
    full = cost_of("patch2", config_of("patch2"), "c10")
    assert (full.params_without_head, full.macs_without_head) == (bare.params, bare.macs)
    assert (full.macs, (full.activations or 0) - 10, full.activations_without_head) == PATCH2
    assert full.attention_macs == 9 * 2 * 257**2 * 192  # layers, products, tokens x tokens x width


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_three_counts_agree(config):
    """Compared here one by one, so that `check=True` is not its own judge."""
    need_fvcore()
    layers, subject = list(items(config)), Subject(config)
    assert total(layers, "params") == subject.params
    assert total(layers, "macs", PRODUCTS) == subject.product_macs
    assert total(layers, "macs") == subject.flops.total()
    assert total(layers, "activations") == subject.activations.total()
    counted, expected = by_module(layers), subject.by_module
    counted.pop("class_token", None)  # a lone parameter and no module
    assert counted == {path: expected[path] for path in counted}
    assert not [path for path in expected.keys() - counted.keys() if expected[path]["macs"] or expected[path]["params"]]


def test_every_axis_is_varied():
    varied = {name for config in CONFIGS.values() for name in difference(SMALL, config)}
    assert varied == {field.name for field in dataclasses.fields(ViTConfig)}


def test_timm_by_hand():
    """vit_tiny: 12 layers of width 192 on 65 tokens; timm's own module tells its parameters."""
    need_fvcore()
    found = cost_of("timm", config_of("timm"), "c10")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=10)
    assert found.params == sum(p.numel() for p in model.parameters())
    assert found.params_without_head == 5_362_762 - 1930
    assert found.attention_macs == 12 * 2 * 65**2 * 192
    linear, norms = 12 * 65 * 12 * 192**2, 25 * 5 * 65 * 192
    assert found.macs_without_head == 64 * 48 * 192 + linear + found.attention_macs + norms
    rows = 64 + 12 * 65 * (3 + 1 + 1 + 4 + 1)  # of width 192: qkv, weights v, projection, MLP
    assert found.activations_without_head == 192 * rows + 12 * 3 * 65**2


def test_a_net_without_attention_and_one_that_cannot_be_told():
    need_fvcore()
    found = cost_of("timm:resnet10t", config_of("timm:resnet10t"), "c10")
    assert found.attention_macs == 0 and found.macs_without_head == (found.macs or 0) - 512 * 10
    levit = cost_of("timm:levit_128s", config_of("timm:levit_128s", 224), "c10")
    assert levit.attention_macs is None and levit.params_without_head is None


def test_counting_draws_nothing_and_disagreement_with_torch_raises(monkeypatch):
    state = torch.get_rng_state()
    cost_of("compact", config_of("compact"), "c10")
    assert torch.equal(torch.get_rng_state(), state)  # a training run will draw from it
    monkeypatch.setattr(Subject, "product_macs", 12_345)
    with pytest.raises(CountError, match=r"compact: the closed form counts [\d,]+ .*12,345"):
        cost_of("compact", config_of("compact"), "c10")
    assert cost_of("compact", config_of("compact"), "c10", check=False).params == 119_051


def test_disagreement_with_fvcore_is_an_error(monkeypatch, capsys):
    need_fvcore()
    monkeypatch.setattr(measured, "fused_counts", lambda inputs: (0, 0))  # what fvcore does by itself
    assert command.main(["--variant", "patch2"]) == 1
    assert "counts 915,676,224 MACs, fvcore 687,410,880" in capsys.readouterr().err


def test_what_is_shown(monkeypatch, capsys):
    """Of each variant a line of a table, with fvcore's table by module or torchinfo's of the layers, or an object."""
    need_fvcore()
    pytest.importorskip("torchinfo", reason="torchinfo, whose summary is shown, is not installed")
    monkeypatch.setattr(command, "CATALOG", ["compact", "vit-224"])
    assert command.main(["--dataset", "digits"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["compact", "vit-224"]
    assert 'vit-224: its 11,022,730 parameters are not S3\'s "~22M"' in out
    assert command.main(["--variant", "compact", "--table"]) == 0
    assert "#flops" in (out := capsys.readouterr().out) and "#activations" in out
    assert command.main(["--variant", "compact", "--summary"]) == 0
    assert "Total params: 119,051" in (out := capsys.readouterr().out) and "mult-adds" not in out
    words = ["--variant", "compact", "compact-cls", "--dataset", "c100", "--set", "variant.num_classes=0", "--json"]
    assert command.main(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["variant"], line["dataset"]) for line in lines] == [("compact", "c100"), ("compact-cls", "c100")]
    assert lines[0]["params"] == 119_051 - 10 * 49


def test_without_the_packages_the_closed_form_answers_and_says_so(tmp_path, monkeypatch, capsys):
    hide(monkeypatch, "fvcore", "fvcore.nn", "torchinfo")
    assert command.main(["--variant", "patch2", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["macs"] == 915_676_224
    assert printed.err.count("\n") == 1 and "fvcore is not installed" in printed.err
    assert command.main(["--variant", "compact", "--table", "--summary"]) == 0
    out = capsys.readouterr().out
    assert "| blocks.0.attention" in out and "torchinfo is not installed" in out and "119,051" in out
    assert command.main(["--variant", "timm", "--table"]) == 0
    assert "no table by module: it needs fvcore" in capsys.readouterr().out
    timms = cost_of("timm", config_of("timm"), "c10")
    assert timms.params == 5_362_762 and timms.macs is None and timms.by_module is None
    assert command.overview([timms]).splitlines()[2].split() == ["timm", "5,362,762", "-", "-", "-", "-"]
    with pytest.raises(UsageError, match="install fvcore"):
        command.main(["--write", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


# --- the files of results/cost ---

SHAPES = [(name, dataset) for name in CATALOG for dataset in DATASETS]


@pytest.mark.parametrize(("name", "dataset"), SHAPES, ids=map("-".join, SHAPES))
def test_a_committed_cost_is_that_of_a_fresh_count(name, dataset):
    """That the closed form is right is tested elsewhere; models that it does not know are built and counted."""
    if type(CATALOG[name]) is not ViTConfig:
        need_fvcore()
    fresh = file_bytes(name, DATASETS[dataset], check=False)
    committed = COSTS / file_name(name, DATASETS[dataset])
    assert committed.is_file() and committed.read_bytes() == fresh, WRITE_AGAIN


def test_the_modules_of_a_file_add_up():
    assert {path.name for path in COSTS.iterdir()} == {file_name(name, DATASETS[of]) for name, of in SHAPES}
    told = json.loads((COSTS / "patch2-c10.json").read_bytes())
    assert (told["image_size"], told["num_classes"], told["macs"]) == (32, 10, PATCH2[0])
    modules = told["modules"]
    assert modules[""] == {column: told[column] for column in COLUMNS}
    for column in COLUMNS:
        assert sum(counts[column] for path, counts in modules.items() if path and "." not in path) == told[column]
    # on 257 tokens of width 192: qkv and proj, and the two products of 12 heads
    assert modules["blocks.8.attention"] == {
        "params": 4 * 192 * 192 + 4 * 192,
        "macs": 4 * 257 * 192**2 + 2 * 257**2 * 192,
        "activations": 5 * 257 * 192 + 12 * 257**2,
    }


def test_write_makes_the_committed_files_and_says_what_cannot_be_built(tmp_path, monkeypatch, capsys):
    need_fvcore()

    def with_thirds(name, image_size, num_classes):
        config = config_of("compact", image_size, num_classes)
        return dataclasses.replace(config, patch=3) if name == "thirds" else config

    monkeypatch.setattr(command, "CATALOG", ["compact", "thirds"])
    monkeypatch.setattr("harness.counting.cost.config_of", with_thirds)
    (tmp_path / "gone-c10.json").write_text("{}")
    assert command.main(["--write", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.count("skipped thirds on ") == len(DATASETS) and "patch=3 does not divide" in told
    assert f"wrote {len(DATASETS)} files" in told and "gone-c10.json is of no variant" in told
    for dataset in DATASETS.values():
        file = file_name("compact", dataset)
        assert (tmp_path / file).read_bytes() == (COSTS / file).read_bytes()
    assert len(list(tmp_path.iterdir())) == len(DATASETS) + 1
