"""What harness.look looks at: a trained run with its data, or a variant as it starts; its images, and what the model
computes of them."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from harness.cell import splits_of
from harness.config import RunConfig, parse_settings, run_config_from_plain
from harness.data.folder import any_image, images_under, square
from harness.data.load import ImageData, Split, load
from harness.evidence.figures.drawing import slug, without_owners
from harness.evidence.names import name_of
from harness.records.read import Run
from harness.training.setup import derive
from variants import maps, weights
from variants.catalog import check_known, config_of
from variants.fields import UsageError, from_text

SHOWN, MAPPED = 30, 6  # images on a contact sheet, also those over which distances are averaged; and on other figures
Images = tuple[np.ndarray, tuple[str, ...]]  # N x H x W x 3 uint8, and of each its class or the name of its file


@dataclass(frozen=True)
class Subject:
    """What it has not is a UsageError, in words about it."""

    name: str  # of its folder
    title: str
    model: nn.Module
    images: np.ndarray
    texts: tuple[str, ...]
    classes: tuple[str, ...]
    scale: tuple[Sequence[float], Sequence[float]]  # mean and standard deviation
    asked: Namespace
    trained: tuple[Run, RunConfig, ImageData | None] | None = None  # without data where images were given

    def of(self, method: str, images: np.ndarray) -> Any:
        """What a method of the model gives; a user's own class need not have it."""
        if not hasattr(self.model, method):
            raise UsageError(f"it has no {method.replace('_', ' ')}")
        mean, std = map(np.array, self.scale)
        inputs = torch.from_numpy(((images / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
        with torch.no_grad():
            return getattr(self.model, method)(inputs)

    @cached_property
    def attention(self) -> list[torch.Tensor]:
        """B x heads x N x N a block."""
        return self.of("attention_maps", self.images[:MAPPED])

    @cached_property
    def layout(self) -> maps.Layout:
        return maps.layout_of(self.model, self.attention[0].shape[-1])

    @cached_property
    def pooling(self) -> torch.Tensor:
        """B x N: the weights of sequence pooling."""
        return self.of("pooling_weights", self.images[:MAPPED])

    def check_choice(self) -> None:
        """Refuses a block or head that the model has not."""
        if self.asked.block or self.asked.head:
            for name, most in (("block", len(self.attention)), ("head", self.attention[0].shape[1])):
                if (number := getattr(self.asked, name) or 0) > most:
                    raise UsageError(f"--{name} {number}: {self.title} has the {name}s 1 to {most}")

    @property
    def run(self) -> tuple[Run, RunConfig]:
        if self.trained is None:
            raise UsageError("a variant alone was neither trained nor judged")
        return self.trained[:2]

    @property
    def splits(self) -> tuple[ImageData, Split, Split]:
        """The run's data, what it was trained on and what it was judged on."""
        _, config = self.run
        data = self.trained and self.trained[2]
        if data is None:
            raise UsageError("it is about the run's own images, and others were given")
        return data, *splits_of(config, data)


def of_run(run: Run, args: Namespace) -> Subject:
    """UsageError for a run without weights, or whose images cannot be had."""
    card, model = weights.card_of(run.folder), weights.load(run.folder)
    config = run_config_from_plain(run.config)
    try:
        data = None if args.images else load(config.dataset, args.data_dir, True)
    except UsageError as error:
        raise UsageError(f"{error}\nor look at images of your own: --images FILE_OR_FOLDER") from None
    size = config.variant.image_size
    images = labelled(splits_of(config, data)[1], card.classes) if data else of_files(args.images, size)
    variant, recipe, changes = name_of(run.config)
    title = f"{variant}, recipe {without_owners(', '.join((recipe, *changes)))}, {card.dataset}, seed {config.seed}"
    scale = card.mean, card.std
    return Subject(config.run_id, title, model, *images, card.classes, scale, args, (run, config, data))


def of_variant(name: str, args: Namespace) -> Subject:
    """From seed 0. Without a data set it has the size that timm made it for, or CIFAR's."""
    check_known(name)
    data, config = load(args.dataset, args.data_dir) if args.dataset else None, config_of(name)
    facts = timm_facts(config.model) if name.startswith("timm:") else {}
    size, classes = facts.get("input_size", (3, 32, 32))[-1], config.num_classes
    half = (0.5,) * 3
    scale = facts.get("mean", half), facts.get("std", half)
    if data:
        size, classes, scale = data.dataset.image_size, data.dataset.num_classes, (data.mean, data.std)
    config = from_text(replace(config, image_size=size, num_classes=classes), parse_settings(args.set)["variant"])
    torch.manual_seed(derive("init", 0))
    model, names = config.module().eval(), data.dataset.class_names if data else ()
    own = labelled(data.test, names) if data else photographs(size)
    images = of_files(args.images, size) if args.images else own
    start = "pretrained" if getattr(config, "pretrained", False) else "untrained"
    title = without_owners(", ".join((name, *args.set, start)))
    return Subject(slug(name.rpartition("/")[2]), title, model, *images, names, scale, args)


def timm_facts(model: str) -> dict[str, Any]:
    """Size and scaling of the images that it was made for."""
    import timm

    known = timm.get_pretrained_cfg(model)
    return known.to_dict() if known else {}


def labelled(split: Split, classes: tuple[str, ...]) -> Images:
    """Those first in canonical order: arbitrary, and the same for every run."""
    return np.asarray(split.images[:SHOWN]), tuple(classes[label] for label in split.labels[:SHOWN].tolist())


def of_files(places: Sequence[Path], size: int) -> Images:
    files = [file for place in places for file in (images_under(place) if place.is_dir() else [place])][:SHOWN]
    if not files:
        raise UsageError(f"{', '.join(map(str, places))}: there is no image")
    return np.stack([any_image(file, size) for file in files]), tuple(file.name for file in files)


def photographs(size: int) -> Images:
    """The two that come with scikit-learn."""
    from sklearn.datasets import load_sample_images

    photos = [np.asarray(square(Image.fromarray(photo), size)) for photo in load_sample_images().images]
    return np.stack(photos), ("china", "flower")
