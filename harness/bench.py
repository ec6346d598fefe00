"""Measure the suite's own speed, always against a baseline in the same run; kept in results/bench/DEVICE.json.

examples:
  python -m harness.bench pipeline
  python -m harness.bench train --variant compact --recipe s2 --batch-size 256 --steps 20
  python -m harness.bench train --variant vanilla patch2 timm:resnet18 --recipe common
  python -m harness.bench infer --variant compact --batch-sizes 1 64 512 --json
  python -m harness.bench report --records 10000
  python -m harness.bench beside --rounds 2
  python -m harness.bench pipeline --help

Data are made up, nothing is downloaded. Whatever else runs on the machine makes times worthless: leave it alone.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import Parser, directory, run_command, whole
from harness.config import PRECISION_HELP, PRECISIONS, RunConfig, resolve
from harness.datasets import DATASETS, Dataset
from harness.recipes import RECIPE_HELP, canonical
from variants.catalog import check_known
from variants.fields import UsageError, near_matches

if TYPE_CHECKING:
    import torch

    from harness.records.benchmarks import Comparison

LATER = ("rounds", "json", "out")
MODEL = ("device", "dataset", "precision", "compile", "set")
# What each benchmark measures, and the options that it reads beside LATER.
KINDS = {
    "pipeline": (
        "a recipe's input pipeline against torchvision's transforms of PIL images in a DataLoader",
        ("recipe", "dataset", "batch-size", "images", "workers", "device"),
    ),
    "train": (
        "the real loop against the conventional loop, and against the same steps on batches made beforehand",
        ("variant", "recipe", "batch-size", "steps", "workers", *MODEL),
    ),
    "infer": ("the forward pass against eager float32 with attention in the open", ("variant", "batch-sizes", *MODEL)),
    "body": (
        "the plain body against timm's VisionTransformer of the same shape, forward and backward",
        ("batch-size", *MODEL),
    ),
    "start": ("how soon the help of harness.run appears, against importing torch", ()),
    "beside": ("a small run beside two busy processes against the same alone, idle threads asleep or spinning", ()),
    "report": ("harness.report on many made-up records against a tenth of them", ("records", "epochs")),
}
WHOLE_PASS = 50_000  # images, as many as CIFAR's
OPTIONS: dict[str, dict[str, Any]] = {
    "variant": {"nargs": "+", "default": ["compact"], "help": "one or more (default: compact)"},
    "recipe": {"type": canonical, "default": "s1", "help": f"{RECIPE_HELP} (default: s1)"},
    "dataset": {"default": "c10", "help": f"whose shape: {', '.join(DATASETS)} (default: c10)"},
    "batch-size": {"type": whole, "help": "(default: the recipe's)"},
    "batch-sizes": {"type": whole, "nargs": "+", "default": [1, 64, 512], "help": "(default: 1 64 512)"},
    "images": {"type": whole, "default": WHOLE_PASS, "help": f"of one pass (default: {WHOLE_PASS})"},
    "steps": {"type": whole, "help": f"of one epoch (default: {WHOLE_PASS} images on CUDA, 20 steps on the CPU)"},
    "workers": {"type": whole, "help": "of the DataLoader (default: as many as there are cores)"},
    "device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1, ... (default: auto)"},
    "precision": {"choices": PRECISIONS, "help": PRECISION_HELP},
    "compile": {"choices": ("on", "off"), "help": "torch.compile (default: on for CUDA, off on the CPU)"},
    "set": {"nargs": "+", "action": "extend", "default": [], "metavar": "KEY=VALUE", "help": "as for harness.run"},
    "records": {"type": whole, "default": 10_000, "help": "(default: 10000)"},
    "epochs": {"type": whole, "default": 200, "help": "of each record's curve (default: 200)"},
    "rounds": {"type": whole, "default": 5, "help": "that count; one more warms up (default: 5)"},
    "json": {"action": "store_true", "help": "one object a line, one line a comparison, nothing else"},
    "out": {"type": directory, "default": Path("results/bench"), "metavar": "DIR", "help": "(default: results/bench)"},
}
BODY = "patch2"  # a plain ViT that timm's class can express


def parser() -> Parser:
    p = Parser("harness.bench", __doc__ or "")
    make: Any = lambda prog, description, **_: Parser(prog, description)  # noqa: E731
    kinds = p.add_subparsers(dest="kind", required=True, metavar="BENCHMARK", parser_class=make)
    for kind, (about, options) in KINDS.items():
        sub = kinds.add_parser(kind, prog=f"harness.bench {kind}", description=f"Measure {about}.", help=about)
        for name in (*options, *LATER):
            sub.add_argument(f"--{name}", **OPTIONS[name])
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    from harness.records.benchmarks import write_comparisons

    for one in MEASURES[args.kind](args):  # each shown and kept at once: the next may take minutes, or fail
        device_name, one = signed(one, getattr(args, "device", "cpu"))
        print(json.dumps(asdict(one)) if args.json else text(one), flush=True)
        path = write_comparisons(args.out, device_name, [one])
        if not args.json:
            print(f"\n{device_name}\nwritten: {path}\n")
    return 0


def _pipeline(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.conventional import cores
    from harness.timing.pipeline import compare_pipelines
    from harness.timing.staging import made_up
    from harness.training.device import choose, keep_freed_memory

    dataset, device = dataset_of(args), choose(args.device)
    keep_freed_memory(device)
    config = resolve("compact", dataset, args.recipe, batch_size=args.batch_size)
    data, workers = made_up(dataset, args.images), args.workers or cores()
    yield compare_pipelines(config.recipe_source, config.recipe, data, device, workers, args.rounds)


def _train(args: Namespace) -> Iterator[Comparison]:
    from harness.counting.cost import cost_of
    from harness.timing.conventional import cores
    from harness.timing.staging import made_up
    from harness.timing.step import compare_training
    from harness.training.watch import DivergenceError

    device, configs = configured(args, args.variant, args.recipe, args.batch_size)
    for config in configs:
        cost = cost_of(config.variant_name, config.variant, config.dataset, check=False)
        size = config.recipe.batch_size
        enough = 20 if device.type == "cpu" else -(-WHOLE_PASS // size)  # 20 of a GPU's are over in milliseconds
        steps = args.steps or enough
        data = made_up(DATASETS[config.dataset], steps * size)
        try:
            yield from compare_training(config, cost, data, device, args.workers or cores(), args.rounds)
        except DivergenceError as error:
            raise UsageError(f"{config.variant_name} on noise: {error}; --set recipe.lr to a lower one") from None


def _infer(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.infer import compare_inference

    device, configs = configured(args, args.variant)
    for config in configs:
        for size in args.batch_sizes:
            yield compare_inference(config, device, size, args.rounds)


def _body(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.body import compare_bodies

    device, configs = configured(args, [BODY], batch_size=args.batch_size or 64)
    yield compare_bodies(configs[0], device, args.rounds)


def _start(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.commands import compare_start

    yield compare_start(args.rounds)


def _beside(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.commands import compare_beside
    from harness.training.device import choose, is_shared

    before = {"shared_device": is_shared(choose("cpu"))}  # afterwards its own busy processes would count
    yield from (replace(one, env=before) for one in compare_beside(args.rounds))


def _report(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.commands import compare_reports

    yield compare_reports(args.records, args.epochs, args.rounds)


MEASURES = {
    "pipeline": _pipeline,
    "train": _train,
    "infer": _infer,
    "body": _body,
    "start": _start,
    "beside": _beside,
    "report": _report,
}


def dataset_of(args: Namespace) -> Dataset:
    if args.dataset not in DATASETS:
        raise UsageError(f"unknown data set {args.dataset!r}: {near_matches(args.dataset, DATASETS)}")
    return DATASETS[args.dataset]


def configured(
    args: Namespace, variants: list[str], recipe: str = "common", batch_size: int | None = None
) -> tuple[torch.device, list[RunConfig]]:
    """Everything checked before the first clock starts."""
    from harness.training.device import choose, defaults, keep_freed_memory

    dataset, device = dataset_of(args), choose(args.device)
    for name in variants:
        check_known(name)
    keep_freed_memory(device)  # the baselines in this process have it too
    precision, compiled = defaults(device)
    precision, compiled = args.precision or precision, compiled if args.compile is None else args.compile == "on"
    chosen: dict[str, Any] = {"precision": precision, "compile": compiled, "settings": args.set}
    return device, [resolve(name, dataset, recipe, batch_size=batch_size, **chosen) for name in variants]


def signed(one: Comparison, device: str) -> tuple[str, Comparison]:
    """The device's name, and the comparison with where and by what code it was made."""
    from harness.records.environment import environment
    from harness.training.device import choose, describe, is_shared

    chosen = choose(device)
    facts = describe(chosen)
    env = {**environment(facts, "made up"), "shared_device": is_shared(chosen), **one.env}
    return facts["device_name"], replace(one, env=env)


def text(one: Comparison) -> str:
    from tabulate import tabulate

    rows = [
        ("ours", f"{number(one.ours)} {one.unit}"),
        (one.baseline_name, f"{number(one.baseline)} {one.unit}"),
        ("times as fast", f"{one.ratio:.3f} ({one.ratio_low:.3f} to {one.ratio_high:.3f}, {one.rounds} rounds)"),
    ]
    if one.goal is not None:
        rows.append((f"goal: at least {one.goal:.3f}", "reached" if one.reached else "missed"))
    rows += [(name.replace("_", " "), number(value)) for name, value in one.facts.items()]
    return tabulate(rows, headers=(one.name, ""), disable_numparse=True)


def number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "not measured" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    run_command(main)
