"""The rules by which weights start; each is named in a config. They draw from torch's current generator, which the
caller has seeded."""

from collections.abc import Callable

from torch import nn
from torch.nn import init

from variants.config import ViTConfig
from variants.position import Position, RelativeBias

Layer = nn.Linear | nn.Conv2d


def _trunc_normal(layer: Layer) -> None:
    init.trunc_normal_(layer.weight, std=0.02)


def _normal(layer: Layer) -> None:
    init.normal_(layer.weight, std=0.02)


def _kaiming(layer: Layer) -> None:
    init.kaiming_normal_(layer.weight)


def _xavier(layer: Layer) -> None:
    init.xavier_normal_(layer.weight)


def _xavier_flat(layer: Layer) -> None:
    """A convolution over patches counts as the linear layer from a flattened patch that it is."""
    init.xavier_normal_(layer.weight.flatten(1))


def _cct(layer: Layer) -> None:
    (_kaiming if isinstance(layer, nn.Conv2d) else _trunc_normal)(layer)


RULES: dict[str, Callable[[Layer], None]] = {
    "trunc-normal": _trunc_normal,
    "trunc-normal-linear": _trunc_normal,
    "normal": _normal,
    "kaiming": _kaiming,
    "xavier": _xavier,
    "xavier-flat": _xavier_flat,
    "cct": _cct,
}

# The layers that a rule leaves as torch made them, biases included.
LEFT_ALONE: dict[str, type[nn.Module] | tuple[()]] = {"torch": nn.Module, "trunc-normal-linear": nn.Conv2d}


def initialise(model: nn.Module, config: ViTConfig) -> None:
    left_alone = LEFT_ALONE.get(config.init, ())
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not isinstance(module, left_alone):
            RULES[config.init](module)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif (isinstance(module, Position) and isinstance(module.table, nn.Parameter)) or isinstance(
            module, RelativeBias
        ):
            init.normal_(module.table, std=config.position_std)
    if isinstance(token := getattr(model, "class_token", None), nn.Parameter):
        init.normal_(token, std=config.token_std)
