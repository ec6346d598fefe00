"""Sweeps on Ray: a real cluster of three nodes on this machine, one of which is killed; workers that see the driver's
folder and workers that do not; what is told when something is missing. Records equal those that are trained here."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
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
from harness.records.environment import source_digest
from harness.records.lock import holder
from harness.records.read import load_runs, run_state
from harness.studies import STUDIES
from harness.sweeping import cluster
from harness.sweeping.plan import PlannedRun, on_device, plan
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


def at_work(out: Path, process: subprocess.Popen) -> list[int]:
    """The processes that have trained an epoch, when there are some."""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        assert process.poll() is None, process.communicate()
        begun = [path.parent for path in out.glob("*/epochs.jsonl") if path.read_bytes().count(b"\n") > 1]
        pids = [int(owner["pid"]) for folder in begun if (owner := holder(folder)) and run_state(folder) == "running"]
        if pids:
            return pids
        time.sleep(0.05)
    raise AssertionError("no run has begun")


def test_a_node_is_killed_and_every_run_is_done_once(nodes, tmp_path, one_thread):
    asked = words(seeds=4, epochs=12)
    process = started(nodes, tmp_path / "ray", *asked)
    at_work(tmp_path / "ray", process)
    by_raylet = {node.all_processes["raylet"][0].process.pid: node for node in nodes.worker_nodes}
    end_s = time.monotonic() + WAIT_S
    while not (busy := [p for p in at_work(tmp_path / "ray", process) if parent(p) in by_raylet]):
        assert time.monotonic() < end_s, "no run is on another node than the first"
    nodes.remove_node(by_raylet[parent(busy[0])], allow_graceful=False)
    out, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    assert "4 runs, 0 done, 4 to train, 3 at a time on Ray" in out and out.count("test accuracy") == 4
    assert sweep.main([*asked, "--jobs", "1", "--out", str(tmp_path / "here")]) == 0
    assert content(tmp_path / "ray") == content(tmp_path / "here")
    assert not [*(tmp_path / "ray").glob(".ray-*")]
    nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)


def test_ctrl_c_loses_nothing(nodes, tmp_path, one_thread):
    asked = words(seeds=2, epochs=20)
    process = started(nodes, tmp_path / "ray", *asked)
    at_work(tmp_path / "ray", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130 and "nothing is lost; the same command goes on" in errors, errors
    states = {run_state(path) for path in (tmp_path / "ray").iterdir()}
    assert "unfinished" in states and "running" not in states
    process = started(nodes, tmp_path / "ray", *asked)
    _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    assert sweep.main([*asked, "--jobs", "1", "--out", str(tmp_path / "here")]) == 0
    assert content(tmp_path / "ray") == content(tmp_path / "here")


# --- one task --------------------------------------------------------------------------------------------------------


def planned(epochs: int = 2) -> list[PlannedRun]:
    return on_device(plan(STUDIES["quick"].narrowed(["compact"], seeds=[0, 1]), DATASETS, epochs), "fp32", False)


def arguments(out: Path, *more: str) -> Namespace:
    args = sweep.parser().parse_args([*words(2, 2), "--launcher", "ray", *more, "--out", str(out)])
    args.gpus_per_run = 0
    return args


def answer(ray: Any, group: list[PlannedRun], args: Namespace, held: Any = (), **told: Any) -> cluster.Report:
    """Of a worker to a driver whose OUT it does not see, unless it is told a file there."""
    own = {"code": source_digest(), "folder": os.getcwd(), "token": f".{uuid4().hex}", "threads": 1}
    driver = cluster.Driver(**{**own, **told})
    task = ray.remote(max_calls=1)(cluster.train_there)
    return ray.get(task.remote(group[0].config.variant_name, pickle.dumps(group), args, driver, dict(held)))


def test_without_a_common_folder_records_are_sent(connected, tmp_path):
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / ".token").touch()
    shared = answer(connected, planned(), arguments(tmp_path / "seen"), token=".token")
    assert shared.failures == {0: None, 1: None} and not shared.files
    args = arguments(tmp_path / "unseen")
    apart = answer(connected, planned(), args)
    assert apart.failures == shared.failures and len(apart.files) == 2 and not args.out.exists()
    left_there = [Path(apart.place) / name for name in apart.files]
    assert all(run_state(folder) == "done" for folder in left_there)
    driver = cluster.Driver(source_digest(), os.getcwd(), ".none", 1)
    cluster.Tasks(connected, args, driver, {"max_calls": 1}).bring(apart)
    assert content(args.out) == content(tmp_path / "seen")
    assert {run.env["threads"] for run in load_runs([args.out])} == {1}
    end_s = time.monotonic() + WAIT_S
    while any(folder.exists() for folder in left_there):
        assert time.monotonic() < end_s, "nothing is left behind on the worker"
        time.sleep(0.1)


def test_what_was_begun_is_sent_to_the_worker(connected, tmp_path):
    """A checkpoint that the driver holds is gone on from elsewhere."""
    (run, _), out = planned(epochs=40), tmp_path / "begun"
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.sweep", *words(1, 40), "--jobs", "1", "--out", str(out)],
        **{"cwd": ROOT, "env": {**os.environ, "OMP_NUM_THREADS": "1"}, "stdout": subprocess.DEVNULL},
    )
    at_work(out, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == 128 + signal.SIGTERM
    folder = out / run.config.run_id
    assert answer(connected, [run], arguments(out), {folder.name: None}).wants
    report = answer(connected, [run], arguments(out), {folder.name: connected.put(cluster.packed(folder))})
    assert report.failures == {0: None}
    sessions = json.loads(report.files[folder.name]["result.json"])["sessions"]
    assert len(sessions) == 2 and sessions[1]["after_epochs"] > 0
    driver = cluster.Driver(source_digest(), os.getcwd(), ".none", 1)
    cluster.Tasks(connected, arguments(out), driver, {"max_calls": 1}).bring(report)
    assert not [*folder.glob("checkpoint*")] and run_state(folder) == "done"


def test_other_code_is_refused(connected, tmp_path, capsys):
    driver = cluster.Driver("another", os.getcwd(), ".none", 1)
    tasks = cluster.Tasks(connected, arguments(tmp_path), driver, {"max_calls": 1})
    assert tasks.train(planned()) == 1
    assert "refused by " in capsys.readouterr().err and not [*tmp_path.iterdir()]


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


# --- what is told ----------------------------------------------------------------------------------------------------


def test_an_address_that_does_not_answer(tmp_path):
    pytest.importorskip("ray")
    begun = time.monotonic()
    with pytest.raises(UsageError, match=r"--address 127\.0\.0\.1:9: nothing answers there"):
        sweep.main([*words(1, 1), "--launcher", "ray", "--address", "127.0.0.1:9", "--out", str(tmp_path)])
    assert time.monotonic() - begun < 10


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
