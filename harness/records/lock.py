"""Owns the promise that one process alone writes a run: a lock that the system takes back from whoever dies.
Refuses clocks and process numbers: neither says anything about another machine.

flock on a local disk is certain. On a network file system it holds between machines where the server keeps locks (NFS
since version 4, Lustre mounted with flock); where the system refuses to lock, the run goes on without, and says so.
"""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from variants.fields import UsageError

try:
    import fcntl
except ImportError:  # Windows: one process at a time has to be seen to by whoever starts them
    fcntl = None

NAME = "lock"
PATIENCE_S = 0.5  # somebody may just be looking whether it is held


class BusyError(Exception):
    """Another process has the run."""

    def __init__(self, folder: Path, who: dict[str, Any]):
        super().__init__(f"{folder} is being trained by {described(who)}")


@contextlib.contextmanager
def owned(folder: Path) -> Iterator["Lock"]:
    """For as long as the block takes; a folder that nothing was put into is not left behind."""
    lock = take(folder)
    if lock is None:
        raise BusyError(folder, holder(folder) or {})
    try:
        yield lock
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()


class Lock:
    """Held from `take` to `release`, or to the end of the process."""

    def __init__(self, path: Path, handle: int):
        self.path, self._handle = path, handle

    def check(self) -> None:
        """Whoever removes the file lets another process in, which is then the one that goes on."""
        if not _is_still_there(self._handle, self.path, unsure=True):
            raise UsageError(
                f"{self.path} was removed while this process held it, so another may train this run: this one stops, "
                "the same command goes on or waits"
            )

    def release(self) -> None:
        if _is_still_there(self._handle, self.path):
            self.path.unlink(missing_ok=True)
        os.close(self._handle)


def take(folder: Path) -> Lock | None:
    """None where another process has it."""
    path, until_s = folder / NAME, time.monotonic() + PATIENCE_S
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and time.monotonic() < until_s:
                continue  # whoever had it took the empty folder away as it left
            raise UsageError(f"cannot write into {folder}: {error.strerror or error}") from None
        if _locked(handle, path) and _is_still_there(handle, path):
            with contextlib.suppress(OSError):  # on a full disk nobody can read who has it; it is had all the same
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps(_me()).encode())
            return Lock(path, handle)
        os.close(handle)
        if time.monotonic() > until_s:
            return None
        time.sleep(0.02)


def holder(folder: Path) -> dict[str, Any] | None:
    """Who has it; none where nobody does."""
    path = folder / NAME
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if fcntl is None or _try(handle, fcntl.LOCK_SH):
            return None
        plain = json.loads(os.read(handle, 10_000) or b"{}")
        return plain if isinstance(plain, dict) else {}
    except ValueError:
        return {}
    except OSError:
        return None
    finally:
        os.close(handle)


def described(who: dict[str, Any]) -> str:
    return f"process {who.get('pid', '?')} on {who.get('host', 'an unknown machine')} since {who.get('started', '?')}"


def _me() -> dict[str, Any]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"host": platform.node(), "pid": os.getpid(), "started": started}


def _locked(handle: int, path: Path) -> bool:
    if fcntl is None:
        return True
    try:
        return _try(handle, fcntl.LOCK_EX)
    except OSError as error:
        print(f"{path}: no locks here ({error.strerror}); see to it that one process trains this run", file=sys.stderr)
        return True


def _try(handle: int, kind: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_there(handle: int, path: Path, unsure: bool = False) -> bool:
    """Whoever had it before may have taken the file away between our opening and our locking it. `unsure` is the answer
    where the disk gives none."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return unsure
