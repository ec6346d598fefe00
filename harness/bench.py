"""Measure the suite's own speed against a baseline in the same run; kept in results/bench/DEVICE.json. `gpu` has no
baseline: it shows whether variants train on a GPU, and what takes the time there.

examples:
  python -m harness.bench pipeline
  python -m harness.bench train --variant compact --recipe s2 --batch-size 256 --steps 20
  python -m harness.bench train --variant vanilla patch2 timm:resnet18 --recipe common
  python -m harness.bench infer --variant compact --batch-sizes 1 64 512 --json
  python -m harness.bench report --records 1000
  python -m harness.bench beside --rounds 2
  python -m harness.bench gpu --variant vanilla --measure
  python -m harness.bench pipeline --help

Data are made up, nothing is downloaded. Anything else that runs on the machine makes the times worthless.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.commands import SHARED, Parser, asked_for, directory, run_command, whole
from harness.config import RunConfig, resolve
from harness.datasets import DATASETS, Dataset
from harness.recipes import PUBLISHED, RECIPE_HELP, canonical
from harness.records.benchmarks import Comparison, fact_text, write_comparisons
from variants.catalog import CATALOG, check_known
from variants.fields import UsageError, near_matches

if TYPE_CHECKING:
    import torch

EPOCH = 50_000  # images, as many as CIFAR's
BODY = "patch2"  # a plain ViT that timm's class can express
LATER, MODEL = ("rounds", "json", "out"), ("device", "dataset", "precision", "compile", "set")
OPTIONS: dict[str, dict[str, Any]] = {
    "variant": {"nargs": "+", "default": ["compact"], "help": "one or more (default: compact)"},
    "recipe": {"type": canonical, "default": "s1", "help": f"{RECIPE_HELP} (default: s1)"},
    "dataset": {"default": "c10", "help": f"whose shape: {', '.join(DATASETS)} (default: c10)"},
    "batch-size": {"type": whole, "help": "(default: the recipe's)"},
    "batch-sizes": {"type": whole, "nargs": "+", "default": [1, 64, 512], "help": "(default: 1 64 512)"},
    "images": {"type": whole, "default": EPOCH, "help": f"of one epoch (default: {EPOCH})"},
    "steps": {"type": whole, "help": f"of one epoch (default: {EPOCH} images on CUDA, 20 steps on the CPU)"},
    "workers": {"type": whole, "help": "of the DataLoader (default: as many as there are cores)"},
    **{name: SHARED[name] for name in ("device", "precision", "compile")},
    "set": {"nargs": "+", "action": "extend", "default": [], "metavar": "KEY=VALUE", "help": "as for harness.run"},
    "records": {"type": whole, "default": 1000, "help": "(default: 1000)"},
    "epochs": {"type": whole, "default": 200, "help": "of each record's curve (default: 200)"},
    "measure": {"action": "store_true", "help": "also time the loop and its parts, and profile 30 steps"},
    "rounds": {"type": whole, "default": 5, "help": "that count; one more warms up (default: 5)"},
    "json": {"action": "store_true", "help": "one object a line, one line a comparison, nothing else"},
    "out": {"type": directory, "default": Path("results/bench"), "metavar": "DIR", "help": "(default: results/bench)"},
}


# --- the comparisons --------------------------------------------------------------------------------------------------


def compare_pipeline(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.training import compare_pipelines
    from harness.timing.turns import cores, made_up
    from harness.training.device import choose, keep_freed_memory

    dataset, device = dataset_of(args), choose(args.device)
    keep_freed_memory(device)
    config = resolve("compact", dataset, args.recipe, batch_size=args.batch_size)
    yield compare_pipelines(config, made_up(dataset, args.images), device, args.workers or cores(), args.rounds)


def compare_train(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.training import compare_training
    from harness.timing.turns import cores, made_up
    from harness.training.loop import DivergenceError

    device, configs = configured(args, args.variant, args.recipe, args.batch_size)
    for config in configs:
        size = config.recipe.batch_size
        enough = 20 if device.type == "cpu" else -(-EPOCH // size)  # 20 of a GPU's are over in milliseconds
        data = made_up(DATASETS[config.dataset], (args.steps or enough) * size)
        try:
            yield from compare_training(config, data, device, args.workers or cores(), args.rounds)
        except DivergenceError as error:
            raise UsageError(f"{config.variant_name} on noise: {error}; --set recipe.lr to a lower one") from None


def compare_infer(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.models import compare_inference

    device, configs = configured(args, args.variant)
    for config in configs:
        for size in args.batch_sizes:
            yield compare_inference(config, device, size, args.rounds)


def compare_body(args: Namespace) -> Iterator[Comparison]:
    from harness.timing.models import compare_bodies

    device, configs = configured(args, [BODY], batch_size=args.batch_size or 64)
    yield compare_bodies(configs[0], device, args.rounds)


def compare_start(args: Namespace) -> Iterator[Comparison]:
    from harness.timing import commands

    yield commands.compare_start(args.rounds)


def compare_beside(args: Namespace) -> Iterator[Comparison]:
    from harness.timing import commands
    from harness.training.device import choose, is_shared

    before = {"shared_device": is_shared(choose("cpu"))}  # afterwards its own busy processes would count
    yield from (replace(one, env=before) for one in commands.compare_beside(args.rounds))


def compare_report(args: Namespace) -> Iterator[Comparison]:
    from harness.timing import commands

    yield from commands.compare_reports(args.records, args.epochs, args.rounds)


class Benchmark(NamedTuple):
    about: str
    options: tuple[str, ...]
    compare: Callable[[Namespace], Iterator[Comparison]]


BENCHMARKS = {
    "pipeline": Benchmark(
        "a recipe's input pipeline against torchvision's transforms of PIL images in a DataLoader",
        ("recipe", "dataset", "batch-size", "images", "workers", "device"),
        compare_pipeline,
    ),
    "train": Benchmark(
        "the real loop against the conventional loop, and against the same steps on batches made beforehand",
        ("variant", "recipe", "batch-size", "steps", "workers", *MODEL),
        compare_train,
    ),
    "infer": Benchmark(
        "the forward pass against eager float32 with attention in the open",
        ("variant", "batch-sizes", *MODEL),
        compare_infer,
    ),
    "body": Benchmark(
        "the plain body against timm's VisionTransformer of the same shape, forward and backward",
        ("batch-size", *MODEL),
        compare_body,
    ),
    "start": Benchmark("how soon the help of harness.run appears, against importing torch", (), compare_start),
    "beside": Benchmark(
        "a small run beside two busy processes against the same alone, idle threads asleep or spinning",
        (),
        compare_beside,
    ),
    "report": Benchmark(
        "harness.report on many made-up records against a tenth of them, and against its goal of 1,000 in 10 s",
        ("records", "epochs"),
        compare_report,
    ),
}


# --- a GPU's first light ----------------------------------------------------------------------------------------------

GPU_ABOUT = "whether each variant trains on a GPU, and what its loop takes there"
GPU_HELP = """\
Train two short epochs of each variant, compiled, or eager where that fails, and say why. With --measure also time the
real loop and its parts (pipeline, staged batches, host, evaluation, checkpoint), and profile 30 steps.

examples:
  python -m harness.bench gpu                                       every variant of the catalogue, two short epochs
  python -m harness.bench gpu --variant vanilla timm --measure
  python -m harness.bench gpu --variant compact --device cpu --dataset digits --measure       a dry run, in seconds

Each fact is a line of OUT/gpu-DEVICE.jsonl and a line on the screen; a profile's table is OUT/gpu-DEVICE-VARIANT.txt.
A CPU has no energy, kernels or gaps to report, and by default nothing is compiled there. Exit code 1: something failed,
or had to go on eager.
"""
GPU_OPTIONS: dict[str, dict[str, Any]] = {
    "variant": OPTIONS["variant"] | {"default": [], "help": "one or more (default: the whole catalogue)"},
    "recipe": OPTIONS["recipe"] | {"default": None, "help": f"{RECIPE_HELP} (default: published, else common)"},
    **{name: OPTIONS[name] for name in ("batch-size", *MODEL, "measure", "out")},
}


def look_at_gpu(args: Namespace) -> int:
    from harness.timing.gpu import Facts, look
    from harness.training.device import choose

    if choose(args.device).type == "cpu":
        print("a dry run on the CPU: energy, kernels and gaps need CUDA, and its times say little", file=sys.stderr)
    cells = []
    for name in args.variant or CATALOG:
        recipe = args.recipe or ("published" if name in PUBLISHED else "common")
        try:
            device, configs = configured(args, [name], recipe, args.batch_size)
            cells += [(config, device) for config in configs]
        except UsageError as error:
            if args.variant:
                raise
            print(f"skipped {name} on {args.dataset}: {error}", file=sys.stderr)
    if not cells:
        raise UsageError("no variant of the catalogue can be trained with these options")
    try:
        facts = Facts(args.out, cells[0][1])
        worked = [look(config, device, facts, args.measure) for config, device in cells]
    except OSError as error:
        raise UsageError(f"cannot write into {args.out}: {error.strerror or error}") from None
    print(f"written: {facts.path}")
    return 0 if all(worked) else 1


# --- the command ------------------------------------------------------------------------------------------------------


def parser() -> Parser:
    p = Parser("harness.bench", __doc__ or "")
    make: Any = lambda prog, description, **_: Parser(prog, description)  # noqa: E731
    kinds = p.add_subparsers(dest="kind", required=True, metavar="BENCHMARK", parser_class=make)
    for kind, benchmark in BENCHMARKS.items():
        about = benchmark.about
        sub = kinds.add_parser(kind, prog=f"harness.bench {kind}", description=f"Measure {about}.", help=about)
        for name in (*benchmark.options, *LATER):
            sub.add_argument(f"--{name}", **OPTIONS[name])
    gpu = kinds.add_parser("gpu", prog="harness.bench gpu", description=GPU_HELP, help=GPU_ABOUT)
    for name, settings in GPU_OPTIONS.items():
        gpu.add_argument(f"--{name}", **settings)
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if args.kind == "gpu":
        return look_at_gpu(args)
    for one in BENCHMARKS[args.kind].compare(args):  # each shown and kept at once: the next may take minutes, or fail
        device_name, one = signed(one, getattr(args, "device", "cpu"))
        print(json.dumps(asdict(one)) if args.json else text(one), flush=True)
        path = write_comparisons(args.out, device_name, [one])
        if not args.json:
            print(f"\n{device_name}\nwritten: {path}\n")
    return 0


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
    precision, compiled = asked_for(args, *defaults(device))
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
        ("ours", f"{fact_text(one.ours)} {one.unit}"),
        (one.baseline_name, f"{fact_text(one.baseline)} {one.unit}"),
        ("times as fast", f"{one.ratio:.3f} ({one.ratio_low:.3f} to {one.ratio_high:.3f}, {one.rounds} rounds)"),
    ]
    if one.goal is not None:
        rows.append((f"goal: at least {one.goal:.3f}", "reached" if one.reached else "missed"))
    rows += [(name.replace("_", " "), fact_text(value)) for name, value in one.facts.items()]
    return tabulate(rows, headers=(one.name, ""), disable_numparse=True)


if __name__ == "__main__":
    run_command(main)
