"""From records to cells: all seeds of one variant and recipe on one data set, under a name that no other cell of that
data set has. Every table and figure reads these; the order of their rows is here too."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from harness.config import dataset_name
from harness.counting.cost import file_name
from harness.datasets import DATASETS
from harness.evidence.names import Name, name_of
from harness.evidence.quality import Curves, Quality, Robustness, curves_of, finite, quality_of, robustness_of
from harness.evidence.writing import Item
from harness.records.read import OWN_RUNS, REFERENCE_RUNS, Run, load_runs
from harness.records.schema import is_aside
from harness.study import Row as PlannedRow
from harness.study import Study
from variants.catalog import CATALOG
from variants.fields import UsageError

IDENTITY = ("compile", "holdout", "precision", "semantics", "variant_type")  # of a cell, beside variant and recipe

Costs = Mapping[tuple[str, str], Mapping[str, float | None]]  # of the catalogue, by variant and data set
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Cell:
    """A variant under a recipe on a data set, with its runs."""

    variant: str
    recipe_name: str
    overrides: tuple[str, ...]
    dataset: str
    runs: tuple[Run, ...]  # done, by seed
    failed: tuple[Run, ...]
    note: str = ""  # what tells it from another cell of the same name: precision, compilation, ...

    @property
    def recipe(self) -> str:
        return ", ".join((self.recipe_name, *self.overrides))

    @property
    def row(self) -> tuple[str, str]:
        """What the cell is called in every table and figure: variant and recipe."""
        return self.variant, f"{self.recipe} [{self.note}]" if self.note else self.recipe

    @property
    def all_runs(self) -> tuple[Run, ...]:
        return (*self.runs, *self.failed)

    def setting(self, name: str) -> Any:
        """A field of the configuration outside variant and recipe: one cell has one value."""
        return self.all_runs[0].config.get(name)

    @property
    def epochs(self) -> int | None:
        return (self.setting("recipe") or {}).get("epochs")

    def cost(self, name: str) -> float | None:
        """As its runs recorded it."""
        return next((value for run in self.all_runs if (value := finite(run.cost.get(name))) is not None), None)

    def measured(self, name: str, scale: float = 1.0) -> list[float]:
        """A field of the result over the runs that are done; what was not measured is left out."""
        values = (finite(run.result.get(name)) for run in self.runs)
        return [value * scale for value in values if value is not None]

    def by_seed(self, split: str) -> dict[int, float]:
        """Accuracy on the split after the last planned epoch, in percent; a run without one is left out."""
        pairs = ((run.config["seed"], finite(run.result.get(f"{split}_accuracy"))) for run in self.runs)
        return {seed: 100 * accuracy for seed, accuracy in pairs if accuracy is not None}

    @cached_property
    def accuracies(self) -> list[float]:
        """Test accuracy after the last planned epoch, in percent."""
        return self.measured("test_accuracy", 100)

    @cached_property
    def quality(self) -> Quality | None:
        return quality_of(self.runs)

    @cached_property
    def curves(self) -> Curves:
        return curves_of(self.runs)

    @cached_property
    def robustness(self) -> Robustness | None:
        return robustness_of(self.runs)

    @cached_property
    def devices(self) -> list[str]:
        return sorted({device_of(run) for run in self.all_runs})

    @cached_property
    def timed_device(self) -> str | None:
        """The one device whose times may be shown: every run alone on it. Otherwise none."""
        names = {device_of(run) for run in self.runs}
        alone = not any(run.result.get("shared_device") for run in self.runs)
        return names.pop() if len(names) == 1 and alone else None

    def timed(self, name: str, scale: float = 1.0) -> list[float]:
        return self.measured(name, scale) if self.timed_device else []

    @cached_property
    def data_digests(self) -> set[str]:
        return {digest for run in self.runs if (digest := run.env.get("data_digest"))}


@dataclass(frozen=True)
class Evidence:
    """What some folders hold."""

    folders: tuple[Path, ...]
    cells: tuple[Cell, ...]
    validation: tuple[Cell, ...]  # runs with a holdout: they never looked at test
    elsewhere: tuple[Cell, ...] = ()  # shown by the studies that they were run for, and only there
    costs: Costs = field(default_factory=dict)  # of the catalogue's variants, whether or not they were run

    @property
    def source(self) -> str:
        """One sentence for a caption: where the numbers come from, and what was left out of them."""
        where = ", ".join(folder.as_posix() for folder in self.folders) or "no folder"
        done = sum(len(cell.runs) for cell in (*self.cells, *self.elsewhere))
        failed = sum(len(cell.failed) for cell in (*self.cells, *self.elsewhere))
        held_out = sum(len(cell.all_runs) for cell in self.validation)
        rest = f"; {count(held_out, 'run')} with a holdout left out" if held_out else ""
        studies = f"; {count(len(self.elsewhere), 'cell')} shown with their studies alone" if self.elsewhere else ""
        return f"From {where}: {count(done, 'run')} done, {failed} failed{rest}{studies}."


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """In the order in which they come."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def device_of(run: Run) -> str:
    return str(run.env.get("device_name") or run.env.get("device") or "unknown")


def commonest_device(cells: Sequence[Cell], field: str = "train_seconds") -> str | None:
    """The device on which most cells have a time; of equals, the first by name."""
    counted = Counter(cell.timed_device for cell in cells if cell.timed(field))
    return min(counted, key=lambda name: (-counted[name], str(name))) if counted else None


# --- from records to cells -------------------------------------------------------------------------------------------


def folders_of(named: list[Path] | None) -> list[Path]:
    """The folders to read: those named, which must exist, else a person's own runs, else the reference runs."""
    for folder in named or []:
        if not folder.is_dir():
            raise UsageError(f"--results {folder}: there is no such folder")
    own = any(not is_aside(path.parent) for path in OWN_RUNS.glob("*/result.json"))
    return named or [OWN_RUNS if own else REFERENCE_RUNS]


def read_evidence(folders: Iterable[Path], costs: Costs | None = None) -> Evidence:
    folders = tuple(dict.fromkeys(folders))
    runs = unique([run for folder in folders for run in load_runs([folder]) if usable(run)])
    found = grouped(runs, lambda run: bool(run.config.get("holdout")) or run.result.get("split") == "val")
    tested, validated = (tuple(_cells(found.get(judged_on_val, []))) for judged_on_val in (False, True))
    return Evidence(folders, tested, validated, costs=costs or {})


def usable(run: Run) -> bool:
    """Says on stderr which record lacks what a table needs."""
    kinds = {"cell_id": str, "variant_name": str, "dataset": str, "recipe_name": str, "seed": int, "recipe": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(run.config.get(name), kind)]
    if wrong:
        print(f"skipped {run.folder}: config.json has no usable {', '.join(wrong)}", file=sys.stderr)
    return not wrong


def unique(runs: Sequence[Run]) -> list[Run]:
    """Of each cell and seed the first run that is done; a failed one only where none is."""
    first: dict[tuple[str, int], Run] = {}
    for run in sorted(runs, key=lambda run: not run.ok):
        kept = first.setdefault((run.config["cell_id"], run.config["seed"]), run)
        if kept is not run:
            print(f"left out {run.folder}: the same cell and seed as {kept.folder}", file=sys.stderr)
    return list(first.values())


def cell_of(runs: Sequence[Run], name: Name) -> Cell:
    done, failed = (tuple(run for run in runs if run.ok == ok) for ok in (True, False))
    return Cell(*name, dataset_name(runs[0].config["dataset"]), done, failed)


def _cells(runs: Sequence[Run]) -> list[Cell]:
    ordered = sorted(runs, key=lambda run: (run.config["cell_id"], run.config["seed"]))
    seeds = grouped(ordered, lambda run: run.config["cell_id"]).values()
    namesakes = grouped((cell_of(of, _name(of)) for of in seeds), lambda cell: (cell.variant, cell.recipe))
    cells = [cell for of in namesakes.values() for cell in _noted(of)]
    return sorted(cells, key=lambda cell: (cell.row, cell.dataset))


def _name(seeds: Sequence[Run]) -> Name:
    """The same fields may have been set in different words (1e-3 or 0.001): the plainest count."""
    configs = {str(run.config.get("overrides")): run.config for run in seeds}
    return min(map(name_of, configs.values()), key=lambda name: (len(name[2]), name))


def _noted(namesakes: Sequence[Cell]) -> list[Cell]:
    """Cells that share a name, each with what differs where two of them meet on one data set."""
    meeting = grouped(namesakes, lambda cell: cell.dataset).values()
    varying = [name for name in IDENTITY if any(len({str(cell.setting(name)) for cell in of}) > 1 for of in meeting)]
    notes = [", ".join(_setting_text(name, cell.setting(name)) for name in varying) for cell in namesakes]
    if len({(cell.dataset, note) for cell, note in zip(namesakes, notes)}) < len(notes):
        tails = [cell.setting("cell_id").rsplit("-", 1)[-1] for cell in namesakes]  # something else differs
        notes = [", ".join(filter(None, pair)) for pair in zip(notes, tails)]
    return [replace(cell, note=note) for cell, note in zip(namesakes, notes)]


def _setting_text(name: str, value: Any) -> str:
    told = {"precision": str(value), "compile": "compiled" if value else "not compiled"}
    return told.get(name, f"{name}={value}")


# --- what the catalogue costs ---------------------------------------------------------------------------------------

COSTS = ("params", "params_without_head", "macs", "macs_without_head", "attention_macs", "activations_without_head")


def read_costs(folder: Path) -> Costs:
    """As `harness.cost --write` left it; a variant or data set without a file is absent."""
    keys = ((name, dataset) for name in CATALOG for dataset in DATASETS.values())
    files = {(name, dataset.name): folder / file_name(name, dataset) for name, dataset in keys}
    return {key: _numbers(path) for key, path in files.items() if path.is_file()}


def _numbers(path: Path) -> dict[str, float | None]:
    try:
        plain: Any = json.loads(path.read_bytes())
        return {name: finite(plain[name]) for name in COSTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = f"{path} holds no cost: {type(error).__name__}: {error}"
        raise UsageError(f"{told}\nwrite it again: python -m harness.cost --write") from None


def cost_of_cell(cell: Cell, costs: Costs) -> Mapping[str, float | None]:
    """The catalogue's, of a variant as it stands there; of any other what its records hold. A model with other
    parameters is another model, whatever it is called."""
    own = {name: cell.cost(name) for name in COSTS}
    plain = cost_of_plain(costs, cell.variant, cell.overrides, cell.dataset)
    return plain if plain and own["params"] in (None, plain["params"]) else own


def cost_of_plain(costs: Costs, variant: str, settings: tuple[str, ...], dataset: str) -> Mapping[str, float | None]:
    """The catalogue's cost of a variant as it stands there; nothing of one with fields of its own changed."""
    return {} if changed_fields_of(settings) else costs.get((variant, dataset), {})


def changed_fields_of(settings: tuple[str, ...]) -> list[str]:
    """Of what was set for a cell, what changes its variant: the recipe's fields change no cost."""
    return [text.removeprefix("variant.") for text in settings if text.startswith("variant.")]


# --- the order of a table --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the main table: a variant under a recipe, on every data set where it was run."""

    variant: str
    recipe: str
    on: dict[str, Cell]
    planned: PlannedRow | None = None

    @property
    def cells(self) -> list[Cell]:
        return list(self.on.values())


def datasets_of(cells: Iterable[Cell], study: Study | None = None) -> list[str]:
    planned = list(study.datasets) if study else []
    return planned + sorted({cell.dataset for cell in cells} - set(planned))


def in_order(cells: Sequence[Cell], study: Study) -> list[Cell]:
    """As a long table shows them: row by row, data set by data set."""
    datasets = datasets_of(cells, study)
    return [row.on[name] for row in rows_of(cells, study) for name in datasets if name in row.on]


def rows_of(cells: Sequence[Cell], study: Study) -> list[Row]:
    """The rows of the study first, those included that nobody ran, then whatever else was found."""
    ordered = sorted(cells, key=lambda cell: cell.row)
    found = {row: {cell.dataset: cell for cell in of} for row, of in grouped(ordered, lambda cell: cell.row).items()}
    namesakes = grouped(ordered, lambda cell: (cell.variant, cell.recipe))
    rows = []
    for planned in study.rows:
        names = dict.fromkeys(cell.row for cell in namesakes.get(planned.name, ()))
        rows += [Row(*name, found.pop(name, {}), planned) for name in names or [planned.name]]
    return rows + [Row(*name, on) for name, on in found.items()]
