"""Train every cell of a study that is not done yet, seed by seed and cheapest first.

A failed cell is named and does not stop the others; the exit code is 1 at the end if there was one.

examples:
  python -m harness.sweep main --dry-run
  python -m harness.sweep main --seeds 0 --datasets c10 --variants vanilla compact
  python -m harness.sweep quick --out results-quick/runs
"""

import sys
import traceback
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import Parser, run_command
from harness.config import RunConfig
from harness.data.load import dataset_facts
from harness.datasets import Dataset
from harness.records.read import run_state
from harness.studies import STUDIES, Cell
from variants.catalog import config_of
from variants.fields import UsageError

if TYPE_CHECKING:
    import torch


def parser() -> Parser:
    p = Parser("harness.sweep", __doc__ or "")
    p.add_argument("study", choices=sorted(STUDIES), help="which grid of cells")
    p.add_argument("--seeds", type=int, nargs="+", help="(default: the study's)")
    p.add_argument("--variants", nargs="+", help="(default: the study's)")
    p.add_argument("--recipes", nargs="+", help="(default: the study's)")
    p.add_argument("--datasets", nargs="+", help="(default: the study's)")
    p.add_argument("--epochs", type=int, help="another number of passes for every cell")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    p.add_argument("--precision", choices=("fp32", "bf16"), help="(default: bf16 on CUDA, fp32 on the CPU)")
    p.add_argument("--compile", choices=("on", "off"), help="torch.compile (default: on for CUDA, off on the CPU)")
    p.add_argument("--data-dir", type=Path, default=Path("data"), help="(default: data)")
    p.add_argument("--out", type=Path, default=Path("results/runs"), help="(default: results/runs)")
    p.add_argument("--dry-run", action="store_true", help="print how many cells, which, and a guess of the time")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    for name in args.variants or []:
        config_of(name)  # a misspelt name must not just be missing from the plan
    study = STUDIES[args.study].narrowed(args.variants, args.recipes, args.datasets, args.seeds)
    facts = {name: dataset_facts(name, args.data_dir) for name in study.datasets}
    planned = [resolve_cell(cell, facts[cell.dataset], args) for cell in study.cells()]
    if not planned:
        raise UsageError("nothing to do: no variant here has such a recipe")
    for name in sorted(set(args.variants or []) - {config.variant_name for config in planned}):
        print(f"note: {name} is left out, no recipe was published for it", file=sys.stderr)
    from harness.training import device as devices

    device = devices.choose(args.device)
    precision, compiles = devices.defaults(device)
    precision, compiles = args.precision or precision, compiles if args.compile is None else args.compile == "on"
    resolved = [replace(config, precision=precision, compile=compiles) for config in planned]
    configs = list({config.run_id: config for config in resolved}.values())  # two names may mean one run
    todo = [config for config in configs if run_state(args.out / config.run_id) != "done"]
    announce(configs, todo, facts, device, args.dry_run)
    return 0 if args.dry_run else train_all(todo, args.data_dir, args.out, device)


def resolve_cell(cell: Cell, dataset: Dataset, args: Namespace) -> RunConfig:
    return cell.row.resolve(dataset, seed=cell.seed, epochs=args.epochs, holdout=cell.holdout)


def announce(
    configs: list[RunConfig], todo: list[RunConfig], facts: dict[str, Dataset], device: "torch.device", each: bool
) -> None:
    """How many cells, and about how long they take on this device."""
    from harness.training.device import describe
    from harness.training.estimate import seconds_of
    from harness.training.progress import duration

    cells = "cell" if len(configs) == 1 else "cells"
    print(f"{len(configs)} {cells}, {len(configs) - len(todo)} done, {len(todo)} to train", flush=True)
    seconds: dict[str, float | None] = {}
    for config in todo:
        if config.cell_id not in seconds:
            guess_s = seconds[config.cell_id] = seconds_of(config, facts[config.dataset], device)
            if each:
                text = "unknown" if guess_s is None else f"about {duration(guess_s)} for each seed"
                print(f"  {row_title(config)}: {text}", flush=True)
    total_s = sum(seconds[config.cell_id] or 0 for config in todo)
    if todo:
        name = describe(device)["device_name"]
        more = " and what could not be guessed" if None in seconds.values() else ""
        print(
            f"about {duration(total_s)}{more} on {name} (a guess from a few uncompiled steps of each model)", flush=True
        )


def row_title(config: RunConfig) -> str:
    return f"{config.variant_name} {config.dataset_name} {config.recipe_name}"


def train_all(todo: list[RunConfig], data_dir: Path, out: Path, device: "torch.device") -> int:
    from harness.experiment import run_cell, title

    failed, absent = [], absent_data({config.dataset for config in todo}, data_dir)
    for number, config in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {title(config)} -> {out / config.run_id}", flush=True)
        if config.dataset in absent:
            failed.append(title(config))
            print(f"FAILED {title(config)}: no data (see above)", file=sys.stderr, flush=True)
            continue
        try:
            run = run_cell(config, data_dir, out, device)
            reason = None if run.ok else run.result["reason"]
        except UsageError as error:
            reason = str(error)
        except Exception as error:  # one broken cell must not cost the others
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            failed.append(title(config))
            print(f"FAILED {title(config)}: {reason}", file=sys.stderr, flush=True)
    if failed:
        print(f"{len(failed)} of {len(todo)} cells failed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def absent_data(names: set[str], data_dir: Path) -> set[str]:
    """Fetches and reads every data set before hours are spent; says which are not to be had."""
    from harness.data.load import load

    absent = set()
    for name in sorted(names):
        try:
            load(name, data_dir)
        except UsageError as error:
            absent.add(name)
            print(error, file=sys.stderr, flush=True)
    return absent


if __name__ == "__main__":
    run_command(main)
