"""The timm baselines: any model of timm, built from scratch for small images, as a config like the others. Neither
timm nor torch is imported before `module()` is called.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from variants.fields import Count, CountOrZero, Rate, UsageError, check_fields

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TimmConfig:
    """What `timm.create_model` is asked for; 0 leaves a setting to timm."""

    model: str = "vit_tiny_patch16_224"
    image_size: Count = 32
    num_classes: CountOrZero = 10
    resize: CountOrZero = 0
    patch: CountOrZero = 0
    pretrained: bool = False
    small_stem: bool = False  # of a ResNet: a 3x3 convolution of stride 1 and no pooling, as usual at 32 pixels
    dropout: Rate = 0.0
    attention_dropout: Rate = 0.0
    head_dropout: Rate = 0.0
    drop_path: Rate = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.patch and self.input_size % self.patch:
            raise UsageError(f"patch={self.patch} does not divide the image's {self.input_size} pixels")

    @property
    def input_size(self) -> int:
        return self.resize or self.image_size

    @property
    def shape_name(self) -> str:
        return f"timm-{self.model.split('.')[0]}".replace("/", "-")

    def module(self) -> nn.Module:
        from variants.timm_model import TimmModel

        return TimmModel(self)


def from_scratch(config: Any) -> Any:
    """The same model, of any class, without weights to fetch: enough to count it or to time a step."""
    return replace(config, pretrained=False) if getattr(config, "pretrained", False) else config


TIMM_TINY = TimmConfig(model="vit_tiny_patch16_224", patch=4)
RESNET18 = TimmConfig(model="resnet18", small_stem=True)  # 11,173,962 parameters with 10 classes
