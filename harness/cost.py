"""Parameters, MACs, FLOPs and activations of variants, counted in several ways that must agree.

Nothing is trained. --write puts those of the whole catalogue where a report finds them.

examples:
  python -m harness.cost                                    every variant of the catalogue, at CIFAR-10's size
  python -m harness.cost --variant patch2 --table           one variant, module by module
  python -m harness.cost --variant patch2 --set variant.num_classes=0
  python -m harness.cost --variant timm:resnet18 my.py:NET --dataset c100 --json
  python -m harness.cost --write                            the catalogue at every data set's shape, into results/cost
"""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.commands import Parser, directory, run_command
from harness.config import parse_settings
from harness.counting.closed_form import by_module, items
from harness.counting.cost import Cost, CountError, cost_of, file_bytes, file_name, has_fvcore, installed
from harness.data.load import dataset_facts
from harness.datasets import DATASETS
from harness.records.write import prepare, write_atomically
from variants.catalog import CATALOG, check_known, config_of
from variants.config import ViTConfig
from variants.fields import UsageError, from_text

WRITTEN = Path("results/cost")
WITHOUT_FVCORE = (
    "fvcore is not installed (pip install fvcore): the numbers are the closed form's, checked by torch's own counter "
    "alone; MACs of timm models are unknown"
)
NOTES = """\
one image; FLOPs = 2 x MACs; MACs as fvcore counts them (its #flops), plus fused attention;
attention: the share of its two products, q k^T and weights v;
activations: the results of all products, attention in the open, without the head"""
SMALLER_THAN_S3 = 'vit-224: its {:,} parameters are not S3\'s "~22M", which fit a ViT-Small of 12 layers; this has 6'


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if args.write:
            write(args)
        else:
            show(args, configs(args))
    except CountError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def parser() -> Parser:
    parser = Parser("harness.cost", __doc__ or "")
    many: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("--variant", metavar="V", help="names, timm:MODEL, path/to/file.py:NAME (default: all)", **many)
    parser.add_argument("--dataset", metavar="D", help="whose image size and classes (default: c10)")
    parser.add_shared("data-dir")
    parser.add_argument("--set", metavar="variant.X=Y", dest="settings", help="set fields of the variants", **many)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--table", action="store_true", help="parameters, MACs and activations of each module")
    parser.add_argument("--summary", action="store_true", help="shapes and parameters of each layer, by torchinfo")
    how.add_argument("--json", action="store_true", help="one object a line, one line a variant, nothing else")
    how.add_argument("--write", action="store_true", help="the catalogue at every data set's shape, a file each")
    parser.add_argument("--out", type=directory, metavar="DIR", help=f"of --write (default: {WRITTEN.as_posix()})")
    return parser


def configs(args: Namespace) -> dict[str, Any]:
    """All of them before the first is counted, so that a mistake is reported at once."""
    if args.json and args.summary:
        raise UsageError("--json prints nothing but its objects: leave out --summary")
    if args.out:
        raise UsageError("--out is where --write puts its files: add --write")
    args.dataset = args.dataset or "c10"
    changes = parse_settings(args.settings)
    if changes["recipe"]:
        raise UsageError("--set recipe.*: a recipe has no part in the cost of a variant")
    dataset = dataset_facts(args.dataset)
    chosen = {}
    for name in args.variant or CATALOG:
        check_known(name)
        chosen[name] = from_text(config_of(name, dataset.image_size, dataset.num_classes), changes["variant"])
    return chosen


def show(args: Namespace, chosen: dict[str, Any]) -> None:
    if not has_fvcore():
        print(f"note: {WITHOUT_FVCORE}", file=sys.stderr)
    costs = []
    for name, config in chosen.items():
        costs.append(cost_of(name, config, args.dataset))
        if args.json:
            print(json.dumps(dataclasses.asdict(costs[-1])), flush=True)
        for asked, details in ((args.table, module_table), (args.summary, layer_summary)):
            if asked:
                print(f"{name} on {args.dataset}\n\n{details(config)}\n")
    if not args.json:
        print(overview(costs))


def overview(costs: Sequence[Cost]) -> str:
    """A line for each variant, and what a reader could misread."""
    rows = []
    for cost in costs:
        flops = None if cost.macs is None else 2 * cost.macs
        attention = cost.attention_macs
        share = None if not cost.macs or attention is None else f"{100 * attention / cost.macs:.1f} %"
        counts = [cost.params, cost.macs, flops, share, cost.activations_without_head]
        rows.append([cost.variant, *(f"{count:,}" if isinstance(count, int) else count or "-" for count in counts)])
    headers = ["variant", "parameters", "MACs", "FLOPs", "attention", "activations"]
    lines = [tabulate(rows, headers=headers, colalign=("left", *["right"] * 5), disable_numparse=True), "", NOTES]
    lines += [SMALLER_THAN_S3.format(cost.params) for cost in costs if cost.variant == "vit-224" and cost.params]
    return "\n".join(lines)


def module_table(config: Any) -> str:
    """fvcore's table by module; without fvcore the same columns from the closed form."""
    if has_fvcore():
        from harness.counting.measured import Subject

        return Subject(config).table()
    if type(config) is not ViTConfig:
        return "no table by module: it needs fvcore (pip install fvcore)"
    rows = by_module(items(config)).items()
    lines = [[path or "model", *(f"{count:,}" if count else "" for count in row.values())] for path, row in rows]
    headers = ["module", "#parameters", "#flops", "#activations"]
    return tabulate(lines, headers=headers, tablefmt="pipe", colalign=("left", *["right"] * 3), disable_numparse=True)


def layer_summary(config: Any) -> str:
    if not installed("torchinfo"):
        return "no summary of the layers: torchinfo is not installed (pip install torchinfo)"
    from harness.counting.measured import Subject

    return Subject(config).summary()


def write(args: Namespace) -> None:
    """All are counted before the first is written, so that files never mix two states of the catalogue."""
    if args.variant or args.dataset or args.settings or args.summary:
        raise UsageError("--write writes the whole catalogue at every data set's shape: only --out goes with it")
    if not has_fvcore():
        raise UsageError("--write counts every variant in all ways: install fvcore")
    files, out = {}, args.out or WRITTEN
    for dataset, name in product(DATASETS.values(), CATALOG):
        try:
            files[out / file_name(name, dataset)] = file_bytes(name, dataset)
        except UsageError as error:
            print(f"skipped {name} on {dataset.name}: {error}")
    prepare(out)
    for path, content in files.items():
        write_atomically(path, content)
    print(f"wrote {len(files)} files into {out}")
    for path in sorted({*out.glob("*.json")} - files.keys()):
        print(f"{path} is of no variant and data set that can be counted: remove it")


if __name__ == "__main__":
    run_command(main)
