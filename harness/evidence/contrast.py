"""Two sides compared from their records, for `harness.compare`: what differs in the config, how far accuracies differ
and how sure that is, and on which images. Sides that were judged on other images are refused."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.evidence.cells import Cell, cell_of, unique, usable
from harness.evidence.names import name_of
from harness.evidence.quality import Predictions, predictions_of
from harness.records.read import Run, load_runs, read_run
from harness.statistics.images import (
    Agreement,
    agreement,
    calibration_error,
    class_accuracy,
    difference_interval,
    mcnemar_p,
)
from harness.statistics.intervals import mean_interval
from harness.statistics.paired import Paired, paired, seeds_needed
from variants.fields import UsageError, near_matches

MOST_NAMES = 8
PARTS = ("variant", "recipe")
SCALARS = ("variant_type", "precision", "compile", "holdout", "semantics")
MADE_WITH = ("device_name", "torch", "source_digest", "data_digest")


@dataclass(frozen=True)
class Differing:
    """A field with each side's values; absent on a side whose config has no such field."""

    field: str
    a: list[Any]
    b: list[Any]


@dataclass(frozen=True)
class Mean:
    mean: float
    half: float | None
    n: int


@dataclass(frozen=True)
class SideFacts:
    """One side in numbers. Accuracy and calibration error in percent."""

    run_ids: list[str]
    label: str
    seeds: list[int]
    failed: int
    accuracy: Mean | None
    nll: Mean | None
    calibration_error: Mean | None
    params: float | None
    macs: float | None
    train_minutes: Mean | None  # of runs alone on one device
    device: str | None  # where these minutes were measured


@dataclass(frozen=True)
class ImagePair:
    """Two models on the same images."""

    seed_a: int
    seed_b: int
    counts: Agreement
    difference: float  # B - A, points
    interval: tuple[float, float]
    mcnemar_p: float


@dataclass(frozen=True)
class ClassDifference:
    """Means over the compared pairs, percent."""

    label: int
    a: float
    b: float
    difference: float  # B - A


@dataclass(frozen=True)
class Contrast:
    dataset: str
    split: str
    a: SideFacts
    b: SideFacts
    config: list[Differing]
    made_with: list[Differing]
    difference: Paired  # B - A by seed, points
    seeds_to_resolve: int | None  # if the true difference and spread were those measured
    images: list[ImagePair]
    classes: list[ClassDifference]  # largest difference first
    remarks: list[str]


def contrast(a: Cell, b: Cell) -> Contrast:
    check_comparable(a, b)
    split, remarks = split_of(a), list[str]()
    difference = paired(a.by_seed(split), b.by_seed(split))
    predictions = {run_id(run): _predictions(run, remarks) for run in (*a.runs, *b.runs)}
    compared = _comparable(_pairs_of_runs(a, b), predictions, remarks)
    return Contrast(
        dataset=a.dataset,
        split=split,
        a=_facts(a, split, predictions),
        b=_facts(b, split, predictions),
        config=_config_difference(a, b),
        made_with=_differing(MADE_WITH, [run.env for run in a.runs], [run.env for run in b.runs]),
        difference=difference,
        seeds_to_resolve=seeds_needed(difference.mean or 0.0, difference.spread or 0.0),
        images=[_image_pair(*pair) for pair in compared],
        classes=_class_differences(compared),
        remarks=remarks,
    )


# --- the sides -------------------------------------------------------------------------------------------------------


def side_of(name: str, folders: Sequence[Path]) -> Cell:
    """A run's folder, a run id, or a cell id (all seeds of the cell under the folders)."""
    if (Path(name) / "config.json").is_file():
        return _side([_read(Path(name))])
    runs = [run for run in load_runs(folders) if usable(run)]
    for field in ("run_id", "cell_id"):
        chosen = [run for run in runs if run.config.get(field) == name]
        if chosen:
            return _side(sorted(unique(chosen), key=lambda run: run.config["seed"]))
    where = ", ".join(map(str, folders))
    names = {str(run.config[field]) for run in runs for field in ("run_id", "cell_id") if run.config.get(field)}
    if not names:
        raise UsageError(f"{name!r} is no run's folder, and there is no finished run under {where}")
    raise UsageError(f"{name!r} is neither a run's folder nor an id under {where}: {_suggestion(name, names)}")


def _suggestion(name: str, names: Collection[str]) -> str:
    """A study has hundreds of ids: where none is near, not all are printed."""
    clause = near_matches(name, names)
    return clause if clause.startswith("did you mean") or len(names) <= MOST_NAMES else f"it holds {len(names)} others"


def _read(folder: Path) -> Run:
    try:
        run = read_run(folder)
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: unfinished, there is no {Path(str(error.filename)).name}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} cannot be read: {type(error).__name__}: {error}") from None
    if not usable(run):
        raise UsageError(f"{folder}: its record lacks what a comparison needs")
    return run


def _side(runs: Sequence[Run]) -> Cell:
    side = cell_of(runs, name_of(runs[0].config))
    if not side.runs:
        raise UsageError(f"{runs[0].folder}: failed ({runs[0].result.get('reason')}), there is nothing to compare")
    return side


def check_comparable(a: Cell, b: Cell) -> None:
    if a.dataset != b.dataset:
        raise UsageError(f"A was judged on {a.dataset} and B on {b.dataset}: accuracies of two data sets say nothing")
    if judged_on(a) != judged_on(b):
        raise UsageError(f"A was judged on {judged_on(a)} and B on {judged_on(b)}: these are not the same images")
    if shared := {run_id(run) for run in a.runs} & {run_id(run) for run in b.runs}:
        raise UsageError(f"A and B share {', '.join(sorted(shared))}: a run cannot be compared with itself")


def split_of(side: Cell) -> str:
    return side.runs[0].result["split"]


def judged_on(side: Cell) -> str:
    """Two holdouts of another size are other images."""
    split, holdout = split_of(side), side.setting("holdout")
    return f"{split} (holdout {holdout:g})" if holdout else split


def run_id(run: Run) -> str:
    return run.config.get("run_id") or run.folder.name


def _facts(side: Cell, split: str, predictions: dict[str, Predictions | None]) -> SideFacts:
    known = [found for run in side.runs if (found := predictions[run_id(run)])]
    errors = [100 * calibration_error(p["confidence"], p["predicted"] == p["labels"]) for p in known]
    return SideFacts(
        run_ids=[run_id(run) for run in side.runs],
        label=f"{side.variant}, {side.recipe}",
        seeds=[run.config["seed"] for run in side.runs],
        failed=len(side.failed),
        accuracy=_mean(list(side.by_seed(split).values())),
        nll=_mean(side.measured(f"{split}_nll")),
        calibration_error=_mean(errors),
        params=side.cost("params"),
        macs=side.cost("macs"),
        train_minutes=_mean(side.timed("train_seconds", 1 / 60)),
        device=side.timed_device,
    )


def _mean(values: Sequence[float]) -> Mean | None:
    return Mean(*mean_interval(values)) if values else None


# --- what differs ----------------------------------------------------------------------------------------------------


def _config_difference(a: Cell, b: Cell) -> list[Differing]:
    """Every field that can change a result and does not agree: the ablation, as the machine states it."""
    flat_a, flat_b = _flat(a.runs[0]), _flat(b.runs[0])
    found = _differing(list(dict.fromkeys([*flat_a, *flat_b])), [flat_a], [flat_b])
    seeds = Differing("seed", *([run.config["seed"] for run in side.runs] for side in (a, b)))
    return found if seeds.a == seeds.b else [*found, seeds]


def _flat(run: Run) -> dict[str, Any]:
    fields = {name: run.config[name] for name in SCALARS if name in run.config}
    return {f"{part}.{name}": v for part in PARTS for name, v in (run.config.get(part) or {}).items()} | fields


def _differing(names: Sequence[str], a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> list[Differing]:
    rows = [Differing(name, *(_values(name, records) for records in (a, b))) for name in names]
    return [row for row in rows if row.a != row.b]


def _values(name: str, records: Sequence[dict[str, Any]]) -> list[Any]:
    """The different values in the order in which they come; some are lists, so that no set can hold them."""
    values: list[Any] = []
    for record in records:
        if name in record and record[name] not in values:
            values.append(record[name])
    return values


# --- images ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One run of a pair."""

    seed: int
    predictions: Predictions


def _predictions(run: Run, remarks: list[str]) -> Predictions | None:
    found, reason = predictions_of(run)
    if found is None:
        remarks.append(f"{run_id(run)}: no predictions to compare ({reason})")
        print(remarks[-1], file=sys.stderr)
    return found


def _pairs_of_runs(a: Cell, b: Cell) -> list[tuple[Run, Run]]:
    """Those of one seed; two single runs are compared whatever their seeds, for then they are what was asked about."""
    by_seed = {run.config["seed"]: run for run in b.runs}
    same = [(run, by_seed[run.config["seed"]]) for run in a.runs if run.config["seed"] in by_seed]
    return same or ([(a.runs[0], b.runs[0])] if len(a.runs) == len(b.runs) == 1 else [])


def _comparable(
    pairs: Sequence[tuple[Run, Run]], predictions: dict[str, Predictions | None], remarks: list[str]
) -> list[tuple[Side, Side]]:
    kept = []
    for first, second in pairs:
        a, b = predictions[run_id(first)], predictions[run_id(second)]
        if a and b and np.array_equal(a["labels"], b["labels"]):
            kept.append((Side(first.config["seed"], a), Side(second.config["seed"], b)))
        elif a and b:
            remarks.append(f"{run_id(first)} and {run_id(second)}: the data differ, so no image is compared")
    return kept


def _image_pair(a: Side, b: Side) -> ImagePair:
    counts = agreement(a.predictions["labels"], a.predictions["predicted"], b.predictions["predicted"])
    low, high = difference_interval(counts, (a.seed, b.seed))
    p = mcnemar_p(counts.only_first, counts.only_second)
    return ImagePair(a.seed, b.seed, counts, 100 * counts.difference, (100 * low, 100 * high), p)


def _class_differences(pairs: Sequence[tuple[Side, Side]]) -> list[ClassDifference]:
    if not pairs:
        return []
    classes = 1 + max(int(a.predictions["labels"].max()) for a, _ in pairs)
    a_K, b_K = (100 * np.mean([_accuracy(side, classes) for side in sides], 0) for sides in zip(*pairs))
    seen = (label for label in range(classes) if not np.isnan(a_K[label]))
    rows = [ClassDifference(k, float(a_K[k]), float(b_K[k]), float(b_K[k] - a_K[k])) for k in seen]
    return sorted(rows, key=lambda row: (-abs(row.difference), row.label))


def _accuracy(side: Side, classes: int) -> np.ndarray:
    return class_accuracy(side.predictions["labels"], side.predictions["predicted"], classes)
