"""Where a split's images are kept while a run trains: on the device, in the host's memory, or in their files, decoded
as they are needed. What is asked for next is read while the device computes; no result depends on it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from harness.data.augment import transfer
from harness.data.index import BLOCK, ImageFiles, processes, readers
from harness.data.load import Split, available_bytes
from variants.fields import UsageError

AHEAD_BYTES = 12 * 2**20  # while less waits behind what comes next, one more is read: of an epoch one chunk


def residency(splits: Sequence[Split], device: torch.device, asked: str = "auto") -> str:
    """Where images are kept. Those of folders, if nobody asks, where they take at most half of what is left."""
    files = [split.images for split in splits if isinstance(split.images, ImageFiles)]
    if asked == "stream" and not files:
        raise UsageError("--resident stream is for folders of images; these are in memory already: --resident host")
    if asked != "auto" or not files:
        return "device" if asked == "auto" else asked
    left, needed = available_bytes(), sum(own.nbytes for own in files if not own.is_kept)
    if left is not None and needed > left / processes() / 2:
        return "stream"
    whole = sum(own.nbytes for own in files)
    return "host" if device.type == "cuda" and whole > torch.cuda.mem_get_info(device)[0] / 2 else "device"


class HostImages:
    """Images B x 3 x H x W (uint8) that are brought to the device when they are asked for."""

    def __init__(self, images: Any, device: torch.device, is_stream: bool):
        count, height, width, channels = images.shape
        self.shape, self.device = torch.Size((count, channels, height, width)), device
        self._read: Callable[..., None] = images.read if is_stream else partial(gather, np.asarray(images))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> torch.Tensor:
        return next(self.in_turn([rows]))

    def in_turn(self, wanted: Iterable[slice | np.ndarray]) -> Generator[torch.Tensor, None, None]:
        """The images of these rows, then of those."""
        begun, waiting = map(self._begun, wanted), deque()
        try:
            while True:
                while sum(x.nbytes for x, _ in islice(waiting, 1, None)) < AHEAD_BYTES and (one := next(begun, None)):
                    waiting.append(one)
                if not waiting:
                    return
                images, blocks = waiting[0]
                for block in blocks:
                    block.result()
                waiting.popleft()
                yield transfer.to_device(torch.from_numpy(images), self.device)
        finally:
            for block in (block for _, blocks in waiting for block in blocks):
                block.cancel()

    def _begun(self, rows: slice | np.ndarray) -> tuple:
        """The images, and what must have ended before they are there."""
        rows = np.arange(len(self))[rows]
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        parts = [slice(start, start + BLOCK) for start in range(0, len(rows), BLOCK)]
        return images, [readers().submit(self._read, rows[part], images[part]) for part in parts]


def gather(images_NHWC: Any, rows: np.ndarray, into_NCHW: np.ndarray) -> None:
    into_NCHW[:] = images_NHWC[rows].transpose(0, 3, 1, 2)
