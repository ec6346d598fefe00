"""Trackers: what each really has of a run, offline and read back from its own files; and that no run depends on one."""

import json
import os
import signal
import sqlite3
import struct
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import run, sweep
from harness.commands import run_command
from harness.config import resolve
from harness.datasets import DATASETS
from harness.experiment import Options, run_seeds
from harness.records.read import load_runs, read_run
from harness.training import track
from harness.training.signals import StoppedError
from harness.training.track import TRACKERS, Tracked, Tracker, Trackers, flat
from tests.processes import Process
from tests.test_resume import assert_same
from variants.fields import UsageError

WORDS = ["--variant", "compact", "--dataset", "digits", "--recipe", "quick", "--epochs", "2", "--device", "cpu"]
WORDS += ["--holdout", "0.9", "--set", "variant.depth=1"]
EPOCHS = 3
SECRETS = {name: f"made0up0{name.lower().replace('_', '0')}0" * 3 for name in ("WANDB_API_KEY", "COMET_API_KEY")}
SECRETS["HF_TOKEN"] = "hf_" + "madeup" * 6
# Keys, and all the same no network; a proxy that is none answers whoever tries.
OFFLINE = {"WANDB_MODE": "offline", "COMET_START_ONLINE": "false", "HF_HUB_OFFLINE": "1", **SECRETS}
OFFLINE |= {"WANDB_ERROR_REPORTING": "false", "COMET_ERROR_TRACKING_ENABLE": "false", "DO_NOT_TRACK": "1"}
OFFLINE |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
PRESENT = [name for name in TRACKERS if find_spec(TRACKERS[name].package)]


# --- what each tool has ----------------------------------------------------------------------------------------------


def stopped_and_resumed(out: Path) -> None:
    """Two seeds as one, stopped after their first epoch and resumed; by a process of its own, for its imports' sake."""
    os.environ.update(OFFLINE)
    settings = ["variant.depth=1"]
    configs = [
        resolve("compact", DATASETS["digits"], "quick", epochs=EPOCHS, seed=seed, holdout=0.9, settings=settings)
        for seed in (0, 1)
    ]
    arguments = (configs, Path("data"), out, torch.device("cpu"), True)
    options, epoch = Options(save_every_s=0, track=tuple(PRESENT)), Trackers.epoch
    Trackers.epoch = lambda self, line: (epoch(self, line), os.kill(os.getpid(), signal.SIGTERM))[0]
    try:
        run_seeds(*arguments, options=options)
    except StoppedError as stopped:
        print(stopped)
    Trackers.epoch = epoch
    run_seeds(*arguments, options=options)
    if "wandb" in PRESENT:
        (out / "wandb.json").write_text(json.dumps(wandb_runs(out)))


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tracked")
    process = Process(folder / "log", stopped_and_resumed, folder / "out")
    assert process.ended() == 0, process.read("err")
    assert process.read() == "stopped by SIGTERM; nothing is lost\n" and "failed" not in process.read("err")
    return folder / "out"


def tensorboard_runs(out: Path) -> Iterator[dict[str, Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for folder in (out / "track" / "tensorboard").iterdir():
        events = EventAccumulator(str(folder)).Reload()
        text = {
            name: events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0] for name in ("config", "result")
        }
        config, result = (json.loads(value.decode().strip("`\n")) for value in text.values())
        points = [
            (event.step, name, event.value) for name in events.Tags()["scalars"] for event in events.Scalars(name)
        ]
        yield {"config": config, "result": result, "points": points}


def wandb_runs(out: Path) -> list[dict[str, Any]]:
    """Each run's folders together, in the order of time; a .wandb file is LevelDB's log of protobuf messages."""
    messages = import_module("wandb.proto.wandb_internal_pb2")
    runs: dict[str, dict[str, Any]] = {}
    for path in sorted((out / "track" / "wandb").glob("offline-run-*/*.wandb")):
        for content in leveldb_records(path.read_bytes()):
            record = messages.Record.FromString(content)
            if record.HasField("run"):
                one = runs.setdefault(record.run.run_id, {"id": record.run.run_id, "points": [], "result": {}})
                one |= {"title": record.run.display_name, "config": {}}
                for item in record.run.config.update:
                    one["config"][item.key or item.nested_key[0]] = json.loads(item.value_json)
            for item in record.history.item:
                name = item.key or item.nested_key[0]
                if not name.startswith("_"):
                    one["points"].append((record.history.step.num, name, json.loads(item.value_json)))
            for item in record.summary.update:
                one["result"][item.key or item.nested_key[0]] = json.loads(item.value_json)
    return list(runs.values())


def leveldb_records(content: bytes) -> Iterator[bytes]:
    at, parts, block = 7, b"", 2**15
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
        size, kind = struct.unpack_from("<HB", content, at + 4)
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def comet_runs(out: Path) -> list[dict[str, Any]]:
    runs: dict[str, dict[str, Any]] = {}
    for path in (out / "track" / "comet").glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            key = json.loads(archive.read("experiment.json"))["offline_id"]
            messages = [json.loads(line) for line in archive.read("messages.json").splitlines()]
        one = runs.setdefault(key, {"config": {}, "result": {}, "points": []})
        for kind, payload in ((message["type"], message["payload"]) for message in messages):
            if kind == "parameter_msg":
                found = payload.get("param") or payload["params"]  # one value or a list
                one["config"][found["paramName"]] = found["paramValue"]
            elif kind == "metric_msg" and (found := payload["metric"])["step"] is not None:
                one["points"].append((found["step"], found["metricName"], found["metricValue"]))
            elif kind == "log_other":
                one["result"][payload["key"]] = payload["value"]
    return list(runs.values())


def trackio_runs(out: Path) -> list[dict[str, Any]]:
    runs: dict[str, dict[str, Any]] = {}
    with sqlite3.connect(out / "track" / "trackio" / "small-vits.db") as database:
        for name, config in database.execute("select run_name, config from configs"):
            runs[name] = {"title": name, "config": json.loads(config), "result": {}, "points": []}
        for name, step, metrics in database.execute("select run_name, step, metrics from metrics"):
            for metric, value in json.loads(metrics).items():
                place = runs[name]["result"] if metric.startswith("result/") else runs[name]["points"]
                if isinstance(place, dict):
                    place[metric.removeprefix("result/")] = value
                else:
                    place.append((step, metric, value))
    return list(runs.values())


READERS = {
    "tensorboard": tensorboard_runs,
    "wandb": lambda out: json.loads((out / "wandb.json").read_text()),
    "comet": comet_runs,
    "trackio": trackio_runs,
}


@pytest.mark.parametrize("name", TRACKERS)
def test_each_has_what_the_record_has(name, out):
    """Config, each epoch once although the run was stopped, and the result, of each seed as a run of its own."""
    if name not in PRESENT:
        pytest.skip(f"{TRACKERS[name].package} is not installed")
    found = {str(one["config"]["seed"]): one for one in READERS[name](out)}
    records = {str(record.config["seed"]): record for record in load_runs([out])}
    assert set(found) == set(records) == {"0", "1"}
    for seed, record in records.items():
        one, lines = found[seed], record.epochs()
        assert len(lines) == EPOCHS
        wanted = [(line["epoch"], key, value) for line in lines for key, value in line.items() if key != "epoch"]
        shown = sorted((step, key, float(value)) for step, key, value in one["points"])
        assert [place for *place, _ in shown] == [place for *place, _ in sorted(wanted)]
        assert [value for *_, value in shown] == pytest.approx([value for *_, value in sorted(wanted)], rel=1e-6)
        for field in ("variant.depth", "recipe.lr", "run_id", "dataset"):
            assert str(one["config"][field]) == str(flat(record.config)[field])
        assert float(one["result"]["val_accuracy"]) == pytest.approx(record.result["val_accuracy"])
        assert one["result"]["outcome"] == "ok" and "sessions" not in one["result"]


def test_no_key_is_written_or_printed(out):
    """Neither into records and checkpoints nor into what the tools keep; keys are long, so parts of them count too."""
    checked = [path for path in out.parent.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in checked) or "wandb" not in PRESENT
    for path in checked:
        contents = [path.read_bytes()]
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        for content in contents:
            assert not [name for name, secret in SECRETS.items() if secret[:16].encode() in content], path


# --- runs do not depend on them --------------------------------------------------------------------------------------


class Kept(Tracker):
    """Fails where it is told to, and keeps what it got elsewhere."""

    package, where = "json", "nowhere in {}"
    fails: str | None = None
    got: list[Any] = []  # noqa: RUF012

    def __init__(self, run: Tracked):
        self.run = run
        self._take("start", run.id, run.epochs)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        self._take("epoch", number, values)

    def end(self, epochs: int, result: dict[str, Any]) -> None:
        self._take("end", epochs, result)

    def _take(self, what: str, *rest: Any) -> None:
        torch.rand(3)  # it may draw from what the run draws from
        self.got.append((what, *rest))
        if self.fails == what:
            raise ConnectionError(f"the key {SECRETS['COMET_API_KEY']} is wrong")


@pytest.fixture
def kept(monkeypatch) -> type[Kept]:
    monkeypatch.setitem(TRACKERS, "kept", Kept)
    monkeypatch.setattr(Kept, "got", [])
    monkeypatch.setattr(Trackers, "asleep", {})
    return Kept


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert run.main([*WORDS, "--out", str(folder), "--quiet"]) == 0
    (record,) = load_runs([folder])
    assert not (folder / "track").exists()
    return record


@pytest.mark.parametrize("fails", ["start", "epoch", "end", None])
def test_a_run_ends_as_without_it(fails, kept, alone, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kept, "fails", fails)
    assert run.main([*WORDS, "--out", str(tmp_path), "--quiet", "--track", "kept", "--track", "kept"]) == 0
    (record,) = load_runs([tmp_path])
    assert_same(record, alone)
    told = capsys.readouterr().err
    assert told.count("\n") == told.count("kept failed") == (fails is not None)
    assert all(secret[:8] not in told for secret in SECRETS.values())
    kinds = ["start", "epoch", "epoch", "end"]
    assert [what for what, *_ in kept.got] == (kinds[: kinds.index(fails) + 1] if fails else kinds)


def test_none_is_imported_unless_it_was_asked_for(tmp_path):
    process = Process(tmp_path / "log", _imported, tmp_path / "out")
    assert process.ended() == 0 and process.read().splitlines()[-1] == "[]", process.read("err")


def _imported(out: Path) -> None:
    packages = {one.package for one in TRACKERS.values()}
    for name in packages & {name.split(".")[0] for name in sys.modules}:
        raise AssertionError(f"{name} came with the test")
    run.main([*WORDS, "--out", str(out)])
    print(sorted(packages & {name.split(".")[0] for name in sys.modules}))


def test_a_sweep_hands_it_on(kept, tmp_path, monkeypatch, capsys):
    asked = []

    def run_seeds(configs, data_dir, out, device, options):
        asked.append(options.track)
        raise UsageError("enough")

    monkeypatch.setattr("harness.experiment.run_seeds", run_seeds)
    words = ["quick", "--seeds", "2", "--variants", "compact", "--jobs", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert sweep.main([*words, "--track", "kept"]) == 1 and asked == [("kept",), ("kept",)]
    assert f"kept: nowhere in {tmp_path}/track\n" in capsys.readouterr().out


# --- what cannot be done ---------------------------------------------------------------------------------------------


def test_a_missing_package_is_a_sentence(tmp_path, monkeypatch, capsys):
    """Before anything is trained; W&B leaves a folder of its name behind, which Python would import as a package."""
    (tmp_path / "nosuchpackage").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in ("nosuchpackage", "nosuchpackage2"):
        monkeypatch.setattr(TRACKERS["wandb"], "package", package)
        with pytest.raises(SystemExit) as left:
            run_command(run.main, [*WORDS, "--out", str(tmp_path / "out"), "--track", "wandb"])
        told = capsys.readouterr().err
        assert left.value.code == 2 and f"wandb is not installed: pip install {package}, or " in told
        assert told.count("\n") == 2 and 'pip install "small-vit-ablations[track]"\n' in told
    assert not (tmp_path / "out").exists()


# --- going on --------------------------------------------------------------------------------------------------------


def session(folder: Path, epochs: range, goes_on: bool, ends: bool = True) -> None:
    """One process's part of a run: it begins with what a checkpoint holds; `ends` unless it is killed."""
    trackers = Trackers(["kept"])
    shown = Tracked("a run", {"run_id": "run", "cell_id": "cell"}, folder)
    trackers.begin(shown, [{"epoch": number} for number in range(1, epochs.start)], goes_on)
    for number in epochs:
        trackers.epoch({"epoch": number})
    if ends:
        trackers.end()


def epochs_by_id(kept: type[Kept]) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for what, *rest in kept.got:
        if what == "start":
            now = found.setdefault(rest[0], [])
        elif what == "epoch":
            now.append(rest[0])
    return list(found.values())


@pytest.mark.parametrize(
    ("is_safe", "is_resumed", "ends", "wanted"),
    [
        (True, True, True, [[1, 2, 3, 4]]),
        (True, True, False, [[1, 2, 3, 4]]),  # killed: its checkpoint is older than what the tool has
        (False, True, True, [[1, 2, 3, 4]]),
        (False, False, True, [[1, 2, 3, 4]]),
        (False, True, False, [[1, 2, 3, 1, 2, 3, 4]]),  # what the tool may not have, and heeds once
        (False, False, False, [[1, 2, 3], [1, 2, 3, 4]]),
    ],
)
def test_no_epoch_comes_twice(is_safe, is_resumed, ends, wanted, kept, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "is_safe", is_safe)
    monkeypatch.setattr(kept, "is_resumed", is_resumed)
    session(tmp_path, range(1, 4), goes_on=False, ends=ends)
    session(tmp_path, range(4, 5) if ends else range(2, 5), goes_on=True)
    assert epochs_by_id(kept) == wanted


def test_a_run_that_starts_again_is_another_run(kept, tmp_path):
    session(tmp_path, range(1, 3), goes_on=False)
    session(tmp_path, range(1, 4), goes_on=False)
    assert epochs_by_id(kept) == [[1, 2], [1, 2, 3]]


def test_one_that_comes_later_or_failed_gets_what_it_lacks(kept, tmp_path, monkeypatch):
    session(tmp_path, range(3, 4), goes_on=True)
    assert epochs_by_id(kept) == [[1, 2, 3]]
    monkeypatch.setattr(kept, "fails", "epoch")
    session(tmp_path, range(4, 6), goes_on=True)
    monkeypatch.setattr(kept, "fails", None)
    session(tmp_path, range(6, 7), goes_on=True)
    assert epochs_by_id(kept) == [[1, 2, 3, 4, 4, 5, 6]], "the one that failed is tried again"


def test_one_that_cannot_begin_is_left_alone_for_a_while(kept, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kept, "fails", "start")
    for number in range(3):
        session(tmp_path / str(number), range(1, 2), goes_on=False)
    assert len(kept.got) == 1 and capsys.readouterr().err.count("kept failed at the start") == 1
    monkeypatch.setattr(track, "RETRY_S", 0.0)
    monkeypatch.setattr(Trackers, "asleep", {})
    for number in range(2):
        session(tmp_path / str(number), range(1, 2), goes_on=False)
    assert len(kept.got) == 3


def test_a_note_that_is_none_costs_nothing_but_a_new_run(kept, tmp_path):
    (tmp_path / "run.json").write_text("{")
    session(tmp_path, range(2, 3), goes_on=True)
    assert epochs_by_id(kept) == [[1, 2]] and json.loads((tmp_path / "run.json").read_text())["kept"]["epochs"] == 2


def test_readers_of_records_see_no_run_in_it(out):
    assert len(load_runs([out])) == 2
    with pytest.raises(FileNotFoundError):
        read_run(out / "track")


def test_where_a_run_is_shown_is_printed_once(kept, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kept, "url", "https://example.org/run")
    session(tmp_path, range(1, 4), goes_on=False)
    assert capsys.readouterr().out == "a run: https://example.org/run\n"
