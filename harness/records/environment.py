"""The facts that tie a record to code, packages and a machine, without torch: versions come from the packages' metadata
and facts of the device from the caller.
"""

import functools
import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "torchvision", "timm", "numpy", "fvcore", "torchinfo")


def source_digest(root: Path = ROOT) -> str:
    """A hash over the code of variants/ and harness/: the same with and without git."""
    total = hashlib.sha256()
    for path in sorted(path for part in ("variants", "harness") for path in (root / part).rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def cores() -> int:
    """Those that this process may use, which a cluster's scheduler may have narrowed."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_launched() -> bool:
    """By torchrun, as one of several processes of a run."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def environment(device_facts: dict[str, Any], data_digest: str) -> dict[str, Any]:
    return {
        **device_facts,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in PACKAGES},
        **_code(),
        "data_digest": data_digest,
    }


@functools.cache  # what is edited during a sweep is not the code that runs
def _code() -> dict[str, Any]:
    # Installed, this code may lie in somebody else's repository, or below one.
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--", "variants", "harness") else None
    status = _git("status", "--porcelain", "--", "variants", "harness")
    dirty = None if commit is None or status is None else bool(status)
    return {"commit": commit, "dirty": dirty, "source_digest": source_digest()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
