"""What must hold for every configuration, setting and record, tried on examples that hypothesis draws.

The short form always runs, the full one with -m long. Each property meets a planted defect, which it must find.
"""

import contextlib
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import strategies as st

from harness import config as configs
from harness.config import LATER_FIELDS, PRECISIONS, RunConfig, parse_settings, resolve, run_config_from_plain
from harness.datasets import DATASETS
from harness.recipes import RECIPES, Recipe
from harness.records.read import Run, load_runs, problems_of, run_state
from harness.records.schema import EPOCH_FIELDS, RESULT_FIELDS
from harness.records.write import RunWriter
from tests.properties import LONG_FORM, TEXT, Property, attempt, breaking
from variants import fields as records
from variants.catalog import CATALOG
from variants.config import ViTConfig
from variants.fields import UsageError, from_text, hints

# --- configurations --------------------------------------------------------------------------------------------------

WHOLE = st.one_of(st.sampled_from((0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 192)), st.integers(-3, 400))
SHARE = st.one_of(st.sampled_from((0.0, -0.0, 0.1, 0.5, 0.9, 1.0, 1e-5, 1e-3)), st.floats(0, 1))
NUMBER = st.one_of(SHARE, st.floats(-10, 400), WHOLE)
AUGMENT = st.sampled_from(("crop", "flip", "resized-crop", "randaugment", "trivialaugment", "erase", "autoaugment"))
JUNK = st.one_of(
    *(st.none(), st.booleans(), TEXT, st.binary(max_size=5), st.integers(), st.floats(), st.complex_numbers()),
    st.sampled_from((10**400, -(10**5000), math.nan, math.inf, object, ..., np.float64(0.5), np.int64(3), np.zeros(2))),
    st.lists(st.one_of(st.none(), TEXT, st.floats()), max_size=3),
    st.lists(st.one_of(st.none(), TEXT, st.floats()), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), TEXT
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, among them many that its record accepts."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[0] is str:
        return st.lists(AUGMENT, max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(SHARE, st.floats(0.5, 2))
    if type(None) in args:
        return st.one_of(st.none(), SHARE)
    return {int: WHOLE, float: NUMBER, bool: st.booleans(), str: TEXT}[hint]


@st.composite
def changed(draw: st.DrawFn, bases: list[Any]) -> Any:
    """One of the records with up to eight fields set anew; a value that is refused is left out."""
    record = draw(st.sampled_from(bases))
    known = hints(type(record))
    for name in draw(st.lists(st.sampled_from(sorted(known)), max_size=8)):
        try:
            record = replace(record, **{name: draw(values_of(known[name]))})
        except UsageError:
            continue
    return record


VARIANTS = changed(list(CATALOG.values()))
RECIPE = changed(list(RECIPES.values()))
DATASET = st.one_of(st.sampled_from(sorted(DATASETS)), TEXT.map("folder:{}".format))
CONFIG = st.builds(
    RunConfig,
    variant_name=TEXT,
    variant=VARIANTS,
    dataset=DATASET,
    recipe_name=TEXT,
    recipe_source=TEXT,
    recipe=RECIPE,
    seed=st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)),
    precision=st.sampled_from(("fp32", "bf16")),
    compile=st.booleans(),
    holdout=st.one_of(st.just(0.0), st.floats(0, 1, exclude_max=True)),
    overrides=st.lists(TEXT, max_size=3).map(tuple),
    label=TEXT,
)


def comes_back(config: RunConfig) -> None:
    plain = json.loads(json.dumps(config.to_plain(), allow_nan=False))
    again = run_config_from_plain(plain)
    assert again == config and again.to_plain() == config.to_plain()
    assert (plain["run_id"], plain["cell_id"]) == (again.run_id, again.cell_id) == (config.run_id, config.cell_id)
    assert configs.plan_id(plain) == config.plan_id == configs.plan_id(config.plan)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[RunConfig, RunConfig, str]:
    """A configuration, the same with one field that can change a result set anew, and that field's name."""
    config, part = draw(CONFIG), draw(st.sampled_from(("variant", "recipe", "run")))
    record = config if part == "run" else getattr(config, part)
    known = {name: values_of(hint) for name, hint in hints(type(record)).items() if part != "run"}
    of_the_run = {"dataset": DATASET, "seed": WHOLE, "holdout": SHARE, "precision": st.sampled_from(PRECISIONS)}
    known = known or of_the_run | {"compile": st.booleans()}
    name = draw(st.sampled_from(sorted(known)))
    try:
        record = replace(record, **{name: draw(known[name])})
    except UsageError:
        return config, config, name
    return config, record if part == "run" else replace(config, **{part: record}), name


def each_number_doubled() -> list[tuple[RunConfig, RunConfig, str]]:
    """Of one configuration, where its record accepts that."""
    found, config = [], resolve("compact", DATASETS["c10"], "common")
    for part in ("variant", "recipe"):
        for name, value in asdict(getattr(config, part)).items():
            if type(value) in (int, float):
                with contextlib.suppress(UsageError):
                    changed = replace(getattr(config, part), **{name: 2 * value or 1})
                    found.append((config, replace(config, **{part: changed}), name))
    return found


def is_told_apart(pair: tuple[RunConfig, RunConfig, str]) -> None:
    """Two runs have one id exactly when nothing that can change a result differs."""
    one, other, name = pair
    same = replace(one, dataset=one.dataset_name) == replace(other, dataset=other.dataset_name)
    assert (one.run_id == other.run_id) == same
    assert (one.cell_id == other.cell_id) == (same or name == "seed")
    assert (one.plan_id == other.plan_id) == (same or name in ("seed", "precision", "compile"))


def is_named_and_spelt_anyhow(example: tuple[RunConfig, str, str]) -> None:
    """Names and labels are no part of what was run, and equal values are one experiment: 1 and 1.0, 0.0 and -0.0."""
    config, first, second = example

    def respelt(record: Any) -> Any:
        floats = {name: value for name, value in vars(record).items() if type(value) is float}
        whole = {name: int(value) if value else -0.0 for name, value in floats.items() if value.is_integer()}
        return replace(record, **whole)

    other = replace(config, variant=respelt(config.variant), recipe=respelt(config.recipe))
    other = replace(other, holdout=-0.0 if config.holdout == 0 else config.holdout)
    assert other == config
    named = replace(other, variant_name=first, recipe_name=second, recipe_source=first, label=second)
    named = replace(named, overrides=(first, second))
    assert (named.run_id, named.cell_id, named.plan_id) == (config.run_id, config.cell_id, config.plan_id)


def is_valid_or_refused(example: tuple[Any, str, Any]) -> None:
    """Whatever a field is set to, the record is as good as any other, or a UsageError says why not."""
    record, name, value = example
    try:
        made = replace(record, **{name: value})
    except UsageError as error:
        assert str(error) and len(str(error).splitlines()) <= 3
        return
    if isinstance(made, RunConfig):
        comes_back(made)
    else:
        assert records.from_plain(type(made), json.loads(json.dumps(asdict(made), allow_nan=False))) == made


@st.composite
def fields_of(draw: st.DrawFn) -> tuple[Any, str, Any]:
    record = draw(st.one_of(VARIANTS, RECIPE, CONFIG))
    names = [f.name for f in fields(record) if f.name not in ("variant", "recipe")]
    return record, draw(st.sampled_from(names)), draw(JUNK)


LABELS = {"label", "variant_name", "recipe_name", "recipe_source", "overrides"}  # they are no part of what was run
NAMES = {"run_id", "cell_id", "semantics", "variant_type"}  # they follow from the rest
WRITTEN = [
    resolve("compact", DATASETS["c10"], "published", settings=["recipe.mix=either"], label="mine"),
    resolve("timm:resnet18", DATASETS["svhn"], "common", holdout=0.1, precision="bf16", compile=True),
    resolve("vanilla", DATASETS["c100"], "common", seed=7),
]
LOST = object()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a record holds, and the same with one field dropped, set to anything, added, or of another run."""
    whole, other = draw(st.permutations(WRITTEN))[:2]
    plain, theirs = whole.to_plain(), other.to_plain()
    part = draw(st.sampled_from(("", "variant", "recipe")))
    owner, other_owner = (found[part] if part else found for found in (plain, theirs))
    name = draw(st.sampled_from([*owner, "new"]))
    values = (PLAIN, st.sampled_from((LOST, other_owner.get(name), math.nan, math.inf, 10**400, [], {}, "", None)))
    owner[name] = draw(st.one_of(values))
    if owner[name] is LOST:
        del owner[name]
    return whole.to_plain(), plain


def is_read_as_it_stands_or_refused(example: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Nothing is filled in, and what is another run has not this one's id."""
    whole, plain = example
    try:
        again = configs.run_config_from_plain(plain).to_plain()
    except UsageError as error:
        assert str(error)
        return

    def settled(value: Any) -> Any:  # later fields may be missing at their old value
        return {k: v for k, v in value.items() if LATER_FIELDS.get(k, LOST) != v} if isinstance(value, dict) else value

    assert all(settled(again[name]) == settled(plain.get(name)) for name in again.keys() - NAMES)
    is_another = any(again[name] != whole[name] for name in again.keys() - NAMES - LABELS)
    assert (again["run_id"] != whole["run_id"]) == is_another


def with_holes_filled(plain: Any) -> RunConfig:
    whole = next(one for one in WRITTEN if one.dataset == plain.get("dataset", "c10")).to_plain()
    parts = {name: {**whole[name], **plain.get(name, {})} for name in ("recipe", "variant")}
    return run_config_from_plain({**whole, **plain, **parts})


# --- settings --------------------------------------------------------------------------------------------------------


@st.composite
def printed(draw: st.DrawFn) -> tuple[Any, str, str]:
    """A record, one of its fields, and that field's value as a person would write it."""
    record = draw(st.one_of(changed([v for v in CATALOG.values() if isinstance(v, ViTConfig)]), RECIPE))
    name = draw(st.sampled_from(sorted(hints(type(record)))))
    value = getattr(record, name)
    return record, name, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def is_read_back(example: tuple[Any, str, str]) -> None:
    """What stands after the first = is the value, whatever it is."""
    record, name, text = example
    owner = "recipe" if isinstance(record, Recipe) else "variant"
    found = parse_settings([f"{owner}.{name}={text}"])[owner]
    assert found == {name: text} and from_text(record, found) == record
    assert parse_settings([f"{owner}.{name}={text}=b=c"])[owner] == {name: f"{text}=b=c"}


def is_taken_or_refused(settings: list[str]) -> None:
    try:
        config = resolve("compact", DATASETS["c10"], "common", settings=settings)
    except UsageError as error:
        assert str(error) and len(str(error).splitlines()) <= 3
    else:
        comes_back(config)
        assert config.overrides == tuple(sorted(settings))


FIELD = st.sampled_from(
    [f"{owner}.{f.name}" for owner, kind in (("recipe", Recipe), ("variant", ViTConfig)) for f in fields(kind)]
)
SETTING = st.one_of(
    st.tuples(FIELD, TEXT).map("=".join),
    st.tuples(FIELD, st.one_of(st.floats(), st.integers(), st.booleans(), st.none()).map(str)).map("=".join),
    TEXT,
)

# --- records ---------------------------------------------------------------------------------------------------------

MEASURED = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
COUNTED = st.one_of(st.none(), st.integers(0, 2**53))
COUNTS = ("epochs", "images_seen", "params")
RESULT = st.fixed_dictionaries(
    {
        **{name: COUNTED if name in COUNTS else MEASURED for name in RESULT_FIELDS},
        "outcome": st.sampled_from(("ok", "failed")),
        "reason": st.one_of(st.none(), TEXT),
        "split": st.sampled_from(("test", "val")),
        "corruption_accuracy": st.one_of(st.none(), st.dictionaries(TEXT, st.lists(MEASURED, max_size=5), max_size=3)),
        "shared_device": st.one_of(st.none(), st.booleans()),
        "sessions": st.one_of(st.none(), st.lists(st.dictionaries(TEXT, PLAIN, max_size=3), max_size=2)),
    }
)  # fmt: skip
LINES = st.lists(st.fixed_dictionaries(dict.fromkeys(EPOCH_FIELDS, MEASURED)), max_size=4)
RECORD = st.tuples(
    CONFIG,
    st.dictionaries(TEXT, PLAIN, max_size=4),
    RESULT,
    LINES,
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5),
)
BY_THE_WRITER = ("schema", "files", "digest")


def written(folder: Path, config: RunConfig, env: Mapping, result: Mapping, lines: list, confidence: list) -> Path:
    writer = RunWriter(folder / config.run_id)
    writer.begin(config.to_plain(), dict(env), {"params": 1})
    for number, line in enumerate(lines, 1):
        writer.epoch({**line, "epoch": number})
    labels = np.arange(len(confidence), dtype=np.uint16)
    writer.finish(dict(result), {"labels": labels, "predicted": labels, "confidence": np.array(confidence, np.float32)})
    return writer.folder


def is_read_as_written(example: tuple) -> None:
    config, env, result, lines, confidence = example
    with tempfile.TemporaryDirectory() as name:
        folder = written(Path(name), *example)
        (run,) = load_runs([Path(name)])
        assert run_config_from_plain(run.config) == config and run.env == env
        assert {name: run.result[name] for name in RESULT_FIELDS if name not in BY_THE_WRITER} == {
            name: value for name, value in result.items() if name not in BY_THE_WRITER
        }
        assert run.epochs() == [{**line, "epoch": number} for number, line in enumerate(lines, 1)]
        assert run.predictions()["confidence"].tolist() == confidence
        assert run_state(folder) == ("done" if result["outcome"] == "ok" else "failed")
        assert all(isinstance(problem, str) and problem for problem in problems_of(folder))


BAD_NUMBER = st.sampled_from((math.nan, math.inf, -math.inf))


def is_never_let_in(example: tuple) -> None:
    """A number that is none stops the writer, and what it leaves is no finished run."""
    record, number, place = example
    config, env, result, lines, confidence = record
    if place == "epoch":
        lines = [*lines, {**dict.fromkeys(EPOCH_FIELDS), "train_loss": number}]
    elif place == "env":
        env = {**env, "deep": [{"down": number}]}
    else:
        result = {**result, "test_nll": number}
    with tempfile.TemporaryDirectory() as name:
        try:
            written(Path(name), config, env, result, lines, confidence)
        except ValueError:
            pass
        else:
            raise AssertionError("it was let in")
        assert not list(Path(name).glob("*/result.json")) and load_runs([Path(name)]) == []


# --- all of them -----------------------------------------------------------------------------------------------------

OF_CONFIGS = {
    "a configuration comes back from its record": Property(CONFIG, comes_back, 60),
    "what can change a result tells two runs apart": Property(pairs(), is_told_apart, 120, each_number_doubled()),
    "names and spelling change no identity": Property(st.tuples(CONFIG, TEXT, TEXT), is_named_and_spelt_anyhow, 60),
    "a damaged configuration is refused or read as it stands": Property(
        damaged(), is_read_as_it_stands_or_refused, 300
    ),
    "any value of a field is valid or refused": Property(fields_of(), is_valid_or_refused, 200),
}
OF_SETTINGS = {
    "a printed value is read back": Property(printed(), is_read_back, 200),
    "any text is taken or refused": Property(st.lists(SETTING, max_size=3), is_taken_or_refused, 300),
}
OF_RECORDS = {
    "a record is read as it was written": Property(RECORD, is_read_as_written, 25),
    "a number that is none is never let in": Property(
        st.tuples(RECORD, BAD_NUMBER, st.sampled_from(("epoch", "env", "result"))), is_never_let_in, 20
    ),
}
GROUPS = {"configs": OF_CONFIGS, "--set": OF_SETTINGS, "records": OF_RECORDS}
PROPERTIES = {(group, name): one for group, properties in GROUPS.items() for name, one in properties.items()}


@pytest.mark.parametrize(("group", "name"), PROPERTIES)
@pytest.mark.parametrize("times", [1, pytest.param(LONG_FORM, marks=pytest.mark.long)])
def test_holds(group, name, times):
    one = PROPERTIES[group, name]
    attempt(one, times * one.number)


# --- the properties bite ---------------------------------------------------------------------------------------------

PLAN: Any = vars(RunConfig)["plan"].fget


def one_word(name: str, text: str, hint: Any) -> Any:
    return hint(text) if hint in (int, float, bool) else text


# Group, property, what is replaced, and by what.
PLANTED: dict[str, tuple[str, str, str, Any]] = {
    "a field that is no part of the identity": (
        *("configs", "what can change a result tells two runs apart", "harness.config.without_later"),
        lambda values: {name: v for name, v in values.items() if name not in ("heads", "mlp_width", "lr", "clip")},
    ),
    "a label in the identity": (
        *("configs", "names and spelling change no identity", "harness.config.RunConfig.plan"),
        property(lambda config: {**PLAN(config), "label": config.label}),
    ),
    "fields that nobody checks": (
        *("configs", "any value of a field is valid or refused", "harness.recipes.check_fields"),
        lambda record: None,
    ),
    "what is missing is filled in": (
        *("configs", "a damaged configuration is refused or read as it stands", "harness.config.run_config_from_plain"),
        with_holes_filled,
    ),
    "lists that stay lists": (
        *("configs", "a configuration comes back from its record", "harness.config.from_plain"),
        lambda kind, plain: kind(**plain),
    ),
    "a tuple read as one word": ("--set", "a printed value is read back", "variants.fields._parse", one_word),
    "a number read without care": ("--set", "any text is taken or refused", "variants.fields._parse", one_word),
    "epochs from the last to the first": (
        *("records", "a record is read as it was written", "harness.records.read.Run.epochs"),
        lambda run, read=Run.epochs: read(run)[::-1],
    ),
    "NaN in a record": (
        *("records", "a number that is none is never let in", "harness.records.write.json_bytes"),
        lambda value: json.dumps(value).encode(),
    ),
}


@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_is_found(defect, monkeypatch):
    group, name, where, instead = PLANTED[defect]
    monkeypatch.setattr(where, instead)
    found = breaking(PROPERTIES[group, name], min(60, PROPERTIES[group, name].number))
    assert found, "no example breaks the property"
