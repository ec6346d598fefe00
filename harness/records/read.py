"""Reads runs back: one, or all under some folders; which are done, failed or unfinished; and whether a record holds
together. What was changed after it was written is refused and named, and nothing that a record names is run.
"""

import io
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from harness.config import SEMANTICS, run_config_from_plain
from harness.records.lock import holder
from harness.records.schema import (
    CONFIG_FIELDS,
    PREDICTIONS,
    RESULT_FIELDS,
    SCHEMA,
    SEALED_SINCE,
    SINCE_2,
    SINCE_3,
    digest,
    is_aside,
    is_sealed,
    misfits,
)
from variants.catalog import TYPES
from variants.fields import UsageError

OWN_RUNS, REFERENCE_RUNS = Path("results/runs"), Path("results/reference")
State = Literal["done", "failed", "running", "unfinished", "missing"]
FOLDER = "folder:"  # how the name of a data set begins that is a folder of images
DIRTY = "it was made by code that differs from its commit"
CHANGED = "is not what the run wrote"
ENVIRONMENT = ("device", "device_name", "python", "platform", "torch", "numpy", "source_digest", "data_digest")
ROUNDING, ROUNDING_32 = 1e-9, 1e-6


@dataclass(frozen=True)
class Run:
    """A finished run, done or failed, as it lies on disk.

    What is read later is as certain as what was read at once: ValueError for what is not as it was written.
    """

    folder: Path
    config: dict[str, Any]
    env: dict[str, Any]
    cost: dict[str, Any]
    result: dict[str, Any]

    @property
    def ok(self) -> bool:
        return self.result["outcome"] == "ok"

    @property
    def sealed(self) -> bool:
        """Records older than schema 3 are not: a change in one may go unseen."""
        return self.result["files"] is not None

    def epochs(self) -> list[dict[str, Any]]:
        lines = _content(self.folder, "epochs.jsonl", self.result["files"]).splitlines()
        return [_object(f"epochs.jsonl, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]

    def predictions(self) -> dict[str, np.ndarray]:
        content = _content(self.folder, "predictions.npz", self.result["files"])
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                arrays = dict(stored)
        except Exception as error:  # a broken archive fails in many ways
            raise ValueError(f"predictions.npz cannot be read: {type(error).__name__}: {error}") from None
        if set(arrays) != set(PREDICTIONS):
            raise ValueError(f"predictions.npz holds {', '.join(sorted(arrays))}")
        if wrong := [name for name, kinds in PREDICTIONS.items() if arrays[name].dtype.kind not in kinds]:
            raise ValueError(f"predictions.npz: {' and '.join(wrong)} of another kind of number")
        return arrays


def read_run(folder: Path) -> Run:
    """OSError for a run that is not there, ValueError for one that is not as it was written."""
    content = (folder / "result.json").read_bytes()
    result = _fields("result.json", content, RESULT_FIELDS)
    if not is_sealed(content):
        if result["schema"] >= SEALED_SINCE or result.keys() & SINCE_3:
            raise ValueError(f"result.json {CHANGED}")
        result = dict.fromkeys((*SINCE_2, *SINCE_3)) | result  # what was not measured then is null
    if missing := RESULT_FIELDS.keys() - result.keys():
        raise ValueError(f"result.json lacks {', '.join(sorted(missing))}")
    if result["outcome"] not in ("ok", "failed") or result["split"] not in ("test", "val"):
        raise ValueError(f"result.json has outcome {result['outcome']!r} and split {result['split']!r}")
    config = _fields("config.json", _content(folder, "config.json", result["files"]), CONFIG_FIELDS)
    env, cost = (_object(name, _content(folder, name, result["files"])) for name in ("env.json", "cost.json"))
    if config["schema"] != result["schema"]:
        raise ValueError(f"config.json has schema {config['schema']}, result.json {result['schema']}")
    run = Run(folder, config, env, cost, result)
    if not run.sealed and config.get("semantics") == SEMANTICS:
        for problem in _identity(run):  # all that vouches for a record without digests
            raise ValueError(problem)
    return run


def read_config(folder: Path) -> dict[str, Any]:
    """What a run was to be, finished or not; nothing vouches for it before there is a result."""
    return _fields("config.json", (folder / "config.json").read_bytes(), CONFIG_FIELDS)


def whole_run(folder: Path) -> Run:
    """Like `read_run`, but every file is looked at, and the folder's name: for whoever asks whether it is done."""
    run = read_run(folder)
    run.epochs()
    if (folder / "predictions.npz").exists() or "predictions.npz" in (run.result["files"] or ()):
        run.predictions()
    if (name := run.config.get("run_id")) != folder.name:
        raise ValueError(f"it is the record of {name}")
    return run


# --- many ------------------------------------------------------------------------------------------------------------


def load_runs(folders: Iterable[Path]) -> list[Run]:
    """Every finished run directly under the folders, by name; an unreadable one is named on stderr."""
    runs = []
    for folder in sorted(folder for one in folders for folder in finished_under(one)):
        try:
            runs.append(read_run(folder))
        except (OSError, ValueError) as error:
            print(f"skipped {folder}: {reason(error)}", file=sys.stderr)
    return runs


def finished_under(folder: Path) -> list[Path]:
    """The folders that hold a result, sound or not; those set aside are named on stderr and left out."""
    if not folder.is_dir():
        return []
    try:
        found = sorted(path for path in folder.iterdir() if (path / "result.json").exists())
    except OSError as error:
        raise UsageError(f"{error.filename or folder} cannot be read: {error.strerror}") from None
    for path in filter(is_aside, found):
        print(f"left out {path}: it was set aside", file=sys.stderr)
    return [path for path in found if not is_aside(path)]


def named_run(name: str | Path) -> Path:
    """The place of that name, or the folder of the run with that id among a person's own or the reference runs."""
    places = (Path(name), OWN_RUNS / name, REFERENCE_RUNS / name)
    return next((place for place in places if place.exists()), Path(name))


# --- one that may be there -------------------------------------------------------------------------------------------


def run_state(folder: Path) -> State:
    """What there is of one run."""
    try:
        if not (folder / "result.json").exists():
            if not (folder / "config.json").is_file():
                return "missing"
            return "running" if holder(folder) is not None else "unfinished"
        return "done" if whole_run(folder).ok else "failed"
    except (OSError, ValueError):  # what cannot be read cannot be reported, so it is not done
        return "failed"


def done_run(folder: Path) -> Run | None:
    """The finished run in this folder, if any. An OSError, as of a network disk that does not answer, is raised."""
    try:
        run = whole_run(folder)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return None
    return run if run.ok else None


def check_images(run: Run, dataset: str, data_dir: Path) -> None:
    """Two folders of images of one name give runs of one name: refuses the run of another folder."""
    from harness.data.load import load

    if dataset.startswith(FOLDER) and load(dataset, data_dir, True).digest != run.env.get("data_digest"):
        raise UsageError(
            f"{run.folder} was made of other images, those of {run.config['dataset']} as it was then: "
            "rename the folder of images, choose another --out, or train it again with --fresh"
        )


# --- whether its parts agree -----------------------------------------------------------------------------------------


def problems_of(folder: Path) -> list[str]:
    """Empty for a record that can be believed."""
    try:
        run = read_run(folder)
    except (OSError, ValueError) as error:
        return [f"cannot be read: {reason(error)}"]
    found = [f"env.json has no {name}" for name in ENVIRONMENT if not run.env.get(name)]
    found += [DIRTY] if run.env.get("dirty") else []
    if folder.name != (name := run.config.get("run_id")):
        found.append(f"the folder's name is not the run's: {name}")
    return found + contradictions(run)


def contradictions(run: Run) -> list[str]:
    """Where its files say different things, wherever and on whatever it was made."""
    found: list[str] = []
    for check in (_identity, _result, _epochs, _predictions):
        try:
            found += check(run)
        except Exception as error:
            found.append(f"its {check.__name__.strip('_')} cannot be checked: {reason(error)}")
    return found


def is_own_class(run: Run) -> bool:
    """Whether its variant is of a user's own class: to make its configuration again would run their file."""
    return run.config.get("variant_type") not in TYPES


def _identity(run: Run) -> Iterator[str]:
    """A run's name holds a hash of its fields."""
    if (semantics := run.config.get("semantics")) != SEMANTICS:
        yield f"made with semantics {semantics}, this code has {SEMANTICS}: its identity cannot be checked"
    elif not is_own_class(run):
        config = run_config_from_plain(run.config)
        for name in ("run_id", "cell_id"):
            if run.config.get(name) != getattr(config, name):
                yield f"{name} is {run.config.get(name)}, its fields give {getattr(config, name)}"


def _result(run: Run) -> Iterator[str]:
    result, split = run.result, run.result["split"]
    for name in ("test_accuracy", "best_test_accuracy", "val_accuracy"):
        if result[name] is not None and not 0 <= result[name] <= 1:
            yield f"{name} is {result[name]}, no share"
    if split != ("val" if run.config["holdout"] else "test"):
        yield f"split is {split!r} with a holdout of {run.config['holdout']}"
    if run.ok and result[f"{split}_accuracy"] is None:
        yield f"it is done and has no {split}_accuracy"
    if not run.ok and not result["reason"]:
        yield "it failed for no reason"
    if (run.cost.get("params"), run.cost.get("macs")) != (result["params"], result["macs"]):
        yield "cost.json and result.json count the model differently"


def _epochs(run: Run) -> Iterator[str]:
    lines, result, split = run.epochs(), run.result, run.result["split"]
    if [line.get("epoch") for line in lines] != list(range(1, len(lines) + 1)):
        yield "epochs.jsonl does not count 1, 2, 3, ..."
        return
    planned = run.config["recipe"]["epochs"]
    if result["epochs"] != len(lines) or (run.ok and len(lines) != planned):
        yield f"{len(lines)} epochs are recorded, the result says {result['epochs']} and {planned} were planned"
    if not run.ok or not lines:
        return
    said = {"images_seen": lines[-1]["images_seen"], f"{split}_accuracy": lines[-1][f"{split}_accuracy"]}
    if split == "test":
        said |= {"test_nll": lines[-1]["test_loss"], "best_test_accuracy": max(line["test_accuracy"] for line in lines)}
    for name, value in said.items():
        if result[name] != value:
            yield f"{name} is {result[name]}, the epochs say {value}"


def _predictions(run: Run) -> Iterator[str]:
    if not run.ok:
        return
    arrays, accuracy = run.predictions(), run.result[f"{run.result['split']}_accuracy"]
    labels, predicted, confidence = (arrays[name] for name in PREDICTIONS)
    if labels.ndim != 1 or not labels.shape == predicted.shape == confidence.shape:
        yield f"predictions.npz has {labels.shape} labels, {predicted.shape} classes and {confidence.shape} confidences"
        return
    if not ((confidence >= 0) & (confidence <= 1 + ROUNDING_32)).all():
        yield "predictions.npz: a confidence is no probability"
    hits = float((labels == predicted).mean())
    if not math.isclose(hits, accuracy, abs_tol=ROUNDING):
        yield f"its predictions are right in {hits:.6f} of all images, the result says {accuracy:.6f}"


# --- bytes to values -------------------------------------------------------------------------------------------------


def reason(error: Exception) -> str:
    """What is wrong with a record, for a message."""
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _content(folder: Path, name: str, digests: dict[str, str] | None) -> bytes:
    content = (folder / name).read_bytes()
    if digests is not None and digest(content) != digests.get(name):
        raise ValueError(f"{name} {CHANGED}")
    return content


def _fields(name: str, content: bytes, fields: Any) -> dict[str, Any]:
    """An object of a schema that this version reads, each field of its kind."""
    plain = _object(name, content)
    schema = plain.get("schema")
    if type(schema) is not int or schema not in range(1, SCHEMA + 1):
        raise ValueError(f"{name} has schema {schema}, this version reads 1 to {SCHEMA}")
    if wrong := misfits(plain, fields):
        raise ValueError(f"{name} has no usable {', '.join(wrong)}")
    return plain


def _object(name: str, content: bytes) -> dict[str, Any]:
    plain = parsed(name, content)
    if not isinstance(plain, dict):
        raise ValueError(f"{name} holds no object")
    return plain


def parsed(name: str, content: bytes) -> Any:
    """JSON without the words NaN and Infinity, which no record holds."""
    try:
        return DECODER.decode(content.decode())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of a record")


DECODER = json.JSONDecoder(parse_constant=_no_number)
