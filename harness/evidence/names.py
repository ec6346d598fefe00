"""What a run is called in tables and figures: the variant and recipe of today's catalogue that its fields come nearest
to, and the fields in which it differs from them. The names that a record stores may have meant something else when it
was made; they count only for a class that is not the suite's own."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Any

from harness.config import RATES, RunConfig, run_config_from_plain
from harness.datasets import DATASETS, Dataset
from harness.recipes import PUBLISHED, RECIPES, Recipe, fitted, shortened, with_policy
from variants.catalog import CATALOG, TYPES, config_of
from variants.fields import UsageError, from_text, hints
from variants.timm_baseline import TimmConfig

Name = tuple[str, str, tuple[str, ...]]  # variant, recipe, what was set by hand
Differences = dict[str, Any]

OTHER_CODE = "other code's"  # how the text of fields begins that today's code has not


def name_of(config: Mapping[str, Any]) -> Name:
    """Of a record's config.json."""
    stored = tuple(map(str, config.get("overrides") or ()))
    try:
        if config.get("variant_type") in TYPES:
            return _nearest(run_config_from_plain(config), stored)
    except UsageError:  # it lacks fields, or has others than today's code
        kinds = {"variant": TYPES[config["variant_type"]], "recipe": Recipe}
        fields = {part: (config.get(part) or {}).keys() - hints(kind).keys() for part, kind in kinds.items()}
        if unknown := [f"{part}.{name}" for part, names in fields.items() for name in sorted(names)]:
            stored = (*stored, f"{OTHER_CODE} {', '.join(unknown)}")
    return config["variant_name"], config["recipe_name"], stored


def _nearest(config: RunConfig, stored: Sequence[str]) -> Name:
    recipe, dataset = config.recipe, config.dataset
    name, base, changes = _nearest_variant(config.variant, recipe)
    source, budget, plain, more = _nearest_recipe(recipe, dataset, PUBLISHED.get(name), stored)
    if "batch_size" in more and not any(text.startswith("recipe.batch_size=") for text in stored):
        budget = (*budget, f"batch_size={more.pop('batch_size')}")
    texts = [_text("variant", *change, stored, lambda text: from_text(base, text)) for change in changes.items()]
    texts += [
        _text("recipe", *change, stored, lambda text: with_policy(from_text(plain, text), facts_of(dataset)))
        for change in more.items()
    ]
    texts += [f"weights={config.origin}"] if config.weights_digest else []
    return name, "published" if PUBLISHED.get(name) == source else source, (*budget, *sorted(texts))


def _nearest_variant(variant: Any, recipe: Recipe) -> tuple[str, Any, Differences]:
    own = asdict(variant)
    decided = {name: rate for name in RATES if (rate := getattr(recipe, name)) is not None and name in own}
    names = [*CATALOG, f"timm:{variant.model}"] if isinstance(variant, TimmConfig) else [*CATALOG]
    bases = {name: _base(name, variant.image_size, variant.num_classes) for name in names}
    known = {name: fields for name, (base, fields) in bases.items() if type(base) is type(variant)}
    differing = {name: _differences(own, fields | decided) for name, fields in known.items()}
    nearest = min(differing, key=lambda name: len(differing[name]))
    return nearest, bases[nearest][0], differing[nearest]


@cache
def _base(name: str, image_size: int, num_classes: int) -> tuple[Any, dict[str, Any]]:
    """The config, and its fields."""
    try:
        base = config_of(name, image_size, num_classes)
    except UsageError:  # a patch that does not divide so small an image
        return None, {}
    return base, asdict(base)


def _nearest_recipe(
    recipe: Recipe, dataset: str, published: str | None, stored: Sequence[str]
) -> tuple[str, tuple[str, ...], Recipe, Differences]:
    """The source, the flag that shortened it if one did, the recipe of that budget, and how this one differs."""
    own, found = asdict(recipe), []
    by_hand = any(text.startswith("recipe.epochs=") for text in stored)
    for source in sorted(RECIPES, key=lambda source: source != published):
        for is_shortened in (False, True) if by_hand else (True, False):
            plain, fields = _plain(source, dataset, recipe.epochs if is_shortened else None)
            budget = (f"epochs={recipe.epochs}",) if is_shortened and plain.epochs != RECIPES[source].epochs else ()
            differences = _differences(own, fields)
            found.append((len(differences) + len(budget), source, budget, plain, differences))
    return min(found, key=lambda one: one[0])[1:]


@cache
def _plain(source: str, dataset: str, epochs: int | None) -> tuple[Recipe, dict[str, Any]]:
    """The recipe on this data set over so many epochs, and its fields."""
    recipe = fitted(RECIPES[source], facts_of(dataset))
    recipe = recipe if epochs in (None, recipe.epochs) else shortened(recipe, epochs)
    return recipe, asdict(recipe)


def facts_of(dataset: str) -> Dataset:
    """A folder's images may be mirrored, and have CIFAR's policy."""
    return DATASETS.get(dataset) or Dataset(dataset, dataset, 0, 0, True, "cifar", 0, 0)


def _differences(own: Mapping[str, Any], other: Mapping[str, Any]) -> Differences:
    return {name: value for name, value in own.items() if other[name] != value}


def _text(part: str, name: str, value: Any, stored: Sequence[str], read: Callable[[dict[str, str]], Any]) -> str:
    """As `--set` takes it: in the words in which it was given, where they say this value."""
    for text in stored:
        path, _, given = text.partition("=")
        with suppress(UsageError):
            if path == f"{part}.{name}" and getattr(read({name: given}), name) == value:
                return text
    return f"{part}.{name}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_written, value)) or "none"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
