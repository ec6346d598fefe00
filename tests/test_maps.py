"""Attention maps and what is read from them: against the queries and keys that the layers themselves used, and on
models whose answer is known."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from variants import maps
from variants.catalog import CATALOG, config_of
from variants.config import ViTConfig
from variants.fields import UsageError
from variants.timm_baseline import TimmConfig

pytestmark = pytest.mark.usefixtures("one_thread")

# timm's name, its patch at 32 pixels (0: its own), the tokens before the patches, and whether a class token is first.
TIMM = {
    "vit_tiny_patch16_224": (8, 1, True),
    "deit_tiny_distilled_patch16_224": (8, 2, True),
    "deit3_small_patch16_224": (8, 1, True),
    "beit_base_patch16_224": (8, 1, True),  # a relative bias in each block
    "eva02_tiny_patch14_224": (8, 1, True),  # rotary positions
    "vit_relpos_small_patch16_224": (8, 0, False),  # a relative bias computed by an MLP
    "vit_small_patch14_reg4_dinov2": (8, 5, True),  # registers
    "vit_so150m_patch16_reg4_gap_256": (8, 4, False),  # registers without a class token
    "vit_wee_patch16_reg1_gap_256": (8, 1, False),  # norms of queries and keys; attention beside the MLP
    "vit_base_patch16_siglip_224": (8, 0, False),  # pooled by attention
}
WITHOUT = {
    "swin_tiny_patch4_window7_224": "WindowAttention",
    "cait_xxs24_224": "ClassAttn",
    "xcit_nano_12_p16_224": "XCA",
    "mobilevit_xxs": "Attention",
    "resnet18": "no attention layer",
}


def timm_model(name: str, monkeypatch: Any, **changes: Any) -> Any:
    """Two blocks where the model lets one choose, with weights that make some keys matter more than others."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, **changes))
    torch.manual_seed(0)
    size = 224 if name in WITHOUT else 32
    return TimmConfig(model=name, image_size=size, patch=TIMM.get(name, (0,))[0]).module().eval()


@torch.no_grad()
def used_by_the_layers(model: Any, images: torch.Tensor, monkeypatch: Any) -> list[torch.Tensor]:
    """The softmax of what each layer hands to PyTorch's fused attention, and never of what a map function computes."""
    found, real = [], F.scaled_dot_product_attention

    def watched(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        found.append((scores if attn_mask is None else scores + attn_mask).softmax(-1))
        return real(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale)

    with monkeypatch.context() as patched:
        patched.setattr(F, "scaled_dot_product_attention", watched)
        model(images)
    return found


def spiked(model: Any) -> Any:
    """Larger weights: at its start a model attends to all alike, and any wrong map would pass."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "qkv" in name or "q_proj" in name or "k_proj" in name or "relative_position" in name or "table" in name:
                parameter.normal_(0, 0.1)
    return model


def assert_equal_maps(model: Any, monkeypatch: Any) -> list[torch.Tensor]:
    torch.manual_seed(1)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        found = model.attention_maps(images)
    expected = used_by_the_layers(model, images, monkeypatch)[: len(found)]  # a pooling by attention comes last
    assert len(found) == len(expected) >= 2
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other.expand_as(one), rtol=1e-3, atol=1e-5)
    tokens = found[0].shape[-1]
    assert found[0].std() > 0.2 / tokens, "no key matters more than another: the test says nothing"
    return found


@pytest.mark.parametrize("name", [name for name in CATALOG if name != "resnet18"])
def test_maps_of_the_catalogue_are_those_of_its_layers(name, monkeypatch):
    config: Any = config_of(name)
    config = replace(config, resize=64) if config.resize else config
    config = replace(config, depth=2) if isinstance(config, ViTConfig) else config
    torch.manual_seed(0)
    model = spiked(config.module().eval())
    found = assert_equal_maps(model, monkeypatch)
    layout = maps.layout_of(model, found[0].shape[-1])
    has_class_token = getattr(config, "pool", "cls") == "cls"
    assert (layout.prefix, layout.has_class_token) == (int(has_class_token), has_class_token)
    assert layout.grid == (16 if config.patch == 2 and name != "cct-7-3x1" else found[0].shape[-1] ** 0.5 // 1)


@pytest.mark.parametrize("name", TIMM)
def test_maps_of_timm_are_those_of_its_layers(name, monkeypatch):
    model = spiked(timm_model(name, monkeypatch, depth=2))
    found = assert_equal_maps(model, monkeypatch)
    assert maps.layout_of(model, found[0].shape[-1]) == maps.Layout(TIMM[name][1], 4, TIMM[name][2])
    assert all(layer.attn.fused_attn for layer in model.model.blocks if hasattr(layer, "attn")), "left unfused"


@pytest.mark.parametrize("name", WITHOUT)
def test_what_timm_has_no_maps_for_is_named(name, monkeypatch):
    images = torch.randn(1, 3, 224, 224)
    with pytest.raises(UsageError, match=f"not available for timm's {name}: .*{WITHOUT[name]}"), torch.no_grad():
        timm_model(name, monkeypatch).attention_maps(images)


# --- a model built by hand -------------------------------------------------------------------------------------------

PEAK = (1, 2)  # row and column of the patch that is attended to


def built_by_hand(pool: str) -> Any:
    """Every query attends to the one white patch of a black image, and sequence pooling takes it too."""
    config = ViTConfig(image_size=16, patch=4, width=8, depth=2, heads=2, mlp_width=8, pool=pool, final_norm="none")  # type: ignore[arg-type]
    model: Any = replace(config, position="none").module().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.tokenizer.conv.weight[0] = 1 / 48  # the first feature is the mean colour
        if pool == "cls":
            model.class_token[..., 1] = 1.0
        for block in model.blocks:
            block.norm_attention.bias[:] = 1.0  # all queries alike
            block.norm_attention.weight[0] = 1.0
            for head in range(2):
                block.attention.qkv.weight[4 * head, 2] = 9.0  # the query: a constant
                block.attention.qkv.weight[8 + 4 * head, 0] = 9.0  # the key: how white the patch is
        if pool == "seq":
            model.pool.score.weight[0, 0] = 9.0
    return model


def peak(map_gg: torch.Tensor) -> tuple[int, int]:
    at = int(map_gg.argmax())
    return at // map_gg.shape[-1], at % map_gg.shape[-1]


@pytest.mark.parametrize("pool", ["cls", "mean", "seq"])
@torch.no_grad()
def test_maps_peak_where_the_model_was_built_to_look(pool):
    model, images = built_by_hand(pool), torch.zeros(1, 3, 16, 16)
    images[:, :, 4 * PEAK[0] : 4 * PEAK[0] + 4, 4 * PEAK[1] : 4 * PEAK[1] + 4] = 1
    found = model.attention_maps(images)
    layout = maps.layout_of(model, found[0].shape[-1])
    weights_BN = maps.query_weights(found[0], layout)
    for one in found:
        for map_gg in layout.on_patches((weights_BN[:, None, None] @ one).squeeze(2))[0]:
            assert peak(map_gg) == PEAK and map_gg.max() > 0.9
    flow = layout.on_patches((weights_BN[:, None] @ maps.rollout(found)).squeeze(1))[0]
    assert peak(flow) == PEAK and flow.max() > 0.5
    if pool == "seq":
        assert peak(layout.on_patches(model.pooling_weights(images))[0]) == PEAK
    else:
        with pytest.raises(UsageError, match=f"pool={pool}"):
            model.pooling_weights(images)


def test_pooling_weights_are_those_that_pool():
    model: Any = config_of("compact").module().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pooled = (model.pooling_weights(images)[:, None] @ model.features(images)).squeeze(1)
        torch.testing.assert_close(model.head(pooled), model(images))


def test_rollout_by_hand():
    """Two layers over two tokens: (A2 + 1)/2 after (A1 + 1)/2, heads averaged first."""
    first = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]])  # on average 1/2 everywhere
    second = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]] * 2])
    expected = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]])  # [[.5 .5], [0 1]] @ [[.75 .25], [.25 .75]]
    torch.testing.assert_close(maps.rollout([first, second]), expected)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_attention_distance_by_hand(prefix):
    """On 2 x 2 patches of 4 pixels a patch has two neighbours at 4 pixels, one at 4 sqrt 2, and itself at 0."""
    layout, tokens = maps.Layout(prefix, 2, prefix > 0), prefix + 4
    uniform, own = torch.full((1, 1, tokens, tokens), 1 / tokens), torch.eye(tokens)[None, None]
    found = maps.mean_distance(torch.cat([uniform, own], dim=1), layout, 4.0)
    torch.testing.assert_close(found, torch.tensor([[(4 + 4 + 4 * 2**0.5) / 4, 0.0]]))


def test_position_similarity_leaves_other_tokens_out():
    model: Any = config_of("compact-cls", 8).module()
    with torch.no_grad():
        model.position.table[0, 0] = 7.0  # the class token's
        model.position.table[0, 1:] = torch.tensor([1.0, 0.0]).repeat(4, 24)
        model.position.table[0, 4] *= -3
    expected = torch.ones(4, 4)
    expected[3, :3] = expected[:3, 3] = -1
    torch.testing.assert_close(maps.position_similarity(model), expected)
    for config in (replace(config_of("compact"), position="none"), TimmConfig("resnet18")):
        with pytest.raises(UsageError, match="no embedding"):
            maps.position_similarity(config.module())


def test_first_filters_are_the_first_layers():
    for name, shape, cuts in (
        ("compact", (48, 1, 3, 4, 4), True),
        ("patch2-conv", (32, 1, 3, 3, 3), False),
        ("cct-7-3x1", (256, 1, 3, 3, 3), False),
        ("timm", (192, 1, 3, 4, 4), True),
        ("resnet18", (64, 1, 3, 3, 3), False),
    ):
        found, cuts_patches = maps.first_filters(config_of(name).module())
        assert (tuple(found.shape), cuts_patches) == (shape, cuts), name
    shifted: Any = replace(config_of("small-p4"), tokenizer="shifted", depth=1).module().tokenizer
    found, _ = maps.first_filters(shifted)
    patch = torch.randn(1, 15 * 16)
    expected = F.linear(patch, shifted.linear.weight)
    torch.testing.assert_close(torch.einsum("fichw,ichw->f", found, patch.view(5, 3, 4, 4))[None], expected)
