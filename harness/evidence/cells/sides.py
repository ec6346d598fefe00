"""Owns the two sides of a comparison: the runs that a name stands for, and whether two sides may be compared.
Refuses sides that were judged on other data, and a run against itself.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from harness.evidence.cells.groups import Group, dataset_of, unique, usable
from harness.evidence.cells.names import name_of
from harness.records.read import Run, load_runs, read_run
from variants.fields import UsageError, near_matches

MOST_NAMES = 8


def side_of(name: str, folders: Sequence[Path]) -> Group:
    """A run's folder, a run id, or a cell id (all seeds of the cell under the folders)."""
    if (Path(name) / "config.json").is_file():
        return _group([_read(Path(name))])
    runs = [run for run in load_runs(folders) if usable(run)]
    for field in ("run_id", "cell_id"):
        chosen = [run for run in runs if run.config.get(field) == name]
        if chosen:
            chosen = [min(chosen, key=lambda run: not run.ok)] if field == "run_id" else unique(chosen)
            return _group(sorted(chosen, key=lambda run: run.config["seed"]))
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} cannot be read: {type(error).__name__}: {error}") from None
    if not usable(run):
        raise UsageError(f"{folder}: its record lacks what a comparison needs")
    return run


def _group(runs: Sequence[Run]) -> Group:
    config = runs[0].config
    done, failed = (tuple(run for run in runs if run.ok == ok) for ok in (True, False))
    if not done:
        raise UsageError(f"{runs[0].folder}: failed ({runs[0].result.get('reason')}), there is nothing to compare")
    return Group(*name_of(config), "", dataset_of(runs[0]), done, failed)


def check_comparable(a: Group, b: Group) -> None:
    if a.dataset != b.dataset:
        raise UsageError(f"A was judged on {a.dataset} and B on {b.dataset}: accuracies of two data sets say nothing")
    if judged_on(a) != judged_on(b):
        raise UsageError(f"A was judged on {judged_on(a)} and B on {judged_on(b)}: these are not the same images")
    if shared := {run_id(run) for run in a.runs} & {run_id(run) for run in b.runs}:
        raise UsageError(f"A and B share {', '.join(sorted(shared))}: a run cannot be compared with itself")


def split_of(side: Group) -> str:
    return side.runs[0].result["split"]


def judged_on(side: Group) -> str:
    """Two holdouts of another size are other images."""
    split, holdout = split_of(side), side.setting("holdout")
    return f"{split} (holdout {holdout:g})" if holdout else split


def run_id(run: Run) -> str:
    return run.config.get("run_id") or run.folder.name
