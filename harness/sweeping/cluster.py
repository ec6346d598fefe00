"""Trains the runs of a plan as tasks of Ray, on one machine with several GPUs or on a cluster. Where a worker sees the
driver's OUT it trains there; elsewhere it is sent what OUT holds of a run, and sends back what became of it."""

import contextlib
import os
import pickle
import platform
import shutil
import socket
import sys
import tempfile
import time
import uuid
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from harness.commands import asked_for, wait_passively
from harness.records.environment import cores, source_digest
from harness.records.lock import NAME, BusyError, owned
from harness.records.read import run_state
from harness.records.schema import WEIGHTS
from harness.records.write import prepare, write_atomically
from harness.sweeping.plan import PlannedRun, on_device, seeds_together
from harness.sweeping.train import WAIT_S, Problems, failures_of, outcome, to_train
from harness.sweeping.workers import Place, threads_of
from harness.training.signals import StoppedError, heed, listening
from variants.catalog import config_of
from variants.fields import UsageError, first_line

RETRIES = 3  # of a run whose worker was lost
ANSWER_S, POLL_S, STOP_S = 5.0, 1.0, 60.0
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # as Ray's servers speak; they answer with a 4
Files = dict[str, bytes]  # of a run's folder


@dataclass(frozen=True)
class Driver:
    """What every worker is told."""

    code: str  # digest of its source
    folder: str  # from where relative paths count
    token: str  # name of a file in OUT: who sees it sees OUT
    threads: int


@dataclass
class Report:
    """What a worker answers."""

    node: str
    failures: dict[int, str | None] = field(default_factory=dict)  # by the runs' numbers
    files: dict[str, Files] = field(default_factory=dict)  # of each run, where OUT is not the driver's
    place: str = ""  # of these files
    node_id: str = ""
    wants: bool = False  # what the driver holds of the runs


# --- the driver ------------------------------------------------------------------------------------------------------


def train_on_ray(args: Namespace, planned: Sequence[PlannedRun]) -> int:
    ray = installed()
    with connected(ray, args.address):
        gpus = gpus_of(ray, args)
        cpus = args.cpus_per_run or (threads_of(os.environ) if "OMP_NUM_THREADS" in os.environ else 1)
        at_once = room_for(ray, cpus, gpus)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_calls": 1, "max_retries": RETRIES}
        place = place_on(ray, args, options)
        args.device = "cpu" if place.kind == "cpu" else args.device  # a worker may see GPUs that it was not given
        runs = on_device(planned, *asked_for(args, place.precision, place.compiles))
        todo = to_train(args, runs)
        told = f"{len(todo)} to train, {at_once} at a time on Ray; --status says how far they are"
        say(f"{len(runs)} runs, {len(runs) - len(todo)} done, {told}")
        prepare(args.out)
        driver = Driver(source_digest(), os.getcwd(), f".ray-{uuid.uuid4().hex[:12]}", cpus)
        (args.out / driver.token).touch()
        try:
            return Tasks(ray, args, driver, options).train(todo)
        finally:
            (args.out / driver.token).unlink(missing_ok=True)


def installed() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError('--launcher ray needs Ray: pip install "small-vit-ablations[ray]"') from None
    return ray


@contextlib.contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """To a cluster, or to a Ray of its own on this machine."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():  # Ray itself tries for a minute, and for thirteen where something else answers
        try:
            with socket.create_connection((host.removeprefix("ray://"), int(port)), ANSWER_S) as there:
                there.sendall(HTTP2)
                if not os.environ.get("RAY_USE_TLS") and there.recv(4)[3:] != b"\4":
                    raise OSError("something else than Ray does")
        except (OSError, OverflowError, UnicodeError) as error:
            raise UsageError(f"--address {address}: Ray does not answer there ({first_line(error)})") from None
    own = {"num_cpus": cores(), "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # no cluster, another version of Ray or Python, a wrong token
        told = " ".join(str(error).split())
        raise UsageError(f"--address {address}: {told} (of a cluster with a token: RAY_AUTH_MODE=token)") from None
    try:
        yield
    finally:
        ray.shutdown()


def gpus_of(ray: Any, args: Namespace) -> float:
    if args.device == "cpu":
        return 0
    if args.device not in ("auto", "cuda"):
        raise UsageError(f"--device {args.device}: Ray chooses the GPU, so auto, cpu or cuda")
    if args.device == "cuda" and args.gpus_per_run == 0:
        raise UsageError("--gpus-per-run 0 gives a run no GPU: --device cpu, or more than 0")
    there = any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"])
    return args.gpus_per_run if args.gpus_per_run is not None else float(there or args.device == "cuda")


def room_for(ray: Any, cpus: int, gpus: float) -> int:
    """How many runs the cluster trains at once; where no node has room for one, Ray would wait for ever."""
    count = 0
    for resources in (node["Resources"] for node in ray.nodes() if node["Alive"]):
        by_cpus = int(resources.get("CPU", 0) / cpus)
        count += min(by_cpus, int(resources.get("GPU", 0)) * int(1 / gpus + 1e-6)) if gpus else by_cpus
    if not count:
        raise UsageError(f"no node has {cpus} CPUs and {gpus:g} GPUs for a run: --cpus-per-run, --gpus-per-run")
    return count


def place_on(ray: Any, args: Namespace, options: Mapping[str, Any]) -> Place:
    """Of the GPU that Ray gives first."""
    if not options["num_gpus"]:
        return Place("cpu")
    try:
        return ray.get(ray.remote(**options)(place_there).remote(args.device))
    except ray.exceptions.RayTaskError as error:
        raise UsageError(f"no GPU of the cluster can be used: {first_line(error.cause)}") from None


def say(text: str) -> None:
    tqdm.write(text)
    sys.stdout.flush()  # of a log file


class Tasks:
    def __init__(self, ray: Any, args: Namespace, driver: Driver, options: Mapping[str, Any]):
        self.ray, self.args, self.driver = ray, args, driver
        self.remote = ray.remote(**options)(train_there)
        self.problems = Problems(args)
        self.groups: dict[Any, list[PlannedRun]] = {}  # that are not done, by their tasks

    def train(self, todo: Sequence[PlannedRun]) -> int:
        for group in seeds_together(todo, self.args.seeds_at_once):
            self.groups[self.begin(group)] = group
        with tqdm(total=len(todo), unit="run", leave=False, disable=None) as bar, listening():
            try:
                while self.groups and not self.problems.are_enough:
                    heed()
                    for task in self.ray.wait([*self.groups], timeout=POLL_S)[0]:
                        self.end(task)
                        bar.update(len(todo) - bar.n - sum(map(len, self.groups.values())))
            finally:
                self.stop()
        return self.problems.exit_code(len(todo))

    def begin(self, group: Sequence[PlannedRun], send: bool = False) -> Any:
        """What was begun is sent where a worker asked for it: a checkpoint may be large."""
        folders = [self.args.out / run.config.run_id for run in group]
        held = {folder.name: self.ray.put(packed(folder)) if send else None for folder in folders if folder.is_dir()}
        return self.remote.remote(group[0].config.variant_name, pickle.dumps(group), self.args, self.driver, held)

    def end(self, task: Any) -> None:
        group, node = self.groups.pop(task), ""
        numbers = [run.number for run in group]
        try:
            report: Report = self.ray.get(task)
            self.bring(group, report)
            failures, node = report.failures, report.node
            if left := [run for run in group if run.number not in failures]:  # a signal to the worker stopped them
                self.groups[self.begin(left, send=report.wants)] = left
        except self.ray.exceptions.RayTaskError as error:
            kind = "" if isinstance(error.cause, UsageError) else f"{type(error.cause).__name__}: "
            failures = dict.fromkeys(numbers, f"{kind}{first_line(error.cause)}")
        except self.ray.exceptions.RayError as error:
            failures = dict.fromkeys(numbers, f"its worker was lost: {first_line(error)}")
        except OSError as error:
            failures = dict.fromkeys(numbers, f"it cannot be sent, {first_line(error)}")
        self.tell(group, failures, node)

    def tell(self, group: Sequence[PlannedRun], failures: Mapping[int, str | None], node: str) -> None:
        there = f" (on {node})" if node else ""
        for run in group:
            if reason := failures.get(run.number):
                self.problems.add(run, f"{reason}{there}")
            elif run.number in failures:
                say(f"run {run.number}: {run.title}{there}: {self.outcome(run)}")

    def outcome(self, run: PlannedRun) -> str:
        folder = self.args.out / run.config.run_id
        try:
            lacking = "" if self.args.no_weights or (folder / WEIGHTS).exists() else ", kept without weights"
            return outcome(folder) + lacking
        except (OSError, ValueError):  # a network file system may show it later
            return "done"

    def stop(self) -> None:
        """What runs saves its state first; what waits is forgotten."""
        for task in self.groups:
            self.ray.cancel(task)
        end_s = time.monotonic() + STOP_S
        for task, group in self.groups.items():
            with contextlib.suppress(self.ray.exceptions.RayError):
                report = self.ray.get(task, timeout=max(0, end_s - time.monotonic()))
                self.bring(group, report)
                self.tell(group, report.failures, report.node)

    def bring(self, group: Sequence[PlannedRun], report: Report) -> None:
        """The files here, and away from there once they are. Where this disk takes none, the run has failed."""
        for run in (run for run in group if run.config.run_id in report.files):
            name = run.config.run_id
            try:
                unpack(report.files[name], self.args.out / name)
            except (OSError, UsageError, BusyError) as error:
                report.failures[run.number] = f"{report.place}/{name} could not be brought here, {first_line(error)}"
                continue
            there = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(report.node_id, soft=False)
            remove = self.ray.remote(num_cpus=0, scheduling_strategy=there)(remove_there)
            self.ray.wait([remove.remote(Path(report.place) / name)], timeout=ANSWER_S)


# --- a worker --------------------------------------------------------------------------------------------------------


def place_there(device: str) -> Place:
    """What it trains in by default."""
    from harness.training import device as devices

    chosen = devices.choose(device)
    return Place(chosen.type, *devices.defaults(chosen))


def train_there(name: str, pickled: bytes, args: Namespace, driver: Driver, held: Mapping[str, Any]) -> Report:
    """Of one cell of the variant `name`, in a process that does nothing else."""
    report = Report(platform.node())
    if source_digest() != driver.code:
        raise UsageError(f"refused by {report.node}, which has other code than the driver")
    os.environ["OMP_NUM_THREADS"] = str(driver.threads)  # Ray has its own
    wait_passively()
    if os.path.isdir(driver.folder):
        os.chdir(driver.folder)
    config_of(name)  # a person's own file, without which their class cannot be unpickled
    group: list[PlannedRun] = pickle.loads(pickled)  # noqa: S301  from the driver, which Ray lets run anything here
    is_shared = (args.out / driver.token).exists()
    if not is_shared:
        args.out = Path(tempfile.gettempdir()) / f"small-vits-{os.getuid()}" / driver.token.removeprefix(".")
        report.place, report.node_id = str(args.out), installed().get_runtime_context().get_node_id()
        if args.track:
            raise UsageError(f"--track needs a folder OUT that {report.node} sees")
        lacking = {name: files for name, files in held.items() if not (args.out / name).exists()}
        if None in lacking.values():  # what an earlier try left here would be newer
            return Report(report.node, wants=True)
        for folder, files in lacking.items():
            try:
                unpack(installed().get(files), args.out / folder)
            except OSError as error:  # half of it would pass for what an earlier try left
                remove_there(args.out / folder)
                raise UsageError(f"{args.out} on {report.node}: {error.strerror or error}") from None
    with contextlib.suppress(StoppedError):  # the driver sees which have no answer
        report.failures = until_free(group, args)
    if not is_shared:
        folders = [args.out / run.config.run_id for run in group]
        report.files = {folder.name: packed(folder) for folder in folders if folder.is_dir()}
        tidy(args.out)
    return report


def remove_there(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    tidy(folder.parent)


def tidy(out: Path) -> None:
    with contextlib.suppress(OSError):  # others are not done yet
        out.rmdir()
        out.parent.rmdir()


def until_free(group: Sequence[PlannedRun], args: Namespace) -> dict[int, str | None]:
    """A run that another process is training is waited for: of a worker that was lost it may end a little later."""
    from harness.training import device as devices

    if args.deterministic:
        devices.make_deterministic()
    device, found = devices.choose(args.device), {}
    with listening():
        while left := [run for run in group if run.number not in found]:
            with contextlib.suppress(BusyError):
                found |= failures_of(left, args, device)
            if len(found) < len(group):
                heed()
                time.sleep(WAIT_S)
    return found


# --- a run's folder on its way ---------------------------------------------------------------------------------------


def packed(folder: Path) -> Files:
    """Without its lock, and without what a process has written half of."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name != NAME]
    return {path.name: path.read_bytes() for path in paths if not path.name.startswith(".")}


def unpack(files: Files, folder: Path) -> None:
    """In the place of what was there; the result last, as the writer has it."""
    with owned(folder):
        if run_state(folder) == "done":  # by another driver meanwhile
            return
        (folder / "result.json").unlink(missing_ok=True)  # of a failed one: what is left is unfinished at any moment
        for name in sorted(files, key=lambda name: name == "result.json"):
            write_atomically(folder / name, files[name])
        for path in folder.iterdir():
            if path.name not in (*files, NAME):
                path.unlink()
