"""Measure the suite's own speed against a baseline in the same run.

Kept in results/bench/DEVICE.json. `gpu` has no baseline: it shows whether variants train on a GPU, and what takes the
time there.

examples:
  python -m harness.bench pipeline
  python -m harness.bench stream --size 64 --workers 2
  python -m harness.bench train --variant compact --recipe s2 --batch-size 256 --steps 20
  python -m harness.bench train --variant vanilla patch2 timm:resnet18 --recipe common
  python -m harness.bench infer --variant compact --batch-sizes 1 64 512 --json
  python -m harness.bench seeds --variant compact --recipe s2 --at-once 4 16
  python -m harness.bench attention --tokens 64 256
  python -m harness.bench report --records 1000
  python -m harness.bench beside --rounds 2
  python -m harness.bench gpu --variant vanilla --measure
  python -m harness.bench pipeline --help

Data are made up, nothing is downloaded. Anything else that runs on the machine makes the times worthless.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.commands import SHARED, Parser, directory, run_command, whole
from harness.datasets import DATASETS
from harness.recipes import RECIPE_HELP, canonical
from harness.records.benchmarks import Comparison, fact_text, write_comparisons
from harness.records.environment import environment

EPOCH = DATASETS["c10"].train_count  # images

# The least ratios that this project set itself, by kind of device and name of the comparison. What misses one is shown
# as missed: a goal is not lowered to what was measured.
GOALS = {
    ("cpu", "pipeline s1"): 25.0,
    ("cpu", "stream s1 at 64"): 1.5,
    ("cpu", "loop compact s2 batch 256"): 1 / 1.03,  # an epoch takes at most 1.03 of the same steps on staged tensors
    ("cpu", "body patch2 batch 64"): 1.0,
    ("cuda", "body patch2 batch 64"): 1.0,
    ("cpu", "start"): 1 / 0.3,
    ("cpu", "beside 2 busy processes"): 1 / 2.5,  # a run takes at most 2.5 times as long as alone
    ("cpu", "report 1000 against 10 s"): 1.0,
    ("cuda", "train vanilla s1 batch 128"): 10.0,
    ("cuda", "seeds compact s2 batch 256, 16 at once"): 16 / 2.5,  # 16 take at most 2.5 times as long as one
    ("cuda", "seeds vanilla s1 batch 128, 5 at once"): 5 / 3.3,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "variant": {"nargs": "+", "default": ["compact"], "help": "one or more (default: compact; of gpu the catalogue)"},
    "recipe": {
        "type": canonical,
        "default": "s1",
        "help": f"{RECIPE_HELP} (default: s1; of gpu published, else common)",
    },
    "dataset": {"choices": list(DATASETS), "default": "c10", "help": "whose shape (default: c10)"},
    "batch-size": {"type": whole, "help": "(default: the recipe's; of body and attention 64)"},
    "batch-sizes": {"type": whole, "nargs": "+", "default": [1, 64, 512], "help": "(default: 1 64 512)"},
    "images": {"type": whole, "default": EPOCH, "help": f"of one epoch (default: {EPOCH}; of stream 20000)"},
    "size": {"type": whole, "default": 64, "help": "of the images, in pixels (default: 64)"},
    "steps": {"type": whole, "help": f"of one epoch (default: {EPOCH} images on CUDA, 20 steps on the CPU)"},
    "workers": {"type": whole, "help": "of the DataLoader (default: as many as there are cores)"},
    **{name: SHARED[name] for name in ("device", "precision", "compile", "graph", "set")},
    "records": {"type": whole, "default": 1000, "help": "(default: 1000)"},
    "epochs": {"type": whole, "default": 200, "help": "of each record's curve (default: 200)"},
    "at-once": {"type": whole, "nargs": "+", "default": [2, 4, 8, 16], "help": "how many seeds (default: 2 4 8 16)"},
    "tokens": {"type": whole, "nargs": "+", "default": [64, 256], "help": "of an image (default: 64 256)"},
    "measure": {"action": "store_true", "help": "also time the loop and its parts, and profile 30 steps"},
    "rounds": {"type": whole, "default": 5, "help": "that count; one more warms up (default: 5)"},
    "json": {"action": "store_true", "help": "one object a line, one line a comparison, nothing else"},
    "out": {"type": directory, "default": Path("results/bench"), "metavar": "DIR", "help": "(default: results/bench)"},
}


GPU_HELP = """\
Train two short epochs of each variant, compiled, or eager where that fails, and say why. With --measure also time the
real loop and its parts (pipeline, staged batches, host, evaluation, checkpoint), and profile 30 steps.

A dry run, in seconds: python -m harness.bench gpu --variant compact --device cpu --dataset digits --measure
Each fact is a line of OUT/gpu-DEVICE.jsonl and a line on the screen; a profile's table is OUT/gpu-DEVICE-VARIANT.txt.
On a GPU the loop's speed beside that of its steps is kept in OUT/DEVICE.json too, for harness.sweep --estimate.
A CPU has no energy, kernels or gaps to report, and by default nothing is compiled there. Exit code 1: something failed,
or had to go on eager.
"""


MODEL, LATER = ("device", "dataset", "precision", "compile", "set"), ("rounds", "json", "out")
# What carries it out (in a module of harness/timing), what it measures, and its options.
BENCHMARKS = {
    "pipeline": (
        "training.compare_pipelines",
        "a recipe's input pipeline against torchvision's transforms of PIL images in a DataLoader",
        ("recipe", "dataset", "batch-size", "images", "workers", "device", *LATER),
    ),
    "stream": (
        "streaming.compare_streams",
        "images decoded from their files as they are needed against torchvision's ImageFolder in a DataLoader",
        ("recipe", "batch-size", "images", "size", "workers", "device", "set", *LATER),
    ),
    "train": (
        "training.compare_training",
        "the real loop against the conventional loop, and against the same steps on batches made beforehand",
        ("variant", "recipe", "batch-size", "steps", "workers", *MODEL, "graph", *LATER),
    ),
    "seeds": (
        "training.compare_seeds",
        "several seeds of a cell trained as one against one after another",
        ("variant", "recipe", "batch-size", "steps", "at-once", *MODEL, "graph", *LATER),
    ),
    "infer": (
        "models.compare_inference",
        "the forward pass against eager float32 with attention in the open",
        ("variant", "batch-sizes", *MODEL, *LATER),
    ),
    "body": (
        "models.compare_bodies",
        "the plain body against timm's VisionTransformer of the same shape, forward and backward",
        ("batch-size", *MODEL, *LATER),
    ),
    "attention": (
        "models.compare_attention",
        "attention in one operator, or all heads at once in the open, against one head after another",
        ("batch-size", "tokens", *MODEL, *LATER),
    ),
    "start": ("commands.compare_start", "how soon the help of harness.run appears, against importing torch", LATER),
    "beside": ("commands.compare_beside", "a small run beside two busy processes against the same run alone", LATER),
    "report": (
        "commands.compare_reports",
        "harness.report on many made-up records against a tenth of them, and against its goal of 1,000 in 10 s",
        ("records", "epochs", *LATER),
    ),
    "gpu": (
        "gpu.look_at_all",
        "whether each variant trains on a GPU, and what its loop takes there",
        ("variant", "recipe", "batch-size", *MODEL, "graph", "measure", "out"),
    ),
}
# What an option is where a benchmark has another default than OPTIONS, or no such option.
DEFAULTS: dict[str, dict[str, Any]] = {
    "pipeline": {"precision": None, "compile": None, "set": []},
    "stream": {"images": 20_000},
    "infer": {"recipe": "common", "batch_size": None},
    "body": {"recipe": "common", "batch_size": 64},
    "attention": {"recipe": "common", "batch_size": 64},
    "gpu": {"recipe": None, "variant": None},
}


def parser() -> Parser:
    p = Parser("harness.bench", __doc__ or "")
    make: Any = lambda prog, description, **_: Parser(prog, description)  # noqa: E731
    kinds = p.add_subparsers(dest="kind", required=True, metavar="BENCHMARK", parser_class=make)
    for kind, (_, about, names) in BENCHMARKS.items():
        description = GPU_HELP if kind == "gpu" else f"Measure {about}."
        sub = kinds.add_parser(kind, prog=f"harness.bench {kind}", description=description, help=about)
        for name in names:
            sub.add_argument(f"--{name}", **OPTIONS[name])
        sub.set_defaults(**DEFAULTS.get(kind, {}))
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    module, function = BENCHMARKS[args.kind][0].split(".")
    carry_out = getattr(import_module(f"harness.timing.{module}"), function)  # imports torch
    if args.kind == "gpu":
        return carry_out(args)
    from harness.training.device import choose, describe, is_shared

    device = choose(getattr(args, "device", "cpu"))
    before = is_shared(device)  # afterwards a benchmark's own processes would count
    for one in carry_out(args):  # each shown and kept at once: the next may take minutes, or fail
        facts = describe(device)
        shared = before if device.type == "cpu" else is_shared(device)
        env = {**environment(facts, "made up"), "shared_device": shared}
        one = replace(one, env=env, goal=GOALS.get((device.type, one.name)))
        print(json.dumps(asdict(one)) if args.json else text(one), flush=True)
        path = write_comparisons(args.out, facts["device_name"], [one])
        if not args.json:
            print(f"\n{facts['device_name']}\nwritten: {path}\n")
    return 0


def text(one: Comparison) -> str:
    from tabulate import tabulate

    goal = {} if one.goal is None else {f"goal: at least {one.goal:.3f}": "reached" if one.reached else "missed"}
    rows = {
        "ours": f"{fact_text(one.ours)} {one.unit}",
        one.baseline_name: f"{fact_text(one.baseline)} {one.unit}",
        "times as fast": f"{one.ratio:.3f} ({one.ratio_low:.3f} to {one.ratio_high:.3f}, {one.rounds} rounds)",
        **goal,
        **{name.replace("_", " "): fact_text(value) for name, value in one.facts.items()},
    }
    return tabulate(rows.items(), headers=(one.name, ""), disable_numparse=True)


if __name__ == "__main__":
    run_command(main)
