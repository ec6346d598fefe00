"""Check that records can be believed: train a run again from its config.json alone, or check what records say.

RUN is a run's folder. It is trained again and compared epoch by epoch, at the end image by image: on the same machine's
CPU with as many threads the two are equal to the last bit. With --records nothing is trained: schema,
identity and environment are checked, and whether the parts of each record agree. Exit code 1: something differs.

examples:
  python -m harness.verify results/reference/RUN
  python -m harness.verify results/reference/RUN --first 2          (only its first two passes)
  python -m harness.verify --records
  python -m harness.verify --records results/runs results/reference
"""

from argparse import Namespace
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.commands import Parser, run_command, whole
from harness.config import RunConfig, run_config_from_plain
from harness.evidence.folders import OWN_RUNS, REFERENCE_RUNS
from harness.records.check import problems_of
from harness.records.environment import environment
from harness.records.read import Run, read_run
from variants.fields import UsageError

if TYPE_CHECKING:
    import torch

CLOCKS = ("seconds", "eval_seconds")  # what no second run repeats


def parser() -> Parser:
    p = Parser("harness.verify", __doc__ or "")
    p.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="folders of runs; with --records, of records")
    p.add_argument("--records", action="store_true", help="train nothing: check what the records say")
    p.add_argument("--first", type=whole, metavar="N", help="train only the first N passes again")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    p.add_argument("--data-dir", type=Path, default=Path("data"), help="(default: data)")
    p.add_argument("--quiet", action="store_true", help="no progress")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.records:
        return check_all(args.runs or [folder for folder in (OWN_RUNS, REFERENCE_RUNS) if folder.is_dir()])
    if not args.runs:
        raise UsageError("which run? name its folder, or check all records with --records")
    configs = [_config(folder) for folder in args.runs]
    return max(verify(folder, config, args) for folder, config in zip(args.runs, configs))


# --- records ---------------------------------------------------------------------------------------------------------


def check_all(folders: Sequence[Path]) -> int:
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no such folder")
    records = sorted(path.parent for folder in folders for path in folder.glob("*/result.json"))
    wrong = {record: problems for record in records if (problems := problems_of(record))}
    for record, problems in wrong.items():
        print(f"{record}", *(f"  {problem}" for problem in problems), sep="\n")
    where = " and ".join(map(str, folders)) or "no folder"
    print(f"{len(records)} records in {where}, {len(records) - len(wrong)} without complaint")
    return 1 if wrong else 0


# --- training again --------------------------------------------------------------------------------------------------


def _config(folder: Path) -> RunConfig:
    try:
        return run_config_from_plain(read_run(folder).config)
    except FileNotFoundError as error:
        raise UsageError(f"{folder} is no finished run: there is no {Path(str(error.filename)).name}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} cannot be read: {error}") from None


def verify(folder: Path, config: RunConfig, args: Namespace) -> int:
    from harness.training import device as devices

    old, device = read_run(folder), devices.choose(args.device)
    if not old.ok:
        raise UsageError(f"{folder} failed ({old.result['reason']}): there is nothing to compare")
    for name, was, now in surroundings(old, device):
        print(f"note: {name} was {was}, is {now}", flush=True)
    first = min(args.first or config.recipe.epochs, config.recipe.epochs)
    found = compared(old, config, args, device, first)
    told = "; ".join(found) or "equal to the last bit"
    print(f"{folder.name}, {first} of {config.recipe.epochs} passes: {told}", flush=True)
    return 1 if found else 0


def surroundings(old: Run, device: "torch.device") -> list[tuple[str, Any, Any]]:
    """What is not as it was, and may explain a difference."""
    from harness.training import device as devices

    now = environment(devices.describe(device), old.env.get("data_digest", ""))
    names = ("device_name", "threads", "torch", "source_digest")
    return [(name, old.env.get(name), now[name]) for name in names if old.env.get(name) != now[name]]


def compared(old: Run, config: RunConfig, args: Namespace, device: "torch.device", first: int) -> list[str]:
    """Stops at the first pass that differs: all that follow would."""
    from harness.experiment import trained_again

    lines = old.epochs()
    epochs = trained_again(config, args.data_dir, device, args.quiet)
    for was, now in islice(zip(lines, epochs, strict=False), first):
        differing = [name for name in was if name not in CLOCKS and was[name] != now.line.get(name)]
        if differing:
            pairs = ", ".join(f"{name} {was[name]} against {now.line.get(name)}" for name in differing)
            return [f"pass {was['epoch']} differs: {pairs}"]
    if first < config.recipe.epochs:
        return []
    stored, fresh = old.predictions(), now.evaluation
    changed = int((stored["predicted"] != fresh.predicted).sum())
    apart = float(np.abs(stored["confidence"] - fresh.confidence).max())
    return [f"{changed} predictions differ, confidences by at most {apart:.3g}"] if changed or apart else []


if __name__ == "__main__":
    run_command(main)
