"""Image folders whose images stay in their files: the run of a folder in memory to the last bit, and what is said of
files that are broken, changed or gone."""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as F

from harness import bench, run
from harness.commands import run_command
from harness.config import RunConfig, resolve
from harness.data import folder, index, pipeline, resident
from harness.data.augment.steps import draw_resized_crops
from harness.data.load import ImageData, channel_statistics, dataset_facts, load
from harness.data.pipeline import Share, scaling, to_device, training_batches
from harness.data.resident import HostImages, residency
from harness.experiment import Options, run_cell
from harness.recipes import Recipe
from harness.records.benchmarks import Comparison
from harness.records.read import Run
from harness.timing import streaming
from harness.training.setup import Stepping, data_generator
from harness.training.signals import StoppedError
from tests.copies import image_folder, random_split
from tests.test_resume import CPU, TIMES, assert_same, stopping_after
from tests.test_together import STEADY
from tests.test_world import only_run, started
from variants.fields import UsageError

COUNTS = {"train": 30, "val": 9}
SIDE = 16
CHUNK, AHEAD = pipeline.CHUNK_BYTES, resident.AHEAD_BYTES
WAYS = ("device", "host", "stream")


def photograph(draw: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Smooth, as what a JPEG holds well."""
    return Image.fromarray(draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def jpegs(path: Path, counts: dict[str, int], least: int = 20, most: int = 90) -> str:
    """Of many sizes, some grey; the name of the data set."""
    draw = np.random.default_rng(0)
    for split, count in counts.items():
        for i in range(count):
            image = photograph(draw, tuple(draw.integers(least, most, 2).tolist()))
            place = path / split / "abc"[i % 3] / f"{i}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            image.convert("L" if i % 7 == 0 else "RGB").save(place, quality=int(draw.integers(60, 96)))
    return f"folder:{path}"


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    load.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """A batch each, of which a few are read ahead, block by block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "CHUNK_BYTES", 1)
        patch.setattr(resident, "AHEAD_BYTES", 4 * SIDE**2 * 3)
        patch.setattr(resident, "BLOCK", 3)
        yield


@pytest.fixture(scope="module")
def name(tmp_path_factory) -> str:
    return f"{jpegs(tmp_path_factory.mktemp('images'), COUNTS)}@{SIDE}"


# --- the same run ----------------------------------------------------------------------------------------------------

ALL = ["recipe.augment=crop,flip,randaugment,erase", "recipe.mix=either", "recipe.ema=0.9", "recipe.dropout=0.1"]
ALL += ["variant.depth=1", "recipe.train_share=0.5"]


def config(name: str, **rest: Any) -> RunConfig:
    return resolve("compact", dataset_facts(name), "quick", epochs=2, batch_size=8, settings=ALL, **rest)


def cell(config: RunConfig, out: Path, way: str, **rest: Any) -> Run:
    options = Options(stepping=Stepping(resident=way), **rest)
    return run_cell(config, out.parent, out, CPU, quiet=True, options=options)


@pytest.fixture(scope="module")
def on_device(name, tmp_path_factory) -> dict[float, Run]:
    return {
        holdout: cell(config(name, holdout=holdout), tmp_path_factory.mktemp("device"), "device")
        for holdout in (0.0, 0.3)
    }


@pytest.mark.parametrize("holdout", [0.0, 0.3])
@pytest.mark.parametrize("way", ["host", "stream"])
def test_a_run_is_the_same_wherever_its_images_are(name, on_device, tmp_path, way, holdout):
    found = cell(config(name, holdout=holdout), tmp_path / "runs", way)
    assert_same(found, on_device[holdout])
    assert found.env["data_digest"] == on_device[holdout].env["data_digest"]
    ways = [run.result["sessions"][0].get("resident") for run in (found, on_device[holdout])]
    assert ways == [way, None]


@pytest.mark.parametrize("steps", [1, 3, 6])  # 4 an epoch
def test_it_goes_on_inside_of_an_epoch_in_any_way(name, on_device, tmp_path, monkeypatch, steps):
    out = tmp_path / "runs"
    for way in ("device", "stream"):
        with monkeypatch.context() as patch:
            stopping_after(patch, steps if way == "device" else 1)
            with pytest.raises(StoppedError):
                cell(config(name), out, way)
    assert_same(cell(config(name), out, "stream"), on_device[0.0])


def test_processes_decode_their_own_rows(name, tmp_path):
    """Each its part of a batch, and the image with which its first is mixed."""
    data = load(name, tmp_path)
    recipe = config(name).recipe
    for share in (Share(0, 2), Share(1, 2)):
        batches = []
        for way in WAYS:
            split = to_device(data.train, CPU, way)
            scale = scaling(data, recipe, CPU)
            batches.append(list(training_batches(split, recipe, scale, data_generator(0, 1), share=share)))
        for of_ways in zip(*batches, strict=True):
            assert len({(len(batch), len(batch.images)) for batch in of_ways}) == 1
            assert all(torch.equal(batch.images, of_ways[0].images) for batch in of_ways)


def test_two_processes_have_the_losses_of_one(name, tmp_path, monkeypatch):
    settings = [*ALL[:2], *STEADY, "variant.depth=1"]
    words = ["--variant", "compact", "--dataset", name, "--recipe", "quick", "--epochs", "1", "--device", "cpu"]
    words += ["--batch-size", "8", "--data-dir", str(tmp_path), "--set", *settings]
    both = started(tmp_path, 2, *words, "--resident", "stream", "--out", str(tmp_path / "two"))
    assert [one.ended() for one in both] == [0, 0], both[0].read("err")
    assert len(list((tmp_path / index.PLACE).glob("*.npz"))) == 1
    monkeypatch.setattr(pipeline, "CHUNK_BYTES", CHUNK)  # which shapes the draws, in other processes too
    assert run.main([*words, "--out", str(tmp_path / "one"), "--quiet"]) == 0
    for mine, theirs in zip(only_run(tmp_path / "two").epochs(), only_run(tmp_path / "one").epochs(), strict=True):
        names = mine.keys() - set(TIMES)
        assert {name: mine[name] for name in names} == pytest.approx({name: theirs[name] for name in names}, rel=1e-4)


def test_resized_crops_of_streamed_images_are_torchvision_s(tmp_path):
    """At 224 pixels, on the windows that were drawn."""
    data = load(f"{jpegs(tmp_path, {'train': 12, 'val': 3}, 230, 500)}@224", tmp_path)
    recipe, draw, at = Recipe(augment=("resized-crop",), batch_size=5), np.random.default_rng(3), 0
    scale, images = scaling(data, recipe, CPU), torch.from_numpy(np.asarray(data.train.images)).permute(0, 3, 1, 2)
    order = draw.permutation(12)
    for batch in training_batches(to_device(data.train, CPU, "stream"), recipe, scale, np.random.default_rng(3)):
        windows = draw_resized_crops(len(batch), 224, 224, recipe, draw)
        for ours, window in zip(batch.images, windows.tolist(), strict=True):
            theirs = F.resized_crop(images[order[at]], *window, size=[224, 224], antialias=True)
            assert torch.equal(ours, theirs), window
            at += 1
    assert at == 12


@pytest.mark.parametrize("batches", [1, 2])
def test_what_is_done_is_not_decoded_again(name, tmp_path, monkeypatch, decodings, batches):
    """But drawn: what is left is as it was."""
    data, recipe = load(name, tmp_path), config(name).recipe
    monkeypatch.setattr(pipeline, "CHUNK_BYTES", batches * 8 * SIDE**2 * 3)
    split, scale = to_device(data.train, CPU, "stream"), scaling(data, recipe, CPU)
    whole = list(training_batches(split, recipe, scale, data_generator(0, 1)))
    for done in range(5):
        decodings.clear()
        rest = list(training_batches(split, recipe, scale, data_generator(0, 1), done=done))
        assert len(decodings) == max(0, 30 - done // batches * batches * 8)
        for mine, theirs in zip(rest, whole[done:], strict=True):
            assert torch.equal(mine.images, theirs.images) and torch.equal(mine.labels, theirs.labels)
            assert mine.mix and theirs.mix and all(map(torch.equal, mine.mix, theirs.mix))


# --- order, digest and scaling from the index -------------------------------------------------------------------------


def by_hand(data: ImageData) -> str:
    total = hashlib.sha256()
    for split in (data.train, data.test):
        images = np.asarray(split.images)
        total.update(str(images.shape).encode())
        total.update(b"".join(hashlib.sha256(image.tobytes()).digest() for image in images))
        total.update(split.labels.astype("<i8").tobytes())
    return total.hexdigest()


def test_the_index_says_what_the_pixels_say(name, tmp_path):
    data = load(name, tmp_path)
    images = np.asarray(data.train.images)
    assert images.shape == (30, SIDE, SIDE, 3) and data.digest == by_hand(data)
    assert (data.mean, data.std) == channel_statistics(images)
    keys = [(hashlib.sha256(image.tobytes()).hexdigest(), label) for image, label in zip(images, data.train.labels)]
    assert keys == sorted(keys)


def test_order_and_digest_do_not_depend_on_names(name, tmp_path):
    """Nor on where a copy lies."""
    path, _ = folder.parse(name)
    shutil.copytree(path, tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("*.jpg"):
        file.rename(file.with_name(f"{hashlib.md5(file.read_bytes()).hexdigest()}.jpeg"))
    copy, data = load(f"folder:{tmp_path / 'copy'}@{SIDE}", tmp_path), load(name, tmp_path)
    assert copy.digest == data.digest and np.array_equal(np.asarray(copy.train.images), np.asarray(data.train.images))
    assert np.array_equal(copy.train.labels, data.train.labels)


@pytest.fixture
def decodings(monkeypatch) -> list[Path]:
    """The files that were decoded."""
    seen, real = [], index.decoded
    monkeypatch.setattr(index, "decoded", lambda path, *rest: (seen.append(path), real(path, *rest))[1])
    return seen


def again(name: str, data_dir: Path, **rest: Any) -> ImageData:
    load.cache_clear()
    return load(name, data_dir, **rest)


def test_a_folder_is_indexed_once(name, tmp_path, decodings, capsys):
    data = load(name, tmp_path)
    assert len(decodings) == 39
    assert again(name, tmp_path).digest == data.digest and len(decodings) == 39
    assert again(name.replace("@16", "@8"), tmp_path).digest != data.digest and len(decodings) == 78
    assert capsys.readouterr().err == ""


def test_a_change_is_noticed_and_the_folder_indexed_again(tmp_path, capsys):
    name = f"{jpegs(tmp_path / 'set', COUNTS)}@{SIDE}"
    digest, file = load(name, tmp_path).digest, tmp_path / "set" / "train" / "a" / "0.jpg"
    os.utime(file, (1, 1))
    assert again(name, tmp_path).digest == digest and "has changed: it is indexed again" in capsys.readouterr().err
    file.unlink()
    data = again(name, tmp_path)
    assert data.digest != digest and len(data.train) == data.dataset.train_count == 29
    assert "has changed" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut off", "a bit", "of others", "no index"])
def test_a_damaged_index_is_made_again(name, tmp_path, damage, capsys):
    digest = load(name, tmp_path).digest
    (file,) = (tmp_path / index.PLACE).glob("*.npz")
    content = file.read_bytes()
    middle = content.index(b"hashes.npy") + 300
    with np.load(file) as held:
        parts = dict(held)
    if damage == "of others":
        np.savez(file, **(parts | {"hashes": parts["hashes"][:5]}))
    elif damage == "no index":
        np.savez(file, key=parts["key"])
    else:
        garbled = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes(content[:middle] if damage == "cut off" else garbled)
    assert again(name, tmp_path).digest == digest and "indexed again" in capsys.readouterr().err
    assert file.read_bytes() == content


def test_an_index_that_may_not_be_written_is_read(name, tmp_path, decodings, capsys, monkeypatch):
    """DATA_DIR may belong to somebody else."""

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    digest = load(name, tmp_path).digest
    decodings.clear()
    monkeypatch.setattr(index, "FileLock", refuse)
    assert again(name, tmp_path).digest == digest and not decodings and capsys.readouterr().err == ""


def test_an_index_is_of_a_decoder_and_a_version_of_this_code(name, tmp_path, decodings, monkeypatch):
    load(name, tmp_path)
    monkeypatch.setattr(index, "SEMANTICS", -1)
    again(name, tmp_path)
    monkeypatch.setattr(index.features, "version", lambda library: "another")
    again(name, tmp_path)
    assert len(decodings) == 3 * 39


def test_half_an_index_is_not_left_on_a_full_disk(name, tmp_path, capsys, monkeypatch):
    def full(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    load(name, tmp_path)
    assert "could not be written: No space left" in capsys.readouterr().err
    assert not list((tmp_path / index.PLACE).glob("*.npz")) + list((tmp_path / index.PLACE).glob(".*.npz"))


def test_a_folder_with_a_long_name_has_an_index(tmp_path, capsys):
    load(f"{jpegs(tmp_path / ('ü' * 120), {'train': 3, 'val': 3})}@{SIDE}", tmp_path)
    assert len(list((tmp_path / index.PLACE).glob("*.npz"))) == 1 and capsys.readouterr().err == ""


def test_hidden_files_are_no_images(name, tmp_path):
    path, _ = folder.parse(name)
    shutil.copytree(path, tmp_path / "set")
    (tmp_path / "set/train/a/.ipynb_checkpoints").mkdir()
    for file in ("._0.jpg", ".ipynb_checkpoints/0-checkpoint.jpg"):
        (tmp_path / "set/train/a" / file).write_bytes(b"no image")
    assert load(f"folder:{tmp_path / 'set'}@{SIDE}", tmp_path).digest == load(name, tmp_path).digest


@pytest.mark.parametrize("way", ["stream", "device"])
def test_a_signal_ends_indexing_and_decoding_at_once(name, tmp_path, monkeypatch, way):
    """There is nothing to save."""
    if way == "device":
        load(name, tmp_path)
    seen, real = [], index.decoded

    def interrupted(*args: Any) -> Any:
        if not seen:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        return (seen.append(args), real(*args))[1]

    monkeypatch.setattr(index, "decoded", interrupted)
    monkeypatch.setattr(index, "BLOCK", 1)
    one = ThreadPoolExecutor(1)
    monkeypatch.setattr(index, "readers", lambda: one)
    load.cache_clear()
    with pytest.raises(StoppedError, match="SIGTERM; nothing is lost"):
        cell(config(name), tmp_path / "runs", way)
    assert len(seen) < 6


def test_without_a_place_to_keep_it_goes_on(name, tmp_path, capsys):
    digest = load(name, tmp_path).digest
    (tmp_path / "file").write_text("")
    assert again(name, tmp_path / "file").digest == digest
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the index of ") and line.endswith("Not a directory")


# --- broken ----------------------------------------------------------------------------------------------------------


def spoilt(path: Path, *places: str) -> str:
    """JPEGs of which these are cut off."""
    name = f"{jpegs(path, COUNTS)}@{SIDE}"
    for place in places:
        (path / place).write_bytes((path / place).read_bytes()[:-200])
    return name


def test_broken_images_are_refused_by_name(tmp_path):
    name = spoilt(tmp_path, "train/b/1.jpg", "val/a/0.jpg")
    with pytest.raises(UsageError, match=r"2 broken images of 39:\n.*b/1\.jpg cannot be .*\n.*a/0\.jpg(.|\n)*--broken"):
        load(name, tmp_path)


def test_a_file_that_is_no_image_is_told_in_words(tmp_path):
    (tmp_path / "train/b").mkdir(parents=True)
    (tmp_path / "train/b/1.jpg").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"1\.jpg cannot be decoded as an image: no format that is known$"):
        folder.decoded(tmp_path / "train/b/1.jpg", SIDE, True)


def test_or_left_out_and_then_no_part_of_the_data(tmp_path, capsys):
    whole = spoilt(tmp_path / "whole")
    name = spoilt(tmp_path / "set", "train/b/1.jpg", "val/a/0.jpg")
    for file in ("train/b/1.jpg", "val/a/0.jpg"):
        (tmp_path / "whole" / file).unlink()
    data = load(name, tmp_path, skip_broken=True)
    assert (data.dataset.train_count, data.dataset.test_count, len(data.train), len(data.test)) == (29, 8, 29, 8)
    assert data.digest == load(whole, tmp_path).digest == by_hand(data)
    told = capsys.readouterr().err
    assert "2 broken images of 39, left out:" in told and "b/1.jpg" in told and "a/0.jpg" in told


def test_of_many_the_first_few(tmp_path):
    name = spoilt(tmp_path, *(f"train/a/{i}.jpg" for i in range(0, 24, 3)))
    with pytest.raises(UsageError, match=r"8 broken images of 39(.|\n)*and 3 more\nmend"):
        load(name, tmp_path)


def test_a_class_of_broken_images(tmp_path):
    name = spoilt(tmp_path, *(f"val/b/{i}.jpg" for i in (1, 4, 7)))
    with pytest.raises(UsageError, match="no image left of class b"):
        load(name, tmp_path, skip_broken=True)


def test_the_command_refuses_and_skips(tmp_path, capsys):
    name = spoilt(tmp_path / "set", "train/b/1.jpg")
    words = ["--variant", "compact", "--dataset", name, "--recipe", "quick", "--epochs", "1", "--device", "cpu"]
    words += ["--set", "variant.depth=1", "--out", str(tmp_path / "runs"), "--data-dir", str(tmp_path), "--quiet"]
    with pytest.raises(SystemExit) as ended:
        run_command(run.main, words)
    assert ended.value.code == 2 and "b/1.jpg cannot be decoded" in capsys.readouterr().err
    assert run.main([*words, "--broken", "skip"]) == 0
    assert only_run(tmp_path / "runs").env["data_digest"] == load(name, tmp_path, True).digest
    assert run.main([*words, "--broken", "skip"]) == 0 and "done already" in capsys.readouterr().out


SPOIL = {
    "cut off": (
        lambda file: file.write_bytes(file.read_bytes()[:-200]),
        r"can(no|')t be decoded.*; once that is mended",
    ),
    "another": (
        lambda file: photograph(np.random.default_rng(9), (40, 40)).save(file),
        "is another image than.*; once",
    ),
    "gone": (lambda file: file.unlink(), "No such file or directory; once that is mended, the same command goes on"),
}


@pytest.mark.parametrize("kind", SPOIL)
def test_a_file_that_breaks_within_an_epoch(name, on_device, tmp_path, monkeypatch, kind):
    """It is named, and the run goes on when it is back as it was."""
    path, _ = folder.parse(name)
    shutil.copytree(path, tmp_path / path.name)  # with its times: no reason to index anew
    name, out = f"folder:{tmp_path / path.name}@{SIDE}", tmp_path / "runs"
    with monkeypatch.context() as patch:
        stopping_after(patch, 2)
        with pytest.raises(StoppedError):
            cell(config(name), out, "stream")
    data = load(name, tmp_path, False)
    file = Path(os.fsdecode(bytes(data.train.images.paths[0])))
    content, facts = file.read_bytes(), file.stat()
    spoil, words = SPOIL[kind]
    spoil(file)
    with pytest.raises(UsageError, match=words) as error:  # the data are loaded: it is met in the middle
        cell(config(name), out, "stream")
    assert str(file) in str(error.value)
    file.write_bytes(content)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    load.cache_clear()
    found = cell(config(name), out, "stream")
    assert len(found.result["sessions"]) > 1 and found.env["data_digest"] == on_device[0.0].env["data_digest"]
    assert [line["train_loss"] for line in found.epochs()] == [line["train_loss"] for line in on_device[0.0].epochs()]


def test_what_came_before_it_is_not_lost(tmp_path):
    """The run is saved where it ended, although no checkpoint was due."""
    name, out = f"{jpegs(tmp_path / 'set', COUNTS)}@{SIDE}", tmp_path / "runs"
    own = config(name)
    own = replace(own, recipe=replace(own.recipe, train_share=1.0))
    of_last_batch = data_generator(0, 1).permutation(30)[-2]
    Path(os.fsdecode(bytes(load(name, tmp_path, False).train.images.paths[of_last_batch]))).unlink()
    with pytest.raises(UsageError, match="No such file"):
        cell(own, out, "stream")
    (kept,) = out.glob("*/checkpoint-*")
    assert kept.name.startswith("checkpoint-000001-00000003-")


def test_nor_is_the_epoch_before_a_test_image_that_breaks(name, on_device, tmp_path):
    """The run is saved before it is judged, its last batch a short one."""
    path, _ = folder.parse(name)
    shutil.copytree(path, tmp_path / path.name)
    name, out = f"folder:{tmp_path / path.name}@{SIDE}", tmp_path / "runs"
    file = Path(os.fsdecode(bytes(load(name, tmp_path, False).test.images.paths[4])))
    file.rename(tmp_path / "away")
    with pytest.raises(UsageError, match="No such file"):
        cell(config(name), out, "stream")
    (kept,) = out.glob("*/checkpoint-*")
    assert kept.name.startswith("checkpoint-000001-00000004-")
    (tmp_path / "away").rename(file)
    found = cell(config(name), out, "stream")
    assert_same(found, on_device[0.0])
    assert found.epochs()[0]["seconds"] > 0


# --- where they are kept ---------------------------------------------------------------------------------------------


def test_auto_takes_half_of_the_memory_that_is_left(name, tmp_path, monkeypatch):
    data = load(name, tmp_path)
    splits, needed = (data.train, data.test), 39 * SIDE**2 * 3
    monkeypatch.setattr(resident, "available_bytes", lambda: 2 * needed)
    assert residency(splits, CPU) == "device"
    monkeypatch.setattr(resident, "available_bytes", lambda: 2 * needed - 2)
    assert residency(splits, CPU) == "stream" and residency(splits, CPU, "device") == "device"
    np.asarray(data.train.images)
    assert residency(splits, CPU) == "device", "what is in memory already asks for no more"
    monkeypatch.setattr(resident, "available_bytes", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * needed - 2, 0))
    assert residency(splits, torch.device("cuda")) == "host"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * needed, 0))
    assert residency(splits, torch.device("cuda")) == "device"


def test_a_run_says_that_it_streams_for_want_of_memory(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resident, "available_bytes", lambda: 0)
    found = cell(replace(config(name), recipe=replace(config(name).recipe, epochs=1)), tmp_path / "runs", "auto")
    assert found.result["sessions"][0]["resident"] == "stream"
    assert "--resident stream: half of the memory" in capsys.readouterr().out


def test_arrays_have_no_files_to_stream():
    splits = random_split(8), random_split(4)
    assert residency(splits, CPU) == "device" and residency(splits, CPU, "host") == "host"
    with pytest.raises(UsageError, match="--resident stream is for folders"):
        residency(splits, CPU, "stream")


@pytest.mark.parametrize(("bytes_ahead", "ahead"), [(1, 1), (10 * 32**2 * 3, 1), (10 * 32**2 * 3 + 1, 2)])
def test_little_is_read_ahead_and_nothing_after_the_end(monkeypatch, bytes_ahead, ahead):
    """While the first is computed with, the next is being read, however large it is."""
    split, asked = random_split(400), []
    images = HostImages(split.images, CPU, is_stream=False)
    monkeypatch.setattr(resident, "AHEAD_BYTES", bytes_ahead)

    def rows() -> Iterator[slice]:
        for start in range(0, 400, 10):
            asked.append(start)
            yield slice(start, start + 10)

    reading = images.in_turn(rows())
    for nth in range(5):
        found = next(reading)
        assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), split.images[10 * nth :][:10])
        assert len(asked) == nth + 1 + ahead
    reading.close()
    assert len(asked) == 5 + ahead
    whole = torch.cat(list(images.in_turn(rows())))
    assert torch.equal(whole, torch.from_numpy(split.images).permute(0, 3, 1, 2))


def test_of_an_epoch_one_chunk_is_read_ahead():
    """A chunk is CHUNK_BYTES or, where batches do not divide it, more than half of that."""
    assert AHEAD <= CHUNK / 2


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_cinic_10_as_it_is_distributed(tmp_path):
    """train, valid and test: the last is judged on."""
    image_folder(tmp_path, test="valid")
    shutil.copytree(tmp_path / "valid", tmp_path / "test")
    (tmp_path / "test" / "ant" / "1.png").unlink()
    assert len(load(f"folder:{tmp_path}", tmp_path).test) == 5


def test_large_jpegs_are_decoded_at_a_smaller_size_and_look_the_same(tmp_path):
    image = photograph(np.random.default_rng(0), (600, 500))
    image.save(tmp_path / "a.jpg", quality=95)
    found, real = [], Image.Image.convert

    def spy(self: Image.Image, *args: Any) -> Image.Image:
        found.append(self.size)
        return real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "convert", spy)
        small = folder.decoded(tmp_path / "a.jpg", 32, True)
        folder.decoded(tmp_path / "a.jpg", 200, True)
    assert found == [(150, 125), (600, 500)], "at least twice as large as what is wanted"
    expected = np.asarray(folder.square(image, 32)).astype(int)
    assert np.abs(small.astype(int) - expected).max() < 12


# --- rate and memory --------------------------------------------------------------------------------------------------


def streams(*words: str) -> Comparison:
    (one,) = streaming.compare_streams(bench.parser().parse_args(["stream", *words]))
    return one


def test_the_benchmark_takes_the_same_images(monkeypatch, capsys):
    """What it starts for the memory is done here."""

    drained, real = [], streaming.drain
    monkeypatch.setattr(streaming, "drain", lambda *args: (drained.append(len(args[0])), real(*args)))
    monkeypatch.setattr(streaming, "forget_peak_memory", lambda _: drained.append("measured from here"))
    monkeypatch.setattr(streaming, "FEW", 5)

    def run_here(command: list[str], **_: Any) -> Any:
        streaming.epoch(*json.loads(command[-1]))
        return SimpleNamespace(stdout=capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(streaming.subprocess, "run", run_here)
    one = streams("--images", "24", "--size", "16", "--workers", "1", "--batch-size", "8", "--rounds", "1")
    assert one.name == "stream s1 at 16, batch 8" and min(one.ours, one.baseline) > 0 and one.facts["images"] == 24
    assert {"epoch_memory_bytes stream", "epoch_memory_bytes host"} < one.facts.keys()
    assert drained[-6:] == 2 * [5, "measured from here", 24], "what is imported on the way is no memory of an epoch"


@pytest.mark.long
def test_twenty_thousand_jpegs(monkeypatch):
    """Four times the images take hardly more memory, where in memory they take four times as much; and an epoch is
    faster than the usual loop."""
    for place, what, value in (
        (pipeline, "CHUNK_BYTES", CHUNK),
        (resident, "AHEAD_BYTES", AHEAD),
        (resident, "BLOCK", 16),
    ):
        monkeypatch.setattr(place, what, value)
    few, one = (streams("--images", images, "--workers", "2", "--rounds", "2") for images in ("5000", "20000"))
    more = {way: one.facts[f"epoch_memory_bytes {way}"] - few.facts[f"epoch_memory_bytes {way}"] for way in WAYS[1:]}
    assert more["host"] > 0.8 * 15_000 * 64**2 * 3 and more["stream"] < more["host"] / 4
    assert one.ratio >= 1.5
