"""Holds every uint8 operation to torchvision's tensor path, bit for bit, at every magnitude of every space.
Compares with torchvision's own dispatcher and spaces, so that a wrong magnitude is caught as well as a wrong pixel.
"""

import numpy as np
import pytest
import torch
from torchvision.transforms import AutoAugment, RandAugment, TrivialAugmentWide
from torchvision.transforms import InterpolationMode as Mode
from torchvision.transforms.autoaugment import _apply_op

from harness.data.augment.apply import apply_round_, torchvision_operations
from harness.data.augment.pixels import PIXEL_OPS
from harness.data.augment.policies import BINLESS_OPS, OPS, SIGNED_OPS, Round, magnitude_bins

SIZES = [(32, 32), (8, 8), (20, 33)]
SPACES = {
    "autoaugment": lambda size: AutoAugment()._augmentation_space(10, size),
    "randaugment": lambda size: RandAugment()._augmentation_space(31, size),
    "trivialaugment": lambda size: TrivialAugmentWide()._augmentation_space(31),
}
BINS = {"autoaugment": 10, "randaugment": 31, "trivialaugment": 31}


pytestmark = pytest.mark.usefixtures("one_thread")


def _pictures(height: int, width: int) -> torch.Tensor:
    """Random, smooth, dark, constant and two-valued images: the degenerate ones are where histograms go wrong."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (2, 3, height, width))
    ramp = np.broadcast_to(np.linspace(0, 255, width)[None, None, None], (1, 3, height, width))
    dark = rng.integers(0, 20, (1, 3, height, width))
    constants = np.stack([np.full((3, height, width), value) for value in (0, 77, 255)])
    two_valued = np.where(rng.random((1, 3, height, width)) < 0.3, 30, 200)
    mostly_one = np.where(rng.random((1, 3, height, width)) < 0.02, 3, 255)
    blocks = np.kron(rng.integers(0, 256, (1, 3, -(-height // 4), -(-width // 4))), np.ones((1, 1, 4, 4)))
    everything = [noise, ramp, dark, constants, two_valued, mostly_one, blocks[:, :, :height, :width]]
    return torch.from_numpy(np.concatenate(everything).astype(np.uint8))


def _torchvision(images: torch.Tensor, op: str, magnitude: float, mode: Mode) -> torch.Tensor:
    return torch.stack([_apply_op(image, op, magnitude, mode, None) for image in images])


def _signed_magnitudes(space: str, op: str, size: tuple[int, int]) -> list[float]:
    table, is_signed = SPACES[space](size)[op]
    magnitudes = [float(value) for value in table.reshape(-1)]
    return magnitudes + [-value for value in magnitudes] if is_signed else magnitudes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("space", SPACES)
def test_magnitudes_and_signs_are_torchvisions(space: str, size: tuple[int, int]) -> None:
    theirs = SPACES[space](size)
    assert set(theirs) == set(OPS) - ({"Identity"} if space == "autoaugment" else {"Invert"})
    for op, (table, is_signed) in theirs.items():
        ours = magnitude_bins(op, BINS[space], *size, wide=space == "trivialaugment")
        expected = table.double().numpy() if table.ndim else np.zeros(BINS[space])
        np.testing.assert_array_equal(ours, expected, err_msg=op)
        assert is_signed == (op in SIGNED_OPS)
        assert (table.ndim == 0) == (op in (*BINLESS_OPS, "Identity"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("op", OPS)
def test_every_magnitude_equals_torchvision(op: str, size: tuple[int, int]) -> None:
    pictures = _pictures(*size)
    modes = ["nearest", "bilinear"] if op.startswith(("Shear", "Translate", "Rotate")) else ["nearest"]
    spaces = [space for space in SPACES if op in SPACES[space](size)]
    # One step through the bins of a large space is enough away from 32 x 32; there, every one is checked.
    magnitudes = sorted({m for space in spaces for m in _signed_magnitudes(space, op, size)})
    magnitudes = magnitudes if size == (32, 32) else magnitudes[::3]
    images = pictures.repeat(len(magnitudes), 1, 1, 1)
    drawn = Round(np.full(len(images), OPS.index(op)), np.repeat(np.array(magnitudes), len(pictures)))
    for mode in modes:
        ours = apply_round_(images.clone(), drawn, torchvision_operations(mode)).split(len(pictures))
        for magnitude, our in zip(magnitudes, ours, strict=True):
            assert torch.equal(our, _torchvision(pictures, op, magnitude, Mode(mode))), (op, magnitude, mode)


def test_the_pictures_exercise_every_operation() -> None:
    pictures = _pictures(32, 32)
    for op in set(OPS) - {"Identity"}:
        magnitude = 4.0 if op in ("Posterize", "TranslateX", "TranslateY", "Rotate") else 0.3
        drawn = Round(np.full(len(pictures), OPS.index(op)), np.full(len(pictures), magnitude))
        assert not torch.equal(apply_round_(pictures.clone(), drawn, torchvision_operations("nearest")), pictures), op


def test_a_mixed_round_gives_each_image_its_own_operation_and_magnitude() -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (300, 3, 32, 32), dtype=np.uint8))
    names = [OPS[i] for i in rng.integers(len(OPS), size=300)]
    magnitudes = [_signed_magnitudes("autoaugment", "Invert" if n == "Identity" else n, (32, 32)) for n in names]
    drawn = Round(np.array([OPS.index(n) for n in names]), np.array([rng.choice(values) for values in magnitudes]))
    for mode in ("nearest", "bilinear"):
        ours = apply_round_(images.clone(), drawn, torchvision_operations(mode))
        for i, name in enumerate(names):
            expected = _apply_op(images[i], name, float(drawn.magnitudes[i]), Mode(mode), None)
            assert torch.equal(ours[i], expected), (i, name, mode)
    assert ours.dtype == torch.uint8 and ours.shape == images.shape


@pytest.mark.parametrize("op", PIXEL_OPS)
def test_pixel_operations_leave_their_input_alone(op: str) -> None:
    images = _pictures(8, 8)
    before = images.clone()
    PIXEL_OPS[op](images, np.full(len(images), 3.0 if op == "Posterize" else 0.4))
    assert torch.equal(images, before)


def test_images_too_small_to_smooth_are_returned_as_they_are() -> None:
    images = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    assert torch.equal(PIXEL_OPS["Sharpness"](images, np.full(2, 0.9)), images)


def test_an_unknown_interpolation_is_refused() -> None:
    drawn = Round(np.array([OPS.index("Rotate")]), np.array([5.0]))
    with pytest.raises(ValueError, match="bicubic"):
        apply_round_(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), drawn, torchvision_operations("bicubic"))
