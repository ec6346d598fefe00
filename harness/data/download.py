"""Owns getting one published file whole: gone on with after an interruption, tried again, compared with its MD5.
Refuses to give a file its name before its checksum matched: until then it is `NAME.part`.
"""

import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two processes may fetch the same file at once, and the checksum tells
    fcntl = None

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # between tries that bring nothing; after one that does, from the start again
SILENCE_S = 30.0  # whoever says nothing for so long has gone
BLOCK_BYTES = 2**20
PERHAPS_LATER = {408, 429, 500, 502, 503, 504}
NOTHING_LEFT = 416
SHOWN_EVERY_S = 0.2


class DownloadError(Exception):
    """The file could not be had; what has arrived is kept for the next time."""


class _CutOffError(Exception):
    """This try is over; another one may bring the rest."""


class _NoNetworkError(_CutOffError):
    """Not even the server's name is known."""


def fetch(url: str, path: Path, md5: str) -> None:
    """Ends with the whole file at `path`, whichever process brought it there."""
    found = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(path) as part:
            if part is None:
                return
            # The second time from nothing: the server's file may have changed since its first half came.
            for _ in range(2):
                _complete(url, part, path.name)
                found = _md5(part)
                if found == md5:
                    os.fsync(part.fileno())
                    os.replace(part.name, path)
                    return
                part.truncate(0)
    except OSError as error:
        raise DownloadError(f"{path} cannot be written: {error.strerror or error}") from None
    raise DownloadError(f"{url} gives a file whose MD5 is {found}; {md5} was published")


@contextlib.contextmanager
def _unfinished(path: Path) -> Iterator[FileIO | None]:
    """What there is of the file, for this process alone; None where another process has finished it meanwhile."""
    while True:
        with open(path.with_name(f"{path.name}.part"), "r+b", buffering=0, opener=_create) as part:
            _wait_for(part, path.name)
            if not _is_still_there(part) and not path.is_file():
                continue
            try:
                yield None if path.is_file() else part
            finally:
                if _is_still_there(part) and (path.is_file() or not _size(part)):
                    os.unlink(part.name)
            return


def _create(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CREAT, 0o644)


def _wait_for(part: FileIO, name: str) -> None:
    """The lock is on the unfinished file itself: whoever dies gives it back, and nothing is left lying about."""
    if fcntl is None:
        return
    try:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: another process is fetching it; waiting", file=sys.stderr, flush=True)
            fcntl.flock(part, fcntl.LOCK_EX)
    except OSError as error:
        print(f"{name}: no locks here ({error.strerror}); the checksum has to do", file=sys.stderr, flush=True)


def _is_still_there(part: FileIO) -> bool:
    """Whoever had it before may have finished it, and somebody else taken the result away, while this one waited."""
    try:
        return os.path.samestat(os.fstat(part.fileno()), os.stat(part.name))
    except FileNotFoundError:
        return False


def _size(part: FileIO) -> int:
    return part.seek(0, os.SEEK_END)


def _md5(part: FileIO) -> str:
    total = hashlib.md5(usedforsecurity=False)
    part.seek(0)
    while block := part.read(BLOCK_BYTES):
        total.update(block)
    return total.hexdigest()


def _complete(url: str, part: FileIO, name: str) -> None:
    """Tries until the server has sent all it has."""
    tries, first = 0, _size(part)
    most = first
    while True:
        try:
            return _receive(url, part, name)
        except _CutOffError as cut:
            size = _size(part)
            tries, most = 0 if size > most else tries + 1, max(size, most)
            if tries > len(PAUSES_S) or (most == first and isinstance(cut, _NoNetworkError)):
                raise DownloadError(f"{url}: {cut}") from None
            pause = PAUSES_S[max(tries - 1, 0)]
            print(f"{name}: {cut}; trying again in {pause:g} s, from {_mb(size)} MB", file=sys.stderr, flush=True)
            time.sleep(pause)


def _receive(url: str, part: FileIO, name: str) -> None:
    """One try at what is still missing."""
    have = _size(part)
    if (answer := _asked(url, have)) is None:
        return
    with answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            have = 0  # it knows no ranges
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.truncate(0)
            raise _CutOffError("the server sends another part than was asked for")
        part.truncate(have)
        part.seek(have)
        total = None if answer.length is None else have + answer.length
        _check_room(part, answer.length or 0)
        shown = _Shown(name, have, total)
        for block in _blocks(answer):
            while block:
                written = part.write(block)
                block, have = block[written:], have + written
            shown.at(have)
        shown.end()
    if total is not None and have < total:
        raise _CutOffError(f"cut off after {_mb(have)} of {_mb(total)} MB")


def _asked(url: str, have: int) -> http.client.HTTPResponse | None:
    """The server's answer; None where it has nothing more."""
    headers = {"User-Agent": "small-vit-ablations"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        if error.code == NOTHING_LEFT and have:
            return None
        if error.code in PERHAPS_LATER:
            raise _CutOffError(f"the server says {error.code} {error.reason}") from None
        raise DownloadError(f"{url}: the server says {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        kind = _NoNetworkError if isinstance(reason, socket.gaierror) else _CutOffError
        raise kind(f"no connection ({reason or type(error).__name__})") from None


def _blocks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """As they come: a connection that breaks costs nothing that it brought."""
    while True:
        try:
            block = answer.read1(BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _CutOffError(f"cut off ({error or type(error).__name__})") from None
        if not block:
            return
        yield block


def _check_room(part: FileIO, missing: int) -> None:
    free = shutil.disk_usage(os.path.dirname(part.name)).free
    if missing > free:
        raise DownloadError(f"{part.name} needs {_mb(missing)} MB more, and {_mb(free)} MB are free on that disk")


class _Shown:
    """How far it is: a line that grows on a terminal, one line at the start elsewhere."""

    def __init__(self, name: str, have: int, total: int | None):
        self._name, self._first, self._of = name, have, "" if total is None else f" of {_mb(total)}"
        self._start_s, self._next_s = time.monotonic(), 0.0
        self._moves = sys.stderr.isatty()
        if not self._moves:
            print(f"fetching {name}, {_mb(have)}{self._of} MB are here", file=sys.stderr, flush=True)

    def at(self, have: int) -> None:
        now_s = time.monotonic()
        if self._moves and now_s >= self._next_s:
            rate = (have - self._first) / max(now_s - self._start_s, 1e-3)
            text = f"{self._name}: {_mb(have)}{self._of} MB, {_mb(rate)} MB/s"
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
            self._next_s = now_s + SHOWN_EVERY_S

    def end(self) -> None:
        if self._moves:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def _mb(count: float) -> str:
    return f"{count / 1e6:.1f}"
