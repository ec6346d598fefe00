"""The commands that reports print: what the parser makes of one is exactly the run, cell or study that it is for."""

import shlex
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
from hypothesis import reject
from hypothesis import strategies as st
from PIL import Image

from harness import run, sweep
from harness.config import RunConfig, regularised, resolve
from harness.data.load import dataset_facts
from harness.datasets import DATASETS, Dataset, check_name
from harness.evidence.again import run_command_of, study_command_of, sweep_command_of
from harness.evidence.cells import read_evidence
from harness.evidence.findings import findings
from harness.recipes import with_policy
from harness.records.read import load_runs
from harness.studies import STUDIES
from harness.sweeping.plan import plan
from tests.properties import LONG_FORM, Property, attempt
from tests.test_effects import write_row
from tests.test_properties import CONFIG
from variants.fields import UsageError
from variants.weights import FILE

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"

# --- a run -----------------------------------------------------------------------------------------------------------


def configured(command: str, dataset: Dataset | None = None) -> RunConfig:
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "harness.run"]
    args = run.parser().parse_args(words[3:])
    return run.configure(args, dataset or dataset_facts(args.dataset))[0]


def command_of(config: RunConfig) -> str:
    command, reason = run_command_of(config.to_plain())
    assert command and not reason, reason
    return command


@pytest.mark.parametrize("record", load_runs([REFERENCE]), ids=lambda run: run.folder.name)
def test_the_command_of_a_reference_run_gives_that_run(record):
    command, _ = run_command_of(record.config)
    assert configured(command).run_id == record.config["run_id"] == record.folder.name


def test_a_command_in_full():
    settings = ["recipe.lr=5e-4", "variant.final_norm=tokens"]
    how: dict[str, Any] = {"epochs": 10, "batch_size": 64, "holdout": 0.1, "seed": 3, "precision": "bf16"}
    config = resolve("compact", DATASETS["c10"], "published", **how, compile=True, settings=settings)
    expected = "python -m harness.run --variant compact --dataset c10 --recipe published --epochs 10 --batch-size 64 "
    expected += "--holdout 0.1 --seed 3 --precision bf16 --compile on --set recipe.lr=5e-4 variant.final_norm=tokens"
    assert command_of(config) == expected and configured(expected).run_id == config.run_id


ASKED: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "lists": ("vanilla", "c10", "s1", {"settings": ["recipe.augment=crop,flip,autoaugment", "recipe.crop_scale=.5,1"]}),
    "an empty list": ("vanilla", "c100", "common", {"settings": ["recipe.augment=none"]}),
    "none": ("cvt-7-4", "c10", "published", {"settings": ["recipe.drop_path=none", "recipe.attention_dropout=none"]}),
    "truth": ("small-p4", "svhn", "lee", {"settings": ["variant.relative_bias=true", "variant.qkv_bias=no"]}),
    "epochs set": ("patch2", "c10", "common", {"settings": ["recipe.epochs=400"]}),
    "both": ("patch2-conv", "c10", "s0n", {"epochs": 7, "settings": ["recipe.batch_size=32", "recipe.cycles=2"]}),
    "another's recipe": ("compact", "digits", "s0-head", {"epochs": 3, "batch_size": 16, "holdout": 0.25}),
    "a timm model": ("timm:resnet18", "c10", "s3", {"settings": ["variant.resize=224"], "precision": "fp16"}),
}


@pytest.mark.parametrize("name", ASKED)
def test_the_command_of_a_run_as_it_was_asked_for_gives_that_run(name):
    variant, dataset, recipe, how = ASKED[name]
    config = resolve(variant, DATASETS[dataset], recipe, **how)
    assert configured(command_of(config)).run_id == config.run_id


def test_a_folder_and_weights_with_spaces_and_quotes_in_their_names(tmp_path):
    place = tmp_path / 'it\'s a "folder" $HOME'
    for part in ("train/a", "train/b", "test/a", "test/b"):
        (place / part).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / part / "1.png")
    dataset = dataset_facts(f"folder:{place}@12")
    plain = resolve("compact", dataset, "quick", seed=2, settings=["recipe.augment=crop,flip"])
    assert configured(command_of(plain)).run_id == plain.run_id
    safetensors.torch.save_file(plain.variant.module().state_dict(), place / FILE)
    started = configured(f"{command_of(plain)} --weights {shlex.quote(str(place / FILE))}")
    assert started.weights_digest and configured(command_of(started)).run_id == started.run_id != plain.run_id


@st.composite
def askable(draw: st.DrawFn) -> tuple[RunConfig, Dataset]:
    """Of any data set, any fields that somebody can set."""
    config = draw(CONFIG.filter(lambda config: "\0" not in config.dataset))
    own = config.variant
    if getattr(own, "model", "resnet18") not in timm.list_models():
        reject()
    folder = Dataset(config.dataset, config.dataset, own.image_size, own.num_classes, True, "cifar", 0, 0)
    dataset = DATASETS.get(config.dataset, folder)
    try:
        recipe = with_policy(config.recipe, dataset)
        own = replace(own, image_size=dataset.image_size, num_classes=dataset.num_classes)
        return replace(config, variant=regularised(own, recipe), recipe=recipe), dataset
    except UsageError:
        reject()


def is_given_again(asked: tuple[RunConfig, Dataset]) -> None:
    config, dataset = asked
    command, reason = run_command_of(config.to_plain())
    try:
        check_name(config.dataset)
    except UsageError as error:
        assert not command and reason == str(error).splitlines()[0]
    else:
        made = configured(command, dataset)
        assert (made.run_id, made.precision, made.compile) == (config.run_id, config.precision, config.compile), reason


@pytest.mark.parametrize("times", [1, pytest.param(LONG_FORM, marks=pytest.mark.long)])
def test_the_command_of_any_configuration_gives_that_run(times):
    assert attempt(Property(askable(), is_given_again), 60 * times)


def test_what_today_s_code_cannot_run_has_a_reason_and_no_command():
    config = resolve("vit-lite-7-4", DATASETS["c10"], "published")
    plain = config.to_plain()
    cases: dict[str, dict[str, Any]] = {
        "other code's recipe.sharpness_aware": {**plain, "recipe": {**plain["recipe"], "sharpness_aware": True}},
        "its recipe lacks lr": {**plain, "recipe": {k: v for k, v in plain["recipe"].items() if k != "lr"}},
        "unknown data set 'c11': did you mean c10": replace(config, dataset="c11").to_plain(),
        f"the nearest gives {config.run_id}": {**plain, "run_id": "c10-of-other-semantics-s0-0123456789"},
        "no command sets its fields": replace(config, variant=replace(config.variant, drop_path=0.5)).to_plain(),
    }
    for expected, recorded in cases.items():
        command, reason = run_command_of(recorded)
        assert not command and expected in reason, reason


def test_the_command_of_a_person_s_own_class_is_as_recorded():
    plain = resolve("compact", DATASETS["c10"], "common", epochs=5, settings=["recipe.lr=1e-2"]).to_plain()
    command, reason = run_command_of({**plain, "variant_type": "Own@0123456789abcdef", "variant_name": "my own.py:OWN"})
    assert not reason and "--variant 'my own.py:OWN' --dataset c10 --recipe common --epochs 5 --seed 0" in command
    assert command.endswith("--set recipe.lr=1e-2")


# --- a study ---------------------------------------------------------------------------------------------------------


def planned(command: str) -> tuple[list[str], Any]:
    """The cells that the sweep would train, and its arguments."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "harness.sweep"]
    args = sweep.parser().parse_args(words[3:])
    study = sweep.chosen(args)
    runs = plan(study, {name: dataset_facts(name) for name in study.datasets}, args.epochs)
    assert {run.config.seed for run in runs} == set(study.seeds)
    return list(dict.fromkeys(run.plan_id for run in runs)), args


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.kind == "table"])
def test_the_command_of_a_row_plans_exactly_that_cell(name):
    for row, dataset in product(STUDIES[name].rows, STUDIES[name].datasets):
        cells, _ = planned(sweep_command_of(name, row, dataset))
        assert cells == [row.resolve(DATASETS[dataset]).plan_id]


def test_missing_seeds_are_trained_in_the_precision_of_those_that_are_there(tmp_path):
    row = STUDIES["main"].rows[0]
    write_row(tmp_path, row, (60.0,), precision="bf16", compile=True)
    (cell,) = read_evidence([tmp_path]).cells
    command = sweep_command_of("main", row, "c10", cell)
    assert command.startswith("python -m harness.sweep main --variants compact --recipes published --dataset c10 ")
    assert command.endswith("--precision bf16 --compile on")
    assert planned(command)[0] == [row.resolve(DATASETS["c10"]).plan_id]


MADE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # study, the form that was run, how
    "planned": ("pooling", {}, {}),
    "short, on other images": ("pooling", {}, {"dataset": "c100", "epochs": 10}),
    "another variant": ("drop-path", {"variants": ["vanilla"]}, {}),
    "another recipe": ("drop-path", {"recipes": ["s1"]}, {"precision": "bf16"}),
    "both": ("tokenizer", {"variants": ["vit-lite-7-4"], "recipes": ["published"]}, {"epochs": 20}),
    "a grid": ("locality", {}, {}),
    "a holdout": ("lr-sensitivity", {}, {"holdout": 0.1}),
    "a table": ("neighbours", {}, {"dataset": "c100"}),
}


@pytest.mark.parametrize("name", MADE)
def test_the_command_of_a_finding_plans_its_rows(name, tmp_path):
    study_name, form, how = MADE[name]
    study = STUDIES[study_name].narrowed(**form)
    for row in study.rows:
        write_row(tmp_path, row, (60.0,), **how)
    (found,) = (one for one in findings(read_evidence([tmp_path])) if one.study_name == study_name)
    cells, args = planned(study_command_of(found))
    assert set(cells) == {line.plan_id for line in found.lines}
    assert (args.dataset, args.precision, args.compile) == ([found.dataset], how.get("precision", "fp32"), "off")


def test_a_small_form_is_asked_for_by_quick(tmp_path):
    small = STUDIES["pooling"].quick
    assert small
    for row in small.rows:
        write_row(tmp_path, row, (60.0,), dataset="digits")
    (found,) = (one for one in findings(read_evidence([tmp_path])) if one.study_name == "pooling")
    assert set(planned(study_command_of(found))[0]) == found.plan_ids and "--quick" in study_command_of(found)
