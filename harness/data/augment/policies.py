"""AutoAugment, RandAugment and TrivialAugment: which operation each image gets, at which magnitude, is drawn on the
host; each operation is then carried out for all of its images together."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.data.augment.geometry import GEOMETRY_OPS, GREY, SHIFTS, Warp, pillow_source, shear, warp, warp_nearest
from harness.data.augment.pixels import PILLOW_PIXEL_OPS, PIXEL_OPS, PixelOp
from harness.data.augment.transfer import blocks, put_images, to_device
from harness.recipes import Recipe

# The largest magnitude of what has a sign: in AutoAugment and RandAugment (translations: a share of the side), and in
# TrivialAugment (translations: pixels).
LARGEST = {
    **dict.fromkeys(("ShearX", "ShearY"), (0.3, 0.99)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (150.0 / 331.0, 32.0)),
    "Rotate": (30.0, 135.0),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (0.9, 0.99)),
}
OPS = ("Identity", *LARGEST, "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")
RANDOM_OPS = OPS[:-1]  # RandAugment and TrivialAugment never invert; a position here is a position in OPS
NARROW_BINS, WIDE_BINS = 10, 31  # AutoAugment's bins; RandAugment's and TrivialAugment's

_IS_SIGNED = np.array([op in LARGEST for op in OPS])
Choice = tuple[str, float, int | None]  # operation, probability, magnitude bin


class Round(NamedTuple):
    """One operation for each image: ops are positions in OPS (int64, n), magnitudes are signed (float64, n)."""

    ops: np.ndarray
    magnitudes: np.ndarray


def magnitude_bins(op: str, bins: int, height: int, width: int, flavour: str = "") -> np.ndarray:
    """Unsigned magnitudes of an operation: torchvision's (float64 of its float32 values); "wide" are TrivialAugment's,
    "pillow" those of DeepVoltaire/AutoAugment, where no policy uses bin 0 of Solarize."""
    is_wide, as_pillow, side = flavour == "wide", flavour == "pillow", 1
    if op == "Posterize":
        dropped_bits = torch.arange(bins) / ((bins - 1) / (6 if is_wide else 4))
        return (8 - dropped_bits.round()).double().numpy()
    if op == "Solarize":
        first, last = 256.0 if as_pillow else 255.0, 0.0
    else:
        first, last = 0.0, LARGEST.get(op, (0.0, 0.0))[is_wide]
    if op.startswith("Translate") and not is_wide:
        side = width if op == "TranslateX" else height
    if as_pillow:
        return np.linspace(first, last, bins) * side
    return torch.linspace(first, last * side, bins).double().numpy()


@cache
def policy_of(name: str) -> list[tuple[Choice, Choice]]:
    """The 25 sub-policies learnt for a data set (Cubuk et al. 2019, arXiv:1805.09501), as torchvision lists them."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # a second, for those who use one

    return AutoAugment({"cifar": AutoAugmentPolicy.CIFAR10, "svhn": AutoAugmentPolicy.SVHN}[name]).policies


def draw_autoaugment(
    policy: str, n: int, height: int, width: int, recipe: Recipe, rng: np.random.Generator
) -> list[Round]:
    """A sub-policy for each image; each of its two operations happens with its own probability. Magnitudes are
    torchvision's, those of `pil-cifar` and `pil-svhn` DeepVoltaire/AutoAugment's, where a rotation has no sign."""
    as_pillow, choices = policy.startswith("pil-"), policy_of(policy.removeprefix("pil-"))
    space = _space(NARROW_BINS, height, width, "pillow" if as_pillow else "")
    sub_policies = rng.integers(len(choices), size=n)
    chances = rng.random((n, 2))
    negative = rng.integers(2, size=(n, 2)) == 0
    rounds = []
    for position in range(2):
        names, probabilities, bins = zip(*(sub_policy[position] for sub_policy in choices), strict=True)
        ops = np.array([OPS.index(op) for op in names])[sub_policies]
        bins = np.array([bin_ or 0 for bin_ in bins])[sub_policies]
        ops = np.where(chances[:, position] < np.array(probabilities)[sub_policies], ops, OPS.index("Identity"))
        negative_here = negative[:, position] & ~(as_pillow & (ops == OPS.index("Rotate")))
        rounds.append(Round(ops, _signed(ops, space[ops, bins], negative_here)))
    return rounds


def draw_randaugment(n: int, height: int, width: int, recipe: Recipe, rng: np.random.Generator) -> list[Round]:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719): uniform picks at one given bin of 31."""
    space = _space(WIDE_BINS, height, width)
    rounds = []
    for _ in range(recipe.randaugment_ops):
        ops = rng.integers(len(RANDOM_OPS), size=n)
        rounds.append(Round(ops, _signed(ops, space[ops, recipe.randaugment_magnitude], rng.integers(2, size=n) == 0)))
    return rounds


def draw_trivialaugment(n: int, height: int, width: int, recipe: Recipe, rng: np.random.Generator) -> list[Round]:
    """TrivialAugment Wide (Mueller and Hutter 2021, arXiv:2103.10158): one uniform pick at a uniform bin of 31."""
    ops = rng.integers(len(RANDOM_OPS), size=n)
    bins = rng.integers(WIDE_BINS, size=n)
    space = _space(WIDE_BINS, height, width, "wide")
    return [Round(ops, _signed(ops, space[ops, bins], rng.integers(2, size=n) == 0))]


def _space(bins: int, height: int, width: int, flavour: str = "") -> np.ndarray:
    """len(OPS) x bins unsigned magnitudes."""
    return np.stack([magnitude_bins(op, bins, height, width, flavour) for op in OPS])


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
