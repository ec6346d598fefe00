"""Owns doing many things of one kind in several processes: results in their order, the same as from one process.
Refuses to be needed: where no process can be started, or one is killed, the things are done here.
"""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 8  # of a large machine: every one of them holds what it works on


class Processes:
    """As many as there are cores, begun when there is enough to do; a context that ends them."""

    def __init__(self, most: int = MOST):
        self.count = min(most, cores())
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            gc.unfreeze()

    def each(
        self, work: Callable[[Item], Result], items: Sequence[Item], fewest: int, at_once: int = 1
    ) -> Iterator[Result]:
        """Begun now in other processes if there are as many items as `fewest`, else done when it is asked for."""
        if self.count < 2 or len(items) < fewest:
            return map(work, items)
        try:
            self._pool = self._pool or _pool(self.count)
            begun = self._pool.map(work, items, chunksize=at_once)
        except (OSError, ImportError, NotImplementedError, RuntimeError):  # no memory, no semaphores, a broken pool
            self.count = 1
            return map(work, items)
        return _results(begun, work, items)


def _results(begun: Iterator[Result], work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    from concurrent.futures.process import BrokenProcessPool

    done = 0
    try:
        for result in begun:
            done += 1
            yield result
    except BrokenProcessPool:
        yield from map(work, items[done:])


def _pool(count: int) -> "ProcessPoolExecutor":
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # elsewhere than on Linux a fork may not outlive what the system's libraries hold; here it spares all imports
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    gc.freeze()  # the records stay: collecting garbage in a fork would copy them all
    return ProcessPoolExecutor(count, context, _begin)


def _begin() -> None:
    """Ctrl-C is for the parent, which ends its processes; and none outlives a parent that was killed."""
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent := parent_process():
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
