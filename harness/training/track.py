"""Shows runs in TensorBoard, Weights & Biases, Comet or trackio too, for harness.experiment. None is imported unless it
was asked for, and one that fails is left out with a warning. No record depends on it.
"""

import argparse
import contextlib
import contextvars
import io
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from harness.records.write import write_json
from variants.fields import first_line

PROJECT = "small-vits"
FOLDER = "track"  # in --out, beside the runs; without a result.json nobody takes it for one
KEY_LIKE = r"[\w.~+=-]{20,}"
RETRY_S = 600.0  # a tool that waits for a network before it fails must not do so for each of sixteen seeds


@dataclass(frozen=True)
class Tracked:
    """What a tool gets of a run before its epochs."""

    title: str
    config: dict[str, Any]  # flat
    folder: Path  # for the files of all tools
    id: str = ""  # names the run in the tool, in each process that trains a part of it
    epochs: int = 0  # that the tool has already


class Tracker(Protocol):
    """One run in one tool. It may raise whatever it likes."""

    package: str
    where: str  # to look, with {} for the folder
    is_safe: bool = True  # what it was given outlives a process that is killed,
    is_resumed: bool = True  # and if not, it takes the same epochs again
    url: str = ""  # where the run is shown online

    def __init__(self, run: Tracked): ...

    def epoch(self, number: int, values: dict[str, float]) -> None: ...

    def end(self, epochs: int, result: dict[str, Any]) -> None:
        """`result`: empty for a run that was stopped."""


class TensorBoard(Tracker):
    package, where = "tensorboard", "tensorboard --logdir {}/tensorboard"

    def __init__(self, run: Tracked):
        writer: Any = import_module("torch.utils.tensorboard").SummaryWriter
        folder = run.folder / "tensorboard" / f"{run.config['run_id']}-{run.id[:6]}"
        self.writer = writer(str(folder), purge_step=run.epochs + 1)
        self._text("config", run.config, 0)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, number)
        self.writer.flush()

    def end(self, epochs: int, result: dict[str, Any]) -> None:
        if result:
            self._text("result", result, epochs)
        self.writer.close()

    def _text(self, name: str, fields: dict[str, Any], step: int) -> None:
        self.writer.add_text(name, f"```\n{json.dumps(fields, indent=1)}\n```", step)


class WeightsAndBiases(Tracker):
    package, is_safe = "wandb", False  # offline it keeps 32 KiB in memory
    where = "without an account in {0}/wandb; `wandb sync {0}/wandb/offline-run-*` uploads it"

    def __init__(self, run: Tracked):
        wandb: Any = import_module("wandb")
        own = wandb.setup().settings
        offline = own.mode == "online" and not wandb.login(prompt=False)
        # It finds out for itself who types which command where: none of that.
        private = dict.fromkeys(("disable_code", "disable_git", "x_disable_meta", "x_disable_stats", "silent"), True)
        settings = wandb.Settings(**private, x_save_requirements=False, console="off", finish_timeout=60)
        place = {"project": own.project or PROJECT, "group": run.config["cell_id"], "dir": str(run.folder)}
        resumed = {"id": run.id, "resume": "allow", "reinit": "create_new", "mode": "offline" if offline else None}
        self.run = wandb.init(name=run.title, config=run.config, settings=settings, **place, **resumed)
        self.is_resumed = self.run.settings.mode == "online"
        self.url = self.run.url if self.is_resumed else ""  # offline it would warn

    def epoch(self, number: int, values: dict[str, float]) -> None:
        self.run.log(values, step=number)

    def end(self, epochs: int, result: dict[str, Any]) -> None:
        self.run.summary.update(result)
        self.run.finish(exit_code=0 if result.get("outcome") == "ok" else 1)


class Comet(Tracker):
    package = "comet_ml"
    where = "without a key in {0}/comet; `comet upload {0}/comet/*.zip` uploads it"

    def __init__(self, run: Tracked):
        os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")  # it would patch torch
        comet, config = import_module("comet_ml"), import_module("comet_ml.config")
        logging.getLogger("comet_ml").setLevel(logging.ERROR)
        own, folder = comet.get_config(), run.folder / "comet"
        folder.mkdir(parents=True, exist_ok=True)
        kinds = ("code", "graph", "env_details", "git_metadata", "git_patch")
        private = {f"log_{kind}": False for kind in kinds} | {"parse_args": False, "display_summary_level": 0}
        private |= {f"auto_{kind}_logging": False for kind in ("param", "metric", "output")}
        self.run = comet.start(
            project_name=own["comet.project_name"] or PROJECT,
            experiment_key=run.id,
            mode="get_or_create",
            online=None if config.get_api_key(None, own) else False,
            experiment_config=comet.ExperimentConfig(offline_directory=str(folder), name=run.title, **private),
        )
        config.set_global_experiment(None)  # else the next seed's would end it
        if not self.run.alive:
            raise ConnectionError("no run could be created")
        self.url = self.run.url or ""
        self.is_safe = bool(self.url)  # offline, the archive is written at the end
        self.run.log_parameters(run.config)

    def epoch(self, number: int, values: dict[str, float]) -> None:
        self.run.log_metrics(values, step=number, epoch=number)

    def end(self, epochs: int, result: dict[str, Any]) -> None:
        self.run.log_others(result)
        self.run.end()


class Trackio(Tracker):
    package, where = "trackio", f"TRACKIO_DIR={{}}/trackio trackio show --project {PROJECT}"  # safe after half a second

    def __init__(self, run: Tracked):
        os.environ["TRACKIO_DIR"] = str(run.folder / "trackio")  # read when it is imported
        named = {"project": PROJECT, "name": f"{run.title} {run.id[:6]}", "group": run.config["cell_id"]}
        own = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False, "resume": "allow"}
        with contextlib.redirect_stdout(io.StringIO()):
            begin = import_module("trackio").init  # which ends the one before, if it finds that in its context
            self.run = contextvars.Context().run(lambda: begin(config=run.config, **named, **own))

    def epoch(self, number: int, values: dict[str, float]) -> None:
        self.run.log(values, step=number)

    def end(self, epochs: int, result: dict[str, Any]) -> None:
        if result:
            self.run.log({f"result/{name}": value for name, value in result.items()}, step=epochs)
        with contextlib.redirect_stdout(io.StringIO()):
            self.run.finish()


TRACKERS: dict[str, type[Tracker]]
TRACKERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "comet": Comet, "trackio": Trackio}


def tracker(name: str) -> str:
    """An argument that names an installed one; it is not imported yet."""
    if name not in TRACKERS:
        raise argparse.ArgumentTypeError(f"unknown tracker {name!r}: one of {', '.join(TRACKERS)}")
    spec = find_spec(TRACKERS[name].package)
    if spec is None or spec.origin is None:  # a folder wandb/ of runs is no package
        alone, all_four = f"pip install {TRACKERS[name].package}", 'pip install "small-vit-ablations[track]"'
        raise argparse.ArgumentTypeError(f"{name} is not installed: {alone}, or for all trackers {all_four}")
    return name


def places(names: Sequence[str], out: Path) -> str:
    """A line for each."""
    folder = shlex.quote(str(out / FOLDER))
    return "".join(f"{name}: {TRACKERS[name].where.format(folder)}\n" for name in dict.fromkeys(names))


class Trackers:
    """All of one run. What each has is noted beside its files, so that a run that goes on does so there, with no epoch
    twice."""

    asleep: dict[str, float] = {}  # noqa: RUF012  until when a tool that could not begin is left alone

    def __init__(self, names: Sequence[str] = ()):
        self.names, self.live = tuple(dict.fromkeys(names)), dict[str, Tracker]()

    def begin(self, run: Tracked, lines: Sequence[dict[str, Any]], goes_on: bool) -> None:
        """`lines`: the epochs that were done before; a tool that lacks some gets them now."""
        self.title, self.note, self.noted = run.title, run.folder / f"{run.config['run_id']}.json", {}
        self.runs = dict[str, Tracked]()
        with contextlib.suppress(OSError, ValueError):
            if goes_on:
                self.noted = json.loads(self.note.read_bytes())
            else:
                self.note.unlink()
        for name in self.names:
            if time.monotonic() >= self.asleep.get(name, 0.0):
                with self._left_out("at the start", name):
                    self.asleep[name] = time.monotonic() + RETRY_S
                    self.runs[name] = replace(run, **self.noted.get(name, {"id": uuid4().hex}))
                    self.live[name] = TRACKERS[name](self.runs[name])
                    del self.asleep[name]
                    if url := self.live[name].url:
                        print(f"{run.title}: {url}", flush=True)
                    if self.live[name].is_resumed:
                        self._note(name)
        for line in lines:
            self.epoch(line)

    def epoch(self, line: dict[str, Any]) -> None:
        values = {name: value for name, value in line.items() if name != "epoch"}
        for name, one in list(self.live.items()):
            if line["epoch"] > self.runs[name].epochs:
                with self._left_out(f"in epoch {line['epoch']}", name):
                    one.epoch(line["epoch"], values)
                    self.runs[name] = replace(self.runs[name], epochs=line["epoch"])
                    if one.is_safe:
                        self._note(name)

    def end(self, result: Mapping[str, Any] | None = None) -> None:
        """Once. `result`: the record's, of which single values are shown; None for a run that was stopped."""
        single = {name: value for name, value in (result or {}).items() if isinstance(value, (int, float, str))}
        for name, one in list(self.live.items()):
            with self._left_out("at the end", name):
                one.end(self.runs[name].epochs, single)
                self._note(name)
        self.live.clear()

    def _note(self, name: str) -> None:
        self.noted[name] = {"id": self.runs[name].id, "epochs": self.runs[name].epochs}
        write_json(self.note, self.noted)

    @contextlib.contextmanager
    def _left_out(self, when: str, name: str) -> Iterator[None]:
        """Where it fails, with a warning. A word that could be a key is hidden: messages of a wrong key may hold it."""
        try:
            yield
        except Exception as error:
            self.live.pop(name, None)
            told = f"{type(error).__name__}: {re.sub(KEY_LIKE, '***', first_line(error))}"
            failed = f"{self.title}: {name} failed {when}, training goes on without it ({told})"
            print(failed, file=sys.stderr, flush=True)


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"recipe": {"lr": 1}} -> {"recipe.lr": 1}."""
    fields: dict[str, Any] = {}
    for name, value in plain.items():
        fields |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return fields
