"""The commands that a reader can type: the one that gives a record's run again, and those that train what a study still
lacks. They are the same bytes whoever writes them, so none has the name of an installed command."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.config import resolve, run_config_from_plain
from harness.datasets import DATASETS, check_name
from harness.evidence.cells import Cell
from harness.evidence.findings import Finding
from harness.evidence.names import OTHER_CODE, facts_of, name_of
from harness.study import Row
from variants.catalog import TYPES
from variants.fields import UsageError, first_line


def run_command_of(config: Mapping[str, Any]) -> tuple[str, str]:
    """Of a record's config.json: the command and "", or "" and why today's code has none. That of a person's own class,
    whose file is not run to find out, is as it was recorded."""
    variant, recipe, texts = name_of(config)
    budget = dict(text.split("=", 1) for text in texts if text.startswith(("epochs=", "batch_size=")))
    settings = [text for text in texts if text.startswith(("variant.", "recipe."))]
    try:
        if config.get("variant_type") in TYPES:
            numbers = {name: int(value) for name, value in budget.items()}
            _check(config, variant_name=variant, recipe_name=recipe, settings=settings, **numbers)
    except UsageError as error:
        return "", next((text for text in texts if text.startswith(OTHER_CODE)), first_line(error))
    words = ["--variant", variant, "--dataset", config["dataset"], "--recipe", recipe]
    words += [word for name, value in budget.items() for word in (f"--{name.replace('_', '-')}", value)]
    words += ["--holdout", config["holdout"]] if config.get("holdout") else []
    words += ["--seed", config["seed"], *_decided(config.get("precision"), config.get("compile"))]
    words += ["--weights", config["weights"]] if config.get("weights") else []
    return _line("run", *words, *(["--set", *settings] if settings else [])), ""


def _check(recorded: Mapping[str, Any], **asked: Any) -> None:
    """What can be told cannot always be typed: a rate that its recipe would set to another value, say."""
    config = run_config_from_plain(recorded)
    check_name(config.dataset)
    size, classes = config.variant.image_size, config.variant.num_classes
    of_a_folder = replace(facts_of(config.dataset), image_size=size, num_classes=classes)
    again = resolve(dataset=DATASETS.get(config.dataset, of_a_folder), **asked)
    again = replace(config, variant=again.variant, recipe=again.recipe)
    if again.run_id != recorded.get("run_id"):
        raise UsageError(f"no command sets its fields like this: the nearest gives {again.run_id}")


def sweep_command_of(study: str, row: Row, dataset: str, made: Cell | None = None) -> str:
    """Trains a cell of a table as far as it lacks seeds, in the precision of those that were `made`, if any were."""
    words = ["--variants", row.variant, "--recipes", row.recipe, "--dataset", dataset]
    words += _decided(made.setting("precision"), made.setting("compile")) if made else []
    return _line("sweep", study, *words)


def study_command_of(found: Finding) -> str:
    """Trains what a finding lacks of its study, on its data set, at its budget and in its precision."""
    dataset, precision, compiled = found.setting
    base, moved_to = found.study.base, found.moved_to.split()
    words = ["--quick"] if found.quick else []
    words += ["--variants", base.variant] if base.variant in moved_to else []
    words += ["--recipes", base.recipe] if base.recipe in moved_to else []
    words += ["--dataset", dataset, *(["--epochs", found.epochs] if found.epochs else [])]
    return _line("sweep", found.study_name, *words, *_decided(precision, compiled))


def _decided(precision: Any, compiled: Any) -> list[Any]:
    """What another device may decide otherwise."""
    return [*(["--precision", precision] if precision else []), "--compile", "on" if compiled else "off"]


def _line(command: str, *words: Any) -> str:
    return shlex.join(["python", "-m", f"harness.{command}", *map(str, words)])
