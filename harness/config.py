"""Owns RunConfig: one frozen value that says everything that can change a run's result, and the run's identity.
Refuses devices, paths and labels a place in that identity.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from harness.datasets import Dataset
from harness.recipe import Recipe, fitted, shortened, with_policy
from harness.recipes import PUBLISHED, recipe_of
from variants.catalog import config_of
from variants.config import ViTConfig
from variants.fields import UsageError, check_fields, from_plain, from_text
from variants.timm_baseline import TimmConfig

SEMANTICS = 1  # raised by hand when a change of the code changes results

DEVICE_NAME = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)\.", re.IGNORECASE)  # Windows knows no file of that name

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
PRECISION_HELP = "(default: bf16 on GPUs that have it, else fp32); fp16 has a gradient scaler, for GPUs without bf16"

OWN_TYPES = {"vit": ViTConfig, "timm": TimmConfig}

# Fields that came after the first records, with the value that those were made with: it is no part of an identity.
LATER_FIELDS = {
    "train_share": 1.0,
    "small_stem": False,
    "schedule_epochs": 0,
    "warmup_shape": "linear",
    "cosine_over": "rest",
    "late_epochs": 0.0,
    "clip_scope": "all",
    "smoothing_over": "all",
}

# Of the variant; a recipe may decide them.
RATES = ("dropout", "attention_dropout", "head_dropout", "drop_path")

UNCHANGING = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class RunConfig:
    variant_name: str
    variant: Any
    dataset: str
    recipe_name: str
    recipe_source: str
    recipe: Recipe
    seed: int
    precision: Precision
    compile: bool
    holdout: float = 0.0
    overrides: tuple[str, ...] = ()  # what was set by hand, for a table to show; the values are in variant and recipe
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed={self.seed}: 0 to {2**32 - 1} is needed")
        if not 0 <= self.holdout < 1:
            raise UsageError(f"holdout={self.holdout}: a share of the training images, 0 to below 1, is needed")

    @property
    def identity(self) -> dict[str, Any]:
        return {
            **self.plan,
            "precision": self.precision,
            "compile": self.compile,
        }

    @property
    def plan(self) -> dict[str, Any]:
        """What a study can say of a cell before the device has chosen precision and compilation."""
        return {
            "variant": without_later(fields_of(self.variant)),
            "variant_type": variant_type(self.variant),
            "dataset": self.dataset_name,
            "recipe": without_later(fields_of(self.recipe)),
            "holdout": self.holdout,
            "semantics": SEMANTICS,
        }

    @property
    def plan_id(self) -> str:
        return plan_id(self.plan)

    @property
    def dataset_name(self) -> str:
        """A folder's own name, so that where a copy lies is no part of what was run."""
        return f"folder:{Path(self.dataset[7:]).name}" if self.dataset.startswith("folder:") else self.dataset

    @property
    def cell_id(self) -> str:
        """What all seeds of one cell have in common."""
        words = [self.dataset_name.replace("folder:", ""), shape_name(self.variant), f"e{self.recipe.epochs}"]
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join(words)).strip("-.")[:80]
        readable = DEVICE_NAME.sub(r"\1-", readable)
        return f"{readable}-{_digest(self.identity)}"

    @property
    def run_id(self) -> str:
        prefix, digest = self.cell_id.rsplit("-", 1)
        return f"{prefix}-s{self.seed}-{_digest({'cell': digest, 'seed': self.seed})}"

    def to_plain(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("variant", "recipe")}
        plain |= {"run_id": self.run_id, "cell_id": self.cell_id, **self.identity, "overrides": list(self.overrides)}
        plain |= {name: fields_of(getattr(self, name)) for name in ("variant", "recipe")}
        return json.loads(json.dumps(plain | {"dataset": self.dataset}))


def fields_of(record: Any) -> dict[str, Any]:
    """What `dataclasses.asdict` gives, without its deep copy where no value could change or hold records of its own."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    flat = (item for value in values.values() for item in (value if type(value) is tuple else (value,)))
    return values if all(type(item) in UNCHANGING for item in flat) else dataclasses.asdict(record)


def without_later(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in fields.items() if name not in LATER_FIELDS or v != LATER_FIELDS[name]}


def plan_id(config: Mapping[str, Any]) -> str:
    """Of `RunConfig.plan`, or of a record's config.json: the same for the cells that a study cannot tell apart."""
    name = config["dataset"]
    dataset = f"folder:{Path(name[7:]).name}" if name.startswith("folder:") else name
    parts = {part: without_later(config[part]) for part in ("variant", "recipe")}
    rest = {name: config[name] for name in ("variant_type", "holdout", "semantics")}
    return _digest({**parts, **rest, "dataset": dataset})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def shape_name(variant: Any) -> str:
    """A person's own class need not have one, nor one that is text."""
    name = getattr(variant, "shape_name", None)
    return name if isinstance(name, str) else type(variant).__name__.lower()


def variant_type(variant: Any) -> str:
    """`vit`, `timm`, or for a person's own class the digest of the file that defines it: its code is its identity."""
    for name, own in OWN_TYPES.items():
        if type(variant) is own:
            return name
    file = Path(getattr(sys.modules[type(variant).__module__], "__file__", "") or "")
    source = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else "unknown"
    return f"{type(variant).__name__}@{source}"


def run_config_from_plain(plain: Mapping[str, Any]) -> RunConfig:
    """The RunConfig that a record's config.json holds; UsageError where it holds none. No hole is filled."""
    try:
        return _from_plain(plain)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(f"it holds no configuration of a run: {type(error).__name__}: {error}") from None


def _from_plain(plain: Mapping[str, Any]) -> RunConfig:
    kind = plain["variant_type"]
    own = OWN_TYPES[kind] if kind in OWN_TYPES else type(config_of(plain["variant_name"]))
    parts = {"variant": own, "recipe": Recipe}
    for part, record_type in parts.items():
        names = {f.name for f in dataclasses.fields(record_type)}
        if lacking := sorted(names - plain[part].keys() - LATER_FIELDS.keys()):
            raise UsageError(f"its {part} lacks {', '.join(lacking)}")
    variant, recipe = (from_plain(record_type, plain[part]) for part, record_type in parts.items())
    if variant_type(variant) != kind:
        raise UsageError(f"{plain['variant_name']} is no longer the code that this run was made with")
    rest = {f.name: plain[f.name] for f in dataclasses.fields(RunConfig) if f.name not in parts}
    if isinstance(rest["overrides"], list):  # JSON has no tuples
        rest["overrides"] = tuple(rest["overrides"])
    return RunConfig(**rest, variant=variant, recipe=recipe)


def resolve(
    variant_name: str,
    dataset: Dataset,
    recipe_name: str = "common",
    *,
    seed: int = 0,
    precision: str = "fp32",
    compile: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    holdout: float = 0.0,
    settings: Sequence[str] = (),
    label: str = "",
) -> RunConfig:
    """Names and flags -> every field of a run. `settings` are `recipe.lr=5e-4`-like texts and have the last word."""
    variant = config_of(variant_name, dataset.image_size, dataset.num_classes)
    source, recipe = recipe_of(recipe_name, variant_name)
    recipe = fitted(recipe, dataset)
    overrides = []
    if epochs is not None and epochs != recipe.epochs:
        recipe = shortened(recipe, epochs)
        overrides.append(f"epochs={epochs}")
    if batch_size is not None and batch_size != recipe.batch_size:
        recipe = dataclasses.replace(recipe, batch_size=batch_size)
        overrides.append(f"batch_size={batch_size}")
    changes = parse_settings(settings)
    variant = from_text(variant, changes["variant"])
    recipe = with_policy(from_text(recipe, changes["recipe"]), dataset)
    if (variant.image_size, variant.num_classes) != (dataset.image_size, dataset.num_classes):
        size, classes = dataset.image_size, dataset.num_classes
        raise UsageError(
            f"image_size={size} and num_classes={classes} are the data set's; variant.resize scales images"
        )
    variant = regularised(variant, recipe)
    if PUBLISHED.get(variant_name) == source:
        recipe_name = "published"
    return RunConfig(
        variant_name=variant_name,
        variant=variant,
        dataset=dataset.name,
        recipe_name=recipe_name,
        recipe_source=source,
        recipe=recipe,
        seed=seed,
        precision=precision,  # type: ignore[arg-type]
        compile=compile,
        holdout=holdout,
        overrides=(*overrides, *sorted(settings)),
        label=label,
    )


def parse_settings(settings: Sequence[str]) -> dict[str, dict[str, str]]:
    """["recipe.lr=5e-4", "variant.pool=mean"] -> {"recipe": {"lr": "5e-4"}, "variant": {"pool": "mean"}}."""
    changes: dict[str, dict[str, str]] = {"variant": {}, "recipe": {}}
    for setting in settings:
        path, equals, text = setting.partition("=")
        owner, dot, name = path.partition(".")
        if not equals or not dot or owner not in changes:
            raise UsageError(f"--set {setting!r}: write recipe.NAME=VALUE or variant.NAME=VALUE")
        if name in changes[owner]:
            raise UsageError(f"--set {path!r} is given twice")
        changes[owner][name] = text
    return changes


def regularised(variant: Any, recipe: Recipe) -> Any:
    """The variant with the rates that the recipe decides; a rate it leaves at None stays the variant's own."""
    rates = {name: value for name in RATES if (value := getattr(recipe, name)) is not None}
    known = {f.name for f in dataclasses.fields(variant)}
    for name in rates.keys() - known:
        if rates[name]:
            raise UsageError(f"the recipe sets {name}={rates[name]}, which {type(variant).__name__} does not have")
    own = {name: rate for name, rate in rates.items() if name in known}
    return dataclasses.replace(variant, **own) if own else variant
