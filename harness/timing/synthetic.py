"""Records that no training made, for the benchmark of the report and for tests: as many as are asked for, written by
the suite's own writer.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from itertools import count as numbers
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import RunConfig, resolve
from harness.counting.cost import cost_of
from harness.datasets import CORRUPTION_NAMES, DATASETS
from harness.records.environment import environment
from harness.records.schema import RESULT_FIELDS
from harness.records.write import RunWriter
from variants.catalog import CATALOG
from variants.config import ViTConfig

SEEDS_A_CELL = 5
VARIANTS = [name for name, config in CATALOG.items() if type(config) is ViTConfig]  # torch alone can count a timm model
CEILINGS = {"c10": 0.95, "c100": 0.75, "svhn": 0.97}  # no cell of that data set learns more
DEVICE: dict[str, Any] = {"device": "cuda", "threads": 16, "device_name": "no device", "cuda": None, "driver": None}


def write_records(folder: Path, count: int, epochs: int = 200) -> None:
    """`count` finished runs; the same arguments give the same runs."""
    for first, config in zip(range(0, count, SEEDS_A_CELL), cells(epochs)):
        write_cell(folder, config, min(SEEDS_A_CELL, count - first))


def cells(epochs: int) -> Iterator[RunConfig]:
    """Each variant under its recipes on each data set, then all of it again at one learning rate after another."""
    device: dict[str, Any] = {"precision": "bf16", "compile": True}
    for step in numbers():
        # halfway between the rates of the recipes, where a set rate would be the cell that is there already
        settings = [f"recipe.lr={1e-4 * (step - 0.5):g}"] if step else []
        for variant, recipe, name in product(VARIANTS, ("published", "common"), CEILINGS):
            yield resolve(variant, DATASETS[name], recipe, epochs=epochs, settings=settings, **device)


def write_cell(folder: Path, config: RunConfig, seeds: int) -> None:
    cost = asdict(cost_of(config.variant_name, config.variant, config.dataset_name, check=False))
    env = environment(DEVICE, f"no data of {config.dataset}")
    for seed in range(seeds):
        plain = replace(config, seed=seed).to_plain()
        lines, writer = _epochs(plain), RunWriter(folder / plain["run_id"])
        writer.begin(plain, env, cost, lines)
        writer.finish(_result(lines, cost), _predictions(config.dataset))


@cache
def _predictions(name: str) -> dict[str, np.ndarray]:
    """The same of all runs on a data set. The surer, the more often right."""
    dataset, draw = DATASETS[name], np.random.default_rng(0)
    labels = np.arange(dataset.test_count) % dataset.num_classes
    confidence = draw.integers(2, 17, dataset.test_count) / 16
    others = draw.integers(dataset.num_classes, size=dataset.test_count)
    predicted = np.where(draw.random(dataset.test_count) < confidence, labels, others)
    classes = {"labels": labels.astype("uint16"), "predicted": predicted.astype("uint16")}
    return {**classes, "confidence": confidence.astype("float32")}


def _epochs(plain: dict[str, Any]) -> list[dict[str, Any]]:
    """Accuracy climbs steeply and flattens out below the cell's own ceiling; losses fall as it climbs."""
    dataset, recipe, cell = DATASETS[plain["dataset"]], plain["recipe"], plain["cell_id"].rsplit("-", 1)[1]
    draw = np.random.default_rng([int(cell, 16), plain["seed"]])
    ceiling = CEILINGS[dataset.name] * (1 - 0.3 * int(cell, 16) / 16 ** len(cell)) + draw.normal(0, 0.003)
    lines, worst = [], math.log(dataset.num_classes)
    for epoch in range(1, recipe["epochs"] + 1):
        done = epoch / recipe["epochs"]
        learned = 1 - math.exp(-6 * done)
        test = min(max(ceiling * learned + draw.normal(0, 0.002), 0), 1)
        train = min(test + 0.05 * learned**2, 1)
        line = {"epoch": epoch, "train_loss": worst * (1.05 - train), "test_loss": worst * (1.05 - test)}
        line["train_accuracy"] = round(train * dataset.train_count) / dataset.train_count
        line["test_accuracy"] = round(test * dataset.test_count) / dataset.test_count
        line |= {"lr": recipe["lr"] * (1 + math.cos(math.pi * done)) / 2, "images_seen": epoch * dataset.train_count}
        lines.append(line | {"seconds": draw.normal(6, 0.05), "eval_seconds": draw.normal(0.4, 0.005)})
    return lines


def _result(lines: list[dict[str, Any]], cost: dict[str, Any]) -> dict[str, Any]:
    last, seconds = lines[-1], sum(line["seconds"] for line in lines)
    worse = [last["test_accuracy"] * (1 - 0.1 * strength) for strength in range(1, 6)]
    return dict.fromkeys(RESULT_FIELDS) | {
        "outcome": "ok",
        "split": "test",
        "test_accuracy": last["test_accuracy"],
        "best_test_accuracy": max(line["test_accuracy"] for line in lines),
        "test_nll": last["test_loss"],
        "epochs": len(lines),
        "images_seen": last["images_seen"],
        "train_seconds": seconds,
        "compile_seconds": 20.0,
        "eval_seconds": sum(line["eval_seconds"] for line in lines),
        "images_per_second": last["images_seen"] / seconds,
        "peak_memory_bytes": 1_000_000_000,
        "params": cost["params"],
        "macs": cost["macs"],
        "energy_joules": 300.0 * seconds,
        "corruption_accuracy": dict.fromkeys(CORRUPTION_NAMES, worse),
        "corruption_seconds": 5.0,
        "shared_device": False,
        "sessions": [{"device_name": DEVICE["device_name"], "after_epochs": 0}],
    }
