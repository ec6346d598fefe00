"""The committed costs of the catalogue equal a fresh count, and `harness.cost --write` makes them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cost as command
from harness.counting.catalogue import catalogue_cost, file_bytes, file_name
from harness.counting.closed_form import items
from harness.counting.measured import Subject
from harness.counting.modules import COLUMNS, table_by_module
from harness.datasets import DATASETS
from variants.catalog import CATALOG, config_of
from variants.config import ViTConfig
from variants.fields import UsageError

COSTS = Path(__file__).parents[1] / "results" / "cost"
WRITE_AGAIN = "run: python -m harness.cost --write"


def need_counters() -> None:
    for package in ("fvcore.nn", "timm"):
        pytest.importorskip(package, reason=f"{package}, without which timm's models cannot be counted, is missing")


def can_be_built(name: str, dataset: str) -> bool:
    try:
        config_of(name, DATASETS[dataset].image_size, DATASETS[dataset].num_classes)
    except UsageError:
        return False
    return True


SHAPES = [(name, dataset) for name in CATALOG for dataset in DATASETS if can_be_built(name, dataset)]


@pytest.mark.parametrize(("name", "dataset"), SHAPES, ids=map("-".join, SHAPES))
def test_a_committed_cost_is_that_of_a_fresh_count(name: str, dataset: str) -> None:
    """That the closed form is right is tested elsewhere; models that it does not know are built and counted."""
    if type(CATALOG[name]) is not ViTConfig:
        need_counters()
    fresh = file_bytes(catalogue_cost(name, DATASETS[dataset], check=False))
    assert (COSTS / file_name(name, DATASETS[dataset])).read_bytes() == fresh, WRITE_AGAIN


def test_no_other_cost_is_committed() -> None:
    assert {path.name for path in COSTS.iterdir()} == {file_name(name, DATASETS[of]) for name, of in SHAPES}


def test_a_cost_has_the_published_counts_and_its_modules_add_up() -> None:
    told = json.loads((COSTS / "patch2-c10.json").read_bytes())
    assert (told["image_size"], told["num_classes"], told["params"]) == (32, 10, 2_727_562)
    assert (told["macs"], told["activations"], told["activations_without_head"]) == (
        915_676_224,
        10_735_222,
        10_735_212,
    )
    modules = told["modules"]
    assert modules[""] == {column: told[column] for column in COLUMNS}
    for column in COLUMNS:
        assert sum(counts[column] for path, counts in modules.items() if path and "." not in path) == told[column]
    assert modules[
        "blocks.8.attention"
    ] == {  # on 257 tokens of width 192: qkv and proj, and the two products of 12 heads
        "params": 4 * 192 * 192 + 4 * 192,
        "macs": 4 * 257 * 192**2 + 2 * 257**2 * 192,
        "activations": 5 * 257 * 192 + 12 * 257**2,
    }


@pytest.mark.parametrize("name", ["compact", "patch2-conv", "cct-7-3x1", "small-p4"])
def test_the_modules_of_the_closed_form_are_those_of_the_real_model(name: str) -> None:
    """But for the class token, which is a lone parameter and no module."""
    need_counters()
    config = config_of(name)
    counted = table_by_module(items(config))
    counted.pop("class_token", None)
    expected = Subject(config).by_module
    left_out = {path for path in expected.keys() - counted.keys() if expected[path]["macs"] or expected[path]["params"]}
    assert counted == {path: expected[path] for path in counted} and not left_out


def test_write_makes_the_same_bytes_twice_and_says_what_cannot_be_built(tmp_path, monkeypatch, capsys) -> None:
    need_counters()
    monkeypatch.setattr(command, "CATALOG", {"compact": CATALOG["compact"], "thirds": CATALOG["compact"]})
    monkeypatch.setattr("harness.counting.catalogue.config_of", with_thirds)
    (tmp_path / "gone-c10.json").write_text("{}")
    for _ in range(2):
        assert command.main(["--write", "--out", str(tmp_path)]) == 0
        told = capsys.readouterr().out
        assert told.count("skipped thirds on ") == 4 and "patch=3 does not divide" in told
        assert "wrote 4 files" in told and "gone-c10.json is of no variant" in told
        for dataset in DATASETS.values():
            file = file_name("compact", dataset)
            assert (tmp_path / file).read_bytes() == (COSTS / file).read_bytes()
    assert len(list(tmp_path.iterdir())) == 5


def with_thirds(name: str, image_size: int, num_classes: int):
    config = config_of("compact", image_size, num_classes)
    return replace(config, patch=3) if name == "thirds" else config


def test_a_missing_counter_writes_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(command, "importable", lambda package: package != "fvcore.nn")
    with pytest.raises(UsageError, match="install fvcore"):
        command.main(["--write", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--write", "--variant", "compact"], "whole catalogue"),
        (["--write", "--dataset", "c10"], "whole catalogue"),
        (["--write", "--json"], "whole catalogue"),
        (["--out", "."], "add --write"),
    ],
)
def test_words_that_do_not_go_together(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command.main(words)
