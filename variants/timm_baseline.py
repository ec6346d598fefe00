"""The timm baselines: any model of timm, built from scratch for small images, as a config like the others.
Refuses to import timm or torch before a model is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from variants.fields import UsageError, check_fields

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TimmConfig:
    """What `timm.create_model` is asked for; 0 leaves a setting to timm."""

    model: str = "vit_tiny_patch16_224"
    image_size: int = 32
    num_classes: int = 10
    resize: int = 0
    patch: int = 0
    pretrained: bool = False
    small_stem: bool = False  # of a ResNet: a 3x3 convolution of stride 1 and no pooling, as usual at 32 pixels
    dropout: float = 0.0
    attention_dropout: float = 0.0
    head_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.image_size < 1 or min(self.num_classes, self.resize, self.patch) < 0:
            raise UsageError("image_size, num_classes, resize and patch cannot be negative")
        if self.patch and self.input_size % self.patch:
            raise UsageError(f"patch={self.patch} does not divide the image's {self.input_size} pixels")
        for name in ("dropout", "attention_dropout", "head_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: a probability below 1 is needed")

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
