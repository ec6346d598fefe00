"""Check that records can be believed: train a run again from its config.json alone, or check what records say.

RUN is a run's folder. It is trained again and compared epoch by epoch, at the end image by image: on the same machine's
CPU the two are equal to the last bit. A RUN is refused whose parts do not agree, or whose variant file is not the one
it was made with. With --records nothing is trained and nothing of theirs run: schema, identity and environment are
checked, and whether the parts of each record agree. Exit code 1: something differs.

examples:
  python -m harness.verify results/reference/RUN
  python -m harness.verify results/reference/RUN --first 2          (only its first two epochs)
  python -m harness.verify --records
  python -m harness.verify --records results/runs results/reference
"""

import contextlib
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
    p.add_argument("--weights", metavar="FILE_OR_RUN", help="that a fine-tuned run started from, where they lie now")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    p.add_argument("--data-dir", type=directory, default=Path("data"), help="(default: data)")
    p.add_argument("--quiet", action="store_true", help="no progress")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.records and args.first:
        raise UsageError("--records trains nothing: leave out --first")
    if args.records:
        return check_all(args.runs or [folder for folder in (OWN_RUNS, REFERENCE_RUNS) if folder.is_dir()])
    if not args.runs:
        raise UsageError("which run? name its folder, or check all records with --records")
    stored = [believable(folder) for folder in args.runs]
    return max(verify(run, with_weights(config, args.weights), args) for run, config in stored)


def check_all(folders: Sequence[Path]) -> int:
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder")
    records = [record for folder in folders for record in finished_under(folder)]
    wrong = {record: problems for record in records if (problems := problems_of(record))}
    for record, problems in wrong.items():
        print(f"{record}", *(f"  {problem}" for problem in problems), sep="\n")
    where = " and ".join(map(str, folders)) or "no folder"
    print(f"{len(records)} records in {where}, {len(records) - len(wrong)} without complaint")
    sound = [read_run(record) for record in records if record not in wrong]
    if unsealed := sum(not run.sealed for run in sound):
        print(f"{unsealed} of them are older than schema {SEALED_SINCE}: without digests a change cannot be told")
    if own := sum(map(is_own_class, sound)):
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


def with_weights(config: RunConfig, named: str | None) -> RunConfig:
    """Where the weights lie that it started from; that they are those is found out when they are read."""
    if not config.weights_digest:
        return config
    file = named_run(named or config.weights)
    if not file.exists():
        raise UsageError(f"{config.run_id} started from {file}, which is not there: --weights FILE_OR_RUN")
    return replace(config, weights=str(file))


def verify(run: Run, config: RunConfig, args: Namespace) -> int:
    from harness.data.load import load
    from harness.experiment import own_threads, takes_threads, trained_again
    from harness.training import device as devices

    old = run.env
    if old.get("deterministic"):
        devices.make_deterministic()
    device = devices.choose(args.device)
    first = min(args.first or config.recipe.epochs, config.recipe.epochs)
    with own_threads():
        threads = old.get("threads")
        if threads and old.get("device") == "cpu" and takes_threads(device, threads):
            print(f"note: with {threads} thread{'s' * (threads > 1)}, as it was trained", flush=True)
        now = environment(devices.describe(device), load(config.dataset, args.data_dir).digest)
        for name in ("device_name", "threads", "torch", "source_digest", "data_digest"):
            if old.get(name) != now[name]:
                print(f"note: {name} was {old.get(name)}, is {now[name]}", flush=True)
        seeds, changed = trained_with(run)
        if seeds:
            print(f"note: together with seeds {', '.join(map(str, seeds))}, as it was trained", flush=True)
        if changed is not None and changed < first:
            print(f"note: after epoch {changed} it was trained with others: only the epochs before are compared")
            first = changed
        with contextlib.closing(trained_again(config, args.data_dir, device, first, args.quiet, seeds)) as epochs:
            found = differences(run, epochs, first == config.recipe.epochs)
    outcome = "; ".join(found) or "equal to the last bit"
    print(f"{run.folder.name}, {first} of {config.recipe.epochs} epochs: {outcome}", flush=True)
    return 1 if found else 0


def trained_with(run: Run) -> tuple[list[int], int | None]:
    """The seeds trained together with this run at first, itself among them, and the epochs after which others were:
    from there on nobody can repeat it."""
    sessions = run.result.get("sessions") or [{}]
    sets = [session.get("seeds") or [] for session in sessions]
    seeds = sets[0]
    if seeds and (run.config["seed"] not in seeds or not all(type(seed) is int for seed in seeds)):
        raise UsageError(f"{run.folder} cannot be trained again: it names the seeds {seeds}, and is none of them")
    changed = next((session.get("after_epochs") for session, own in zip(sessions, sets) if own != seeds), None)
    if changed == 0:
        raise UsageError(f"{run.folder} cannot be trained again: other seeds joined it within its first epoch")
    return seeds, changed


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
