"""One frozen value, RunConfig, holds everything that can change a run's result, and the run's identity follows from it.
`resolve` makes it from what a user asks for, `run_config_from_plain` from a record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, get_args

from harness.datasets import CORRUPTION_NAMES, CORRUPTION_STRENGTHS, Dataset
from harness.recipes import PUBLISHED, Recipe, canonical, fitted, recipe_of, shortened, with_policy
from variants.catalog import TYPES, config_of
from variants.fields import Range, Rate, UsageError, check_fields, from_plain, from_text, hints

SEMANTICS = 1  # raised by hand when a change of the code changes results

DEVICE_NAME = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)\.", re.IGNORECASE)  # Windows knows no file of that name

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

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
    "weights": "",
    "weights_digest": "",
}

# Of the variant; a recipe may decide them.
RATES = ("dropout", "attention_dropout", "head_dropout", "drop_path")


@dataclass(frozen=True)
class RunConfig:
    variant_name: str
    variant: Any
    dataset: str
    recipe_name: str
    recipe_source: str
    recipe: Recipe
    seed: Annotated[int, Range(least=0, below=2**32)] = 0
    precision: Precision = "fp32"
    compile: bool = False
    holdout: Rate = 0.0  # of the training images, as a validation split
    overrides: tuple[str, ...] = ()  # what was set by hand, for a table to show; the values are in variant and recipe
    label: str = ""
    weights: str = ""  # the file that it starts from, instead of from its seed's weights
    weights_digest: str = ""  # of its tensors: part of what was run, as where they lie is not

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def identity(self) -> dict[str, Any]:
        return {**self.plan, "precision": self.precision, "compile": self.compile}

    @property
    def plan(self) -> dict[str, Any]:
        """What a study can say of a cell before the device has chosen precision and compilation."""
        return {
            "variant": without_later(asdict(self.variant)),
            "variant_type": variant_type(self.variant),
            "dataset": self.dataset_name,
            "recipe": without_later(asdict(self.recipe)),
            "holdout": self.holdout,
            "semantics": SEMANTICS,
            **without_later({"weights_digest": self.weights_digest}),
        }

    @property
    def origin(self) -> str:
        """What tables call the weights that it starts from, if any: their run, or their file."""
        file = PurePath(self.weights)
        return file.parent.name if file.stem == "model" and file.parent.name else file.stem

    @property
    def plan_id(self) -> str:
        return plan_id(self.plan)

    @property
    def dataset_name(self) -> str:
        return dataset_name(self.dataset)

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
        """What a record's config.json holds."""
        rest = {"semantics": SEMANTICS, "variant_type": variant_type(self.variant)}
        return json.loads(
            json.dumps({**without_later(asdict(self)), **rest, "run_id": self.run_id, "cell_id": self.cell_id})
        )


def dataset_name(dataset: str) -> str:
    """Of a folder its own name, so that where a copy lies is no part of what was run."""
    return f"folder:{Path(dataset[7:]).name}" if dataset.startswith("folder:") else dataset


def without_later(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in fields.items() if name not in LATER_FIELDS or v != LATER_FIELDS[name]}


def plan_id(config: Mapping[str, Any]) -> str:
    """Of `RunConfig.plan`, or of a record's config.json: the same for the cells that a study cannot tell apart."""
    parts = {part: without_later(config[part]) for part in ("variant", "recipe")}
    rest = {name: config[name] for name in ("variant_type", "holdout", "semantics")}
    start = without_later({"weights_digest": config.get("weights_digest", "")})
    return _digest({**parts, **rest, **start, "dataset": dataset_name(config["dataset"])})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def shape_name(variant: Any) -> str:
    """A user's own class need not have one, nor one that is text."""
    name = getattr(variant, "shape_name", None)
    return name if isinstance(name, str) else type(variant).__name__.lower()


def variant_type(variant: Any) -> str:
    """`vit`, `timm`, or for a user's own class the digest of the file that defines it: its code is its identity."""
    for name, own in TYPES.items():
        if type(variant) is own:
            return name
    file = Path(getattr(sys.modules[type(variant).__module__], "__file__", "") or "")
    source = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else "unknown"
    return f"{type(variant).__name__}@{source}"


def run_config_from_plain(plain: Mapping[str, Any]) -> RunConfig:
    """The RunConfig that a record's config.json holds; UsageError where it holds none. Nothing missing is filled in."""
    try:
        kind = plain["variant_type"]
        own = TYPES[kind] if kind in TYPES else type(config_of(plain["variant_name"]))
        parts = {"variant": own, "recipe": Recipe}
        for part, record_type in parts.items():
            if lacking := sorted(hints(record_type).keys() - plain[part].keys() - LATER_FIELDS.keys()):
                raise UsageError(f"its {part} lacks {', '.join(lacking)}")
        made = {part: from_plain(record_type, plain[part]) for part, record_type in parts.items()}
        if variant_type(made["variant"]) != kind:
            raise UsageError(f"{plain['variant_name']} is no longer the code that this run was made with")
        own = {name: plain[name] for name in hints(RunConfig) if name in plain or name not in LATER_FIELDS}
        return from_plain(RunConfig, own | made)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"it holds no configuration of a run: {type(error).__name__}: {error}") from None


def resolve(
    variant_name: str,
    dataset: Dataset,
    recipe_name: str = "common",
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    settings: Sequence[str] = (),
    **run: Any,
) -> RunConfig:
    """Names and flags -> every field of a run. `settings` are texts such as `recipe.lr=5e-4` and have the last word;
    `run` are RunConfig's seed, precision, compile, holdout and label."""
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
    size, classes = dataset.image_size, dataset.num_classes
    if (variant.image_size, variant.num_classes) != (size, classes):
        raise UsageError(
            f"image_size={size} and num_classes={classes} are the data set's; variant.resize scales images"
        )
    return RunConfig(
        variant_name=variant_name,
        variant=regularised(variant, recipe),
        dataset=dataset.name,
        recipe_name="published" if PUBLISHED.get(variant_name) == source else canonical(recipe_name),
        recipe_source=source,
        recipe=recipe,
        overrides=(*overrides, *sorted(settings)),
        **run,
    )


def images_of(config: RunConfig, dataset: Dataset) -> tuple[float, float]:
    """How many are trained on in all epochs; and evaluated: the split after every epoch and, where it is the test set,
    once more under each corruption."""
    epochs, held_out = config.recipe.epochs, dataset.train_count * config.holdout
    if held_out:
        return epochs * (dataset.train_count - held_out), epochs * held_out
    corrupted = len(CORRUPTION_NAMES) * CORRUPTION_STRENGTHS
    return epochs * dataset.train_count, (epochs + corrupted) * dataset.test_count


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
    own = {name: rate for name, rate in rates.items() if name in hints(type(variant))}
    for name in rates.keys() - own.keys():
        if rates[name]:
            raise UsageError(f"the recipe sets {name}={rates[name]}, which {type(variant).__name__} does not have")
    return dataclasses.replace(variant, **own) if own else variant
