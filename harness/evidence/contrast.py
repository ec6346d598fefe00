"""Two sides compared from their records, for `harness.compare`: what differs in the config, how far accuracies differ
and how sure that is, and on which images. Sides that were judged on other images are refused."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harness.evidence.cells import Cell, cell_of, unique, usable
from harness.evidence.names import name_of
from harness.evidence.quality import Predictions, predictions_of
from harness.records.read import Run, load_runs, read_run
from harness.statistics.images import agreement, calibration_error, class_accuracy, difference_interval, mcnemar_p
from harness.statistics.intervals import mean_interval
from harness.statistics.paired import paired, seeds_needed
from variants.fields import UsageError, near_matches

MOST_NAMES = 8
PARTS = ("variant", "recipe")
SCALARS = ("variant_type", "precision", "compile", "holdout", "semantics")
MADE_WITH = ("device_name", "torch", "source_digest", "data_digest")

Plain = dict[str, Any]


def contrast(a: Cell, b: Cell) -> Plain:
    """As `--json` prints it. Accuracies and calibration errors are in percent, differences in points, B - A."""
    check_comparable(a, b)
    split, remarks = split_of(a), list[str]()
    difference = paired(a.by_seed(split), b.by_seed(split))
    predictions = {run_id(run): _predictions(run, remarks) for run in (*a.runs, *b.runs)}
    compared = _comparable(a, b, predictions, remarks)
    return {
        "dataset": a.dataset,
        "split": split,
        "a": _facts(a, split, predictions),
        "b": _facts(b, split, predictions),
        "config": _config_difference(a, b),
        "made_with": _differing(MADE_WITH, [run.env for run in a.runs], [run.env for run in b.runs]),
        "difference": asdict(difference),
        "seeds_to_resolve": seeds_needed(difference.mean or 0.0, difference.spread or 0.0),
        "images": [_of_images(seeds, *pair) for seeds, pair in compared],
        "classes": _of_classes([pair for _, pair in compared]),
        "remarks": remarks,
    }


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


def _facts(side: Cell, split: str, predictions: dict[str, Predictions | None]) -> Plain:
    """One side in numbers; `device` is where its minutes were measured, by runs alone on it."""
    known = [found for run in side.runs if (found := predictions[run_id(run)])]
    errors = [100 * calibration_error(p["confidence"], p["predicted"] == p["labels"]) for p in known]
    return {
        "run_ids": [run_id(run) for run in side.runs],
        "label": f"{side.variant}, {side.recipe}",
        "seeds": [run.config["seed"] for run in side.runs],
        "failed": len(side.failed),
        "accuracy": _mean(list(side.by_seed(split).values())),
        "nll": _mean(side.measured(f"{split}_nll")),
        "calibration_error": _mean(errors),
        "params": side.cost("params"),
        "macs": side.cost("macs"),
        "train_minutes": _mean(side.timed("train_seconds", 1 / 60)),
        "device": side.timed_device,
    }


def _mean(values: Sequence[float]) -> Plain | None:
    return dict(zip(("mean", "half", "n"), mean_interval(values))) if values else None


# --- what differs ----------------------------------------------------------------------------------------------------


def _config_difference(a: Cell, b: Cell) -> list[Plain]:
    """Every field that can change a result and does not agree: the ablation, as the machine states it."""
    flat_a, flat_b = _flat(a.runs[0]), _flat(b.runs[0])
    found = _differing(list(dict.fromkeys([*flat_a, *flat_b])), [flat_a], [flat_b])
    seeds_a, seeds_b = ([run.config["seed"] for run in side.runs] for side in (a, b))
    return found if seeds_a == seeds_b else [*found, {"field": "seed", "a": seeds_a, "b": seeds_b}]


def _flat(run: Run) -> Plain:
    fields = {name: run.config[name] for name in SCALARS if name in run.config}
    return {f"{part}.{name}": v for part in PARTS for name, v in (run.config.get(part) or {}).items()} | fields


def _differing(names: Sequence[str], a: Sequence[Plain], b: Sequence[Plain]) -> list[Plain]:
    """A field with each side's values; none on a side whose records have no such field."""
    rows = [{"field": name, "a": _values(name, a), "b": _values(name, b)} for name in names]
    return [row for row in rows if row["a"] != row["b"]]


def _values(name: str, records: Sequence[Plain]) -> list[Any]:
    """The different values in the order in which they come; some are lists, so that no set can hold them."""
    values: list[Any] = []
    for record in records:
        if name in record and record[name] not in values:
            values.append(record[name])
    return values


# --- images ----------------------------------------------------------------------------------------------------------

Seeds = tuple[int, int]
Pair = tuple[Predictions, Predictions]


def _predictions(run: Run, remarks: list[str]) -> Predictions | None:
    found, reason = predictions_of(run)
    if found is None:
        remarks.append(f"{run_id(run)}: no predictions to compare ({reason})")
        print(remarks[-1], file=sys.stderr)
    return found


def _comparable(
    a: Cell, b: Cell, predictions: dict[str, Predictions | None], remarks: list[str]
) -> list[tuple[Seeds, Pair]]:
    """Pairs of runs that judged the same images."""
    kept = []
    for first, second in _pairs_of_runs(a, b):
        of_first, of_second = predictions[run_id(first)], predictions[run_id(second)]
        if of_first and of_second and np.array_equal(of_first["labels"], of_second["labels"]):
            kept.append(((first.config["seed"], second.config["seed"]), (of_first, of_second)))
        elif of_first and of_second:
            remarks.append(f"{run_id(first)} and {run_id(second)}: the data differ, so no image is compared")
    return kept


def _pairs_of_runs(a: Cell, b: Cell) -> list[tuple[Run, Run]]:
    """Those of one seed; two single runs are compared whatever their seeds, for then they are what was asked about."""
    by_seed = {run.config["seed"]: run for run in b.runs}
    same = [(run, by_seed[run.config["seed"]]) for run in a.runs if run.config["seed"] in by_seed]
    return same or ([(a.runs[0], b.runs[0])] if len(a.runs) == len(b.runs) == 1 else [])


def _of_images(seeds: Seeds, a: Predictions, b: Predictions) -> Plain:
    counts = agreement(a["labels"], a["predicted"], b["predicted"])
    return {
        "seed_a": seeds[0],
        "seed_b": seeds[1],
        "counts": asdict(counts),
        "difference": 100 * counts.difference,
        "interval": [100 * end for end in difference_interval(counts, seeds)],
        "mcnemar_p": mcnemar_p(counts.only_first, counts.only_second),
    }


def _of_classes(pairs: Sequence[Pair]) -> list[Plain]:
    """Accuracy by class, the mean over the pairs, largest difference first."""
    if not pairs:
        return []
    classes = 1 + max(int(a["labels"].max()) for a, _ in pairs)
    a_K, b_K = (
        100 * np.mean([class_accuracy(one["labels"], one["predicted"], classes) for one in side], 0)
        for side in zip(*pairs)
    )
    rows = [
        {"label": label, "a": float(a), "b": float(b), "difference": float(b - a)}
        for label, (a, b) in enumerate(zip(a_K, b_K))
        if not np.isnan(a)
    ]
    return sorted(rows, key=lambda row: (-abs(row["difference"]), row["label"]))
