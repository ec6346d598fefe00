"""The models written out a second time, operation by operation, and compared under shared weights: a quirk that the
config names but the body does not compute, or computes otherwise, shows here."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from variants.config import ViTConfig
from variants.neighbours import CCT
from variants.patch2 import PATCH2_CONV
from variants.vanilla import VANILLA


def shrunk(config: ViTConfig) -> Any:
    """The variant with two layers, every parameter moved off its start so that nothing is 0 or 1 by chance."""
    torch.manual_seed(0)
    model = replace(config, width=32, heads=4, depth=2, mlp_width=48, num_classes=5).module().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def norm(x, layer, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * layer.weight + layer.bias


def attend(x, layer, scales, bias: Any = None):
    """Softmax attention, one head at a time from slices of the merged weights: 32 wide, 4 heads of 8."""
    q, k, v = (x @ layer.qkv.weight.T + (0 if layer.qkv.bias is None else layer.qkv.bias)).split(32, dim=-1)
    heads = []
    for h, scale in enumerate(scales):
        part = slice(8 * h, 8 * h + 8)
        scores = q[..., part] @ k[..., part].transpose(1, 2) * scale + (0.0 if bias is None else bias[h])
        heads.append(scores.softmax(-1) @ v[..., part])
    return layer.proj(torch.cat(heads, -1))


def patches(images, conv, size):
    """Non-overlapping squares times the flattened kernel."""
    cut = images.unfold(2, size, size).unfold(3, size, size).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    return cut @ conv.weight.flatten(1).T + conv.bias


def test_vanilla_by_hand():
    """Scores over sqrt(width), a second GELU after the second layer, the norm on the class token alone."""
    model, images = shrunk(VANILLA), torch.randn(2, 3, 32, 32)
    x = patches(images, model.tokenizer.conv, 4)
    x = torch.cat([model.class_token.expand(2, 1, 32), x], 1) + model.position.table
    for block in model.blocks:
        x = x + attend(norm(x, block.norm_attention), block.attention, [32**-0.5] * 4)
        x = x + F.gelu(block.mlp.contract(F.gelu(block.mlp.expand(norm(x, block.norm_mlp)))))
    torch.testing.assert_close(model(images), model.head(norm(x[:, 0], model.norm)), rtol=1e-4, atol=1e-4)


def test_patch2_conv_by_hand():
    """Conv stem, relative bias after the scaling, a learned gain on each branch; norm, GELU, mean, linear."""
    model, images = shrunk(PATCH2_CONV), torch.randn(2, 3, 32, 32)
    stem = F.gelu(F.conv2d(images, model.tokenizer.stem.weight, model.tokenizer.stem.bias, padding=1))
    x = patches(stem, model.tokenizer.conv, 2) + model.position.table
    cells = [(i // 16, i % 16) for i in range(256)]
    offset = torch.tensor([[(a - c + 15) * 31 + b - d + 15 for c, d in cells] for a, b in cells])
    for block in model.blocks:
        bias = block.attention.relative_bias.table[:, offset]
        x = x + block.gain_attention * attend(norm(x, block.norm_attention), block.attention, [8**-0.5] * 4, bias)
        x = x + block.gain_mlp * block.mlp.contract(F.gelu(block.mlp.expand(norm(x, block.norm_mlp))))
    pooled = F.gelu(norm(x, model.norm)).mean(1)
    torch.testing.assert_close(model(images), model.head(pooled), rtol=1e-4, atol=1e-4)


def test_cct_by_hand():
    """Convolution, ReLU, max-pool; the residual from the normed tokens; a softmax-weighted mean of tokens."""
    model, images = shrunk(CCT), torch.randn(2, 3, 32, 32)
    x = F.max_pool2d(F.relu(F.conv2d(images, model.tokenizer.convs[0].weight, padding=1)), 3, 2, 1)
    x = x.flatten(2).transpose(1, 2) + model.position.table
    for block in model.blocks:
        x = norm(x + attend(norm(x, block.norm_attention), block.attention, [8**-0.5] * 4), block.norm_mlp)
        x = x + block.mlp.contract(F.gelu(block.mlp.expand(x)))
    x = norm(x, model.norm)
    weights = (x @ model.pool.score.weight.T + model.pool.score.bias).softmax(1)
    torch.testing.assert_close(model(images), model.head((weights * x).sum(1)), rtol=1e-4, atol=1e-4)


def test_locality_attention_by_hand():
    """A learned temperature for each head; nobody looks at itself."""
    model = shrunk(ViTConfig(patch=8, attention_scale="learned", mask_diagonal=True))
    x, layer = torch.randn(2, 17, 32), model.blocks[0].attention
    diagonal = torch.zeros(4, 17, 17).masked_fill(torch.eye(17, dtype=torch.bool), float("-inf"))
    torch.testing.assert_close(layer(x), attend(x, layer, layer.temperature, diagonal), rtol=1e-4, atol=1e-4)
    assert torch.equal(layer.probabilities(x).diagonal(dim1=-2, dim2=-1), torch.zeros(2, 4, 17))


@pytest.mark.parametrize(
    ("rule", "linear_std", "conv_std"),
    [
        ("trunc-normal", 0.02, 0.02),
        ("normal", 0.02, 0.02),
        ("kaiming", (2 / 192) ** 0.5, (2 / 48) ** 0.5),
        ("xavier", (2 / (192 + 576)) ** 0.5, (2 / (48 + 192 * 16)) ** 0.5),
        ("xavier-flat", (2 / (192 + 576)) ** 0.5, (2 / (48 + 192)) ** 0.5),
        ("trunc-normal-linear", 0.02, (1 / (3 * 48)) ** 0.5),
        ("cct", 0.02, (2 / 48) ** 0.5),
        ("torch", (1 / (3 * 192)) ** 0.5, (1 / (3 * 48)) ** 0.5),
    ],
)
def test_initialisation_by_its_rule(rule, linear_std, conv_std):
    """Standard deviations worked from each rule's definition: 192 wide, patches of 3 x 4 x 4 = 48 values."""
    torch.manual_seed(0)
    model: Any = ViTConfig(width=192, depth=1, heads=4, init=rule, position_std=0.5, token_std=0.25).module()
    assert model.blocks[0].attention.qkv.weight.std().item() == pytest.approx(linear_std, rel=0.03)
    assert model.tokenizer.conv.weight.std().item() == pytest.approx(conv_std, rel=0.05)
    assert (model.blocks[0].attention.qkv.bias == 0).all() == (rule != "torch")
    assert (model.tokenizer.conv.bias == 0).all() == (rule not in ("torch", "trunc-normal-linear"))
    assert model.position.table.std().item() == pytest.approx(0.5, rel=0.05)
    assert model.class_token.std().item() == pytest.approx(0.25, rel=0.25)


def test_activations():
    exact, tanh = (shrunk(ViTConfig(activation=kind)).blocks[0].mlp.activation for kind in ("gelu", "gelu-tanh"))
    x = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(exact(x), x * 0.5 * (1 + torch.erf(x / 2**0.5)))
    torch.testing.assert_close(tanh(x), 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))))
