"""Arrays of a data set damaged in every way: refused in a sentence, or the images and labels that the files then hold,
under another data digest than those of the whole files. A person's arrays have no seal: the digest is what tells.
"""

import io
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.data import canonical, sources
from harness.data.canonical import Split, digest
from harness.data.sources import read_arrays
from harness.datasets import Dataset
from tests.mutations import PLACES, Deed, Sort, bytes_sorts, cases, done
from variants.fields import UsageError

TINY = Dataset("tiny", "tiny", 4, 3, False, "cifar", 8, 8)
FILES = tuple(f"{split}_{part}.npy" for split in ("train", "test") for part in ("images", "labels"))

UNEXPECTED = "what numpy cannot load raises what it likes"
NO_IMAGES = "what images are is not looked at"
NO_LABELS = "labels are neither looked at nor in the digest"
NO_DIGEST = "the digest does not see the images and labels"
PICKLES = "pickles are unpickled"


def saved(array: np.ndarray, pickles: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=pickles)
    return out.getvalue()


def some_arrays(seed: int) -> dict[str, bytes]:
    draw = np.random.default_rng(seed)
    found = {}
    for name in FILES:
        images = draw.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
        found[name] = saved(images if "images" in name else np.arange(8, dtype=np.int64) % 3)
    return found


WHOLE, OTHER = some_arrays(0), some_arrays(1)
OTHER = {name: saved(np.load(io.BytesIO(content))[::-1]) for name, content in OTHER.items()}


# --- sorts of damage that are an array's own -------------------------------------------------------------------------


def on_array(
    change: Callable[[random.Random, np.ndarray], np.ndarray],
) -> Callable[[random.Random, bytes, bytes], bytes]:
    def changed(draw: random.Random, content: bytes, _: bytes) -> bytes:
        return saved(change(draw, np.load(io.BytesIO(content)).copy()), pickles=True)

    return changed


def recast(draw: random.Random, array: np.ndarray) -> np.ndarray:
    return array.astype(
        draw.choice([kind for kind in ("f4", "f8", "U3", "?", "i2", ">i4", "M8[s]") if kind != array.dtype])
    )


def not_finite(draw: random.Random, array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float32)
    array.reshape(-1)[draw.randrange(array.size)] = draw.choice([np.nan, np.inf, -np.inf])
    return array


def reshaped(draw: random.Random, array: np.ndarray) -> np.ndarray:
    return draw.choice([array[:-1], array[:0], array[None], array.reshape(-1), array.reshape(2, -1), np.array(1)])


def one_changed(draw: random.Random, array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    at = draw.randrange(array.size)
    flat[at] = (int(flat[at]) + 1) % 3
    return array


def out_of_range(draw: random.Random, array: np.ndarray) -> np.ndarray:
    array = array.astype(np.int64)
    array.reshape(-1)[draw.randrange(array.size)] = draw.choice([-1, 3, 256, 2**40, -(2**62)])
    return array


def header(draw: random.Random, content: bytes, _: bytes) -> bytes:
    """What the file says of itself, changed sign by sign where it stays text."""
    end = content.index(b"\n") + 1
    old, new = draw.choice(
        [
            *[(b"(8", b"(9"), (b"(8", b"(0"), (b"(8", b"(99999999999999999999"), (b"(8", b"(-8"), (b"(8", b"('a'")],
            *[(b"False", b"True"), (b"shape", b"shake"), (b"}", b"]"), (b"descr", b"decsr"), (b"'", b'"')],
            *[(b"|u1", b"|u0"), (b"<i8", b"|O "), (b"|u1", b"|V1"), (b"<i8", b"<i9"), (b"NUMPY", b"NUMPX")],
        ]
    )
    return content[:end].replace(old, new, 1) + content[end:]


def archived(draw: random.Random, content: bytes, _: bytes) -> bytes:
    out = io.BytesIO()
    np.savez(out, images=np.load(io.BytesIO(content)))
    return out.getvalue()


def sorts(name: str) -> dict[str, Sort]:
    look = NO_IMAGES if "images" in name else NO_LABELS
    bytes_ = bytes_sorts(UNEXPECTED, UNEXPECTED)
    return {
        **bytes_,
        **{sort: Sort(bytes_[sort].change, NO_DIGEST) for sort in ("another run's", "half of another run's")},
        "another kind of number": Sort(on_array(recast), look),
        "NaN or infinity": Sort(on_array(not_finite), look),
        "another shape": Sort(on_array(reshaped), look),
        "numbers out of range": Sort(on_array(out_of_range), look),
        "one number changed": Sort(on_array(one_changed), NO_DIGEST),
        "another header": Sort(header, UNEXPECTED),
        "an archive": Sort(archived, UNEXPECTED),
        "pickles": Sort(on_array(lambda draw, array: np.full(array.shape, Deed())), PICKLES),
    }


SORTS = {name: sorts(name) for name in FILES}


# --- what is wrong with how they were read ---------------------------------------------------------------------------


def laid_out(folder: Path, **changed: bytes) -> Path:
    for name, content in WHOLE.items():
        path = folder / name
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(changed.get(name.removesuffix(".npy"), content))
    return folder


def harm(folder: Path, whole: str) -> str | None:
    done()  # by what was read before
    try:
        train, test = read_arrays(folder, TINY)
    except UsageError as error:
        if deeds := done():
            return deeds[0]
        return None if str(folder) in str(error) and "\n" not in str(error) else f"a poor message: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if not all(map(holds, (train, test))):
        return "what was read is no data set"
    if (canonical.digest(train, test) == whole) != unchanged(train, test):
        return "other data have the digest of the whole"
    return None


def holds(split: Split) -> bool:
    images, labels = split.images, split.labels
    fits = images.dtype == np.uint8 and images.shape[1:] == (4, 4, 3) and len(images) == len(labels) > 0
    return fits and labels.dtype == np.int64 and labels.ndim == 1 and 0 <= labels.min() <= labels.max() < 3


def unchanged(train: Split, test: Split) -> bool:
    arrays = (train.images, train.labels, test.images, test.labels)
    return all(np.array_equal(array, np.load(io.BytesIO(WHOLE[name]))) for name, array in zip(FILES, arrays))


def plant(defect: str, patch: pytest.MonkeyPatch) -> None:
    if defect == UNEXPECTED:
        patch.setattr(sources, "_load_array", lambda path: np.load(path, allow_pickle=False))
        patch.setattr(sources, "check_links", lambda _: None)
    if defect == NO_IMAGES:
        patch.setattr(sources, "check_images", lambda *_: None)
    if defect == NO_LABELS:
        patch.setattr(sources, "check_labels", lambda *_: None)
    if defect == PICKLES:
        patch.setattr(sources, "_load_array", lambda path: np.load(path, allow_pickle=True))
    if defect in (NO_DIGEST, NO_LABELS):
        patch.setattr(canonical, "digest", lambda train, test: digest(*whole_splits()))


def whole_splits() -> tuple[Split, Split]:
    arrays = [np.load(io.BytesIO(content)) for content in WHOLE.values()]
    return Split(*arrays[:2]), Split(*arrays[2:])


def damaged(folder: Path, name: str, chosen: dict[str, Sort], count: int) -> Iterator[tuple[str, str | None]]:
    whole = digest(*whole_splits())
    for sort, changed in cases(chosen, count, WHOLE[name], OTHER[name], seed=name):
        yield sort, harm(laid_out(folder, **{name.removesuffix(".npy"): changed}), whole)


# --- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("rounds", [8, pytest.param(30, marks=pytest.mark.long)])
def test_damaged_arrays_are_refused_or_told_apart(tmp_path, name, rounds, tried):
    wrong, kinds = [], Counter[str]()
    for sort, found in damaged(tmp_path, name, SORTS[name], rounds * len(SORTS[name])):
        kinds[sort] += 1
        wrong += [f"{sort}: {found}"] if found else []
    assert wrong == []
    tried("damaged arrays of a data set", kinds)


@pytest.mark.parametrize("name", FILES)
def test_each_sort_of_damage_bites_where_a_defect_lets_it(tmp_path, name, tried, monkeypatch):
    harmless, defects = [], Counter[str]()
    for sort, how in SORTS[name].items():
        with monkeypatch.context() as patch:
            plant(how.defect, patch)
            found = next((found for _, found in damaged(tmp_path, name, {sort: how}, 80) if found), None)
        defects[how.defect] += 1
        if not found:
            harmless.append(f"{sort} does no harm although {how.defect}")
    assert harmless == []
    tried("damaged arrays of a data set", {}, defects)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_no_array(tmp_path, name, place, tried, monkeypatch):
    whole = digest(*whole_splits())
    PLACES[place](laid_out(tmp_path) / name)
    assert harm(tmp_path, whole) is None
    plant(UNEXPECTED, monkeypatch)
    assert harm(tmp_path, whole)
    tried("damaged arrays of a data set", {place: 1}, {UNEXPECTED: 1})
