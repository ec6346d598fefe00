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
from harness.config import RunConfig, resolve
from harness.data.load import dataset_facts
from harness.datasets import Dataset
from harness.records.read import run_state
from harness.studies import STUDIES, Cell
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
    p.add_argument("--data-dir", type=Path, default=Path("data"), help="(default: data)")
    p.add_argument("--out", type=Path, default=Path("results/runs"), help="(default: results/runs)")
    p.add_argument("--dry-run", action="store_true", help="print how many cells, which, and a guess of the time")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    study = STUDIES[args.study].narrowed(args.variants, args.recipes, args.datasets, args.seeds)
    facts = {name: dataset_facts(name, args.data_dir) for name in study.datasets}
    planned = [(cell, resolve_cell(cell, facts[cell.dataset], args)) for cell in study.cells()]
    if not planned:
        raise UsageError("nothing to do: no variant here has such a recipe")
    from harness.training import device as devices

    device = devices.choose(args.device)
    precision, compiles = devices.defaults(device)
    configs = [replace(config, precision=precision, compile=compiles) for _, config in planned]
    todo = [config for config in configs if run_state(args.out / config.run_id) != "done"]
    announce(configs, todo, facts, device, args.dry_run)
    return 0 if args.dry_run else train_all(todo, args.data_dir, args.out, device)


def resolve_cell(cell: Cell, dataset: Dataset, args: Namespace) -> RunConfig:
    return resolve(cell.variant, dataset, cell.recipe, seed=cell.seed, epochs=args.epochs)


def announce(
    configs: list[RunConfig], todo: list[RunConfig], facts: dict[str, Dataset], device: "torch.device", each: bool
) -> None:
    """How many cells, and about how long they take on this device."""
    from harness.training.device import describe
    from harness.training.estimate import seconds_of
    from harness.training.progress import duration

    print(f"{len(configs)} cells, {len(configs) - len(todo)} done, {len(todo)} to train", flush=True)
    seconds: dict[str, float] = {}
    for config in todo:
        if config.cell_id not in seconds:
            seconds[config.cell_id] = seconds_of(config, facts[config.dataset], device)
            if each:
                print(f"  {row_title(config)}: about {duration(seconds[config.cell_id])} for each seed", flush=True)
    total_s = sum(seconds[config.cell_id] for config in todo)
    if todo:
        name = describe(device)["device_name"]
        print(f"about {duration(total_s)} on {name} (a guess from a few uncompiled steps of each model)", flush=True)


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
