"""Data: every copy comes into one order, and from there into batches."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.config import resolve
from harness.data.load import ImageData, Split, canonical, channel_statistics, load
from harness.data.pipeline import held_out, scaling, shown_more_often, to_device, training_batches
from harness.datasets import DATASETS
from harness.training.setup import data_generator
from tests.copies import random_split, write_arrays
from variants.fields import UsageError


def test_digits_are_real_and_the_split_is_fixed():
    data = load("digits", None)  # type: ignore[arg-type]
    assert data.train.images.shape == (1437, 8, 8, 3) and data.test.images.shape == (360, 8, 8, 3)
    assert data.train.images.dtype == np.uint8 and data.train.images.max() == 255
    assert set(np.unique(data.test.labels)) == set(range(10))
    train_bytes = {image.tobytes() for image in data.train.images}
    assert not any(image.tobytes() in train_bytes for image in data.test.images)
    assert data.digest == "744b8932442e2d075f8fb7a9aaac19999864e2704ca22675d6b23d76f2925b99"


def test_every_copy_comes_out_in_the_same_order(tmp_path, monkeypatch):
    """Shuffled images with their labels give the same bytes; a label that moved gives another digest."""
    train, test = random_split(50), random_split(20, seed=1)
    monkeypatch.setitem(DATASETS, "c10", replace(DATASETS["c10"], train_count=50, test_count=20))
    order = np.random.default_rng(2).permutation(50)
    write_arrays(tmp_path / "a" / "c10", train, test)
    write_arrays(tmp_path / "b" / "c10", train.part(order), test)
    moved = Split(train.images, np.roll(train.labels, 1))
    write_arrays(tmp_path / "c" / "c10", moved, test)
    a, b, c = (load("c10", tmp_path / name) for name in "abc")
    assert a.digest == b.digest != c.digest
    assert a.digest == "427eaf5371667da58b37d0bedc8f094ea3487fc3bc220ce81b0ddd80417b5718", "as ever"
    assert np.array_equal(a.train.images, b.train.images) and np.array_equal(a.train.labels, b.train.labels)


def test_canonical_order_keeps_labels_and_sorts_identical_images_by_them():
    split = random_split(200)
    labels_of = {image.tobytes(): label for image, label in zip(split.images, split.labels)}
    ordered = canonical(split)
    assert all(labels_of[image.tobytes()] == label for image, label in zip(ordered.images, ordered.labels))
    assert not np.array_equal(ordered.labels, split.labels)
    assert canonical(Split(np.zeros((3, 4, 4, 3), np.uint8), np.array([2, 0, 1]))).labels.tolist() == [0, 1, 2]


def test_channel_statistics_by_hand():
    images = np.zeros((1, 1, 2, 3), np.uint8)
    images[0, 0, 1] = 255, 51, 0  # means .5, .1, 0; deviations .5, .1, 0 (kept above 0)
    assert channel_statistics(images) == ((0.5, 0.1, 0.0), (0.5, 0.1, 0.0001))


def labelled_data(count: int = 70) -> ImageData:
    """Images that carry their label in every pixel, so that a batch tells whether labels and images belong together."""
    labels = np.arange(count) % 10
    images = np.broadcast_to((labels * 20 + 7)[:, None, None, None], (count, 32, 32, 3)).astype(np.uint8).copy()
    images[:, 0, 0, 0] = np.arange(count)
    split = canonical(Split(images, labels.astype(np.int64)))
    return ImageData(DATASETS["c10"], split, split, "", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


def batches(data, recipe, seed=0, epoch=1):
    device = torch.device("cpu")
    scale = scaling(data, recipe, device)
    found = training_batches(to_device(data.train, device), recipe, scale, data_generator(seed, epoch))
    return [replace(batch, images=scale(batch.images)) for batch in found]


def unit(recipe_changes: dict, dataset: str = "c10"):
    settings = [f"recipe.{name}={value}" for name, value in {"scaling": "unit", **recipe_changes}.items()]
    return resolve("compact", DATASETS[dataset], "quick", settings=settings).recipe


def test_labels_stay_with_their_images():
    data = labelled_data()
    for recipe in (unit({}), unit({"augment": "flip", "mix": "cutmix"})):
        for batch in batches(data, recipe):
            levels = (batch.images[:, 0, 16, 16] * 255).round().long()
            assert torch.equal((levels - 7) // 20, batch.labels)


def test_an_epoch_is_every_image_once():
    data = labelled_data()
    seen = torch.cat([(b.images[:, 0, 0, 0] * 255).round().long() for b in batches(data, unit({}))])
    assert sorted(seen.tolist()) == list(range(70))
    assert [len(b.labels) for b in batches(data, unit({}))] == [32, 32, 6]


@pytest.mark.parametrize(
    "augment", ["crop,flip,autoaugment-cifar", "autoaugment-pil-svhn", "resized-crop,randaugment", "flip", ""]
)
def test_augmenting_in_place_touches_neither_the_data_nor_earlier_batches(monkeypatch, augment):
    monkeypatch.setattr("harness.data.pipeline.CHUNK_BYTES", 32 * 3 * 32 * 32)  # three chunks
    recipe, device, data = unit({"augment": augment}), torch.device("cpu"), labelled_data()
    split, scale = to_device(data.train, device), scaling(data, recipe, device)
    before = split.images.clone()
    kept, copies = [], []
    for batch in training_batches(split, recipe, scale, data_generator(0, 1)):
        kept.append(batch.images)
        copies.append(batch.images.clone())
    assert len(kept) == 3 and all(torch.equal(a, b) for a, b in zip(kept, copies))
    assert torch.equal(split.images, before)


DRAWN = {
    "mixup and cutmix an image": {"augment": "crop,flip", "mix": "either", "mix_per_image": True, "mixup_alpha": 0.8},
    "cutmix a batch, erasing": {"augment": "flip,erase", "mix": "cutmix", "cutmix_alpha": 0.5, "erase_prob": 0.7},
    "some batches, both float steps": {"augment": "crop-paste,crop,erase", "mix": "either", "mix_prob": 0.5},
}
# Of the batches as they were when each was drawn in its turn (commit 2f42cab), all values in ten thousandths.
DIGESTS = {
    "mixup and cutmix an image": "8c44c617a17e0a6a",
    "cutmix a batch, erasing": "3c224358537cd756",
    "some batches, both float steps": "12a6a2cd49d67b02",
}


@pytest.mark.parametrize("name", DRAWN)
def test_batches_drawn_together_are_those_drawn_one_by_one(monkeypatch, name):
    monkeypatch.setattr("harness.data.pipeline.CHUNK_BYTES", 2 * 16 * 3 * 32 * 32)  # the last of three chunks is short
    found, digest = batches(labelled_data(), unit({"batch_size": 16, **DRAWN[name]})), hashlib.sha256()
    for batch in found:
        for part in (batch.images, batch.labels, *(batch.mix or ())):
            digest.update((part.double() * 10_000).round().long().numpy().tobytes())
    assert (len(found), digest.hexdigest()[:16]) == (5, DIGESTS[name])


def test_order_depends_on_seed_and_epoch():
    data = labelled_data()
    labels = {k: torch.cat([b.labels for b in batches(data, unit({}), *k)]) for k in [(0, 1), (0, 2), (1, 1)]}
    again = torch.cat([b.labels for b in batches(data, unit({}), 0, 1)])
    assert torch.equal(labels[0, 1], again)
    assert not torch.equal(labels[0, 1], labels[0, 2]) and not torch.equal(labels[0, 1], labels[1, 1])


def test_scaling_by_hand():
    data = labelled_data()
    pixels = torch.full((1, 3, 32, 32), 51, dtype=torch.uint8)  # .2
    wanted = {
        "dataset": [(0.2 - m) / s for m, s in zip(data.mean, data.std)], "half": [-0.6] * 3, "unit": [0.2] * 3,
    }  # fmt: skip
    for name, values in wanted.items():
        scaled = scaling(data, unit({"scaling": name}), torch.device("cpu"))(pixels)
        wanted_BCHW = torch.tensor(values).view(1, 3, 1, 1).expand(1, 3, 32, 32)
        torch.testing.assert_close(scaled, wanted_BCHW, rtol=1e-5, atol=1e-6)


def test_holdout_is_fixed_and_disjoint_and_leaves_something():
    train = canonical(random_split(100))
    kept, held = held_out(train, 0.1)
    assert (len(kept), len(held)) == (90, 10)
    assert not {i.tobytes() for i in kept.images} & {i.tobytes() for i in held.images}
    assert np.array_equal(held_out(train, 0.1)[1].images, held.images)
    for share in (0.0001, 0.9999):
        with pytest.raises(UsageError, match="holds out"):
            held_out(train, share)


def test_a_share_is_of_each_class_nested_and_as_long_as_all():
    train = random_split(1000)
    tenth, half = (shown_more_often(train, share) for share in (0.1, 0.5))
    assert len(tenth) == len(half) == 1000 and shown_more_often(train, 1.0) is train
    images = [{image.tobytes() for image in part.images} for part in (tenth, half, train)]
    assert images[0] < images[1] < images[2]
    for part, share in ((tenth, 0.1), (half, 0.5)):
        for label, count in zip(*np.unique(train.labels, return_counts=True)):
            kept = {image.tobytes() for image in part.images[part.labels == label]}
            assert len(kept) == max(1, round(share * count))
    assert len(np.unique(shown_more_often(train, 1e-9).labels)) == 10, "no class is lost"
