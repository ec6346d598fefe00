"""The command `python -m harness.cost`: prints what variants cost in parameters, MACs, FLOPs and activations, or writes
the costs of the whole catalogue into results/cost, from where a report takes them. Nothing is trained.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness.commands import Parser, directory, run_command
from harness.config import parse_settings
from harness.counting.catalogue import catalogue_cost, file_bytes, file_name
from harness.counting.cost import Cost, CountError, cost_of, importable, missing
from harness.counting.show import layer_summary, module_table, notes, overview
from harness.datasets import DATASETS, Dataset, check_name
from harness.records.write import prepare, write_atomically
from variants.catalog import CATALOG, check_known, config_of
from variants.fields import UsageError, from_text

WRITTEN = Path("results/cost")
SHOWN = "c10"  # the data set whose shape is shown where none is named

ABOUT = """\
Parameters, MACs, FLOPs and activations of variants, counted in several ways that must agree.

examples:
  python -m harness.cost                                    every variant of the catalogue, at CIFAR-10's size
  python -m harness.cost --variant patch2 --table           one variant, module by module
  python -m harness.cost --variant patch2 --set variant.num_classes=0
  python -m harness.cost --variant timm:resnet18 my.py:NET --dataset c100 --json
  python -m harness.cost --write                            the catalogue at every data set's shape, into results/cost
"""


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if args.write:
            write(args)
        else:
            args.dataset = SHOWN if args.dataset is None else args.dataset
            show(args, configs(args))
    except CountError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parser() -> Parser:
    parser = Parser("harness.cost", ABOUT)
    many: dict[str, Any] = {"nargs": "+", "action": "extend"}
    parser.add_argument("--variant", metavar="V", help="names, timm:MODEL, path/to/file.py:NAME (default: all)", **many)
    parser.add_argument("--dataset", metavar="D", help="whose image size and classes (default: c10)")
    parser.add_argument("--data-dir", type=directory, default=Path("data"), metavar="DIR", help="(default: data)")
    parser.add_argument("--set", metavar="variant.X=Y", dest="settings", help="set fields of the variants", **many)
    parser.add_argument("--table", action="store_true", help="parameters, MACs and activations of each module")
    parser.add_argument("--summary", action="store_true", help="shapes and parameters of each layer, by torchinfo")
    parser.add_argument("--json", action="store_true", help="one object a line, one line a variant, nothing else")
    parser.add_argument("--write", action="store_true", help="the catalogue at every data set's shape, a file each")
    parser.add_argument("--out", type=directory, metavar="DIR", help=f"of --write (default: {WRITTEN.as_posix()})")
    return parser


def configs(args: Namespace) -> dict[str, Any]:
    """All of them before the first is counted, so that a mistake is told at once."""
    if args.json and (args.table or args.summary):
        raise UsageError("--json prints nothing but its objects: leave out --table and --summary")
    if args.out:
        raise UsageError("--out is where --write puts its files: add --write")
    changes = parse_settings(args.settings or ())
    if changes["recipe"]:
        raise UsageError("--set recipe.*: a recipe has no part in the cost of a variant")
    dataset = facts(args.dataset, args.data_dir)
    names = dict.fromkeys(args.variant or CATALOG)
    for name in names:
        check_known(name)
    return {
        name: from_text(config_of(name, dataset.image_size, dataset.num_classes), changes["variant"]) for name in names
    }


def facts(name: str, data_dir: Path) -> Dataset:
    check_name(name)
    if name in DATASETS:
        return DATASETS[name]
    from harness.data.load import dataset_facts

    return dataset_facts(name, data_dir)


def show(args: Namespace, chosen: dict[str, Any]) -> None:
    for line in missing():
        print(f"note: {line}", file=sys.stderr)
    costs = []
    for name, config in chosen.items():
        costs.append(cost_of(name, config, args.dataset))
        if args.json:
            print(json.dumps(dataclasses.asdict(costs[-1])), flush=True)
        for wanted, text_of in ((args.table, module_table), (args.summary, layer_summary)):
            if wanted:
                print(f"{name} on {args.dataset}\n\n{text_of(config)}\n")
    if not args.json:
        print_overview(costs)


def write(args: Namespace) -> None:
    """All are counted before the first is written, so that files never mix two states of the catalogue."""
    if args.variant or args.dataset is not None or args.settings or args.table or args.summary or args.json:
        raise UsageError("--write writes the whole catalogue at every data set's shape: only --out goes with it")
    if lacking := [name for name in ("torch", "fvcore.nn", "timm") if not importable(name)]:
        raise UsageError(f"--write counts every variant in all ways: install {', '.join(lacking).replace('.nn', '')}")
    files, out = catalogue_files(), args.out or WRITTEN
    prepare(out)
    for file, content in files.items():
        write_atomically(out / file, content)
    print(f"wrote {len(files)} files into {out}")
    for path in sorted({*out.glob("*.json")} - {out / file for file in files}):
        print(f"{path} is of no variant and data set that can be counted: remove it")


def catalogue_files() -> dict[str, bytes]:
    """By name; says which variant cannot be built at which data set's shape."""
    files = {}
    for dataset in DATASETS.values():
        for name in CATALOG:
            try:
                files[file_name(name, dataset)] = file_bytes(catalogue_cost(name, dataset))
            except UsageError as error:
                print(f"skipped {name} on {dataset.name}: {error}")
    return files


def print_overview(costs: list[Cost]) -> None:
    print(overview(costs))
    print()
    print("\n".join(notes(costs)))


if __name__ == "__main__":
    run_command(main)
