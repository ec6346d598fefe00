"""Trains several runs at once, each in a process with its own GPU or its share of the threads, and shows what they
print. This process itself never uses a GPU: it would be a second one there, and every record would be marked as shared.
"""

import json
import re
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import IO

from tqdm import tqdm

from harness.data.load import available_bytes
from harness.records.environment import ROOT, cores
from harness.training.signals import heed
from variants.fields import UsageError

Environment = Mapping[str, str]
SMALL_RUN_BYTES = 1_300_000_000  # of a process: 1.22 GB is the most that a run of the study quick took
EPOCH = re.compile(r" epoch \d+/\d+ ")  # in the line that a run prints after each
POLL_S = 0.1

ASK = """
import json, sys, torch
from harness.commands import run_command
from harness.training.device import choose, defaults
def answer(words):
    device = choose(words[0])
    print(json.dumps([device.type, *defaults(device), torch.cuda.device_count()]))
    return 0
run_command(answer, sys.argv[1:])
"""


@dataclass(frozen=True)
class Place:
    """The device that was asked for, and what it trains in by default."""

    kind: str
    precision: str = "fp32"
    compiles: bool = False
    count: int = 0  # of GPUs


def place_of(device: str) -> Place:
    """Asks in a process of its own."""
    if device == "cpu":
        return Place("cpu")
    asked = subprocess.run([sys.executable, "-c", ASK, device], cwd=ROOT, capture_output=True, text=True)
    heed()
    if asked.returncode:
        raise UsageError(asked.stderr.strip())
    sys.stderr.write(asked.stderr)  # a warning of a GPU that does not work
    return Place(*json.loads(asked.stdout.splitlines()[-1]))


# --- who gets what ---------------------------------------------------------------------------------------------------


def threads_of(own: Environment) -> int:
    """As many as OpenMP takes."""
    asked = own.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2" is for nested loops
    return int(asked) if asked.isdecimal() and int(asked) else cores()


def default_jobs(kind: str, own: Environment) -> int:
    """How many small runs train at once unless the user says. On a CPU one a core, each on one thread: in steps this
    short, threads that share a run mostly wait for each other. Fewer where the memory that is left holds fewer."""
    if kind != "cpu":
        return 1
    left = available_bytes()
    fitting = sys.maxsize if left is None else max(1, left // SMALL_RUN_BYTES)
    return min(threads_of(own), cores(), fitting)


def environments(count: int, place: Place, device: str, own: Environment, threads: int | None = None) -> list[dict]:
    """One for each worker: with its share of the threads, or so many, and on several GPUs the next one in turn."""
    threads = threads or max(1, threads_of(own) // count)
    found = [{**own, "OMP_NUM_THREADS": str(threads)} for _ in range(count)]
    if place.kind == "cuda" and ":" not in device:  # cuda:1 is a choice already
        visible = [name for name in own.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        visible = visible or [str(number) for number in range(place.count)]
        for worker, environment in enumerate(found):
            environment["CUDA_VISIBLE_DEVICES"] = visible[worker % len(visible)]
    return found


# --- running and showing ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    number: int
    command: Sequence[str]
    epochs: int = 0


class Display:
    """Shows each line of a job with the job's number. Where it is `brief`, for many small jobs, what a job writes on
    stdout is shown only if the job fails; on a terminal a bar counts the epochs of all."""

    def __init__(self, epochs: int = 0, brief: bool = False):
        self.brief, self.kept = brief, defaultdict[int, list[str]](list)
        self.bar = tqdm(total=epochs, unit="epoch", file=sys.stdout, leave=False, disable=None if brief else True)

    def line(self, job: Job, text: str, is_error: bool) -> None:
        """Called from a thread for each stream of each job."""
        if is_error and "; nothing is lost" in text:  # a job that was stopped; the sweep says it for all
            return
        if self.brief and not is_error:
            self.kept[job.number].append(text)
            self.bar.update(bool(EPOCH.search(text)))
        else:
            self.show(f"[{job.number}] {text}")

    def end(self, job: Job, text: str, failed: bool) -> None:
        kept = self.kept.pop(job.number, [])
        self.bar.update(job.epochs - sum(bool(EPOCH.search(line)) for line in kept))  # an earlier process did some
        lines = [f"[{job.number}] {line}" for line in kept] if failed else []
        self.show("".join((*lines, f"{text}\n")))

    def show(self, text: str) -> None:
        tqdm.write(text, file=sys.stdout, end="")
        sys.stdout.flush()


class Running:
    """A job's process, with a thread for each of its two streams that shows what it prints."""

    def __init__(self, job: Job, environment: Environment, display: Display):
        self.job, self.environment, self.display = job, environment, display
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
        self.process = subprocess.Popen(job.command, env=environment, **pipes)
        streams = ((self.process.stdout, False), (self.process.stderr, True))
        self.threads = [Thread(target=self.show, args=stream) for stream in streams]
        for thread in self.threads:
            thread.start()

    def show(self, stream: IO[str], is_error: bool) -> None:
        try:
            for line in stream:
                self.display.line(self.job, line, is_error)
        except OSError:  # our own output takes no more, which ends the whole sweep when it shows this job's end
            self.process.terminate()

    def end(self) -> int:
        """Its exit code, when all that it printed has been shown."""
        for thread in self.threads:
            thread.join()
        return self.process.wait()


def run_jobs(
    jobs: Sequence[Job], environments: Sequence[Environment], display: Display
) -> Generator[tuple[Job, int], None, None]:
    """Each job and its exit code as it ends, as many at once as there are environments. When this is left early, by a
    signal for instance, what runs is told to end and waited for: a run saves its state first."""
    waiting, free = deque(jobs), deque(environments)
    running: list[Running] = []
    try:
        while waiting or running:
            heed()
            while waiting and free:
                running.append(Running(waiting.popleft(), free.popleft(), display))
            time.sleep(POLL_S)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                free.append(one.environment)
                yield one.job, one.end()
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.end()
