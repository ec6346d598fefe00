"""Sweeps on Ray: a real cluster of three nodes on this machine, one of which is killed; workers that see the driver's
folder and workers that do not; what is told when something is missing. Records equal those that are trained here."""

import contextlib
import io
import json
import os
import pickle
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import torch
from safetensors.numpy import load_file

from harness import sweep
from harness.config import resolve
from harness.datasets import DATASETS
from harness.experiment import Options, run_seeds
from harness.records.environment import cores, source_digest
from harness.records.lock import holder
from harness.records.read import load_runs, run_state
from harness.studies import STUDIES
from harness.sweeping import cluster
from harness.sweeping.plan import PlannedRun, on_device, plan
from harness.training.signals import StoppedError
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
TIMES = {"train_seconds", "eval_seconds", "images_per_second", "peak_memory_bytes", "corruption_seconds"}
TIMES |= {"shared_device", "sessions", "files", "digest"}
WAIT_S = 180


def words(seeds: int, epochs: int) -> list[str]:
    return ["quick", "--variants", "compact", "--seeds", str(seeds), "--epochs", str(epochs), "--device", "cpu"]


def content(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each run what does not depend on the machine and the time."""
    found = {}
    for run in load_runs([folder]):
        lines = [{k: v for k, v in line.items() if k not in ("seconds", "eval_seconds")} for line in run.epochs()]
        result = {name: value for name, value in run.result.items() if name not in TIMES}
        files = {name: (run.folder / name).read_bytes() for name in ("config.json", "predictions.npz")}
        weights = {name: of.tobytes() for name, of in load_file(run.folder / "model.safetensors").items()}
        found[run.folder.name] = {"lines": lines, "result": result, "weights": weights, **files}
    return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Three of one core each."""
    pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    one = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    own = cluster_utils.Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
    for _ in range(2):
        own.add_node(**one)
    own.wait_for_nodes()
    yield own
    own.shutdown()


@pytest.fixture
def connected(nodes: Any) -> Iterator[Any]:
    import ray

    with cluster.connected(ray, nodes.address):
        yield ray


def started(nodes: Any, out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "harness.sweep", *more, "--launcher", "ray", "--address", nodes.address]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, **pipes)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def at_work(out: Path, process: subprocess.Popen | None = None) -> list[int]:
    """The processes that have trained an epoch, when there are some."""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        assert process is None or process.poll() is None, process and process.communicate()
        begun = [path.parent for path in out.glob("*/epochs.jsonl") if path.read_bytes().count(b"\n") > 1]
        pids = [int(owner["pid"]) for folder in begun if (owner := holder(folder)) and run_state(folder) == "running"]
        if pids:
            return pids
        time.sleep(0.05)
    raise AssertionError("no run has begun")


def test_stopped_and_a_node_killed_every_run_is_done_once(nodes, tmp_path, one_thread):
    """Ctrl-C loses nothing, the same command goes on, and then a node is lost."""
    asked, there = words(seeds=4, epochs=12), tmp_path / "ray"
    process = started(nodes, there, *asked)
    at_work(there, process)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130 and "nothing is lost; the same command goes on" in errors, errors
    assert "4 runs, 0 done, 4 to train, 3 at a time on Ray" in out
    states = {run_state(path) for path in there.iterdir()}
    assert "unfinished" in states and "running" not in states and not [*there.glob(".ray-*")]

    process = started(nodes, there, *asked)
    by_raylet = {node.all_processes["raylet"][0].process.pid: node for node in nodes.worker_nodes}
    end_s = time.monotonic() + WAIT_S
    while not (busy := [pid for pid in at_work(there, process) if parent(pid) in by_raylet]):
        assert time.monotonic() < end_s, "no run is on another node than the first"
    nodes.remove_node(by_raylet[parent(busy[0])], allow_graceful=False)
    out, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    assert f"{out.count('test accuracy')} to train" in out
    assert sweep.main([*asked, "--jobs", "1", "--out", str(tmp_path / "here")]) == 0
    assert content(there) == content(tmp_path / "here")
    assert not [*there.glob(".ray-*")]
    nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)


# --- one task --------------------------------------------------------------------------------------------------------


def planned(epochs: int = 2) -> list[PlannedRun]:
    return on_device(plan(STUDIES["quick"].narrowed(["compact"], seeds=[0, 1]), DATASETS, epochs), "fp32", False)


def arguments(out: Path, *more: str) -> Namespace:
    args = sweep.parser().parse_args([*words(2, 2), "--launcher", "ray", *more, "--out", str(out)])
    args.gpus_per_run = 0
    return args


def answer(ray: Any, *asked: Any, **told: Any) -> cluster.Report:
    return ray.get(ask(ray, *asked, **told))


def ask(ray: Any, group: list[PlannedRun], args: Namespace, held: Any = (), **told: Any) -> Any:
    """Of a worker to a driver whose OUT it does not see, unless it is told a file there."""
    own = {"code": source_digest(), "folder": os.getcwd(), "token": f".{uuid4().hex}", "threads": 1}
    driver = cluster.Driver(**{**own, **told})
    task = ray.remote(max_calls=1)(cluster.train_there)
    return task.remote(group[0].config.variant_name, pickle.dumps(group), args, driver, dict(held))


def test_without_a_common_folder_records_are_sent(connected, tmp_path):
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / ".token").touch()
    args = arguments(tmp_path / "unseen")
    both = [ask(connected, planned(), arguments(tmp_path / "seen"), token=".token"), ask(connected, planned(), args)]
    shared, apart = connected.get(both)
    assert shared.failures == {0: None, 1: None} and not shared.files
    assert apart.failures == shared.failures and len(apart.files) == 2 and not args.out.exists()
    left_there = [Path(apart.place) / name for name in apart.files]
    assert all(run_state(folder) == "done" for folder in left_there)
    driver = cluster.Driver(source_digest(), os.getcwd(), ".none", 1)
    cluster.Tasks(connected, args, driver, {"max_calls": 1}).bring(planned(), apart)
    assert content(args.out) == content(tmp_path / "seen")
    assert {run.env["threads"] for run in load_runs([args.out])} == {1}
    end_s = time.monotonic() + WAIT_S
    while any(folder.exists() for folder in left_there):
        assert time.monotonic() < end_s, "nothing is left behind on the worker"
        time.sleep(0.1)


def test_what_was_begun_is_sent_to_the_worker(connected, tmp_path, one_thread):
    """A checkpoint that the driver holds is gone on from elsewhere."""
    (run, _), out = planned(epochs=20), tmp_path / "begun"
    stop = Thread(target=lambda: [at_work(out), os.kill(os.getpid(), signal.SIGTERM)])
    stop.start()
    with pytest.raises(StoppedError):
        run_seeds([run.config], tmp_path, out, torch.device("cpu"), True)
    stop.join()
    folder = out / run.config.run_id
    assert answer(connected, [run], arguments(out), {folder.name: None}).wants
    report = answer(connected, [run], arguments(out), {folder.name: connected.put(cluster.packed(folder))})
    assert report.failures == {0: None}
    sessions = json.loads(report.files[folder.name]["result.json"])["sessions"]
    assert len(sessions) == 2 and sessions[1]["after_epochs"] > 0
    driver = cluster.Driver(source_digest(), os.getcwd(), ".none", 1)
    cluster.Tasks(connected, arguments(out), driver, {"max_calls": 1}).bring([run], report)
    assert not [*folder.glob("checkpoint*")] and run_state(folder) == "done"


def test_other_code_is_refused(connected, tmp_path, capsys):
    driver = cluster.Driver("another", os.getcwd(), ".none", 1)
    tasks = cluster.Tasks(connected, arguments(tmp_path), driver, {"max_calls": 1})
    assert tasks.train(planned()) == 1
    assert capsys.readouterr().err.count("refused by ") == 2 and not [*tmp_path.iterdir()]
    tasks = cluster.Tasks(connected, arguments(tmp_path, "--fail-fast"), driver, {"max_calls": 1})
    assert tasks.train(planned()) == 1 and capsys.readouterr().err.count("refused by ") == 1


def test_a_worker_without_the_data_says_so(connected, tmp_path):
    runs = on_device(plan(STUDIES["main"].narrowed(["compact"], ["common"], ["c100"], [0]), DATASETS), "fp32", False)
    args = arguments(tmp_path, "--data-dir", str(tmp_path / "nothing"))
    config = runs[0].config
    report = answer(connected, [runs[0]], args)
    assert list(report.failures) == [0] and "c100 is not in" in str(report.failures[0]), config


def test_a_person_s_own_class_is_read_by_the_worker(connected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = """
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True)
class Own:
    image_size: int = 32
    num_classes: int = 10

    def module(self):
        made = nn.Sequential(nn.Flatten(), nn.Linear(3 * self.image_size**2, self.num_classes))
        made.config = self
        return made

OWN = Own()
"""
    (tmp_path / "mine_for_ray.py").write_text(code)
    study = STUDIES["quick"].narrowed([f"{tmp_path}/mine_for_ray.py:OWN"], ["common"], seeds=[0])
    (run,) = on_device(plan(study, DATASETS, 1), "fp32", False)
    tasks = cluster.Tasks(
        connected, arguments(tmp_path / "out"), cluster.Driver(source_digest(), os.getcwd(), ".x", 1), {"max_calls": 1}
    )
    assert tasks.train([run]) == 0
    assert run_state(tmp_path / "out" / run.config.run_id) == "done"
    (tmp_path / "mine_for_ray.py").unlink()
    assert tasks.train([replace(run, config=replace(run.config, seed=1))]) == 1
    assert "mine_for_ray.py" in capsys.readouterr().err


# --- the driver, with a Ray that answers at once ---------------------------------------------------------------------


class TaskError(Exception):
    cause: Exception


def driver_of(out: Path, answers: list[Any]) -> tuple[cluster.Tasks, list[Any]]:
    """What Ray's tasks answer in turn, and what they were asked."""
    asked: list[Any] = []

    def get(task: int, timeout: float = 0) -> Any:
        if isinstance(answers[task], Exception):
            raise answers[task]
        return answers[task]

    def remote(**options: Any) -> Any:
        def call(function: Any) -> Any:
            trains = function is cluster.train_there
            return SimpleNamespace(remote=lambda *words: asked.append(words) or len(asked) - 1 if trains else 0)

        return call

    ray = SimpleNamespace(get=get, remote=remote, put=lambda files: files, cancel=lambda task: None)
    ray.wait = lambda tasks, timeout: (tasks[:1], tasks[1:])
    ray.exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=TaskError)
    ray.util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda *_, soft: None)
    )
    driver = cluster.Driver(source_digest(), os.getcwd(), ".token", 1)
    return cluster.Tasks(ray, arguments(out), driver, {}), asked


def test_what_a_signal_to_a_worker_stopped_is_begun_again(tmp_path, capsys):
    tasks, asked = driver_of(tmp_path, [cluster.Report("there"), cluster.Report("there", {0: None})])
    assert tasks.train(planned()[:1]) == 0
    assert len(asked) == 2 and "run 0: compact quick, digits seed 0 (on there): done" in capsys.readouterr().out


def test_one_that_cannot_be_written_here_keeps_no_other(tmp_path, capsys):
    """Neither while others train nor at the end."""
    runs, reports = planned(), []
    for run in runs:
        reports.append(
            cluster.Report("there", {run.number: None}, {run.config.run_id: {"config.json": b"{}"}}, "/tmp/x")
        )
    (tmp_path / runs[0].config.run_id).write_text("no folder")
    for ends in (lambda tasks: tasks.train(runs), stopped_with(runs)):
        tasks, _ = driver_of(tmp_path, reports)
        ends(tasks)
        assert tasks.problems.titles == [f"{runs[0].title} (--cell 0)"]
        assert (tmp_path / runs[1].config.run_id / "config.json").exists()
        assert f"/tmp/x/{runs[0].config.run_id} could not be brought here" in capsys.readouterr().err
        (tmp_path / runs[1].config.run_id / "config.json").unlink()


def stopped_with(runs: list[PlannedRun]) -> Any:
    def stop(tasks: cluster.Tasks) -> None:
        tasks.groups = {task: [run] for task, run in enumerate(runs)}
        tasks.stop()

    return stop


def test_an_error_of_a_worker_is_one_line(tmp_path, capsys):
    error = TaskError()
    error.cause = RuntimeError("No module named 'harness'\ntraceback: line 1")
    tasks, _ = driver_of(tmp_path, [error])
    assert tasks.train(planned()[:1]) == 1
    assert "FAILED compact quick, digits seed 0: RuntimeError: No module named 'harness'\n" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"no GPU of the cluster can be used: No module named 'harness'$"):
        cluster.place_on(tasks.ray, Namespace(device="auto"), {"num_gpus": 1})


def test_what_is_told_is_in_a_log_at_once(monkeypatch):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file))
    cluster.say("run 0")
    assert file.getvalue() == b"run 0\n"


def test_a_done_record_is_not_replaced_and_an_old_result_goes_first(tmp_path, monkeypatch):
    folder, files = tmp_path / "run", {"config.json": b"{}", "result.json": b"new"}
    folder.mkdir()
    (folder / "result.json").write_bytes(b"old")
    monkeypatch.setattr(cluster, "run_state", lambda _: "done")
    cluster.unpack(files, folder)
    assert (folder / "result.json").read_bytes() == b"old"
    monkeypatch.setattr(cluster, "run_state", lambda _: "failed")
    monkeypatch.setattr(cluster, "write_atomically", full_disk)
    with pytest.raises(OSError, match="No space"):
        cluster.unpack(files, folder)
    assert not (folder / "result.json").exists()


def full_disk(path: Path, content: bytes) -> None:
    path.touch()
    raise OSError(28, "No space left on device")


def test_a_full_disk_of_a_worker_names_it_and_stays_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(cluster, "write_atomically", full_disk)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    context = SimpleNamespace(get_node_id=lambda: "")
    ray = SimpleNamespace(get=lambda files: files, get_runtime_context=lambda: context)
    monkeypatch.setattr(cluster, "installed", lambda: ray)
    group, driver = planned()[:1], cluster.Driver(source_digest(), os.getcwd(), ".none", 1)
    held = {group[0].config.run_id: {"config.json": b"{}"}}
    with pytest.raises(UsageError, match=f"on {platform.node()}: No space left on device"):
        cluster.train_there("compact", pickle.dumps(group), arguments(tmp_path / "out"), driver, held)
    assert not [*tmp_path.iterdir()]


# --- what is told ----------------------------------------------------------------------------------------------------


def test_an_address_that_does_not_answer(tmp_path):
    pytest.importorskip("ray")
    begun = time.monotonic()
    for address in ("127.0.0.1:9", "127.0.0.1:99999", "a..b:80"):
        with pytest.raises(UsageError, match=f"--address {re.escape(address)}: Ray does not answer there"):
            sweep.main([*words(1, 1), "--launcher", "ray", "--address", address, "--out", str(tmp_path)])
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=lambda: server.accept()[0].sendall(b"HTTP/1.0 400 Bad request\r\n\r\n")).start()
        with pytest.raises(UsageError, match="something else than Ray does"):
            address = f"127.0.0.1:{server.getsockname()[1]}"
            sweep.main([*words(1, 1), "--launcher", "ray", "--address", address, "--out", str(tmp_path)])
    assert time.monotonic() - begun < 10


def test_whose_ray_is_asked(monkeypatch):
    """Its own where no address is given, also on a machine of a cluster; RAY_ADDRESS is one that is given."""
    begun: list[dict[str, Any]] = []
    fake = SimpleNamespace(init=lambda **own: begun.append(own), shutdown=lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with cluster.connected(fake, None), cluster.connected(fake, "auto"):
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        with cluster.connected(fake, None):
            pass
    assert [own["address"] for own in begun] == ["local", "auto", "auto"]
    assert ["num_cpus" in own for own in begun] == [True, False, False]

    def refuse(**own: Any) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.60\n    Python: 3.99\n")

    with (
        pytest.raises(UsageError, match=r"Ray: 2\.60 Python: 3\.99"),
        cluster.connected(SimpleNamespace(init=refuse), None),
    ):
        pass


def test_without_ray(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="small-vit-ablations\\[ray\\]"):
        sweep.main([*words(1, 1), "--launcher", "ray", "--out", str(tmp_path)])


def test_how_many_runs_have_room():
    def cluster_of(*nodes: dict[str, float], alive: bool = True) -> Any:
        return SimpleNamespace(nodes=lambda: [{"Resources": node, "Alive": alive} for node in nodes])

    machine = {"CPU": 16.0, "GPU": 2.0}
    assert cluster.room_for(cluster_of(machine, machine, {"CPU": 64.0}), 1, 0.25) == 16
    assert cluster.room_for(cluster_of(machine, {"CPU": 3.0}), 2, 0) == 9
    assert cluster.room_for(cluster_of(machine), 16, 0.1) == 1
    assert cluster.room_for(cluster_of({"CPU": 16.0, "GPU": 4.0}), 1, 0.75) == 4, "a share is of one GPU"
    for wanted in ((17, 0), (1, 3)):
        with pytest.raises(UsageError, match="no node has"):
            cluster.room_for(cluster_of(machine, {"CPU": 16.0}), *wanted)
    with pytest.raises(UsageError, match="no node has"):
        cluster.room_for(cluster_of(machine, alive=False), 1, 0)


def test_which_gpus_a_run_takes():
    def asked(device: str, share: float | None, gpus: float) -> float:
        ray = SimpleNamespace(nodes=lambda: [{"Resources": {"CPU": 4, "GPU": gpus}, "Alive": True}])
        return cluster.gpus_of(ray, Namespace(device=device, gpus_per_run=share))

    assert asked("auto", None, 0) == 0 and asked("auto", None, 2) == 1 and asked("cuda", None, 0) == 1
    assert asked("auto", 0.25, 2) == 0.25 and asked("cpu", None, 2) == 0
    with pytest.raises(UsageError, match="Ray chooses the GPU"):
        asked("cuda:1", None, 2)
    with pytest.raises(UsageError, match="--gpus-per-run 0 gives a run no GPU"):
        asked("cuda", 0.0, 2)


@pytest.mark.parametrize(("threads", "cpus"), [(None, 1), ("3", 3), ("0", cores()), ("many", cores())])
def test_a_run_without_a_gpu_takes_none(threads, cpus, tmp_path, monkeypatch):
    """Ray leaves a task without GPUs all of them in its sight."""
    found = []

    class Kept:
        def __init__(self, ray: Any, args: Namespace, driver: cluster.Driver, options: dict[str, Any]):
            found.append((args.device, driver.threads, options["num_cpus"]))

        def train(self, todo: list[PlannedRun]) -> int:
            return 0

    ray = SimpleNamespace(nodes=lambda: [{"Resources": {"CPU": 512, "GPU": 2}, "Alive": True}])
    monkeypatch.setattr(cluster, "installed", lambda: ray)
    monkeypatch.setattr(cluster, "connected", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "Tasks", Kept)
    monkeypatch.setenv("OMP_NUM_THREADS", threads) if threads else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert sweep.main([*words(1, 1)[:-2], "--launcher", "ray", "--gpus-per-run", "0", "--out", str(tmp_path)]) == 0
    assert found == [("cpu", cpus, cpus)]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--address", "auto"], "are for --launcher ray"),
        (["--gpus-per-run", "0"], "are for --launcher ray"),
        (["--launcher", "ray", "--jobs", "2"], "no --jobs"),
        (["--launcher", "ray", "--cell", "0"], "no --cell"),
    ],
)
def test_what_does_not_go_together(more, told, tmp_path):
    with pytest.raises(UsageError, match=told):
        sweep.main([*words(1, 1), *more, "--out", str(tmp_path)])


@pytest.mark.parametrize("text", ["-1", "2", "half", "nan"])
def test_a_share_of_a_gpu(text, capsys):
    with pytest.raises(SystemExit):
        sweep.parser().parse_args(["main", f"--gpus-per-run={text}"])
    assert "a number from 0 to 1" in capsys.readouterr().err


def test_a_share_of_a_gpu_marks_the_record(tmp_path, one_thread):
    config = resolve("compact", DATASETS["digits"], "quick", epochs=1, precision="fp32", compile=False)
    (run,) = run_seeds([config], tmp_path, tmp_path, torch.device("cpu"), True, Options(gpu_share=0.25))
    assert run.result["shared_device"] is True and run.result["sessions"][0]["gpu_share"] == 0.25
    assert run.result["energy_joules"] is None
