"""Records that no training made, for the benchmark of the report and for tests: as many as are asked for, with the
bytes that the suite itself would have written. Written without torch and without waiting for the disk.
"""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from itertools import count as numbers
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from harness.config import RunConfig, resolve
from harness.counting.cost import cost_of
from harness.datasets import CORRUPTION_NAMES, DATASETS
from harness.records.environment import environment
from harness.records.schema import SCHEMA, digest
from harness.records.write import json_bytes, result_bytes
from variants.catalog import CATALOG
from variants.config import ViTConfig

SEEDS_A_CELL = 5
VARIANTS = [name for name, config in CATALOG.items() if type(config) is ViTConfig]  # torch alone can count a timm model
CEILINGS = {"c10": 0.95, "c100": 0.75, "svhn": 0.97}  # no cell of that data set learns more
DEVICE: dict[str, Any] = {"device": "cuda", "threads": 16, "device_name": "no device", "cuda": None, "driver": None}


def write_records(folder: Path, count: int, epochs: int = 200, seeds: int = SEEDS_A_CELL) -> None:
    """`count` finished runs in cells of `seeds` runs; the same arguments give the same runs."""
    cells = islice(_cells(epochs), math.ceil(count / seeds))
    for first, config in zip(range(0, count, seeds), cells):
        write_cell(folder, config, min(seeds, count - first))


def _cells(epochs: int) -> Iterator[RunConfig]:
    """Each variant under its recipes on each data set, then all of it again at one learning rate after another."""
    grid = list(product(VARIANTS, ("published", "common"), CEILINGS))
    for step in numbers():
        # halfway between the rates of the recipes, where a set rate would be the cell that is there already
        settings = [f"recipe.lr={1e-4 * (step - 0.5):g}"] if step else []
        for variant, recipe, name in grid:
            chosen: dict[str, Any] = {"epochs": epochs, "settings": settings, "label": "synthetic"}
            yield resolve(variant, DATASETS[name], recipe, precision="bf16", compile=True, **chosen)


def write_cell(folder: Path, config: RunConfig, seeds: int) -> None:
    cost = asdict(cost_of(config.variant_name, config.variant, config.dataset_name, check=False))
    env = _environment(config.dataset)
    for seed in range(seeds):
        plain = replace(config, seed=seed).to_plain()
        lines = _epochs(plain)
        parts = {"config": {**plain, "schema": SCHEMA}, "env": env, "cost": cost, "result": _result(lines, cost)}
        _write(folder / plain["run_id"], parts, lines, _predictions(config.dataset))


@cache
def _environment(dataset: str) -> dict[str, Any]:
    return environment(DEVICE, f"no data of {dataset}")


@cache
def _predictions(name: str) -> bytes:
    """One file for all runs on a data set, soon written and as long to read as any. The surer, the more often right."""
    dataset, draw = DATASETS[name], np.random.default_rng(0)
    labels = np.arange(dataset.test_count) % dataset.num_classes
    confidence = draw.integers(2, 17, dataset.test_count) / 16
    others = draw.integers(dataset.num_classes, size=dataset.test_count)
    predicted = np.where(draw.random(dataset.test_count) < confidence, labels, others)
    content = io.BytesIO()
    classes = {"labels": labels.astype("uint16"), "predicted": predicted.astype("uint16")}
    np.savez_compressed(content, **classes, confidence=confidence.astype("float32"))  # type: ignore[arg-type]
    return content.getvalue()


def _write(run: Path, parts: dict[str, dict[str, Any]], lines: list[dict[str, Any]], predictions: bytes) -> None:
    """The files of a run; RunWriter's own way would wait for the disk five times a run and open a file every epoch."""
    run.mkdir(parents=True, exist_ok=True)
    contents = {f"{name}.json": json_bytes(parts[name]) for name in ("config", "env", "cost")}
    contents["epochs.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    contents["predictions.npz"] = predictions
    digests = {name: digest(content) for name, content in contents.items()}
    contents["result.json"] = result_bytes(parts["result"], digests)
    for name, content in contents.items():
        (run / name).write_bytes(content)


def _epochs(plain: dict[str, Any]) -> list[dict[str, Any]]:
    """Accuracy climbs steeply and flattens out below the cell's own ceiling; losses fall as it climbs."""
    dataset, cell, epochs = DATASETS[plain["dataset"]], plain["cell_id"].rsplit("-", 1)[1], plain["recipe"]["epochs"]
    draw = np.random.default_rng([int(cell, 16), plain["seed"]])
    ceiling = CEILINGS[dataset.name] * (1 - 0.3 * int(cell, 16) / 16 ** len(cell)) + draw.normal(0, 0.003)
    passes = np.arange(1, epochs + 1)
    learned = 1 - np.exp(-6 * passes / epochs)
    accuracy = np.clip(ceiling * learned + draw.normal(0, 0.002, epochs), 0, 1)
    train = np.clip(accuracy + 0.05 * learned**2, 0, 1)
    columns = {
        "epoch": passes,
        "train_loss": math.log(dataset.num_classes) * (1.05 - train),
        "train_accuracy": np.rint(train * dataset.train_count) / dataset.train_count,
        "test_loss": math.log(dataset.num_classes) * (1.05 - accuracy),
        "test_accuracy": np.rint(accuracy * dataset.test_count) / dataset.test_count,
        "lr": plain["recipe"]["lr"] * (1 + np.cos(math.pi * passes / epochs)) / 2,
        "seconds": draw.normal(6, 0.05, epochs),
        "eval_seconds": draw.normal(0.4, 0.005, epochs),
        "images_seen": passes * dataset.train_count,
    }
    return [dict(zip(columns, line)) for line in zip(*(column.tolist() for column in columns.values()))]


def _corrupted(clean: float) -> dict[str, list[float]]:
    """The stronger, the worse."""
    return {kind: [clean * (1 - 0.1 * strength) for strength in range(1, 6)] for kind in CORRUPTION_NAMES}


def _result(lines: list[dict[str, Any]], cost: dict[str, Any]) -> dict[str, Any]:
    last, seconds = lines[-1], sum(line["seconds"] for line in lines)
    return {
        "outcome": "ok",
        "reason": None,
        "split": "test",
        "test_accuracy": last["test_accuracy"],
        "best_test_accuracy": max(line["test_accuracy"] for line in lines),
        "test_nll": last["test_loss"],
        "val_accuracy": None,
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
        "corruption_accuracy": _corrupted(last["test_accuracy"]),
        "corruption_seconds": 5.0,
        "shared_device": False,
        "sessions": [{"device_name": DEVICE["device_name"], "after_epochs": 0}],
    }
