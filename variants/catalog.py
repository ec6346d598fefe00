"""The list of all variants, and the way from a name to a config to a module. Torch is imported only when a module is
built: help, planning and reports need the names alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from variants.compact import COMPACT, COMPACT_CLS
from variants.config import ViTConfig
from variants.fields import UsageError, first_line, near_matches
from variants.neighbours import CCT, CVT, SMALL_P4, VIT_224, VIT_BASE_224, VIT_LITE
from variants.patch2 import PATCH2, PATCH2_CONV
from variants.timm_baseline import RESNET18, TIMM_TINY, TimmConfig
from variants.vanilla import VANILLA

if TYPE_CHECKING:
    from torch import nn

CATALOG: dict[str, Any] = {
    "vanilla": VANILLA,
    "compact": COMPACT,
    "compact-cls": COMPACT_CLS,
    "patch2": PATCH2,
    "patch2-conv": PATCH2_CONV,
    "timm": TIMM_TINY,
    "vit-224": VIT_224,
    "vit-lite-7-4": VIT_LITE,
    "cvt-7-4": CVT,
    "cct-7-3x1": CCT,
    "small-p4": SMALL_P4,
    "vit-base-224": VIT_BASE_224,
    "resnet18": RESNET18,
}

# The suite's own classes, by what records and files of weights call them.
TYPES = {"vit": ViTConfig, "timm": TimmConfig}


def config_of(name: str, image_size: int = 32, num_classes: int = 10) -> Any:
    """The config that `name` stands for: a name of the catalogue, `timm:MODEL`, or `path/to/file.py:NAME`."""
    if name in CATALOG:
        base = CATALOG[name]
    elif name.startswith("timm:") and len(name) > 5:
        base = TimmConfig(model=name[5:])
    elif ".py:" in name:
        base = _from_file(*name.rsplit(":", 1))
    else:
        raise UsageError(
            f"unknown variant {name!r}: {near_matches(name, CATALOG)}\n"
            "also possible: timm:MODEL for any timm model, path/to/file.py:NAME for a config of your own"
        )
    try:
        return dataclasses.replace(base, image_size=image_size, num_classes=num_classes)
    except UsageError:
        raise
    except Exception as error:  # a user's own class may refuse in any way
        told = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"{name} cannot be for {image_size} pixels, {num_classes} classes: {told}") from None


def check_known(name: str) -> None:
    """Refuses what timm has no model for. Asking timm takes a second, so what only plans does not."""
    if name.startswith("timm:"):
        from variants.timm_model import check_model

        check_model(config_of(name))


def build(name: str, image_size: int = 32, num_classes: int = 10) -> nn.Module:
    """The module, initialised by the rule that its config names, from torch's current generator."""
    return config_of(name, image_size, num_classes).module()


def _from_file(path: str, name: str) -> Any:
    """A config from a user's own file: a ViTConfig, or any frozen dataclass with `module()` of its own."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"variant file {path} does not exist")
    place = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]  # two files may have the same name
    module = types.ModuleType(f"variant_{file.stem}_{place}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    try:  # compiled each time: a __pycache__ is told from a changed file by whole seconds, and is clutter beside it
        exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), vars(module))  # noqa: S102
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"variant file {path} cannot be imported: {told}") from None
    if not hasattr(module, name):
        raise UsageError(f"{path} defines no {name!r}: {near_matches(name, [n for n in vars(module) if n[0] != '_'])}")
    config = getattr(module, name)
    fields = {f.name for f in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else set()
    if isinstance(config, type) or not {"image_size", "num_classes"} <= fields or not hasattr(config, "module"):
        raise UsageError(
            f"{path}:{name} is no config: neither a ViTConfig nor a dataclass with image_size, num_classes and module()"
        )
    return config
