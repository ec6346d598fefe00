"""Owns running several cells at once, each in a process of its own: who gets which device and how many threads.
Refuses to hold a device itself: a GPU with two processes on it is a shared one, and every record would say so.
"""

import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from variants.fields import UsageError

Environment = Mapping[str, str]
SMALL_CELL_BYTES = 1_300_000_000  # of a process: 1.22 GB is the most that a cell of the study quick took

ASK = """
import json, sys
from harness.training import device as devices
from variants.fields import UsageError
try:
    device = devices.choose(sys.argv[1])
except UsageError as error:
    sys.exit(str(error))
import torch
precision, compiles = devices.defaults(device)
print(json.dumps([device.type, precision, compiles, torch.cuda.device_count() if device.type == "cuda" else 0]))
"""


@dataclass(frozen=True)
class Place:
    """What another process says of the device, so that this one need not touch it."""

    kind: str
    precision: str
    compiles: bool
    count: int


def place_of(device: str) -> Place:
    asked = subprocess.run([sys.executable, "-c", ASK, device], capture_output=True, text=True)
    if asked.returncode:
        raise UsageError((asked.stderr.strip().splitlines() or ["the device cannot be asked"])[-1])
    sys.stderr.write(asked.stderr)  # a GPU that is there and does not work
    return Place(*json.loads(asked.stdout.splitlines()[-1]))


def default_jobs(kind: str, own: Environment, left_bytes: int | None) -> int:
    """How many small cells at once, where the user has not said it. On a CPU as many as there are cores, each on one
    thread: in steps this short, threads that share a cell mostly wait for each other. Fewer where the memory that is
    left holds fewer (None: unknown). A GPU takes one after another."""
    if kind != "cpu":
        return 1
    room = cores() if left_bytes is None else max(1, left_bytes // SMALL_CELL_BYTES)
    return min(threads_of(own), cores(), room)


def threads_of(own: Environment) -> int:
    """As many as OpenMP takes."""
    asked = own.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2" is for nested loops
    return int(asked) if asked.isdecimal() and int(asked) else cores()


def environments(
    jobs: int, place: Place, device: str, own: Environment, threads: int | None = None
) -> list[dict[str, str]]:
    """One for each worker: so many threads, by default its share, and where there are several GPUs the next in turn."""
    threads = threads or max(1, threads_of(own) // jobs)
    found = [{**own, "OMP_NUM_THREADS": str(threads)} for _ in range(jobs)]
    if place.kind == "cuda" and ":" not in device:  # cuda:1 is a choice already
        visible = [name for name in own.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        visible = visible or [str(number) for number in range(place.count)]
        for worker, environment in enumerate(found):
            environment["CUDA_VISIBLE_DEVICES"] = visible[worker % len(visible)]
    return found


def cores() -> int:
    """Those that this process may use, which a cluster's scheduler may have narrowed."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Job:
    number: int
    title: str
    command: Sequence[str]


def told_at_once(job: Job, line: str) -> None:
    sys.stdout.write(f"[{job.number}] {line}")
    sys.stdout.flush()


@dataclass
class Workers:
    """Runs jobs, as many at a time as there are environments; `heard` gets each line that one prints, from a thread of
    its own."""

    environments: Sequence[Environment]
    heard: Callable[[Job, str], None] = told_at_once
    _running: set[subprocess.Popen] = field(default_factory=set)
    _leaving: bool = False

    def run(self, jobs: Sequence[Job]) -> Generator[tuple[Job, int], None, None]:
        """Each job and its exit code as it ends. Leaving early, by a signal say, ends what runs and waits for it."""
        free: queue.SimpleQueue[Environment] = queue.SimpleQueue()
        for environment in self.environments:
            free.put(environment)
        pool = ThreadPoolExecutor(len(self.environments))
        try:
            started = {pool.submit(self._one, job, free): job for job in jobs}
            for ended in as_completed(started):
                yield started[ended], ended.result()
        finally:
            self._leaving = True
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                process.terminate()
            pool.shutdown()

    def _one(self, job: Job, free: "queue.SimpleQueue[Environment]") -> int:
        environment = free.get()
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(job.command, env=environment, **options)
        self._running.add(process)
        if self._leaving:  # it was not among those that ran when they were ended
            process.terminate()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                self.heard(job, line)
            return process.wait()
        finally:
            self._running.discard(process)
            free.put(environment)
