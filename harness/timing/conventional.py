"""The conventional way to train on small images, as a baseline: torchvision's transforms of one PIL image after another
in a DataLoader, and an eager step with autocast and a GradScaler. It uses no trick of ours, and nothing of the suite
trains through it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, default_collate

from harness.data.augment.steps import LEE
from harness.data.load import ImageData
from harness.recipes import Recipe
from variants.fields import UsageError


class Images(Dataset):
    """What torchvision's CIFAR classes do: an array in memory, an image and its label at a time."""

    def __init__(self, images_NHWC: np.ndarray, labels: np.ndarray, transform: Any):
        self.images_NHWC, self.labels, self.transform = images_NHWC, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images_NHWC[index])), int(self.labels[index])


class Mixing:
    """Collates a batch and mixes it by torchvision's MixUp and CutMix; labels become shares of classes."""

    def __init__(self, recipe: Recipe, classes: int):
        from torchvision.transforms import v2

        mixup = v2.MixUp(alpha=recipe.mixup_alpha, num_classes=classes)
        cutmix = v2.CutMix(alpha=recipe.cutmix_alpha, num_classes=classes)
        ways = {"mixup": [mixup], "cutmix": [cutmix], "either": [mixup, cutmix]}
        self.mix, self.prob, self.classes = v2.RandomChoice(ways[recipe.mix]), recipe.mix_prob, classes

    def __call__(self, samples: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = default_collate(samples)
        if len(labels) > 1 and torch.rand(()) < self.prob:
            return self.mix(images, labels)
        return images, F.one_hot(labels, self.classes).float()


def transforms(recipe: Recipe, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """The recipe's augmentation as torchvision's own transforms, in the recipe's order."""
    from torchvision import transforms as tv

    mode, policies = tv.InterpolationMode(recipe.interpolation), tv.AutoAugmentPolicy
    fill: Any = "random" if recipe.erase_fill == "noise" else 0
    colour: Any = mean
    on_image = {
        "crop": tv.RandomCrop(image_size, padding=recipe.crop_padding),
        "resized-crop": tv.RandomResizedCrop(image_size, recipe.crop_scale, recipe.crop_ratio),
        "flip": tv.RandomHorizontalFlip(),
        "autoaugment-cifar": tv.AutoAugment(policies.CIFAR10, mode),
        "autoaugment-svhn": tv.AutoAugment(policies.SVHN, mode),
        # The same sub-policies; its nearest shears cost less than bicubic ones, which favours this side.
        "autoaugment-pil-cifar": tv.AutoAugment(policies.CIFAR10, fill=[128.0] * 3),
        "autoaugment-pil-svhn": tv.AutoAugment(policies.SVHN, fill=[128.0] * 3),
        "randaugment": tv.RandAugment(recipe.randaugment_ops, recipe.randaugment_magnitude, interpolation=mode),
        "trivialaugment": tv.TrivialAugmentWide(interpolation=mode),
    }
    on_tensor = {
        "erase": tv.RandomErasing(recipe.erase_prob, value=fill),
        "erase-lee": tv.RandomErasing(recipe.erase_prob, scale=LEE.areas, ratio=LEE.ratios, value=colour),
    }
    if unknown := [name for name in recipe.augment if name not in on_image | on_tensor]:
        raise UsageError(f"torchvision has no transform for {', '.join(unknown)}: nothing to compare this recipe with")
    first, last = ([steps[name] for name in recipe.augment if name in steps] for steps in (on_image, on_tensor))
    return tv.Compose([*first, tv.ToTensor(), tv.Normalize(mean, std), *last])


def conventional_batches(data: ImageData, recipe: Recipe, workers: int, folder: Path | None = None) -> DataLoader:
    """Of a folder the files, decoded, their centre square resized. Its workers start once and stay, so that no round
    holds their start."""
    side = data.dataset.image_size
    transform = transforms(recipe, side, data.mean, data.std)
    if folder:
        from torchvision import datasets
        from torchvision import transforms as tv

        to_size = [tv.Resize(side, tv.InterpolationMode.BICUBIC), tv.CenterCrop(side)]
        images: Any = datasets.ImageFolder(folder, tv.Compose([*to_size, transform]))
    else:
        images = Images(data.train.images, data.train.labels, transform)
    return DataLoader(
        images,
        batch_size=recipe.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=Mixing(recipe, data.dataset.num_classes) if recipe.mix != "none" else None,
    )


class Loop:
    """One epoch after another of the loop that tutorials show."""

    def __init__(self, model: nn.Module, recipe: Recipe, batches: DataLoader, device: torch.device):
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        betas, decay = (recipe.beta1, recipe.beta2), recipe.weight_decay
        self.model, self.recipe, self.batches, self.device = model, recipe, batches, device
        self.optimiser = kind(model.parameters(), lr=recipe.lr, betas=betas, weight_decay=decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

    def epoch(self) -> float:
        """Returns the mean loss, read step by step as such loops do."""
        self.model.train()
        total = 0.0
        for images, labels in self.batches:
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, torch.float16, enabled=self.scaler.is_enabled()):
                logits = self.model(images)
                loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
            self.optimiser.zero_grad()
            self.scaler.scale(loss).backward()
            if self.recipe.clip:
                self.scaler.unscale_(self.optimiser)
                nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            self.scaler.step(self.optimiser)
            self.scaler.update()
            total += loss.item()
        return total / len(self.batches)
