"""A lock on a run's folder, so that two processes never train one run. The system frees it when its owner dies.

flock on a local disk is certain. On a network file system it holds between machines where the server keeps locks (NFS
since version 4, Lustre mounted with flock); where the system refuses to lock, the run goes on without, and says so.
"""

import contextlib
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from variants.fields import UsageError

NAME = "lock"
PATIENCE_S = 0.5  # another process may just be looking whether it is held


class BusyError(Exception):
    """Another process trains this run."""

    def __init__(self, folder: Path, who: dict[str, Any]):
        owner = f"process {who.get('pid', '?')} on {who.get('host', 'an unknown machine')}"
        super().__init__(f"{folder} is being trained by {owner} since {who.get('started', '?')}")


@dataclass(frozen=True)
class Lock:
    """Held from `take` to `release`, or to the end of the process."""

    path: Path
    handle: int

    def check(self) -> None:
        """Before anything is written: whoever removes the lock's file by hand lets another process begin the run."""
        if not _is_there(self.path, self.handle):
            raise UsageError(
                f"{self.path} was removed while this run was being trained: it stops, so as not to mix two"
            )

    def release(self) -> None:
        if _is_there(self.path, self.handle):
            self.path.unlink(missing_ok=True)
        os.close(self.handle)


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[Lock]:
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


def take(folder: Path) -> Lock | None:
    """None where another process has it."""
    path, until_s = folder / NAME, time.monotonic() + PATIENCE_S
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if isinstance(error, (FileNotFoundError, FileExistsError)) and time.monotonic() < until_s:
                continue  # another process removed or made the folder
            raise UsageError(f"cannot write into {folder}: {error.strerror or error}") from None
        # whoever had it before may have removed the file between our opening and our locking it
        if _locked(handle, path) and _is_there(path, handle):
            _sign(handle)
            return Lock(path, handle)
        os.close(handle)
        if time.monotonic() > until_s:
            return None
        time.sleep(0.02)


def holder(folder: Path) -> dict[str, Any] | None:
    """Who has the lock; None where nobody does."""
    try:
        with (folder / NAME).open("rb") as file:
            return None if _try(file.fileno(), fcntl.LOCK_SH) else json.loads(file.read())
    except OSError:
        return None
    except ValueError:  # its owner has not written its name, or had no room for it
        return {}


def _sign(handle: int) -> None:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    me = {"host": platform.node(), "pid": os.getpid(), "started": started}
    with contextlib.suppress(OSError):  # on a full disk nobody can read who has it; it is held all the same
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(me).encode())


def _locked(handle: int, path: Path) -> bool:
    try:
        return _try(handle, fcntl.LOCK_EX)
    except OSError as error:
        print(f"{path}: no locks here ({error.strerror}); see to it that one process trains this run", file=sys.stderr)
        return True


def _try(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
