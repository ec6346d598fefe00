"""The catalogue: every variant meets the contract, counts exactly, and computes what others' code computes."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from variants.catalog import CATALOG, build, config_of
from variants.compact import COMPACT, COMPACT_CLS
from variants.config import ViTConfig
from variants.fields import UsageError, difference
from variants.neighbours import CCT, CVT, VIT_LITE
from variants.timm_baseline import TimmConfig
from variants.vit import DropPath, drop_path_rate

PLAIN = [name for name, config in CATALOG.items() if isinstance(config, ViTConfig)]
PARAMETERS = {
    "vanilla": 6_268_810,
    "compact": 119_051,
    "compact-cls": 119_098,
    "patch2": 2_725_632 + 1_930,
    "patch2-conv": 6_482_138,
    "vit-lite-7-4": 3_716_874,
    "cvt-7-4": 3_716_619,
    "cct-7-3x1": 3_760_139,
    "small-p4": 2_692_426,
    "vit-base-224": 85_806_346,
    "resnet18": 11_173_962,
    "timm": 5_362_762,
}


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_exact(name):
    with torch.device("meta"):
        assert count(build(name)) == PARAMETERS[name]
        assert name != "patch2" or count(build(name, num_classes=0)) == 2_725_632


def small(name: str, **changes) -> Any:
    """A variant at 32 pixels, its resizing kept small enough for a test."""
    config = config_of(name, 32, 7)
    if config.resize:
        config = replace(config, resize=64)
    torch.manual_seed(0)
    return replace(config, **changes).module()


def shallow(name: str) -> Any:
    """Two layers of a variant of ours; the whole of timm's."""
    return small(name, **({"depth": 2} if name in PLAIN else {}))


@pytest.mark.parametrize("name", CATALOG)
def test_contract(name):
    """Shape, finite values, samples independent of each other, eval mode repeatable, features, maps; the start depends
    on the generator alone."""
    model = shallow(name).eval()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), shallow(name).parameters()))
    torch.manual_seed(1)
    images = torch.randn(3, 3, 32, 32)
    logits = model(images)
    assert logits.shape == (3, 7) and logits.isfinite().all()
    assert torch.equal(logits, model(images))
    torch.testing.assert_close(model(images[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)
    features = model.features(images)
    assert features.ndim == 3 and len(features) == 3
    if name in PLAIN:
        tokens = model.config.tokens
        maps = model.attention_maps(images)
        assert [tuple(m.shape) for m in maps] == [(3, model.config.heads, tokens, tokens)] * model.config.depth
        torch.testing.assert_close(maps[0].sum(-1), torch.ones(maps[0].shape[:-1]))


@pytest.mark.parametrize("name", CATALOG)
def test_every_parameter_learns(name):
    """After two steps every parameter has a gradient that is not zero: nothing is switched off for good."""
    model = shallow(name).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(1)
    images, labels = torch.randn(3, 3, 32, 32), torch.arange(3)
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    assert dead == []


def transplanted(ours: torch.nn.Module, depth: int) -> dict[str, torch.Tensor]:
    """Our weights under timm's names."""
    state = ours.state_dict()
    named = {
        "cls_token": state["class_token"],
        "pos_embed": state["position.table"],
        "patch_embed.proj.weight": state["tokenizer.conv.weight"],
        "patch_embed.proj.bias": state["tokenizer.conv.bias"],
        **{f"{n}.{k}": state[f"{n}.{k}"] for n in ("norm", "head") for k in ("weight", "bias")},
    }
    pairs = {
        "norm1": "norm_attention", "norm2": "norm_mlp", "attn.qkv": "attention.qkv", "attn.proj": "attention.proj",
        "mlp.fc1": "mlp.expand", "mlp.fc2": "mlp.contract",
    }  # fmt: skip
    for layer in range(depth):
        for theirs, mine in pairs.items():
            for kind in ("weight", "bias"):
                named[f"blocks.{layer}.{theirs}.{kind}"] = state[f"blocks.{layer}.{mine}.{kind}"]
    return named


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 1e-2])
def test_equals_timm_under_copied_weights(eps):
    """Same weights, same output and same gradient as timm's VisionTransformer: scale, norms and order are right."""
    config = ViTConfig(width=48, depth=3, heads=4, mlp_width=96, patch=4, norm_eps=eps, position_std=0.5, token_std=0.5)
    torch.manual_seed(0)
    ours: Any = config.module().eval()
    for parameter in ours.parameters():  # norms and biases away from 1 and 0, so that leaving one out shows
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=48, depth=3, num_heads=4, mlp_ratio=2, num_classes=10,
        norm_layer=partial(torch.nn.LayerNorm, eps=eps),  # type: ignore[arg-type]
    ).eval()  # fmt: skip
    theirs.load_state_dict(transplanted(ours, 3))
    images = 0.05 * torch.randn(2, 3, 32, 32)  # faint, so that epsilon matters
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
    for model in (ours, theirs):
        model(images).square().sum().backward()
    torch.testing.assert_close(
        ours.tokenizer.conv.weight.grad,
        theirs.patch_embed.proj.weight.grad,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", PLAIN)
def test_norm_epsilon_is_the_config_s(name):
    with torch.device("meta"):
        model = small(name, norm_eps=3e-4)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert norms and all(norm.eps == 3e-4 for norm in norms)


@pytest.mark.parametrize(
    "changes",
    [{}, {"attention_scale": "width"}, {"attention_scale": "learned", "mask_diagonal": True}, {"relative_bias": True},
     {"relative_bias": True, "mask_diagonal": True, "pool": "mean"}, {"qkv_bias": False}],
)  # fmt: skip
def test_three_attention_implementations_agree(changes):
    base = ViTConfig(width=32, depth=2, heads=4, mlp_width=64, position_std=1.0, init="torch", **changes)
    torch.manual_seed(0)
    fused: Any = base.module()
    images = torch.randn(2, 3, 32, 32)
    for kind in ("merged", "per-head"):
        other: Any = replace(base, attention=kind).module()
        other.load_state_dict(fused.state_dict())
        torch.testing.assert_close(other(images), fused(images), rtol=0, atol=1e-5)
        mine, theirs = (
            torch.autograd.grad(m(images).square().sum(), m.blocks[0].attention.qkv.weight)[0] for m in (fused, other)
        )
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_attention_maps_are_those_of_the_fused_path():
    """Rebuilding a layer's output from its map gives what the fused implementation gives."""
    model = small("vanilla", depth=2, relative_bias=True).eval()
    images = torch.randn(2, 3, 32, 32)
    maps = model.attention_maps(images)
    block, tokens = model.blocks[0], model.embed(images)
    normed = block.norm_attention(tokens)
    _, _, values = block.attention._qkv_BHNd(normed)
    rebuilt = block.attention.proj((maps[0] @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(rebuilt, block.attention(normed), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_other_image_sizes(name):
    config = replace(config_of(name, 48, 7), depth=1)
    for resize in (0, 2 * config.patch):
        assert replace(config, resize=resize).module().eval()(torch.randn(1, 3, 48, 48)).shape == (1, 7)


def test_shifted_tokenizer_sees_the_four_neighbours():
    """A pixel half a patch up and left of a cell's edge reaches that cell through one of the shifts."""
    config = ViTConfig(width=8, depth=1, heads=1, mlp_width=8, patch=4, tokenizer="shifted", image_size=8)
    tokenizer: Any = config.module().tokenizer
    images = torch.zeros(1, 3, 8, 8, requires_grad=True)
    tokenizer(images + torch.rand(1, 3, 8, 8))[0, 3].sum().backward()
    assert images.grad is not None
    reached = images.grad[0, 0] != 0  # type: ignore[index]
    assert reached[2, 2] and reached[7, 7] and not reached[0, 0]


@pytest.mark.parametrize(
    ("name", "resize", "features"),
    [
        ("timm:deit_tiny_patch16_224", 48, (2, 10, 192)),
        ("timm:swin_tiny_patch4_window7_224", 64, (2, 4, 768)),  # channels last
    ],
)
def test_any_timm_model(name, resize, features):
    model: Any = replace(config_of(name, 32, 7), resize=resize).module().eval()
    images = torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, 7) and model.features(images).shape == features


def test_a_small_stem_keeps_every_cell_and_starts_as_timm_s_convolutions_do():
    model: Any = build("resnet18", 32, 10).eval()
    with torch.no_grad():
        assert model.model.maxpool(model.model.conv1(torch.randn(1, 3, 32, 32))).shape == (1, 64, 32, 32)
    assert model.features(torch.randn(2, 3, 32, 32)).shape == (2, 16, 512)
    assert model.features(torch.randn(2, 3, 8, 8)).shape == (2, 1, 512)
    weight = model.model.conv1.weight
    assert weight.shape == (64, 3, 3, 3) and weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


def test_what_timm_refuses_is_said_with_its_reason():
    with pytest.raises(UsageError, match="timm refuses 'vit_base_patch32_224' at 30 pixels"):
        build("timm:vit_base_patch32_224", 30, 7)
    with pytest.raises(UsageError, match="timm's resnet18d has no convolution conv1"):
        TimmConfig(model="resnet18d", small_stem=True).module()


def test_ablations_differ_in_the_fields_they_say():
    assert set(difference(COMPACT, COMPACT_CLS)) == set(difference(VIT_LITE, CVT)) == {"pool"}
    assert set(difference(CVT, CCT)) == {"tokenizer", "patch"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 5}, "does not divide"),
        ({"tokenizer": "cct-conv", "patch": 3, "image_size": 48}, "power of two"),
        ({"tokenizer": "shifted", "patch": 1}, "at least 2"),
        ({"position": "sincos", "width": 6, "heads": 1}, "multiple of 4"),
        ({"mask_diagonal": True, "patch": 32, "pool": "mean"}, "only token"),
    ],
)
def test_impossible_configs_are_refused_with_the_reason(changes, words):
    """What a single field may hold: test_bad_arguments.py."""
    with pytest.raises(UsageError, match=words):
        ViTConfig(**changes)


def test_drop_path_drops_whole_samples_keeps_the_mean_and_rises_over_depth():
    torch.manual_seed(0)
    values = DropPath(0.3).train()(torch.ones(10_000, 2, 3)).flatten(1)
    assert (values == values[:, :1]).all() and abs(values.mean().item() - 1) < 0.02
    rising = ViTConfig(drop_path=0.2, depth=5)
    assert [round(drop_path_rate(rising, i), 3) for i in range(5)] == [0, 0.05, 0.1, 0.15, 0.2]
    flat = replace(rising, drop_path_shape="constant")
    assert {drop_path_rate(flat, i) for i in range(5)} == {0.2}


def test_a_person_s_own_architecture(tmp_path):
    """One file adds a variant that the plain body cannot express. It is read as it stands: changed within a second to
    another of the same length it is the other, nothing is left beside it, and what this repository imports from
    __future__ is no part of it. Other files: test_bad_arguments.py."""
    file = tmp_path / "own.py"
    for width in (1, 2):
        file.write_text(
            "from dataclasses import dataclass\n"
            "@dataclass(frozen=True)\n"
            "class Flat:\n"
            f"    image_size: int = 32\n    num_classes: int = 10\n    width: int = {width}\n"
            "    def module(self):\n"
            "        from torch import nn\n"
            "        return nn.Sequential(nn.Flatten(), nn.Linear(3 * self.image_size**2, self.num_classes))\n"
            "FLAT = Flat()\n"
        )
        config = config_of(f"{file}:FLAT")
        assert config.width == width and type(config).__annotations__["width"] is int
    assert build(f"{file}:FLAT", 8, 3)(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    assert list(tmp_path.iterdir()) == [file]
