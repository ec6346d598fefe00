"""Configurations damaged in every way: refused in a sentence, or the very values that then stand there, none filled in.

They are judged as if no digest vouched for them: such is what `harness.verify RUN` trains again from a record of before
schema 3. What is taken for another run than it was must at least not have its name.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from harness import config as module
from harness.config import RunConfig, resolve, run_config_from_plain
from harness.datasets import DATASETS
from tests.mutations import Sort, cases, json_sorts
from variants.fields import UsageError

FILLED = "what is missing is filled with its default"
UNEXPECTED = "a value of another kind raises what it likes"
UNREAD = "another configuration is read than the one that stands there"

LABELS = {"label", "variant_name", "recipe_name", "recipe_source", "overrides"}  # they are no part of what was run
NAMES = {"run_id", "cell_id", "semantics", "variant_type"}  # they follow from the rest
CONFIGS = {
    "vit": resolve("compact", DATASETS["c10"], "published", settings=["recipe.mix=either"], label="mine"),
    "timm": resolve("timm:resnet18", DATASETS["svhn"], "common", holdout=0.1, precision="bf16", compile=True),
}
OTHER = resolve("vanilla", DATASETS["c100"], "common", seed=7)

# What the parser refuses, or gives as if nothing had happened, is no business of a configuration.
PARSED = {"nested deeply", "a field twice", "the same otherwise written"}
SORTS: dict[str, Sort] = {
    name: Sort(how.change, FILLED if name == "a field dropped" else how.defect)
    for name, how in json_sorts(UNREAD, UNEXPECTED, UNEXPECTED).items()
    if name not in PARSED
}


def harm(plain: Any, whole: Mapping[str, Any]) -> str | None:
    try:
        config = module.run_config_from_plain(plain)
        again = config.to_plain()
    except UsageError as error:
        return None if str(error) else "no reason is given"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    for name in again.keys() - NAMES:
        if settled(again[name]) != settled(plain.get(name)):
            return f"{name} is read as {again[name]!r}"
    changed = {name for name in again.keys() - NAMES - LABELS if again[name] != whole[name]}
    return f"another {changed} under the same name" if changed and again["run_id"] == whole["run_id"] else None


def settled(value: Any) -> Any:
    """Fields that came later may be missing at their old value."""
    return module.without_later(value) if isinstance(value, dict) else value


def damaged(name: str, sorts: Mapping[str, Sort], count: int) -> Iterator[tuple[str, str | None]]:
    whole = CONFIGS[name].to_plain()
    contents = [json.dumps(plain, indent=1).encode() for plain in (whole, OTHER.to_plain())]
    for sort, changed in cases(sorts, count, *contents, seed=name):
        yield sort, harm(json.loads(changed), whole)


def unexpecting(plain: Mapping[str, Any]) -> RunConfig:
    return module._from_plain(plain)


def filling(plain: Mapping[str, Any]) -> RunConfig:
    defaults = CONFIGS["vit" if plain.get("variant_type") == "vit" else "timm"].to_plain()
    filled = {name: {**defaults[name], **plain.get(name, {})} for name in ("recipe", "variant")}
    return run_config_from_plain({**defaults, **plain, **filled})


def unreading(plain: Mapping[str, Any]) -> RunConfig:
    return CONFIGS["vit"]


DEFECTS = {FILLED: filling, UNEXPECTED: unexpecting, UNREAD: unreading}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rounds", [25, pytest.param(150, marks=pytest.mark.long)])
def test_damaged_configurations_are_refused_or_read_as_they_are(name, rounds, tried):
    wrong, kinds = [], Counter[str]()
    for sort, found in damaged(name, SORTS, rounds * len(SORTS)):
        kinds[sort] += 1
        wrong += [f"{sort}: {found}"] if found else []
    assert wrong == []
    tried("damaged configurations", kinds)


@pytest.mark.parametrize("name", CONFIGS)
def test_each_sort_of_damage_bites_where_a_defect_lets_it(name, tried, monkeypatch):
    harmless, defects = [], Counter[str]()
    for sort, how in SORTS.items():
        with monkeypatch.context() as patch:
            patch.setattr(module, "run_config_from_plain", DEFECTS[how.defect])
            found = next((found for _, found in damaged(name, {sort: how}, 100) if found), None)
        defects[how.defect] += 1
        if not found:
            harmless.append(f"{sort} does no harm although {how.defect}")
    assert harmless == []
    tried("damaged configurations", {}, defects)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_no_field_is_filled_in(config):
    plain = config.to_plain()
    for part in ("variant", "recipe"):
        for field in plain[part].keys() - module.LATER_FIELDS.keys():
            lacking = {**plain, part: {name: value for name, value in plain[part].items() if name != field}}
            with pytest.raises(UsageError, match=f"its {part} lacks {field}"):
                run_config_from_plain(lacking)
    for field in dataclasses.fields(RunConfig):
        with pytest.raises(UsageError):
            run_config_from_plain({name: value for name, value in plain.items() if name != field.name})
