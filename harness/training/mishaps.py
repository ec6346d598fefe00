"""Owns what may befall a run from outside, as a sentence that says what to do: a full disk, a folder that is gone, a
device without room, an operation that has no deterministic form.
Refuses to swallow mistakes of ours: what it does not know goes on as it came.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import torch

from harness.config import RunConfig
from harness.training.device import has_bf16, is_out_of_memory
from variants.fields import UsageError

# What a disk, its owner or another process does; any other OSError is a mistake of ours.
NAMES = "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM EIO ESTALE ETIMEDOUT ENOENT ENOTDIR EISDIR EBUSY EMFILE ENFILE"
DISK = {getattr(errno, name) for name in NAMES.split() if hasattr(errno, name)}


@contextlib.contextmanager
def told_in_a_sentence(config: RunConfig, folder: Path, device: torch.device) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        place = error.filename or folder
        raise UsageError(f"{place}: {error.strerror}; once that is mended, the same command goes on") from error
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise UsageError(out_of_memory(config, device)) from error
        if "deterministic" in str(error):
            said = str(error).strip().splitlines()[0]
            raise UsageError(f"{config.run_id} cannot be trained with --deterministic: {said}") from error
        if config.precision == "fp16" and "not implemented for 'Half'" in str(error):
            raise UsageError(f"{config.run_id} cannot be trained in fp16 on {device.type}: {error}") from error
        raise


def out_of_memory(config: RunConfig, device: torch.device) -> str:
    size = config.recipe.batch_size
    ways = [f"--batch-size {max(1, size // 2)}"]
    if config.precision == "fp32":
        ways.append(f"--precision {'bf16' if has_bf16() else 'fp16'}")
    if device.type == "cuda":
        ways.append("another --device")
    return f"out of memory on {device} at batch size {size}: end what else runs there, or try {' or '.join(ways)}"
