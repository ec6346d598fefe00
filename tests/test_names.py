"""What people type as names: it never leaves the results folder, and no table or page takes it for a command."""

import csv
import html
import io
import re
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from harness.config import RunConfig, resolve
from harness.data.load import dataset_facts
from harness.datasets import DATASETS
from harness.evidence import writing as tables
from harness.evidence.figures.drawing import slug
from harness.evidence.writing import Table
from harness.studies import STUDIES
from tests.properties import LONG_FORM, TEXT, WORDS, Property, attempt
from tests.test_properties import CONFIG
from tests.test_records import CONFIG as RECORDED
from tests.test_records import write
from variants.fields import UsageError

LONGEST = 150
DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(10))}
TYPED = (
    *("../../x", "..", "/", "/etc", "a/../..", "CON", "con.txt", "NUL.tar.gz", "COM1.x", "aux.", "data/ümlaut 漢字 …"),
    *(".", "x" * 5000, "a\nb", "a\0b", "a\tb", "🚀", "dots...", "spaces   ", " x", "-rf", "--out", ".hidden", "a:b"),
    *("C:\\x", "@64", "~", "$HOME", "*", "?", "a|b", "%s", "\ud800", "\u202e", "'", "`id`", "lpt9.csv", "conx.y"),
    *("...", "-.-", "_", "nul.x", "com2.y.z", "Prn.1", "\uff1d1+1", "\uff20x", "\uff0b1", "\uff0d2"),
)  # fmt: skip

# --- in the results folder -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """A person's own class with an unusual idea of its name."""

    image_size: int = 32
    num_classes: int = 10
    shape_name: Any = None

    def module(self) -> None:
        raise NotImplementedError("only its name is of interest")


def is_a_place_of_its_own(config: RunConfig) -> None:
    out = Path("results/runs")
    for name in (config.run_id, config.cell_id):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*[A-Za-z0-9_]", name) and len(name) <= LONGEST
        assert name.split(".")[0].lower() not in DEVICES
        assert (out / name).resolve().parent == out.resolve() and (out / name).name == name


NAMED = st.builds(
    lambda config, folder, own: replace(config, dataset=f"folder:{folder}", variant=own or config.variant),
    CONFIG,
    st.one_of(st.sampled_from(TYPED), TEXT),
    st.one_of(st.none(), st.builds(Own, shape_name=st.one_of(st.sampled_from(TYPED), TEXT, st.integers(), st.none()))),
)


def is_a_file_name(names: list[str]) -> None:
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_-]{0,100}", slug(name))
    for one, other in permutations(dict.fromkeys(names), 2):
        assert slug(one) != slug(other)


def test_a_record_lies_in_its_folder_whatever_the_data_set_is_called(tmp_path):
    for name in TYPED[::5]:
        config = replace(RECORDED, dataset=f"folder:{name}", variant_name=name, label=name, overrides=(name,))
        assert write(tmp_path / "out" / "runs", config).parent == tmp_path / "out" / "runs"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_names_that_were_fine_stay_as_they_are():
    """An identity is what records are found by; only what no file can be called is called otherwise."""
    config = resolve("compact", DATASETS["c10"], "common")
    assert config.run_id.startswith("c10-vit-d48l4p4-e200-s0-")
    assert replace(config, dataset="folder:data/tiny.v2@64").cell_id.startswith("tiny.v2-64-vit-d48l4p4-e200-")
    assert replace(config, dataset="folder:con.v2").cell_id.startswith("con-v2-vit-")
    assert replace(config, dataset="folder:con.v2").cell_id != replace(config, dataset="folder:con-v2").cell_id
    assert slug("folder:tiny") == "folder-tiny" and slug("c10") == "c10"


@pytest.mark.parametrize("name", ["..", "/", "", "@64"])
def test_a_folder_without_a_name_is_refused_although_it_holds_images(name, tmp_path, monkeypatch):
    """Two of these would be one data set in every identity."""
    for part in ("train/a", "test/a"):
        (tmp_path / "x" / part).mkdir(parents=True)
        (tmp_path / part).mkdir(parents=True)
        for place in (tmp_path / "x", tmp_path):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / part / "1.png")
    monkeypatch.chdir(tmp_path / "x" if name == ".." else tmp_path)
    assert dataset_facts(f"folder:{tmp_path / 'x'}").image_size == 8
    with pytest.raises(UsageError, match="name"):
        dataset_facts(f"folder:{name}")


def test_studies_have_names_that_files_can_have():
    for name, study in STUDIES.items():
        assert re.fullmatch(r"[a-z0-9-]+", name) and name not in DEVICES, study.question


# --- in tables -------------------------------------------------------------------------------------------------------


def readable(text: str) -> str:
    """The text on one line, without what cannot be printed."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def typed(cells: list[str]) -> Table:
    first, second = cells[:2], cells[2:4]
    return Table("t", ("name", cells[4]), (tuple(first), tuple(second)), cells[5], conclusions=(cells[6],))


CELLS = st.lists(st.one_of(st.sampled_from(TYPED), TEXT), min_size=7, max_size=7)
ALL_TYPED = [[*((*TYPED, *WORDS)[start:] + TYPED)][:7] for start in range(0, len(TYPED) + len(WORDS), 7)]


def is_read_back_from_markdown(cells: list[str]) -> None:
    page = typed(cells).to_markdown()
    assert "<" not in page and ">" not in page
    head, rule, *rows = page.split("\n")[:4]
    assert rule.count("|") == 3 and page.splitlines()[:4] == [head, rule, *rows]
    assert len(page.splitlines()) == 8, "a line of its own for whatever was typed"
    wanted = [["name", cells[4]], cells[:2], cells[2:4]]
    for line, texts in zip((head, *rows), wanted):
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3
        parts = re.split(r"(?<!\\)((?:\\\\)*)\|", line)
        columns = [text + slashes for text, slashes in zip(parts[::2], [*parts[1::2], ""])][1:3]
        assert [without_escapes(column.strip()) for column in columns] == [readable(text) for text in texts]
    assert without_escapes(page.splitlines()[5]) == readable(cells[5])
    assert without_escapes(page.splitlines()[7]).rstrip() == f"* {readable(cells[6])}".rstrip()
    for sign in "`*[]~$#_":
        assert not re.search(rf"(?<!\\)(?:\\\\)*{re.escape(sign)}", "".join(map(tables.escape_markdown, cells)))


def without_escapes(text: str) -> str:
    return html.unescape(re.sub(r"\\([\\`*_\[\]~$#|])", r"\1", text))


SPOKEN: dict[str, str] = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
}
SPOKEN |= {r"\textgreater{}": ">", r"\textbar{}": "|", "$-$": "-", r"$\pm$": "±", r"$\leq$": "≤", r"\dag{}": "†"}
SPOKEN |= {"---": "—", r"$\to$": "→", "{}": ""} | {f"\\{sign}": sign for sign in "&%$#_{}"}
LATEX = re.compile("|".join([*map(re.escape, SPOKEN), r"\[U\+[0-9A-F]{4,6}\]", r"[^\\&%$#_{}~^<>|]"]), re.DOTALL)


def is_read_back_from_latex(cells: list[str]) -> None:
    for cell in cells:
        escaped = tables.escape_latex(cell)
        words = [str(word) for word in LATEX.findall(escaped)]
        assert "".join(words) == escaped, "a sign with a meaning of its own"
        assert escaped[:1] not in ("[", "*") and "\n" not in escaped and "\r" not in escaped
        back = "".join(chr(int(word[3:-1], 16)) if word.startswith("[U+") else SPOKEN.get(word, word) for word in words)
        if "---" not in cell and "[U+" not in cell:
            assert back == readable(cell)
    assert typed(cells).to_latex().count("\\\\\n") == 3


def is_read_back_from_csv(cells: list[str]) -> None:
    rows = list(csv.reader(io.StringIO(typed(cells).to_csv(), newline="")))
    wanted = [["name", cells[4]], cells[:2], cells[2:4]]
    assert [len(row) for row in rows] == [2, 2, 2]
    for row, texts in zip(rows, wanted):
        for found, text in zip(row, map(readable, texts)):
            assert found in (text, text.replace(",", ""))


# --- all of them -----------------------------------------------------------------------------------------------------

PROPERTIES = {
    "a run's folder": Property(
        NAMED, is_a_place_of_its_own, 100, [replace(RECORDED, dataset=f"folder:{name}") for name in TYPED]
    ),
    "a figure's file": Property(
        st.lists(st.one_of(st.sampled_from(TYPED), TEXT).map("folder:{}".format), max_size=4),
        is_a_file_name,
        telling=[[f"folder:{name}" for name in TYPED]],
    ),
    "Markdown": Property(CELLS, is_read_back_from_markdown, telling=ALL_TYPED),
    "LaTeX": Property(CELLS, is_read_back_from_latex, telling=ALL_TYPED),
    "CSV": Property(CELLS, is_read_back_from_csv, telling=ALL_TYPED),
}


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("times", [1, pytest.param(LONG_FORM, marks=pytest.mark.long)])
def test_holds(name, times):
    attempt(PROPERTIES[name], times * PROPERTIES[name].number)
