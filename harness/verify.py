"""Check that records can be believed: train a run again from its config.json, or check what records say.

RUN is a run's folder. It is trained again and compared epoch by epoch, at the end image by image: on the same machine's
CPU the two are equal to the last bit. A RUN is refused whose parts do not agree, or whose variant file is not the one
it was made with. With --records nothing is trained and nothing of theirs run: schema, identity and environment are
checked, and whether the parts of each record agree. Exit code 1: something differs.

examples:
  python -m harness.verify results/reference/RUN
  python -m harness.verify results/reference/RUN --first 2          (only its first two epochs)
  python -m harness.verify --records --json
  python -m harness.verify --records results/runs results/reference
"""

import contextlib
import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.commands import Parser, directory, place, run_command, whole
from harness.config import RunConfig, run_config_from_plain
from harness.records.environment import environment
from harness.records.read import (
    OWN_RUNS,
    REFERENCE_RUNS,
    Run,
    contradictions,
    finished_under,
    is_own_class,
    named_run,
    problems_of,
    read_run,
    reason,
)
from harness.records.schema import SEALED_SINCE, digest
from variants.fields import UsageError

if TYPE_CHECKING:
    from harness.training.loop import Epoch

CLOCKS = ("seconds", "eval_seconds")  # what no second run repeats


def parser() -> Parser:
    p = Parser("harness.verify", __doc__ or "")
    p.add_argument("runs", type=place, nargs="*", metavar="RUN", help="folders of runs; with --records, of records")
    p.add_argument("--records", action="store_true", help="train nothing: check what the records say")
    p.add_argument("--first", type=whole, metavar="N", help="train only the first N epochs again")
    p.add_argument("--weights", type=place, metavar="FILE_OR_RUN", help="that it started from, where they lie now")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    p.add_argument("--data-dir", type=directory, default=Path("data"), help="(default: data)")
    p.add_argument("--quiet", action="store_true", help="no progress")
    p.add_argument("--json", action="store_true", help="one object and nothing else")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.records and args.first:
        raise UsageError("--records trains nothing: leave out --first")
    if args.records:
        return check_all(args.runs or [folder for folder in (OWN_RUNS, REFERENCE_RUNS) if folder.is_dir()], args.json)
    if not args.runs:
        raise UsageError("which run? name its folder, or check all records with --records")
    stored = [believable(folder) for folder in args.runs]
    found = [verify(run, with_weights(config, args.weights), args) for run, config in stored]
    if args.json:
        print(json.dumps({"runs": found}, indent=1))
    return int(any(of_run["differences"] for of_run in found))


def check_all(folders: Sequence[Path], as_json: bool) -> int:
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder")
    records = [record for folder in folders for record in finished_under(folder)]
    wrong = {record: problems for record in records if (problems := problems_of(record))}
    sound = [read_run(record) for record in records if record not in wrong]
    unsealed, own = sum(not run.sealed for run in sound), sum(map(is_own_class, sound))
    if as_json:
        told = {"folders": [*map(str, folders)], "records": len(records), "unsealed": unsealed, "own_class": own}
        problems = {str(record): problems for record, problems in wrong.items()}
        print(json.dumps({**told, "problems": problems}, indent=1))
        return int(bool(wrong))
    for record, problems in wrong.items():
        print(f"{record}", *(f"  {problem}" for problem in problems), sep="\n")
    where = " and ".join(map(str, folders)) or "no folder"
    print(f"{len(records)} records in {where}, {len(records) - len(wrong)} without complaint")
    if unsealed:
        print(f"{unsealed} of them are older than schema {SEALED_SINCE}: without digests a change cannot be told")
    if own:
        print(f"{own} of them are of a class of somebody's own: their identity is not checked, that would run its code")
    return 1 if wrong else 0


# --- training again --------------------------------------------------------------------------------------------------


def believable(folder: Path) -> tuple[Run, RunConfig]:
    """A record, checked before anything is trained."""
    try:
        run = read_run(folder)
        if not run.ok:
            raise UsageError(f"it failed ({run.result['reason']}): there is nothing to compare")
        if problems := contradictions(run):
            rest = f" ({len(problems) - 1} more: --records names all)" if problems[1:] else ""
            raise UsageError(f"{problems[0]}{rest}")
        if is_own_class(run):
            _check_code(run)
        config = run_config_from_plain(run.config)
        if config.run_id != run.config.get("run_id"):
            raise UsageError(f"it says that it is {run.config.get('run_id')}, its fields give {config.run_id}")
    except FileNotFoundError as error:
        raise UsageError(f"{folder} is no finished run: there is no {Path(str(error.filename)).name}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} cannot be trained again: {reason(error)}") from None
    return run, config


def _check_code(run: Run) -> None:
    """A record may name any file of this machine: only the one that it was made with is run."""
    file = Path(run.config["variant_name"].rpartition(":")[0])
    if not file.is_file():
        raise UsageError(f"its variant file {file} does not exist")
    if digest(file.read_bytes())[:16] != run.config["variant_type"].rpartition("@")[2]:
        raise UsageError(f"{file} is not, or no longer, the code that it was made with")


def with_weights(config: RunConfig, named: Path | None) -> RunConfig:
    """Where the weights lie that it started from; that they are those is found out when they are read."""
    if not config.weights_digest:
        return config
    file = named_run(named or config.weights)
    if not file.exists():
        raise UsageError(f"{config.run_id} started from {file}, which is not there: --weights FILE_OR_RUN")
    return replace(config, weights=str(file))


def verify(run: Run, config: RunConfig, args: Namespace) -> dict[str, Any]:
    """What `--json` prints of a run; without it, said at once."""
    from harness.data.load import load
    from harness.experiment import own_threads, takes_threads, trained_again
    from harness.training import device as devices

    old, notes = run.env, list[str]()

    def note(text: str) -> None:
        notes.append(text)
        if not args.json:
            print(f"note: {text}", flush=True)

    if old.get("deterministic"):
        devices.make_deterministic()
    device = devices.choose(args.device)
    first = min(args.first or config.recipe.epochs, config.recipe.epochs)
    with own_threads():
        threads = old.get("threads")
        if threads and old.get("device") == "cpu" and takes_threads(device, threads):
            note(f"with {threads} thread{'s' * (threads > 1)}, as it was trained")
        now = environment(devices.describe(device), load(config.dataset, args.data_dir, True).digest)
        for name in ("device_name", "threads", "torch", "source_digest", "data_digest"):
            if old.get(name) != now[name]:
                note(f"{name} was {old.get(name)}, is {now[name]}")
        session, changed = first_session(run)
        if size := session.get("world_size"):
            raise UsageError(f"{run.folder} was trained by {size} processes: it can be trained again, but not compared")
        if seeds := session.get("seeds"):
            note(f"together with seeds {', '.join(map(str, seeds))}, as it was trained")
        if changed is not None and changed < first:
            note(f"after epoch {changed} it was trained in another way: only the epochs before are compared")
            first = changed
        quiet = args.quiet or args.json
        with contextlib.closing(trained_again(config, args.data_dir, device, first, quiet, session)) as epochs:
            found = differences(run, epochs, first == config.recipe.epochs)
    if not args.json:
        outcome = "; ".join(found) or "equal to the last bit"
        print(f"{run.folder.name}, {first} of {config.recipe.epochs} epochs: {outcome}", flush=True)
    epochs = {"epochs": first, "planned_epochs": config.recipe.epochs}
    return {"folder": str(run.folder), **epochs, "notes": notes, "differences": found}


def first_session(run: Run) -> tuple[dict[str, Any], int | None]:
    """With its seeds, if several were trained together, and how steps were computed; and the epochs after which that
    was otherwise: from there on nobody can repeat it."""
    sessions = run.result.get("sessions") or [{}]
    names = ("seeds", "graph", "accumulate", "world_size")
    ways = [[session.get(name) or None for name in names] for session in sessions]
    seeds = ways[0][0]
    if seeds and (run.config["seed"] not in seeds or not all(type(seed) is int for seed in seeds)):
        raise UsageError(f"{run.folder} cannot be trained again: it names the seeds {seeds}, and is none of them")
    changed = next((session.get("after_epochs") for session, own in zip(sessions, ways) if own != ways[0]), None)
    if changed == 0:
        raise UsageError(f"{run.folder} cannot be trained again: its first epoch went on in another way")
    return sessions[0], changed


def differences(run: Run, epochs: "Iterator[Epoch]", is_whole: bool) -> list[str]:
    """Stops at the first epoch that differs: all that follow would."""
    fresh: Any = None
    for was, now in zip(run.epochs(), epochs):
        names = [name for name in {**now.line, **was} if name not in CLOCKS]
        if differing := [name for name in names if was.get(name) != now.line.get(name)]:
            pairs = ", ".join(f"{name} {was.get(name)} against {now.line.get(name)}" for name in differing)
            return [f"epoch {was.get('epoch')} differs: {pairs}"]
        fresh = now.evaluation
    if not is_whole:
        return []
    old = run.predictions()
    if old["predicted"].shape != fresh.predicted.shape:
        return [f"{old['predicted'].size} predictions are recorded of {fresh.predicted.size} images"]
    changed = int((old["predicted"] != fresh.predicted).sum())
    apart = float(np.abs(old["confidence"] - fresh.confidence).max())
    return [f"{changed} predictions differ, confidences by at most {apart:.3g}"] if changed or apart else []


if __name__ == "__main__":
    run_command(main)
