"""Owns what the records say of two sides: what differs in the config, how far accuracies differ and how sure that is,
and on which images. Refuses to know more than the records: a hole stays one, and one pair of seeds is undecided.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.evidence.cells.groups import Group
from harness.evidence.cells.numbers import finite
from harness.evidence.cells.quality import Predictions, predictions_of
from harness.evidence.cells.sides import check_comparable, run_id, split_of
from harness.records.read import Run
from harness.statistics.images import (
    Agreement,
    agreement,
    calibration_error,
    class_accuracy,
    difference_interval,
    mcnemar_p,
)
from harness.statistics.intervals import mean_interval
from harness.statistics.paired import Paired, paired
from harness.statistics.power import seeds_needed

PARTS = ("variant", "recipe")
SCALARS = ("variant_type", "precision", "compile", "holdout", "semantics")
MADE_WITH = ("device_name", "torch", "source_digest", "data_digest")
COSTS = ("params", "macs")


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

    @property
    def difference(self) -> float:
        return self.b - self.a


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


def contrast(a: Group, b: Group) -> Contrast:
    check_comparable(a, b)
    split, remarks = split_of(a), list[str]()
    difference = paired(accuracy_by_seed(a, split), accuracy_by_seed(b, split))
    resolving = seeds_needed(difference.mean or 0.0, difference.spread or 0.0)
    predictions = {run_id(run): _predictions(run, remarks) for run in (*a.runs, *b.runs)}
    compared = _comparable(_pairs_of_runs(a, b), predictions, remarks)
    images = [_image_pair(first, second, predictions) for first, second in compared]
    classes = _class_differences([(predictions[run_id(x)], predictions[run_id(y)]) for x, y in compared])
    return Contrast(
        dataset=a.dataset,
        split=split,
        a=_facts(a, split, predictions),
        b=_facts(b, split, predictions),
        config=config_difference(a, b),
        made_with=_differing(MADE_WITH, [run.env for run in a.runs], [run.env for run in b.runs]),
        difference=difference,
        seeds_to_resolve=resolving,
        images=images,
        classes=classes,
        remarks=remarks,
    )


def accuracy_by_seed(side: Group, split: str) -> dict[int, float]:
    """In percent; a run that has none is left out."""
    pairs = ((run.config["seed"], finite(run.result.get(f"{split}_accuracy"))) for run in side.runs)
    return {seed: 100 * accuracy for seed, accuracy in pairs if accuracy is not None}


# --- what differs ----------------------------------------------------------------------------------------------------


def config_difference(a: Group, b: Group) -> list[Differing]:
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


# --- one side --------------------------------------------------------------------------------------------------------


def _facts(side: Group, split: str, predictions: dict[str, Predictions | None]) -> SideFacts:
    known = [found for run in side.runs if (found := predictions[run_id(run)])]
    errors = [100 * calibration_error(p["confidence"], p["predicted"] == p["labels"]) for p in known]
    return SideFacts(
        run_ids=[run_id(run) for run in side.runs],
        label=f"{side.variant}, {side.recipe}",
        seeds=[run.config["seed"] for run in side.runs],
        failed=len(side.failed),
        accuracy=_mean(list(accuracy_by_seed(side, split).values())),
        nll=_mean(side.measured(f"{split}_nll")),
        calibration_error=_mean(errors),
        **{name: side.cost(name) for name in COSTS},
        train_minutes=_mean(side.timed("train_seconds", 1 / 60)),
        device=side.timed_device,
    )


def _mean(values: Sequence[float]) -> Mean | None:
    return Mean(*mean_interval(values)) if values else None


# --- images ----------------------------------------------------------------------------------------------------------


def _predictions(run: Run, remarks: list[str]) -> Predictions | None:
    found, reason = predictions_of(run)
    if found is None:
        remarks.append(f"{run_id(run)}: no predictions to compare ({reason})")
        print(remarks[-1], file=sys.stderr)
    return found


def _pairs_of_runs(a: Group, b: Group) -> list[tuple[Run, Run]]:
    """Those of one seed; two single runs are compared whatever their seeds, for then they are what was asked about."""
    by_seed = {run.config["seed"]: run for run in b.runs}
    same = [(run, by_seed[run.config["seed"]]) for run in a.runs if run.config["seed"] in by_seed]
    return same or ([(a.runs[0], b.runs[0])] if len(a.runs) == len(b.runs) == 1 else [])


def _comparable(
    pairs: Sequence[tuple[Run, Run]], predictions: dict[str, Predictions | None], remarks: list[str]
) -> list[tuple[Run, Run]]:
    kept = []
    for first, second in pairs:
        a, b = predictions[run_id(first)], predictions[run_id(second)]
        if a and b and np.array_equal(a["labels"], b["labels"]):
            kept.append((first, second))
        elif a and b:
            remarks.append(f"{run_id(first)} and {run_id(second)}: the data differ, so no image is compared")
    return kept


def _image_pair(first: Run, second: Run, predictions: dict[str, Predictions | None]) -> ImagePair:
    a, b = predictions[run_id(first)] or {}, predictions[run_id(second)] or {}
    counts = agreement(a["labels"], a["predicted"], b["predicted"])
    seeds = first.config["seed"], second.config["seed"]
    low, high = difference_interval(counts, seeds)
    p = mcnemar_p(counts.only_first, counts.only_second)
    return ImagePair(*seeds, counts, 100 * counts.difference, (100 * low, 100 * high), p)


def _class_differences(pairs: Sequence[tuple[Predictions | None, Predictions | None]]) -> list[ClassDifference]:
    known = [(a, b) for a, b in pairs if a and b]
    if not known:
        return []
    classes = 1 + max(int(a["labels"].max()) for a, _ in known)
    a_K, b_K = (
        100 * np.mean([class_accuracy(pair[side]["labels"], pair[side]["predicted"], classes) for pair in known], 0)
        for side in (0, 1)
    )
    rows = [ClassDifference(k, float(a_K[k]), float(b_K[k])) for k in range(classes) if not np.isnan(a_K[k])]
    return sorted(rows, key=lambda row: (-abs(row.difference), row.label))
