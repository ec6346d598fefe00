"""The numbers that others printed: each has a dated source and finds what deviates from its recipe."""

import re
from datetime import date
from pathlib import Path

import pytest

from harness.evidence.cells import read_evidence
from harness.evidence.published import PUBLISHED_NUMBERS, SOURCES, Pair, compared, deviations
from harness.recipes import ALIASES, PUBLISHED, RECIPES
from harness.studies import STUDIES
from tests.test_effects import write_row

ROOT = Path(__file__).resolve().parents[1]


def test_every_source_has_a_day_an_address_and_a_number():
    assert {number.source for number in PUBLISHED_NUMBERS} == set(SOURCES)
    page = (ROOT / "README.md").read_text()
    for source in SOURCES.values():
        assert date(2020, 10, 22) < date.fromisoformat(source.date), "the first ViT's paper is older"
        assert source.address.startswith(("https://github.com/", "https://arxiv.org/abs/")) and source.title
        repository = source.address.partition("/tree/")[0]
        assert repository in page or source.key in ("tintn", "S4"), "the README names the same place"
    assert [source.key for source in SOURCES.values() if source.tier == "reproduction"] == ["S4"]


def test_a_number_was_printed_when_its_source_was_or_later():
    for number in PUBLISHED_NUMBERS:
        assert number.printed >= SOURCES[number.source].date or (number.accuracy is None and not number.printed)
    later = {number.variant for number in PUBLISHED_NUMBERS if number.printed > SOURCES[number.source].date}
    assert later == {"cct-7-3x1"}


def test_every_number_finds_what_deviates_from_its_recipe():
    found = deviations(ROOT / "RECIPES.md")
    assert {*found} == {*PUBLISHED.values()}, "the page has a row for each published recipe"
    for number in PUBLISHED_NUMBERS:
        assert number.recipe_name in RECIPES and len(found[number.recipe_name]) > 40, number
    assert found["s2"].startswith("resized crops are rounded to whole grey levels.")
    assert found["cct-7-3x1"] == "that they hold for CIFAR-100 too is inferred"
    assert not re.search(r"`|\|", "".join(found.values()))
    assert {number.recipe_name for number in PUBLISHED_NUMBERS if number.recipe != "published"} == {"s3"}


def test_names_of_recipes_stand_in_the_page_as_they_can_be_asked_for():
    table = (ROOT / "RECIPES.md").read_text().partition("## Recipe by recipe")[2].partition("\n## ")[0]
    named = [re.findall(r"`([^`]+)`", line.split(" | ")[0]) for line in table.splitlines() if line.startswith("| `")]
    assert {alias: first for first, *aliases in named for alias in aliases} == ALIASES


def test_without_the_page_there_are_no_deviations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert deviations() == {}
    (tmp_path / "RECIPES.md").write_text("# Another project's\n\n| `s1` | x |\n")
    assert deviations() == {}


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ((), None),
        ((77.0,), None),
        ((76.0, 77.0, 78.0), True),
        ((76.9, 77.0, 77.1), False),
        ((76.25, 77.25, 78.25), True),
    ],
)
def test_whether_a_published_number_lies_in_our_interval(tmp_path, accuracies, expected):
    """S2 prints 77.25. 76, 77, 78: 77 ± 4.30 x 1 / sqrt 3 = 77 ± 2.48; a tenth as wide: ± .248, just not."""
    write_row(tmp_path, STUDIES["main"].rows[0], accuracies)
    (pair,) = (one for one in compared(read_evidence([tmp_path]).cells) if one.published.source == "S2" and is_c10(one))
    assert pair.inside is expected


def is_c10(pair: Pair) -> bool:
    return pair.published.dataset == "c10"
