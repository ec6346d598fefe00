"""What the page of all results holds as plain data, for its charts: cells, their runs, what the studies found, and the
data of the report's own figures with at most 60 points a curve and four digits a number."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.datasets import title
from harness.evidence.cells import Cell, Evidence, cost_of_cell, cost_of_plain, datasets_of, rows_of
from harness.evidence.effects import BETTER, WORSE
from harness.evidence.figures.cells import confusion_data, curves_data, reliability_data, robustness_data
from harness.evidence.figures.costs import AXES, tradeoff_data
from harness.evidence.figures.drawing import styles
from harness.evidence.figures.studies import interaction_data, scaling_data
from harness.evidence.findings import Finding, changes_text, planned_on
from harness.evidence.published import SOURCES, Pair
from harness.evidence.quality import epochs_of, finite
from harness.evidence.writing import p_value
from harness.records.read import REFERENCE_RUNS, Run
from harness.statistics.intervals import mean_interval
from harness.study import Row as PlannedRow
from harness.study import Study

MOST_POINTS = 60  # of a curve
DIGITS = 4
MOST_CLASSES = 20  # of a confusion matrix that is there as a whole
MOST_CONFUSED = 25  # pairs of classes, of a larger one
REFERENCE, OWN = "reference", "own"
PICTURES, PICTURE_WIDTH = Path("figures"), 560  # where harness.look leaves a run's
PICTURE_BYTES, RUN_BYTES = 300_000, 600  # of all pictures in the page; each run leaves less, so that 500 runs fit


@dataclass(frozen=True)
class Place:
    """A line of the leaderboard: a cell, or one that the study plans and nobody has run."""

    row: tuple[str, str]
    dataset: str
    cell: Cell | None
    epochs: int | None
    costs: Mapping[str, float | None]
    planned: PlannedRow | None

    @property
    def facts(self) -> dict[str, Any]:
        """What the page filters by."""
        variant, recipe = self.row
        own = {"variant": variant, "recipe": recipe, "dataset": self.dataset, "origin": origins_of(self.cell)}
        return own | {"epochs": self.epochs, "params": self.costs.get("params")}


def origin_of(run: Run) -> str:
    return REFERENCE if run.folder.parent.name == REFERENCE_RUNS.name else OWN


def origins_of(cell: Cell | None) -> str:
    return " and ".join(dict.fromkeys(map(origin_of, cell.all_runs))) if cell else "missing"


def places_of(evidence: Evidence, study: Study) -> list[Place]:
    """Every cell, and what the study plans: data set by data set, the best first."""
    found = []
    for row in rows_of(evidence.cells, study):
        for dataset in datasets_of(row.cells, study if row.planned else None):
            cell = row.on.get(dataset)
            if cell:
                costs, epochs = cost_of_cell(cell, evidence.costs), cell.epochs
            else:
                config = planned_on(row.planned, dataset, None, 0.0)[0] if row.planned else None
                settings = row.planned.settings if row.planned else ()
                costs = cost_of_plain(evidence.costs, row.variant, settings, dataset)
                epochs = config.recipe.epochs if config else None
            found.append(Place((row.variant, row.recipe), dataset, cell, epochs, costs, row.planned))
    means = {id(place): (_mean(place.cell) or {"mean": -1})["mean"] for place in found}
    datasets = [*dict.fromkeys(place.dataset for place in found)]
    return sorted(found, key=lambda place: (datasets.index(place.dataset), -means[id(place)]))


def contents(
    evidence: Evidence, places: Sequence[Place], pairs: Sequence[Pair], found: Sequence[Finding]
) -> dict[str, Any]:
    cells = [place.cell for place in places if place.cell]
    datasets = datasets_of(cells)
    facts = [place.facts for place in places]  # more follow, of what has no place
    studies, published = [_study(one, facts) for one in found], _published(pairs, places, facts)
    names = [(line["name"], "published") for study in studies if study["along"] for line in study["along"]["lines"]]
    looks = {**styles(names), **styles(cell.row for cell in (*cells, *evidence.validation))}
    shared = [_shared(place.cell) if place.cell else {} for place in places]
    fields = next(filter(None, shared), {})
    steps: list[list[int]] = []  # each list of epochs once: series name it by its place
    runs = [(at, run) for at, place in enumerate(places) if place.cell for run in place.cell.all_runs]
    pictures = _pictures([run for _, run in runs])
    return rounded(
        {
            "steps": steps,
            "titles": {fact["dataset"]: title(fact["dataset"]) for fact in facts},
            "looks": {", ".join(row): [of.color, of.marker, of.line, of.fill] for row, of in sorted(looks.items())},
            "facts": facts,
            "means": [_mean(place.cell) for place in places],
            "fields": fields,
            "shared": [_changes(fields, own) if own else {} for own in shared],
            "runs": [{"cell": at, **_run(run, shared[at], steps), "picture": pictures[run.folder]} for at, run in runs],
            "sources": {key: [source.title, source.address] for key, source in SOURCES.items()},
            "published": published,
            "studies": studies,
            "curves": {name: _thin_curves(curves_data(cells, name), steps) for name in datasets},
            "costs": {against: tradeoff_data(cells, against) for against in AXES},
            "reliability": {name: reliability_data(cells, name, len(cells)) for name in datasets},
            "robustness": {name: robustness_data(cells, name) for name in datasets},
            "confusion": {name: _small(confusion_data(cells, name, len(cells))) for name in datasets},
        }
    )


def _mean(cell: Cell | None) -> dict[str, Any] | None:
    if not cell or not cell.accuracies:
        return None
    mean, half, n = mean_interval(cell.accuracies)
    return {"mean": mean, "half": half, "n": n}


def _published(pairs: Sequence[Pair], places: Sequence[Place], facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of the table; `of` says by which facts one is filtered."""
    at = {id(place.cell): fact for fact, place in enumerate(places)}
    found = []
    for pair in pairs:
        number, cell = pair.published, pair.cell
        names = {"variant": number.variant, "recipe": number.recipe, "dataset": number.dataset}
        if not cell:
            facts.append(names | {"origin": "missing", "epochs": number.epochs, "params": None})
        of = at[id(cell)] if cell else len(facts) - 1
        half = (_mean(cell) or {}).get("half")
        own = {"source": number.source, "mean": pair.difference, "half": half, "verdict": pair.verdict}
        found.append({**names, **own, "n": len(cell.accuracies) if cell else 0, "of": of})
    return found


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """What makes the one of the other; None: it has no such field."""
    gone = dict.fromkeys(name for name in before if name not in after)
    return {**gone, **{name: value for name, value in after.items() if before.get(name) != value}}


# --- a run -----------------------------------------------------------------------------------------------------------


def _flat(run: Run) -> dict[str, Any]:
    """Its fields and its machine, without its names and seed."""
    parts = {f"{part}.{name}": value for part in ("variant", "recipe") for name, value in _items(run.config.get(part))}
    rest = ("precision", "compile", "holdout", "accumulate", "variant_type", "semantics", "label")
    plain = {name: run.config[name] for name in rest if name in run.config}
    return parts | plain | {f"machine: {name}": value for name, value in run.env.items()}


def _items(fields: Any) -> Iterable[tuple[str, Any]]:
    return fields.items() if isinstance(fields, dict) else ()


def _shared(cell: Cell) -> dict[str, str]:
    """What all runs of a cell have in common."""
    first, *others = map(_flat, cell.all_runs)
    return {name: _told(value) for name, value in first.items() if all(of.get(name, of) == value for of in others)}


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


MEASURED = {
    "test_accuracy": ("test accuracy (%)", 100),
    "best_test_accuracy": ("best test epoch (%)", 100),
    "val_accuracy": ("validation accuracy (%)", 100),
    "test_nll": ("NLL", 1),
    "train_seconds": ("training minutes", 1 / 60),
    "images_per_second": ("images/s", 1),
    "peak_memory_bytes": ("peak memory (MB)", 1e-6),
    "energy_joules": ("energy (Wh)", 1 / 3600),
}


def _run(run: Run, shared: Mapping[str, str], steps: list[list[int]]) -> dict[str, Any]:
    values = ((head, scale, finite(run.result.get(name))) for name, (head, scale) in MEASURED.items())
    return {
        "id": run.config.get("run_id") or run.folder.name,
        "seed": run.config["seed"],
        "origin": origin_of(run),
        "failed": "" if run.ok else str(run.result.get("reason") or "failed"),
        "own": {name: _told(value) for name, value in _flat(run).items() if name not in shared},
        "measured": {head: value * scale for head, scale, value in values if value is not None},
        "curve": _curve(run, steps),
    }


def _curve(run: Run, steps: list[list[int]]) -> dict[str, Any]:
    split = run.result["split"]
    lines = [line for line in epochs_of(run) if finite(line.get(f"{split}_accuracy")) is not None]
    kept = [lines[at] for at in evenly(len(lines))]
    epochs, accuracies = [line["epoch"] for line in kept], [100 * line[f"{split}_accuracy"] for line in kept]
    return {"epoch": _numbered(epochs, steps), "mean": accuracies}


def _pictures(runs: Sequence[Run]) -> dict[Path, str]:
    """Of each run its attention maps as text, once the page is full the place of the file, or nothing."""
    found, left = {}, PICTURE_BYTES - RUN_BYTES * len(runs)
    for run in runs:
        path = PICTURES / run.folder.name / "attention.png"
        text = _embedded(path) if left > 0 and path.is_file() else path.as_posix() if path.is_file() else ""
        left -= len(text)
        found[run.folder] = text
    return found


def _embedded(path: Path) -> str:
    """No wider than the page shows it; nothing of a file that is no picture."""
    content = io.BytesIO()
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except (OSError, ValueError):
        return ""
    small.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
    small.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


# --- a study ---------------------------------------------------------------------------------------------------------


def _study(one: Finding, facts: list[dict[str, Any]]) -> dict[str, Any]:
    of = range(len(facts), len(facts) + len(one.lines))
    for line in one.lines:
        variant, recipe = line.cell.row if line.cell else line.row.name
        origin = origins_of(line.cell)
        own = {"dataset": one.dataset, "origin": origin, "epochs": line.config.recipe.epochs, "params": None}
        facts.append({"variant": variant, "recipe": recipe, **own})
    along = scaling_data(one) or interaction_data(one)
    rows = [
        {
            "label": effect.label,
            "against": effect.against,
            "mean": effect.difference.mean,
            "half": effect.difference.half,
            "n": effect.difference.n,
            "holm": p_value(effect.holm_p),
            "verdict": effect.verdict,
            "clear": effect.verdict in (BETTER, WORSE),
            "changed": changes_text(one.base.config, effect.line.config) if effect.line else "",
        }
        for effect in one.effects
    ]
    return {"name": one.name, "of": [*of], "rows": rows, "along": along}


# --- small enough for a page -----------------------------------------------------------------------------------------


def evenly(count: int, most: int = MOST_POINTS) -> list[int]:
    """The places of at most so many of them, the first and the last included."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def _thin_curves(data: dict[str, Any], steps: list[list[int]]) -> dict[str, Any]:
    kinds = ("accuracy", "loss", "train_loss")
    return data | {"lines": [line | {kind: _thin(line[kind], steps) for kind in kinds} for line in data["lines"]]}


def _thin(series: Mapping[str, list[Any]], steps: list[list[int]]) -> dict[str, Any]:
    """Without a band where there is one seed."""
    kept = evenly(len(series["epoch"]))
    thin: dict[str, Any] = {name: [values[at] for at in kept] for name, values in series.items()}
    shown = ("mean",) if thin["low"] == thin["high"] else ("mean", "low", "high")
    return {"epoch": _numbered(thin["epoch"], steps), **{name: thin[name] for name in shown}}


def _numbered(epochs: list[int], steps: list[list[int]]) -> int:
    if epochs not in steps:
        steps.append(epochs)
    return steps.index(epochs)


def _small(data: dict[str, Any]) -> dict[str, Any]:
    """Of many classes only the pairs that are confused most."""
    return data | {"panels": [panel | _confused(np.array(panel["share"])) for panel in data["panels"]]}


def _confused(share_KK: np.ndarray) -> dict[str, Any]:
    classes = len(share_KK)
    if classes <= MOST_CLASSES:
        return {"classes": classes}
    wrong_KK = share_KK * (1 - np.eye(classes))
    worst = np.argsort(-wrong_KK, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [[*map(int, divmod(int(at), classes)), float(wrong_KK.flat[at])] for at in worst]
    return {"classes": classes, "share": None, "pairs": pairs}


def rounded(value: Any) -> Any:
    """Every number to four digits."""
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() else short
    if isinstance(value, Mapping):
        return {name: rounded(of) for name, of in value.items()}
    return [rounded(of) for of in value] if isinstance(value, (list, tuple)) else value
