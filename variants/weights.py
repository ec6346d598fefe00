"""Weights on disk: a safetensors file that also says what the module is, what its classes are called and how images are
scaled for it; and the way back to a module ready to use. `load(PATH)` needs nothing of harness/.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from variants.as_timm import from_timm, obstacles
from variants.catalog import TYPES
from variants.fields import UsageError, check_fields, first_line, from_plain
from variants.timm_baseline import from_scratch

FILE = "model.safetensors"
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Card:
    """What a file of weights says about itself. Pixels in [0, 1] are scaled as (pixel - mean) / std."""

    variant_name: str
    variant_type: str  # vit, timm, or the digest of the file that defines another class
    variant: dict  # the fields of its config
    dataset: str
    classes: tuple[str, ...]
    mean: Numbers
    std: Numbers
    run_id: str = ""
    split: str = "test"  # on which the accuracy was found
    accuracy: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def config(self) -> Any:
        """UsageError for a class of a user's own, whose code no file of weights names to be run."""
        if self.variant_type not in TYPES:
            raise UsageError(
                f"{self.variant_name} is no variant of this suite: build it yourself, then load(PATH, model)"
            )
        return from_scratch(from_plain(TYPES[self.variant_type], self.variant))


def to_bytes(weights: Mapping[str, torch.Tensor], card: Card) -> bytes:
    """Of a state dict. Tensors that two modules share are written twice, since the format knows no sharing."""
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
    return safetensors.torch.save(tensors, {name: json.dumps(value) for name, value in asdict(card).items()})


def path_of(place: Path | str) -> Path:
    """The file itself, or that of a run's folder."""
    path = Path(place)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        why = "there is no such file; a run's folder or id is needed, or its model.safetensors"
        if path.is_dir():
            why = "it is no finished run, or one with --no-weights; harness.run --fresh trains it again"
        raise UsageError(f"{file}: no weights: {why}")
    return file


def card_of(place: Path | str) -> Card:
    path = path_of(place)
    said = _said(path)
    try:
        return from_plain(Card, {name: json.loads(text) for name, text in said.items()})
    except (TypeError, ValueError):
        raise UsageError(f"{path} does not say what it is of: it was not written by this suite") from None


def is_ours(place: Path | str) -> bool:
    """Whether this suite wrote it."""
    return "variant_type" in _said(path_of(place))


def _said(path: Path) -> Mapping[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is no whole safetensors file: {first_line(error)}") from None


def tensors_of(place: Path | str) -> dict[str, torch.Tensor]:
    path = path_of(place)
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is no whole safetensors file: {first_line(error)}") from None


def load(place: Path | str, model: nn.Module | None = None) -> nn.Module:
    """The module with these weights, in evaluation mode: built from what the file says, or `model` itself. `place`: a
    file or a run's folder."""
    filled: nn.Module = card_of(place).config.module() if model is None else model
    fill(filled, with_our_names(tensors_of(place), filled), str(place))
    return filled.eval()


class OfPixels(nn.Module):
    """The same model of images in [0, 1]: scaled first, as its card says."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, card: Card):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(card.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(card.std).view(3, 1, 1))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.model((images_BCHW - self.mean) / self.std)


# --- starting from weights -------------------------------------------------------------------------------------------

# What two configs of one architecture may differ in: the task, how they start, how they are regularised or computed.
FREE = {"image_size", "num_classes", "resize", "init", "position_std", "token_std", "attention", "pretrained"}
FREE |= {"dropout", "attention_dropout", "head_dropout", "drop_path", "drop_path_shape"}


def start(model: nn.Module, place: Path | str, digest: str) -> None:
    """Fills a new model with weights of the same architecture, of another task perhaps: another number of classes
    leaves it its new head, at another size positions are interpolated. UsageError where anything else differs, or the
    weights are not those of the digest."""
    config: Any = model.config
    tensors = tensors_of(place)
    if digest_of(tensors) != digest:
        raise UsageError(f"{place} no longer holds the weights that this run started from")
    if is_ours(place):
        check_architecture(card_of(place), config, str(place))
    own = model.state_dict()
    given = with_our_names(tensors, model)
    fitted = {name: adapted(name, value, own[name], config) if name in own else value for name, value in given.items()}
    fill(model, fitted, str(place))


def check_architecture(card: Card, config: Any, origin: str) -> None:
    """Two models may differ although every tensor of one fits the other."""
    kind = TYPES.get(card.variant_type)
    mine = {"class": type(config).__name__, **json.loads(json.dumps(asdict(config)))}
    theirs = {"class": kind.__name__ if kind else card.variant_type.partition("@")[0]}
    theirs |= asdict(card.config) if kind else card.variant
    names = [name for name in mine if name not in FREE and mine[name] != theirs.get(name)]
    if differing := [f"{name}={theirs.get(name)} instead of {mine[name]}" for name in names]:
        raise UsageError(f"{origin} is of another architecture: {', '.join(differing[:3])}")


def adapted(name: str, given: torch.Tensor, own: torch.Tensor, config: Any) -> torch.Tensor:
    if given.shape == own.shape:
        return given
    if given.shape[1:] == own.shape[1:] and len(own) == config.num_classes:
        return own  # the head
    if name.endswith(("position.table", "pos_embed")) and given.ndim == own.ndim == 3:
        return interpolated(given, own)
    if name.endswith("relative_bias.table") and given.ndim == own.ndim == 2:  # heads x offsets, a grid of them too
        return interpolated(given.T[None], own.T[None])[0].T
    return given


def interpolated(given_1ND: torch.Tensor, own_1ND: torch.Tensor) -> torch.Tensor:
    """From one grid to another; what stands before the grid, as a class token's position, stays. As it is where the two
    differ in more."""
    extra, own_extra = (table.shape[1] - math.isqrt(table.shape[1]) ** 2 for table in (given_1ND, own_1ND))
    if extra != own_extra or given_1ND.shape[::2] != own_1ND.shape[::2]:
        return given_1ND
    from timm.layers import resample_abs_pos_embed  # type: ignore

    return resample_abs_pos_embed(given_1ND, [math.isqrt(own_1ND.shape[1])] * 2, num_prefix_tokens=extra)


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of names and values, however the file orders them and whatever else it says."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def with_our_names(tensors: Mapping[str, torch.Tensor], model: nn.Module) -> Mapping[str, torch.Tensor]:
    """Of a file that has timm's, where the model is one of timm's in other words."""
    config, own = getattr(model, "config", None), model.state_dict()
    if own.keys() == tensors.keys() or obstacles(config):
        return tensors
    return from_timm(config, tensors, own)


def fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], origin: str) -> None:
    """UsageError, with the first things that do not fit, for weights of another architecture."""
    own = {name: value.shape for name, value in model.state_dict().items()}
    given = {name: value.shape for name, value in tensors.items()}
    wrong = [f"no {name}" for name in own if name not in given]
    wrong += [f"{name}, which it has not" for name in given if name not in own]
    wrong += [f"{n} is {tuple(given[n])}, not {tuple(own[n])}" for n in own if n in given and own[n] != given[n]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UsageError(f"{origin} holds weights of another architecture: {'; '.join(wrong[:3])}{more}")
    if broken := [name for name, value in tensors.items() if value.isnan().any()]:
        raise UsageError(f"{origin} holds weights that are not a number (NaN): {', '.join(broken[:3])}")
    model.load_state_dict(dict(tensors))
