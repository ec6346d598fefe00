"""What the images of a folder are, found out once and kept in DATA_DIR/.index: a hash of each one's pixels, how often
each value occurs, and which are broken. So a folder has its canonical order, digest and scaling before an image is in
memory, and trains the same whether its images are kept there or decoded as they are needed."""

import contextlib
import functools
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from filelock import FileLock
from PIL import Image, features
from tqdm import tqdm

from harness.config import SEMANTICS
from harness.data.folder import BrokenImageError, decoded, listed, parse
from harness.datasets import Dataset
from variants.fields import UsageError, first_line

PLACE = ".index"
BLOCK = 16  # images that a thread decodes in a row
NAMED = 5  # broken images
NAME_LENGTH = 50  # of a folder's: a file's has at most 255 bytes


def processes() -> int:
    """Those of this run on this machine, as torchrun tells."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@functools.cache
def readers() -> ThreadPoolExecutor:
    """One on each core that is this process's; Pillow decodes without Python's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(max(1, cores // processes()), "reader")


def in_blocks(work: Callable[[range], Any], count: int, doing: str) -> Iterable[Any]:
    """The results in order, with a bar on a terminal."""
    blocks = [range(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    with tqdm(total=count, desc=doing, unit="image", leave=False, disable=None) as bar:
        for block, result in zip(blocks, readers().map(work, blocks)):
            bar.update(len(block))
            yield result


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images as an array N x side x side x 3 would have them, decoded when they are asked for: an index or slice gives
    fewer of them, a number one, np.asarray all, which are then kept."""

    paths: np.ndarray  # N names of files, as bytes
    hashes: np.ndarray  # N x 32 (uint8), of their pixels
    side: int
    resize: bool

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.side, self.side, 3

    @property
    def nbytes(self) -> int:
        return len(self) * self.side**2 * 3

    @property
    def is_kept(self) -> bool:
        return "pixels" in self.__dict__

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """N x 3 x side x side."""
        pixels = np.empty((len(self), 3, self.side, self.side), np.uint8)
        for _ in in_blocks(lambda rows: self.read(rows, pixels[rows.start : rows.stop]), len(self), "decoding"):
            pass
        return pixels

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.pixels.transpose(0, 2, 3, 1).astype(dtype or np.uint8, copy=bool(copy))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            return self._decoded(index)
        return replace(self, paths=self.paths[index], hashes=self.hashes[index])

    def read(self, rows: Iterable[int], into: np.ndarray) -> None:
        """into: n x 3 x side x side."""
        for one, row in zip(into, rows):
            one[:] = self._decoded(row).transpose(2, 0, 1)

    def _decoded(self, row: Any) -> np.ndarray:
        path, later = Path(os.fsdecode(bytes(self.paths[row]))), "once that is mended, the same command goes on"
        try:
            image = decoded(path, self.side, self.resize)
        except BrokenImageError as error:
            raise UsageError(f"{error}; {later}") from None
        if hash_of(image) != self.hashes[row].tobytes():
            raise UsageError(
                f"{path} is another image than when its folder was indexed; {later}, or, after `touch`, begins anew"
            )
        return image


def hash_of(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


@dataclass(frozen=True)
class Index:
    """Of the files of train and test in the order in which they are listed."""

    hashes: np.ndarray  # N x 32 (uint8)
    counts: np.ndarray  # 3 x 256: how often each value occurs in each channel of the training images
    broken: np.ndarray  # which of the files cannot be decoded
    reasons: np.ndarray  # why not, as text


Splits = list[tuple[ImageFiles, np.ndarray]]  # of train and test, the images and their labels (int64)


def indexed(dataset: Dataset, data_dir: Path, skip_broken: bool) -> tuple[Splits, np.ndarray]:
    """The splits of a folder as they are listed, and how often each value occurs in training images."""
    path, size = parse(dataset.name)
    splits = listed(path)
    wanted = Wanted([file for files in splits for file, _ in files], len(splits[0]), dataset.image_size, bool(size))
    index = _kept(wanted, path, data_dir)
    if len(index.broken):
        _tell_broken(path, index, skip_broken)
    sound, found, first = np.ones(len(wanted.files), bool), [], 0
    sound[index.broken] = False
    for files in splits:
        own = np.flatnonzero(sound[first : first + len(files)])
        labels = np.array([label for _, label in files], np.int64)[own]
        if empty := set(range(dataset.num_classes)) - set(labels.tolist()):
            raise UsageError(f"{path} has no image left of class {dataset.class_names[min(empty)]} in a split")
        paths = np.array([os.fsencode(file) for file, _ in files])[own]
        found.append((ImageFiles(paths, index.hashes[first + own], dataset.image_size, bool(size)), labels))
        first += len(files)
    return found, index.counts


def _tell_broken(path: Path, index: Index, skip: bool) -> None:
    count, named = len(index.broken), "".join(f"\n  {reason}" for reason in index.reasons[:NAMED])
    more = f"\n  and {count - NAMED:,} more" if count > NAMED else ""
    told = f"{path} has {count:,} broken image{'s' * (count > 1)} of {len(index.hashes):,}"
    if not skip:
        raise UsageError(f"{told}:{named}{more}\nmend or remove them, or --broken skip trains without")
    print(f"{told}, left out:{named}{more}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Wanted:
    """What an index is of."""

    files: Sequence[Path]
    trained: int  # so many of them, the first, are training images
    side: int
    resize: bool

    def key(self, path: Path) -> str:
        """Another one where a file was added, removed or written again, or the decoder is another."""
        decoders = [SEMANTICS, PIL.__version__, *map(features.version, ("jpg", "libjpeg_turbo", "webp"))]
        total = hashlib.sha256(f"{decoders} {self.side} {self.resize} {self.trained}".encode())
        for file in self.files:
            facts, name = file.stat(), os.fsencode(file).removeprefix(os.fsencode(path))
            total.update(b"%s %d %d\n" % (name, facts.st_size, facts.st_mtime_ns))
        return total.hexdigest()

    def look(self, doing: str) -> Index:
        """At every image."""
        hashes, counts = np.zeros((len(self.files), 32), np.uint8), np.zeros((3, 256), np.int64)

        def of_block(rows: range) -> tuple[np.ndarray, dict[int, str]]:
            counts, broken = np.zeros((3, 256), np.int64), dict[int, str]()
            for row in rows:
                try:
                    image = decoded(self.files[row], self.side, self.resize)
                except BrokenImageError as error:
                    broken[row] = str(error)
                    continue
                hashes[row] = np.frombuffer(hash_of(image), np.uint8)
                if row < self.trained:
                    counts += np.reshape(Image.fromarray(image).histogram(), (3, 256))
            return counts, broken

        broken: dict[int, str] = {}
        for own_counts, own_broken in in_blocks(of_block, len(self.files), doing):
            counts += own_counts
            broken |= own_broken
        return Index(hashes, counts, np.array([*broken], np.int64), np.array([*broken.values()], np.str_))


def _kept(wanted: Wanted, path: Path, data_dir: Path) -> Index:
    """From an earlier run, or made and kept for the next. Of several processes at once one makes it."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
    place, key = data_dir / PLACE / f"{path.name[:NAME_LENGTH]}-{wanted.side}-{name}.npz", wanted.key(path)
    with contextlib.ExitStack() as held:
        refused = None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(f"{place}.lock"))
        except OSError as error:  # it may be read all the same, as one of somebody else
            refused = error.strerror
        if (index := _read(place, key, len(wanted.files), path)) is not None:
            return index
        if refused:
            print(f"the index of {path} cannot be kept: {place}: {refused}", file=sys.stderr, flush=True)
        index = wanted.look(f"indexing {path}")
        if not refused:
            _write(place, key, index)
        return index


def _read(place: Path, key: str, count: int, path: Path) -> Index | None:
    try:
        with np.load(place, allow_pickle=False) as held:
            was, index = str(held["key"]), Index(*(held[name] for name in Index.__annotations__))
        if was == key and index.hashes.shape == (count, 32):
            return index
        print(f"{path} has changed: it is indexed again", file=sys.stderr, flush=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged file fails in many ways
        print(f"{place} cannot be read ({first_line(error)}): {path} is indexed again", file=sys.stderr, flush=True)
    return None


def _write(place: Path, key: str, index: Index) -> None:
    file = io.BytesIO()
    np.savez(file, key=np.array(key), **vars(index))
    half = place.with_name(f".{place.name}")  # whoever writes it holds the lock
    try:
        half.write_bytes(file.getbuffer())
        half.replace(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink()
        print(f"{place} could not be written: {error.strerror}", file=sys.stderr, flush=True)
