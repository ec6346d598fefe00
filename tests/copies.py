"""Made-up copies of data sets, in every form in which the suite reads them."""

import hashlib
import io
import pickle
import pickletools
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from harness.data.canonical import Split

CIFARS: dict[str, Any] = {"c10": CIFAR10, "c100": CIFAR100}


def random_split(count: int, size: int = 32, classes: int = 10, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Split(images, np.arange(count, dtype=np.int64) % classes)


def write_arrays(folder: Path, train: Split, test: Split) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in {"train": train, "test": test}.items():
        np.save(folder / f"{name}_images.npy", split.images)
        np.save(folder / f"{name}_labels.npy", split.labels.astype(np.uint8))


def image_folder(path: Path, size=12, test="test", classes=("ant", "bee", "cow"), nested: bool = False) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), (test, 2)):
        for name in classes:
            folder = path / split / name / ("images" if nested else "")
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{i}.png")


class _Python2(pickle._Pickler):
    """Writes text as Python 2 did: without saying in what encoding."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _text(self, value: str | bytes) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)  # type: ignore[attr-defined]
        self.memoize(value)  # type: ignore[attr-defined]

    dispatch[str] = dispatch[bytes] = _text


def python2_pickle(value: Any) -> bytes:
    stream = io.BytesIO()
    _Python2(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar_pickle(name: str, split: Split) -> bytes:
    """One file of CIFAR as its authors wrote it."""
    planes = np.ascontiguousarray(split.images.transpose(0, 3, 1, 2)).reshape(len(split), -1)
    entry = {"batch_label": "one of some", "data": planes, "filenames": [f"{i}.png" for i in range(len(split))]}
    labels = split.labels.tolist()
    entry |= {"labels": labels} if name == "c10" else {"fine_labels": labels, "coarse_labels": [0] * len(split)}
    return python2_pickle(entry)


def cifar_files(name: str, train: Split, test: Split) -> dict[str, bytes]:
    """By their names in the archive, `meta` among them."""
    source = CIFARS[name]
    count = len(source.train_list)
    files = {
        file: cifar_pickle(name, train.part(slice(i, None, count))) for i, (file, _) in enumerate(source.train_list)
    }
    classes = [f"class {i}" for i in range(10 if name == "c10" else 100)]
    return files | {
        source.test_list[0][0]: cifar_pickle(name, test),
        source.meta["filename"]: python2_pickle({source.meta["key"]: classes}),
    }


def packed(folder: str, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def publish_cifar(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> bytes:
    """The archive of these files, whose sums are from now on the published ones."""
    source = CIFARS[name]
    archive = packed(source.base_folder, files)
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(source, part, [[file, md5(files[file])] for file, _ in getattr(source, part)])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(files[source.meta["filename"]])})
    return archive


def svhn_file(split: Split) -> bytes:
    """32 x 32 x 3 x N, labels as a column in which 10 is the digit 0."""
    labels = np.where(split.labels == 0, 10, split.labels).astype(np.uint8)[:, None]
    stream = io.BytesIO()
    savemat(stream, {"X": split.images.transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
    return stream.getvalue()


def publish_svhn(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """By split; their sums are from now on the published ones."""
    published = {name: [*SVHN.split_list[name][:2], md5(content)] for name, content in files.items()}
    monkeypatch.setattr(SVHN, "split_list", published)


def globals_of(content: bytes) -> set[str]:
    """What a pickle asks for, without reading it as one."""
    return {str(argument) for code, argument, _ in pickletools.genops(content) if code.name == "GLOBAL"}
