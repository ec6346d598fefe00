"""The wrapper through which a timm model meets the contract of a variant. The model is what timm builds, but for the
stem of a ResNet where the config asks for a small one.
"""

from typing import Any

import timm
import torch
from timm.models import is_model
from torch import nn

from variants.fields import UsageError, first_line, near_matches
from variants.timm_baseline import TimmConfig
from variants.tokenizer import resized


def create(config: TimmConfig) -> nn.Module:
    """The timm model; `img_size` is passed where the model accepts it."""
    wanted: dict[str, Any] = {"pretrained": config.pretrained, "num_classes": config.num_classes}
    optional = {
        "patch_size": config.patch,
        "drop_rate": config.head_dropout,
        "proj_drop_rate": config.dropout,
        "pos_drop_rate": config.dropout,
        "attn_drop_rate": config.attention_dropout,
        "drop_path_rate": config.drop_path,
    }
    wanted |= {name: value for name, value in optional.items() if value}
    try:
        try:
            return timm.create_model(config.model, img_size=config.input_size, **wanted)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(config.model, **wanted)
    except Exception as error:  # timm refuses in many ways; its own reason is the useful part
        raise refusal(config, error) from None


def check_model(config: TimmConfig) -> None:
    """Refuses a name that timm does not have; one with a source (hf-hub:...) only its source can judge."""
    if ":" not in config.model and not is_model(config.model):
        raise refusal(config, RuntimeError(f"Unknown model ({config.model})"))


def shrink_stem(model: Any, name: str) -> None:
    """A stride of 4 before the first block leaves 8 x 8 cells of an image of 32 pixels: here it leaves all."""
    first, pool = getattr(model, "conv1", None), getattr(model, "maxpool", None)
    if not isinstance(first, nn.Conv2d) or pool is None:
        raise UsageError(f"small_stem: timm's {name} has no convolution conv1 and maxpool to replace, as resnet18 has")
    model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm does
    model.maxpool = nn.Identity()


@torch.no_grad()
def probe(model: nn.Module, config: TimmConfig) -> None:
    """Some models are built for any size and break at the first image: better now than after the data is loaded."""
    try:
        model.eval()(torch.zeros(1, 3, config.input_size, config.input_size))
    except Exception as error:
        raise refusal(config, error) from None
    model.train()


def refusal(config: TimmConfig, error: Exception) -> UsageError:
    reason = first_line(error)
    if "unknown model" in reason.lower():
        reason += f"; {near_matches(config.model, timm.list_models())[:300]}"
    if config.pretrained:
        reason += "\nwithout a network: its model.safetensors by harness.run --weights FILE, without pretrained=true"
    return UsageError(f"timm refuses {config.model!r} at {config.input_size} pixels: {reason}")


class TimmModel(nn.Module):
    def __init__(self, config: TimmConfig):
        super().__init__()
        self.config = config
        self.model = create(config)
        if config.small_stem:
            shrink_stem(self.model, config.model)
        probe(self.model, config)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.model(resized(images_BCHW, self.config.resize))

    def features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """The tokens before the head (B, N, D); a convolutional net's cells count as tokens."""
        features = self.model.forward_features(resized(images_BCHW, self.config.resize))  # type: ignore[operator]
        if features.ndim != 4:
            return features
        is_channels_last = features.shape[-1] == getattr(self.model, "num_features", None)
        return features.flatten(1, 2) if is_channels_last else features.flatten(2).transpose(1, 2)

    def attention_maps(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """One (B, heads, N, N) tensor a layer. UsageError for a model whose layers do not all attend from every token
        to every token: windows, channels, pooled keys, a class token that asks alone, no attention."""
        maps = []
        for layer, tokens, weights in observed(self.model, resized(images_BCHW, self.config.resize)):
            if weights.shape != (len(images_BCHW), getattr(layer, "num_heads", 0), tokens, tokens):
                raise self._without_maps(f"its {type(layer).__name__} has no matrix of all tokens by all tokens")
            maps.append(weights)
        if len({weights.shape for weights in maps}) != 1:
            raise self._without_maps(
                "its layers see different tokens" if maps else "it has no attention layer that shows its weights"
            )
        return maps

    def _without_maps(self, why: str) -> UsageError:
        return UsageError(f"attention maps are not available for timm's {self.config.model}: {why}")


def observed(model: nn.Module, images_BCHW: torch.Tensor) -> list[tuple[nn.Module, int, torch.Tensor]]:
    """Each attention layer in the order in which they run, the tokens it was given (0: no row of tokens), and the
    weights that it multiplied values with. Timm computes them in the open where it is told not to fuse, and hands them
    to a dropout: positions of any kind, norms of queries and keys are in them, whatever the layer's class."""
    layers: list[Any] = [m for m in model.modules() if isinstance(getattr(m, "attn_drop", None), nn.Module)]
    fused = [layer for layer in layers if getattr(layer, "fused_attn", False)]
    given, found, hooks = {}, [], []

    def watch(layer: Any) -> None:
        def keep_given(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            given[layer] = inputs[0].shape[1] if inputs and inputs[0].ndim == 3 else 0

        def keep_weights(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append((layer, given.get(layer, 0), inputs[0]))

        hooks.append(layer.register_forward_pre_hook(keep_given))
        hooks.append(layer.attn_drop.register_forward_pre_hook(keep_weights))

    try:
        for layer in layers:
            watch(layer)
        for layer in fused:
            layer.fused_attn = False
        model(images_BCHW)
    finally:
        for layer in fused:
            layer.fused_attn = True
        for hook in hooks:
            hook.remove()
    return found
