"""Owns the question whether a data set fits into the memory that is left, asked before any of it is taken.
Refuses to guess: where the system does not say what is left, nothing is refused.
"""

from pathlib import Path

from harness.datasets import Dataset
from variants.fields import UsageError

HELD = 2  # times at once: as it is read, and in canonical order; then in that order, and on a device of the same memory
HELD_UNPACKING = 4  # the archive, what is unpacked of it, its images, and those in canonical order: 3.3 were measured
PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def check_memory(dataset: Dataset, unpacking: bool) -> None:
    left = available_bytes()
    if left is not None and needed_bytes(dataset, unpacking) > left:
        raise too_little(dataset, unpacking, left)


def needed_bytes(dataset: Dataset, unpacking: bool) -> int:
    held = HELD_UNPACKING if unpacking else HELD
    return held * (dataset.train_count + dataset.test_count) * dataset.image_size**2 * 3


def too_little(dataset: Dataset, unpacking: bool, left: int | None) -> UsageError:
    count, side = dataset.train_count + dataset.test_count, dataset.image_size
    there = "" if left is None else f", {_gb(left)} GB are there"
    smaller = "a smaller data set"
    if dataset.name.startswith("folder:"):
        smaller = f"smaller images: {dataset.name.removesuffix(f'@{side}')}@{max(1, side // 2)}"
    return UsageError(
        f"too little memory for {dataset.name}: {_gb(needed_bytes(dataset, unpacking))} GB are needed to read "
        f"{count:,} images of {side} x {side} x 3{there}\n"
        f"end other programs, ask the scheduler for more, or try {smaller}"
    )


def available_bytes(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """What this process may still take: the machine's and its control groups' word, whichever is less."""
    words = [_of_machine(proc), *_of_groups(proc, cgroup)]
    return min((word for word in words if word is not None), default=None)


def _of_machine(proc: Path) -> int | None:
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _of_groups(proc: Path, cgroup: Path) -> list[int | None]:
    """Of the group that this process is in and of all above it: each may set a limit of its own."""
    found = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage = cgroup, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, usage = cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        own = root / path.strip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root):
                found.append(_left(folder, limit, usage))
    return found


def _left(folder: Path, limit: str, usage: str) -> int | None:
    """None without a limit. What files keep in memory is given back when it is asked for."""
    most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
    if not most.isdigit() or not used.isdigit():  # "max", or no such file
        return None
    facts = dict(line.split(maxsplit=1) for line in _text(folder / "memory.stat").splitlines())
    cached = sum(int(facts.get(f"total_{kind}", facts.get(kind, 0))) for kind in ("active_file", "inactive_file"))
    return max(0, int(most) - int(used) + cached)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f}"
