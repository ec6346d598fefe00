"""Owns the rules by which weights start; each is named in a config.
Refuses to seed anything: the caller has set the generator.
"""

from collections.abc import Callable

from torch import nn
from torch.nn import init

from variants.config import ViTConfig
from variants.position import Position, RelativeBias


def _trunc_normal(layer: nn.Linear | nn.Conv2d) -> None:
    init.trunc_normal_(layer.weight, std=0.02)


def _normal(layer: nn.Linear | nn.Conv2d) -> None:
    init.normal_(layer.weight, std=0.02)


def _kaiming(layer: nn.Linear | nn.Conv2d) -> None:
    init.kaiming_normal_(layer.weight)


def _xavier(layer: nn.Linear | nn.Conv2d) -> None:
    init.xavier_normal_(layer.weight)


def _cct(layer: nn.Linear | nn.Conv2d) -> None:
    (_kaiming if isinstance(layer, nn.Conv2d) else _trunc_normal)(layer)


# "torch" leaves every layer as its constructor made it, biases included.
RULES: dict[str, Callable[[nn.Linear | nn.Conv2d], None]] = {
    "trunc-normal": _trunc_normal,
    "normal": _normal,
    "kaiming": _kaiming,
    "xavier": _xavier,
    "cct": _cct,
}


def initialise(model: nn.Module, config: ViTConfig) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and config.init != "torch":
            RULES[config.init](module)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif (isinstance(module, Position) and isinstance(module.table, nn.Parameter)) or isinstance(
            module, RelativeBias
        ):
            init.normal_(module.table, std=config.position_std)
    if isinstance(token := getattr(model, "class_token", None), nn.Parameter):
        init.normal_(token, std=config.token_std)
