"""Benchmark of image folders: an epoch of images decoded as they are needed against torchvision's ImageFolder in a
DataLoader, on JPEGs made for it; and what memory such an epoch takes, against one with all images in memory."""

import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from harness.config import resolve
from harness.data.index import in_blocks
from harness.data.load import dataset_facts, load
from harness.data.pipeline import scaling, to_device
from harness.records.benchmarks import Comparison
from harness.records.environment import ROOT, cores
from harness.timing.conventional import conventional_batches
from harness.timing.training import drain
from harness.timing.turns import OURS, take_turns, timed
from harness.training.device import choose, forget_peak_memory, peak_memory_bytes

CLASSES = 10
SIDES = 200, 428  # of the JPEGs, drawn between them; the photographs are 427 pixels high
FEW = 64
AN_EPOCH = "import json, sys; from harness.timing.streaming import epoch; epoch(*json.loads(sys.argv[1]))"


def compare_streams(args: Namespace) -> Iterator[Comparison]:
    """One epoch's images each; the DataLoader's workers are running when its clock starts."""
    device, workers = choose(args.device), args.workers or cores()
    with tempfile.TemporaryDirectory() as place:
        write_jpegs(Path(place) / "jpegs", args.images)
        name = f"folder:{place}/jpegs@{args.size}"
        config = resolve("compact", dataset_facts(name), args.recipe, batch_size=args.batch_size, settings=args.set)
        recipe, data = config.recipe, load(name, Path(place))
        split, scale, count = to_device(data.train, device, "stream"), scaling(data, recipe, device), len(data.train)
        theirs = conventional_batches(data, recipe, workers, Path(place) / "jpegs" / "train")
        baseline = f"ImageFolder in a DataLoader, {workers} workers"
        ways = {
            OURS: timed(lambda: drain(split, recipe, scale), device, count),
            baseline: timed(lambda: deque(theirs, maxlen=0), device, count),
        }
        timings = take_turns(ways, args.rounds)
        facts: dict[str, Any] = {"images": count, "size": args.size, "augment": [*recipe.augment]}
        for way in ("stream", "host"):
            command = [sys.executable, "-c", AN_EPOCH, json.dumps([name, place, args.recipe, args.set, way])]
            told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
            facts[f"epoch_memory_bytes {way}"] = int(told)
        own = [f"batch {args.batch_size}"] if args.batch_size else []
        title = ", ".join((f"stream {config.recipe_source} at {args.size}", *own, *args.set))
        yield timings.compare(title, "images/s", OURS, baseline, facts)


def epoch(name: str, place: str, recipe: str, settings: list[str], way: str) -> None:
    """On the CPU, in a process of its own. Prints how many bytes it took at most, beyond what was imported."""
    data, config = load(name, Path(place)), resolve("compact", dataset_facts(name), recipe, settings=settings)
    cpu, scale = torch.device("cpu"), scaling(data, config.recipe, torch.device("cpu"))
    drain(to_device(data.train.part(slice(FEW)), cpu, way), config.recipe, scale)  # which imports torchvision
    forget_peak_memory(cpu)
    before = peak_memory_bytes(cpu) or 0
    drain(to_device(data.train, cpu, way), config.recipe, scale)
    print((peak_memory_bytes(cpu) or 0) - before)


def write_jpegs(folder: Path, count: int) -> None:
    """So many training images, and one of each class to judge on: pieces of photographs, of many sizes and qualities;
    the same for the same count."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]

    def write(rows: range) -> None:
        for i in rows:
            draw, photograph = np.random.default_rng(i), photographs[i % len(photographs)]
            width, height = draw.integers(*SIDES, 2).tolist()
            left, top = draw.integers(photograph.width - width + 1), draw.integers(photograph.height - height + 1)
            place = folder / ("train" if i < count else "val") / f"class{i % CLASSES}" / f"{i}.jpg"
            piece = photograph.crop((left, top, left + width, top + height))
            piece.save(place, quality=int(draw.integers(75, 96)))

    for split, nth in product(("train", "val"), range(CLASSES)):
        (folder / split / f"class{nth}").mkdir(parents=True)
    deque(in_blocks(write, count + CLASSES, "writing JPEGs"), maxlen=0)
