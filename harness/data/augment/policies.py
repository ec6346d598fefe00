"""AutoAugment, RandAugment and TrivialAugment: which operation each image gets, at which magnitude, is drawn on the
host; each operation is then carried out for all of its images together."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.data.augment.geometry import GEOMETRY_OPS, GREY, SHIFTS, Warp, pillow_source, shear, warp, warp_nearest
from harness.data.augment.pixels import PILLOW_PIXEL_OPS, PIXEL_OPS, PixelOp
from harness.data.augment.transfer import blocks, put_images, to_device
from harness.recipes import Recipe

SIGNED_OPS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
UNSIGNED_OPS = ("Posterize", "Solarize")
BINLESS_OPS = ("AutoContrast", "Equalize", "Invert")
OPS = ("Identity", *SIGNED_OPS, *UNSIGNED_OPS, *BINLESS_OPS)
RANDOM_OPS = OPS[:-1]  # RandAugment and TrivialAugment never invert; a position here is a position in OPS
NARROW_BINS, WIDE_BINS = 10, 31  # AutoAugment's bins; RandAugment's and TrivialAugment's

_IS_SIGNED = np.array([op in SIGNED_OPS for op in OPS])

Choice = tuple[str, float, int | None]  # operation, probability, magnitude bin
SubPolicy = tuple[Choice, Choice]


class Round(NamedTuple):
    """One operation for each image: ops are positions in OPS (int64, n), magnitudes are signed (float64, n)."""

    ops: np.ndarray
    magnitudes: np.ndarray


# AutoAugment's learnt sub-policies (Cubuk et al. 2019, arXiv:1805.09501), 25 a data set.
CIFAR10_POLICY: tuple[SubPolicy, ...] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)
SVHN_POLICY: tuple[SubPolicy, ...] = (
    (("ShearX", 0.9, 4), ("Invert", 0.2, None)),
    (("ShearY", 0.9, 8), ("Invert", 0.7, None)),
    (("Equalize", 0.6, None), ("Solarize", 0.6, 6)),
    (("Invert", 0.9, None), ("Equalize", 0.6, None)),
    (("Equalize", 0.6, None), ("Rotate", 0.9, 3)),
    (("ShearX", 0.9, 4), ("AutoContrast", 0.8, None)),
    (("ShearY", 0.9, 8), ("Invert", 0.4, None)),
    (("ShearY", 0.9, 5), ("Solarize", 0.2, 6)),
    (("Invert", 0.9, None), ("AutoContrast", 0.8, None)),
    (("Equalize", 0.6, None), ("Rotate", 0.9, 3)),
    (("ShearX", 0.9, 4), ("Solarize", 0.3, 3)),
    (("ShearY", 0.8, 8), ("Invert", 0.7, None)),
    (("Equalize", 0.9, None), ("TranslateY", 0.6, 6)),
    (("Invert", 0.9, None), ("Equalize", 0.6, None)),
    (("Contrast", 0.3, 3), ("Rotate", 0.8, 4)),
    (("Invert", 0.8, None), ("TranslateY", 0.0, 2)),
    (("ShearY", 0.7, 6), ("Solarize", 0.4, 8)),
    (("Invert", 0.6, None), ("Rotate", 0.8, 4)),
    (("ShearY", 0.3, 7), ("TranslateX", 0.9, 3)),
    (("ShearX", 0.1, 6), ("Invert", 0.6, None)),
    (("Solarize", 0.7, 2), ("TranslateY", 0.6, 7)),
    (("ShearY", 0.8, 4), ("Invert", 0.8, None)),
    (("ShearX", 0.7, 9), ("TranslateY", 0.8, 3)),
    (("ShearY", 0.8, 5), ("AutoContrast", 0.7, None)),
    (("ShearX", 0.7, 2), ("Invert", 0.1, None)),
)


def magnitude_bins(op: str, bins: int, height: int, width: int, wide: bool = False) -> np.ndarray:
    """Unsigned magnitudes of an operation (float64 of torch's float32 values); `wide` is TrivialAugment's space."""
    if op == "Posterize":
        dropped_bits = torch.arange(bins) / ((bins - 1) / (6 if wide else 4))
        return (8 - dropped_bits.round()).double().numpy()
    if op == "Solarize":
        return torch.linspace(255.0, 0.0, bins).double().numpy()
    if op in SIGNED_OPS:
        return torch.linspace(0.0, _largest(op, height, width, wide), bins).double().numpy()
    return np.zeros(bins)


def pillow_bins(op: str, height: int, width: int) -> np.ndarray:
    """Unsigned magnitudes of AutoAugment as DeepVoltaire/AutoAugment has it; no policy uses bin 0 of Solarize (256)."""
    if op == "Solarize":
        return np.linspace(256.0, 0.0, NARROW_BINS)
    if op in ("TranslateX", "TranslateY"):
        return np.linspace(0.0, 150.0 / 331.0, NARROW_BINS) * (width if op == "TranslateX" else height)
    if op in SIGNED_OPS:
        return np.linspace(0.0, _largest(op, height, width, wide=False), NARROW_BINS)
    return magnitude_bins(op, NARROW_BINS, height, width)


def _largest(op: str, height: int, width: int, wide: bool) -> float:
    if op in ("ShearX", "ShearY"):
        return 0.99 if wide else 0.3
    if op in ("TranslateX", "TranslateY"):
        return 32.0 if wide else 150.0 / 331.0 * (width if op == "TranslateX" else height)
    if op == "Rotate":
        return 135.0 if wide else 30.0
    return 0.99 if wide else 0.9


def draw_autoaugment(
    policy: tuple[SubPolicy, ...],
    n: int,
    height: int,
    width: int,
    rng: np.random.Generator,
    as_pillow: bool = False,
) -> list[Round]:
    """A sub-policy for each image; each of its two operations happens with its own probability. Magnitudes are
    torchvision's, or, as_pillow, those of DeepVoltaire/AutoAugment, where a rotation has no sign."""
    if as_pillow:
        space = np.stack([pillow_bins(op, height, width) for op in OPS])
    else:
        space = _space(NARROW_BINS, height, width, wide=False)
    sub_policies = rng.integers(len(policy), size=n)
    chances = rng.random((n, 2))
    negative = rng.integers(2, size=(n, 2)) == 0
    rounds = []
    for position in range(2):
        choices = [sub_policy[position] for sub_policy in policy]
        ops = np.array([OPS.index(op) for op, _, _ in choices])[sub_policies]
        probabilities = np.array([probability for _, probability, _ in choices])[sub_policies]
        bins = np.array([bin_ or 0 for _, _, bin_ in choices])[sub_policies]
        ops = np.where(chances[:, position] < probabilities, ops, OPS.index("Identity"))
        negative_here = negative[:, position] & ~(as_pillow & (ops == OPS.index("Rotate")))
        rounds.append(Round(ops, _signed(ops, space[ops, bins], negative_here)))
    return rounds


def draw_randaugment(n: int, height: int, width: int, recipe: Recipe, rng: np.random.Generator) -> list[Round]:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719): uniform picks at one given bin of 31."""
    space = _space(WIDE_BINS, height, width, wide=False)
    rounds = []
    for _ in range(recipe.randaugment_ops):
        ops = rng.integers(len(RANDOM_OPS), size=n)
        rounds.append(Round(ops, _signed(ops, space[ops, recipe.randaugment_magnitude], rng.integers(2, size=n) == 0)))
    return rounds


def draw_trivialaugment(n: int, height: int, width: int, recipe: Recipe, rng: np.random.Generator) -> list[Round]:
    """TrivialAugment Wide (Mueller and Hutter 2021, arXiv:2103.10158): one uniform pick at a uniform bin of 31."""
    ops = rng.integers(len(RANDOM_OPS), size=n)
    bins = rng.integers(WIDE_BINS, size=n)
    space = _space(WIDE_BINS, height, width, wide=True)
    return [Round(ops, _signed(ops, space[ops, bins], rng.integers(2, size=n) == 0))]


def _space(bins: int, height: int, width: int, wide: bool) -> np.ndarray:
    """len(OPS) x bins unsigned magnitudes."""
    return np.stack([magnitude_bins(op, bins, height, width, wide) for op in OPS])


def _signed(ops: np.ndarray, magnitudes: np.ndarray, negative: np.ndarray) -> np.ndarray:
    return np.where(_IS_SIGNED[ops] & negative, -magnitudes, magnitudes)


# --- carrying it out -------------------------------------------------------------------------------------------------


class Operations(NamedTuple):
    """How the operations are carried out: geometry of several names at once, as its tables mix, pixels name by name."""

    warps: dict[tuple[str, ...], Callable[[Tensor, Sequence[Warp]], Tensor]]
    pixels: dict[str, PixelOp]


def torchvision_operations(interpolation: str) -> Operations:
    return Operations({GEOMETRY_OPS: partial(warp, interpolation=interpolation)}, PIXEL_OPS)


PILLOW_OPERATIONS = Operations(
    {("ShearX",): shear, ("ShearY",): shear, SHIFTS: partial(warp_nearest, source_of=pillow_source, fill=GREY)},
    PILLOW_PIXEL_OPS,
)


def apply_rounds_(images: Tensor, rounds: Sequence[Round], operations: Operations) -> Tensor:
    for drawn in rounds:
        apply_round_(images, drawn, operations)
    return images


def apply_round_(images: Tensor, drawn: Round, operations: Operations) -> Tensor:
    """images uint8 n x 3 x H x W, contiguous: image i goes through operation drawn.ops[i], in place."""
    for names in (*operations.warps, *((name,) for name in operations.pixels)):
        rows = np.flatnonzero(np.array([op in names for op in OPS])[drawn.ops])
        for block in blocks(len(rows), images.shape[1:].numel(), images.device):
            chosen = rows[block]
            on_device, magnitudes = to_device(chosen, images.device), drawn.magnitudes[chosen]
            picked = images.index_select(0, on_device)
            if names in operations.warps:
                own_names = [OPS[op] for op in drawn.ops[chosen]]
                changed = operations.warps[names](picked, list(zip(own_names, magnitudes.tolist(), strict=True)))
            else:
                changed = operations.pixels[names[0]](picked, magnitudes)
            put_images(images, on_device, changed)
    return images
