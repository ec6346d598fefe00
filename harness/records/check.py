"""Owns whether a record can be believed: its files, fields and types, its identity, and whether its parts agree.
Refuses to mend anything, to raise for what stands in a file (every complaint is a sentence), and to run what one names.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.augmentations import CORRUPTION_NAMES
from harness.config import OWN_TYPES, SEMANTICS, run_config_from_plain
from harness.records.lock import NAME as LOCK
from harness.records.read import Run, read_run
from harness.records.schema import ASIDE, EPOCH_FIELDS, FILES, RESULT_FIELDS
from variants.fields import UsageError

STATES = "checkpoint-"  # of a run that failed for want of memory, or was killed when its result was just written
ENVIRONMENT = ("device", "device_name", "python", "platform", "torch", "numpy", "source_digest", "data_digest")
DIGEST = re.compile(r"[0-9a-f]{64}")
CLASS = re.compile(r"\w+@([0-9a-f]{16}|unknown)")  # somebody's own, and the digest of its file
ROUNDING = 1e-9
DIRTY = "it was made by code that differs from its commit"

BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)

Check = Callable[[Run], Iterator[str]]


def problems_of(folder: Path, checks: Sequence[Check] | None = None) -> list[str]:
    """Empty for a record that holds together."""
    try:
        run = read_run(folder)
    except FileNotFoundError as error:
        return [f"{Path(str(error.filename)).name} is missing"]
    except (OSError, ValueError) as error:
        return [f"cannot be read: {type(error).__name__}: {error}"]
    problems: list[str] = []
    for check in CHECKS if checks is None else checks:
        try:
            problems += check(run)
        except BROKEN as error:
            problems.append(f"its {check.__name__.strip('_')} cannot be checked: {type(error).__name__}: {error}")
    return problems


def _files(run: Run) -> Iterator[str]:
    there = {path.name for path in run.folder.iterdir()}
    expected = set(FILES) if run.ok else set(FILES) - {"predictions.npz"}
    yield from (f"{name} is missing" for name in sorted(expected - there))
    yield from (
        f"{name} does not belong to a record"
        for name in sorted(there - set(FILES))
        if name != LOCK and not name.startswith((ASIDE, STATES))
    )


def _identity(run: Run) -> Iterator[str]:
    semantics = run.config.get("semantics")
    if semantics != SEMANTICS:
        yield f"made with semantics {semantics}, this code has {SEMANTICS}: its identity cannot be checked"
        return
    if of_somebodys_class(run):  # to make its configuration would run the file that the record names, whatever is in it
        kind, name = run.config.get("variant_type"), run.config.get("variant_name")
        if not CLASS.fullmatch(str(kind)) or ".py:" not in str(name):
            yield f"no run of {name} has the variant_type {kind}"
        return
    try:
        config = run_config_from_plain(run.config)
    except UsageError as error:
        yield f"config.json is no configuration of this code: {error}"
        return
    for name in ("run_id", "cell_id"):
        if run.config.get(name) != getattr(config, name):
            yield f"{name} is {run.config.get(name)}, its fields give {getattr(config, name)}"


def _place(run: Run) -> Iterator[str]:
    if run.folder.name != run.config.get("run_id"):
        yield f"the folder's name is not the run's: {run.config.get('run_id')}"


def _environment(run: Run) -> Iterator[str]:
    yield from (f"env.json has no {name}" for name in ENVIRONMENT if not run.env.get(name))
    for name in ("source_digest", "data_digest"):
        if isinstance(value := run.env.get(name), str) and not DIGEST.fullmatch(value):
            yield f"env.json's {name} is no SHA-256"
    if run.env.get("dirty"):
        yield DIRTY


def _result(run: Run) -> Iterator[str]:
    result = run.result
    yield from (f"result.json has no {name}" for name in RESULT_FIELDS if name not in result)
    for name in ("test_accuracy", "best_test_accuracy", "val_accuracy"):
        value = result.get(name)
        if value is not None and not (_is_number(value) and 0 <= value <= 1):
            yield f"{name} is {value!r}, no share"
    for kind, shares in (result.get("corruption_accuracy") or {}).items():
        if kind not in CORRUPTION_NAMES or not all(_is_number(share) and 0 <= share <= 1 for share in shares):
            yield f"corruption_accuracy of {kind} is not what was measured under a corruption"
    split = result.get("split")
    if split != ("val" if run.config.get("holdout") else "test"):
        yield f"split is {split!r} with a holdout of {run.config.get('holdout')}"
    if run.ok and not _is_number(result.get(f"{split}_accuracy")):
        yield f"it is done and has no {split}_accuracy"
    if not run.ok and not result.get("reason"):
        yield "it failed for no reason"


def _epochs(run: Run) -> Iterator[str]:
    lines, result, split = run.epochs(), run.result, run.result["split"]
    if [line.get("epoch") for line in lines] != list(range(1, len(lines) + 1)):
        yield "epochs.jsonl does not count 1, 2, 3, ..."
        return
    for line in lines:
        names = (*EPOCH_FIELDS, f"{split}_loss", f"{split}_accuracy")
        yield from (f"epoch {line['epoch']}: {name} is no number" for name in names if not _is_number(line.get(name)))
    planned = run.config["recipe"]["epochs"]
    if result["epochs"] != len(lines) or (run.ok and len(lines) != planned):
        yield f"{len(lines)} epochs are recorded, the result says {result['epochs']} and {planned} were planned"
    if run.ok and lines:
        names = {"images_seen": "images_seen", f"{split}_accuracy": f"{split}_accuracy"}
        names |= {"test_nll": "test_loss"} if split == "test" else {}
        for name, in_a_line in names.items():
            if result[name] != lines[-1][in_a_line]:
                yield f"{name} is {result[name]}, the last epoch says {lines[-1][in_a_line]}"
        best = max(line[f"{split}_accuracy"] for line in lines)
        if split == "test" and result["best_test_accuracy"] != best:
            yield f"best_test_accuracy is {result['best_test_accuracy']}, the best epoch says {best}"


def _predictions(run: Run) -> Iterator[str]:
    if not run.ok:
        return
    arrays = run.predictions()
    sizes = {values.shape for values in arrays.values()}
    if len(sizes) != 1 or len(next(iter(sizes))) != 1:
        yield f"predictions.npz has arrays of the shapes {sorted(sizes)}"
        return
    confidence = arrays["confidence"]
    if not (np.isfinite(confidence).all() and (confidence >= 0).all() and (confidence <= 1 + 1e-6).all()):
        yield "predictions.npz: a confidence is no probability"
    hits = float((arrays["labels"] == arrays["predicted"]).mean())
    accuracy = run.result[f"{run.result['split']}_accuracy"]
    if not abs(hits - accuracy) < ROUNDING:
        yield f"its predictions are right in {hits:.6f} of all images, the result says {accuracy:.6f}"


def _cost(run: Run) -> Iterator[str]:
    if (run.cost.get("params"), run.cost.get("macs")) != (run.result["params"], run.result["macs"]):
        yield "cost.json and result.json count the model differently"


NUMBERS: tuple[Check, ...] = (_identity, _result, _epochs, _predictions, _cost)  # wherever and on whatever it was made
CHECKS: tuple[Check, ...] = (_files, _place, _environment, *NUMBERS)


def of_somebodys_class(run: Run) -> bool:
    """Whether its fields give its name nobody can tell without running code of theirs."""
    return run.config.get("variant_type") not in OWN_TYPES


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
