"""The policies and their operations: every pixel against torchvision at every magnitude, in the Pillow flavour against
Pillow; and how often each operation, magnitude and sign is drawn (chi-square at fixed seeds)."""

import hashlib
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, RandAugment, TrivialAugmentWide
from torchvision.transforms import InterpolationMode as Mode
from torchvision.transforms.autoaugment import _apply_op

from harness.data.augment.policies import (
    LARGEST,
    OPS,
    PILLOW_OPERATIONS,
    RANDOM_OPS,
    Operations,
    Round,
    apply_round_,
    apply_rounds_,
    draw_autoaugment,
    draw_randaugment,
    draw_trivialaugment,
    magnitude_bins,
    policy_of,
    torchvision_operations,
)
from harness.recipes import Recipe

POLICIES = {name: policy_of(name) for name in ("cifar", "svhn")}
N = 30_000
SMALLEST_P = 1e-3
Outcomes = list[tuple[str, float, float]]  # operation, signed magnitude, probability

pytestmark = pytest.mark.usefixtures("one_thread")


def carried_out(op: str, magnitudes: Sequence[float], images: torch.Tensor, operations: Operations) -> torch.Tensor:
    """All images at the first magnitude, then all at the second, and so on."""
    repeated = images.repeat(len(magnitudes), 1, 1, 1)
    drawn = Round(np.full(len(repeated), OPS.index(op)), np.repeat(np.array(magnitudes), len(images)))
    return apply_round_(repeated, drawn, operations)


def names_of(drawn: Round) -> list[str]:
    return [OPS[op] for op in drawn.ops]


def pictures(height: int = 32, width: int = 32, each: int = 40) -> torch.Tensor:
    """Six kinds, `each` of every one: noise, smooth, saturated, flat and nearly flat, where histograms go wrong, and
    edges and texture as a photograph has."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:height, :width] / 32
    shape = (each, 3, height, width)

    def waves(scale: float) -> np.ndarray:
        a, b, c = rng.normal(size=(3, each, 3, 1, 1)) * scale
        return np.sin(a * x + b * y + c)

    noise = rng.uniform(0, 256, shape)
    smooth = 127.5 + 127 * waves(3.0) * rng.uniform(0.1, 1.0, (each, 1, 1, 1))
    saturated = 127.5 + 400 * waves(8.0)
    flat = np.broadcast_to(rng.integers(0, 256, (each, 3, 1, 1)), shape)
    nearly = np.where(rng.random(shape) < 0.02, 3, 255)
    edges = 60 * np.sign(waves(9.0)) + 50 * waves(3.0)
    natural = rng.uniform(80, 170, (each, 1, 1, 1)) + edges + rng.normal(0, 8, shape)
    everything = np.concatenate([noise, smooth, saturated, flat, nearly, natural])
    return torch.from_numpy(np.clip(everything, 0, 255).astype(np.uint8))


def check_frequencies(seen: Counter, expected: dict) -> None:
    """Chi-square over all outcomes with a positive chance; an outcome without one must never be seen."""
    possible = {key: share for key, share in expected.items() if share > 0}
    assert sum(possible.values()) == pytest.approx(1.0)
    assert set(seen) <= set(possible), set(seen) - set(possible)
    counts = [seen[key] for key in possible]
    assert chisquare(counts, [share * sum(counts) for share in possible.values()]).pvalue > SMALLEST_P


def check_pairs(rounds: Sequence[Round], policy: Sequence, outcomes_of: Callable[[Any], Outcomes]) -> None:
    """The two operations of each image, against what each choice of the policy may come to."""
    expected: dict = defaultdict(float)
    for sub_policy in policy:
        first, second = ([("Identity", 0.0, 1 - choice[1]), *outcomes_of(choice)] for choice in sub_policy)
        for op_1, value_1, share_1 in first:
            for op_2, value_2, share_2 in second:
                expected[op_1, value_1, op_2, value_2] += share_1 * share_2 / len(policy)
    one, two = rounds
    check_frequencies(Counter(zip(names_of(one), one.magnitudes, names_of(two), two.magnitudes, strict=True)), expected)


# --- against torchvision ---------------------------------------------------------------------------------------------

SPACES = {
    "autoaugment": lambda size: AutoAugment()._augmentation_space(10, size),
    "randaugment": lambda size: RandAugment()._augmentation_space(31, size),
    "trivialaugment": lambda size: TrivialAugmentWide()._augmentation_space(31),
}


def signed_magnitudes(space: str, op: str, size: tuple[int, int]) -> list[float]:
    table, is_signed = SPACES[space](size)[op]
    magnitudes = [float(value) for value in table.reshape(-1)]
    return magnitudes + [-value for value in magnitudes] if is_signed else magnitudes


@pytest.mark.parametrize("space", SPACES)
def test_magnitudes_and_signs_are_torchvisions(space):
    bins, flavour = 10 if space == "autoaugment" else 31, "wide" if space == "trivialaugment" else ""
    for op, (table, is_signed) in SPACES[space]((20, 33)).items():
        ours = magnitude_bins(op, bins, 20, 33, flavour)
        np.testing.assert_array_equal(ours, table.double().numpy() if table.ndim else np.zeros(bins), err_msg=op)
        assert is_signed == (op in LARGEST)


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (20, 33)])
@pytest.mark.parametrize("op", OPS)
def test_every_magnitude_equals_torchvision(op, size: tuple[int, int]):
    images = pictures(*size, each=2)
    modes = ["nearest", "bilinear"] if op.startswith(("Shear", "Translate", "Rotate")) else ["nearest"]
    spaces = [space for space in SPACES if op in SPACES[space](size)]
    magnitudes = sorted({m for space in spaces for m in signed_magnitudes(space, op, size)})
    magnitudes = magnitudes if size == (32, 32) else magnitudes[::6]
    for mode in modes:
        ours = carried_out(op, magnitudes, images, torchvision_operations(mode))
        for magnitude, our in zip(magnitudes, ours.split(len(images)), strict=True):
            theirs = _apply_op(images, op, magnitude, Mode(mode), None)
            assert torch.equal(our, theirs), (op, magnitude, mode)


def signed_outcomes(choice: tuple[str, float, int | None], space: dict) -> Outcomes:
    op, p, bin_ = choice
    table, is_signed = space[op]
    magnitude = 0.0 if bin_ is None else float(table[bin_])
    return [(op, magnitude, p / 2), (op, -magnitude, p / 2)] if is_signed else [(op, magnitude, p)]


@pytest.mark.parametrize("policy", POLICIES)
def test_autoaugment_draws_pairs_as_often_as_torchvision_declares(policy):
    theirs = AutoAugment({"cifar": AutoAugmentPolicy.CIFAR10, "svhn": AutoAugmentPolicy.SVHN}[policy])
    space = theirs._augmentation_space(10, (32, 32))
    rounds = draw_autoaugment(policy, N, 32, 32, Recipe(), np.random.default_rng(5))
    check_pairs(rounds, theirs.policies, lambda choice: signed_outcomes(choice, space))


def test_randaugment_picks_uniformly_at_its_one_magnitude():
    space = RandAugment()._augmentation_space(31, (32, 24))
    rounds = draw_randaugment(N, 32, 24, Recipe(), np.random.default_rng(7))
    expected = {}
    for op in space:
        for name, magnitude, share in signed_outcomes((op, 1 / len(space), 9 if space[op][0].ndim else None), space):
            expected[name, magnitude] = share
    for drawn in rounds:
        check_frequencies(Counter(zip(names_of(drawn), drawn.magnitudes, strict=True)), expected)
    assert len(rounds) == 2 and chisquare(np.bincount(rounds[0].ops * 14 + rounds[1].ops)).pvalue > SMALLEST_P


def test_trivialaugment_picks_operation_bin_and_sign_uniformly():
    assert list(RANDOM_OPS) == list(RandAugment()._augmentation_space(31, (8, 8))) == list(OPS[:-1])
    (drawn,) = draw_trivialaugment(N, 32, 32, Recipe(), np.random.default_rng(8))
    names = np.array(names_of(drawn))
    check_frequencies(Counter(names.tolist()), dict.fromkeys(RANDOM_OPS, 1 / 14))
    for op in (*LARGEST, "Solarize"):
        values = magnitude_bins(op, 31, 32, 32, "wide")
        check_frequencies(Counter(np.abs(drawn.magnitudes[names == op])), dict.fromkeys(values, 1 / 31))
    for op in LARGEST:
        moved = drawn.magnitudes[(names == op) & (drawn.magnitudes != 0)]
        assert abs((moved > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(moved))


@pytest.mark.parametrize(("policy", "digest"), [("cifar", "f2e71a305e26f746"), ("svhn", "58e1a49d55ed5a5b")])
def test_the_draws_are_those_of_before(policy, digest):
    """Operations, magnitudes in thousandths, where the generator then stands."""
    rng, seen = np.random.default_rng(16), hashlib.sha256()
    for drawn in draw_autoaugment(policy, 2000, 32, 32, Recipe(), rng):
        seen.update(drawn.ops.astype(np.int64).tobytes())
        seen.update(np.round(drawn.magnitudes * 1000).astype(np.int64).tobytes())
    assert (seen.hexdigest()[:16], rng.integers(1 << 30)) == (digest, 979708574)


# --- against Pillow ---------------------------------------------------------------------------------------------------

ENHANCED = ("Color", "Contrast", "Sharpness", "Brightness")
FLOAT_OPS = (*ENHANCED, "AutoContrast")


def magnitude(op: str, index: int | None, size: tuple[int, int]) -> float:
    """The source's magnitude of an operation, for an image of this height and width; translations in pixels."""
    if index is None:
        return 0.0
    if op == "Posterize":
        return float(np.round(np.linspace(8, 4, 10))[index])
    if op == "Solarize":
        return float(np.linspace(256, 0, 10)[index])
    largest = {"Shear": 0.3, "Trans": 150 / 331, "Rotat": 30.0}.get(op[:5], 0.9)
    return float(np.linspace(0, largest, 10)[index]) * {"TranslateX": size[1], "TranslateY": size[0]}.get(op, 1)


def signs(op: str) -> tuple[int, ...]:
    return (1, -1) if op in ENHANCED or op.startswith(("Shear", "Translate")) else (1,)


def by_pillow(image: Image.Image, op: str, value: float) -> Image.Image:
    """One operation on one image, with its signed magnitude."""
    if op == "Rotate":
        turned = image.convert("RGBA").rotate(value)
        return Image.composite(turned, Image.new("RGBA", image.size, (128,) * 4), turned).convert("RGB")
    if not op.startswith(("Shear", "Translate")):
        return _apply_op(image, op, value, Mode.NEAREST, None)  # type: ignore[arg-type, return-value]
    matrix = {
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
        "TranslateX": (1, 0, value, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, value),
    }[op]
    how = Image.Resampling.BICUBIC if op.startswith("Shear") else Image.Resampling.NEAREST
    return image.transform(image.size, Image.Transform.AFFINE, matrix, how, fillcolor=(128, 128, 128))


def as_images(batch: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image) for image in batch.permute(0, 2, 3, 1).contiguous().numpy()]


def as_batch(images: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.array(image) for image in images])).permute(0, 3, 1, 2)


USED = sorted({(op, index) for policy in POLICIES.values() for pair in policy for op, _, index in pair}, key=str)


def compared(op: str, values: list[float], batch: torch.Tensor) -> np.ndarray:
    """How many grey levels lie between ours and Pillow's: magnitudes x images x 3 x H x W."""
    images = as_images(batch)
    theirs = torch.cat([as_batch([by_pillow(image, op, value) for image in images]) for value in values])
    ours = carried_out(op, values, batch, PILLOW_OPERATIONS)
    return (ours.short() - theirs.short()).abs().numpy().reshape(len(values), *batch.shape)


@pytest.mark.parametrize(("size", "each"), [((32, 32), 40), ((20, 33), 4), ((2, 2), 4)])
@pytest.mark.parametrize("op", OPS)
def test_each_operation_is_within_a_grey_level_of_pillow(op: str, size: tuple[int, int], each: int) -> None:
    used = [index for name, index in USED if name == op] if size == (32, 32) else []
    values = [sign * magnitude(op, index, size) for index in used or range(1, 10, 2) for sign in signs(op)]
    apart = compared(op, values, pictures(*size, each=each))
    assert apart.max() <= 1
    if op.startswith("Shear"):
        # Pillow's cubic is in float64, ours in float32: a whole number that one of them just misses is cut to the next.
        assert size != (32, 32) or apart.mean() < 1e-3
    elif op not in FLOAT_OPS or (size == (32, 32) and platform.machine() == "x86_64"):
        assert apart.max() == 0  # elsewhere Pillow may be built with fused sums


@pytest.mark.parametrize("policy", POLICIES)
def test_operations_magnitudes_and_signs_come_as_often_as_in_the_source(policy: str) -> None:
    def outcomes(choice: tuple[str, float, int | None]) -> Outcomes:
        op, probability, index = choice
        return [(op, sign * magnitude(op, index, (24, 40)), probability / len(signs(op))) for sign in signs(op)]

    drawn = draw_autoaugment(f"pil-{policy}", N, 24, 40, Recipe(), np.random.default_rng(5))
    check_pairs(drawn, POLICIES[policy], outcomes)


# --- whole policies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_drawn_plan_replayed_with_torchvision_gives_the_same_images(policy: str, mode: str) -> None:
    """Each image its own operation and magnitude."""
    batch, rng, recipe = pictures(24, 40, each=12), np.random.default_rng(9), Recipe(randaugment_ops=1)
    rounds = [step(len(batch), 24, 40, recipe, rng) for step in (partial(draw_autoaugment, policy), draw_randaugment)]
    ours = apply_rounds_(batch.clone(), [*rounds[0], *rounds[1]], torchvision_operations(mode))
    for i, image in enumerate(batch):
        for drawn in (*rounds[0], *rounds[1]):
            image = _apply_op(image, OPS[drawn.ops[i]], float(drawn.magnitudes[i]), Mode(mode), None)
        assert torch.equal(ours[i], image), i


@pytest.mark.parametrize("policy", POLICIES)
def test_a_drawn_plan_replayed_with_pillow_gives_the_same_images(policy: str) -> None:
    batch = pictures(24, 40, each=40)
    rounds = draw_autoaugment(f"pil-{policy}", len(batch), 24, 40, Recipe(), np.random.default_rng(9))
    stretching = [OPS.index(op) for op in ("AutoContrast", "Equalize", "Sharpness", "Contrast", "Solarize", "Color")]
    ours = apply_rounds_(batch.clone(), rounds, PILLOW_OPERATIONS)
    theirs = as_images(batch)
    for drawn in rounds:
        plan = zip(theirs, drawn.ops, drawn.magnitudes.tolist(), strict=True)
        theirs = [by_pillow(image, OPS[op], value) for image, op, value in plan]
    apart = (ours.short() - as_batch(theirs).short()).abs().flatten(1).amax(1).numpy()
    # A second operation that stretches may make more of a grey level of a shear; all other images agree to one.
    assert apart[~np.isin(rounds[1].ops, stretching)].max() <= 1 and (apart <= 1).mean() > 0.95
