"""The paper and the README: prose without numbers, macros all defined and all used, LaTeX where there is one."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config import resolve
from harness.datasets import DATASETS
from harness.evidence import paper as typesetting
from harness.evidence.cells import read_evidence
from harness.evidence.figures import drawing
from harness.evidence.findings import findings
from harness.evidence.paper import NONE_YET, macros, studies_text, typeset
from harness.evidence.published import PUBLISHED_NUMBERS
from harness.report import main
from harness.statistics.simulated import simulate
from harness.studies import STUDIES
from harness.timing.synthetic import write_cell
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
MAIN = (ROOT / "paper" / "main.tex").read_text()
STUDY = STUDIES["main"]


def prose() -> str:
    """What a reader reads: no preamble, comments, names of files and labels, no bibliography."""
    body = MAIN.split(r"\title", 1)[1].split(r"\begin{thebibliography}")[0]
    body = re.sub(r"(?<!\\)%.*", "", body)
    body = re.sub(r"\\(cite|ref|label|tableof|input|includegraphics)\{[^}]*\}", "", body)
    body = re.sub(r"\\(wide)?figureof\{[^}]*\}", "", body)
    return re.sub(r"CIFAR-100?\b", "", body)


def values(root: Path) -> dict[str, str]:
    evidence = read_evidence([root])
    return macros(evidence, STUDY, findings(evidence))


def test_no_number_is_typed_by_hand():
    assert re.findall(r"[^\n]*\d[^\n]*", prose()) == []


def test_every_macro_is_defined_and_every_definition_used(tmp_path):
    defined = set(values(tmp_path))
    own = set(re.findall(r"\\newcommand\{\\(\w+)\}", MAIN))
    used = set(re.findall(r"\\([a-zA-Z]+)", prose()))
    assert defined <= used, f"not in main.tex: {defined - used}"
    camel = {name for name in used if re.search(r"[a-z][A-Z]", name)}
    assert camel <= defined | own, f"not in numbers.tex: {camel - defined - own}"


def test_numbers_come_from_what_they_name(tmp_path):
    for variant in ("compact", "vanilla"):
        write_cell(tmp_path, resolve(variant, DATASETS["c10"], "published"), seeds=2)
    found = values(tmp_path)
    assert found["runsDone"] == "4" and found["plannedSeeds"] == "5" and found["devices"] == "no device"
    assert found["resultsSummary"] == (
        "The main table plans 24 cells: so far 2 with at least one finished run, 0 with all seeds."
    )
    judged = [int(found[f"published{name}"]) for name in ("Reached", "Missed", "Open")]
    assert int(found["publishedTotal"]) == sum(number.accuracy is not None for number in PUBLISHED_NUMBERS)
    assert sum(judged) == int(found["publishedTotal"]) and judged[0] + judged[1] == 3, "two sources printed vanilla's"
    truth = simulate(2000, 5)
    assert found["simFamilyError"] == f"{truth.share('any_false'):.2%}"


def test_the_studies_are_told_and_quick_forms_are_not(tmp_path):
    assert NONE_YET in studies_text([], [])
    write_pooling(tmp_path)
    found = findings(read_evidence([tmp_path]))
    name = f"forest-{found[0].name}"
    text = studies_text(found, [name])
    assert STUDIES["pooling"].question in text and rf"\figureof{{{name}}}" in text
    assert rf"\tableof{{study-{found[0].name}}}" in text
    assert r"\figureof" not in studies_text(found, [])
    assert NONE_YET in studies_text([replace(one, quick=True) for one in found], [name])
    assert (
        "1 study with 2 comparisons has been run" in macros(read_evidence([tmp_path]), STUDY, found)["abstractFinding"]
    )


def write_pooling(root: Path) -> None:
    for row in STUDIES["pooling"].rows:
        write_cell(root, row.resolve(DATASETS["c10"]), seeds=3)


# --- LaTeX -----------------------------------------------------------------------------------------------------------


def a_latex(folder: Path, monkeypatch, script: str) -> None:
    """A program called pdflatex, and no other on the path but what the script itself needs."""
    command = folder / "bin" / "pdflatex"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setattr(typesetting, "COMMANDS", {"pdflatex": ["pdflatex"]})
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")


def test_without_latex_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "not typeset, none of latexmk, pdflatex, tectonic is installed" in typeset(tmp_path)
    assert (tmp_path / "main.tex").read_text() == MAIN and not (tmp_path / "main.pdf").exists()


def test_the_pdf_comes_alone(tmp_path, monkeypatch):
    a_latex(tmp_path, monkeypatch, "echo again >> main.aux; cp main.aux main.pdf; test -f tables/main.tex")
    (tmp_path / "paper" / "tables").mkdir(parents=True)
    (tmp_path / "paper" / "tables" / "main.tex").touch()
    assert typeset(tmp_path / "paper") == "main.pdf (typeset by pdflatex)"
    assert (tmp_path / "paper" / "main.pdf").read_text() == "again\n" * 3, "references need three passes"
    assert {path.name for path in (tmp_path / "paper").iterdir()} == {"main.tex", "main.pdf", "tables"}


def test_tex_s_own_complaint_is_the_message(tmp_path, monkeypatch):
    (tmp_path / "complaint").write_text("! Undefined control sequence.\n<recently read>\nl.7 \\nonsense\n")
    a_latex(tmp_path, monkeypatch, "cp complaint main.log; exit 1")
    with pytest.raises(UsageError, match=r"pdflatex cannot typeset it: Undefined control sequence. l.7 \\nonsense"):
        typeset(tmp_path)
    assert not (tmp_path / "main.pdf").exists()


@pytest.mark.skipif(typesetting.find_latex() is None, reason="needs a LaTeX")
def test_the_paper_can_be_typeset(tmp_path):
    write_pooling(tmp_path / "runs")
    words = ["--results", str(tmp_path / "runs"), "--out", str(tmp_path / "paper"), "--bench", str(tmp_path), "--paper"]
    assert main(words) == 0
    assert (tmp_path / "paper" / "main.pdf").read_bytes().startswith(b"%PDF")


# --- what the main table leaves to the studies -----------------------------------------------------------------------


def test_cells_of_a_study_stand_in_its_table_and_in_the_long_ones_alone(tmp_path, monkeypatch, capsys):
    """And the README is rewritten between its markers alone, each time the same."""
    monkeypatch.setattr(drawing, "drawn", lambda *_: (b"", b""))
    write_pooling(tmp_path / "runs")
    other = resolve("compact", DATASETS["c10"], "published", settings=["recipe.lr=0.5"])
    write_cell(tmp_path / "runs", other, seeds=1)
    readme, texts = tmp_path / "README.md", []
    readme.write_text("# Title\n<!-- results:begin -->\nold\n<!-- results:end -->\nrest\n")
    words = ["--results", str(tmp_path / "runs"), "--out", str(tmp_path / "paper"), "--bench", str(tmp_path)]
    for _ in range(2):
        assert main([*words, "--readme", str(readme)]) == 0
        texts.append(readme.read_text(encoding="utf-8"))
    tables = {path.stem: path.read_text() for path in (tmp_path / "paper" / "tables").glob("*.md")}
    assert "compact-cls" not in tables["main"] and "recipe.lr=0.5" in tables["main"], "no study has that one"
    assert "10 runs done" in tables["main"] and "2 cells shown with their studies alone" in tables["main"]
    assert "| compact | published | 100 |" in tables["main"], "a row of the main table, although a study has it too"
    assert "| compact-cls | published |" in tables["cells"] and "pool=cls" in tables["study-pooling"]
    assert texts[0] == texts[1] and "\nold\n" not in texts[0] and "| compact | published | 100 |" in texts[0]
    assert texts[0].startswith("# Title\n<!-- results:begin -->\n") and texts[0].endswith("end -->\nrest\n")
    assert "\n* Study pooling on CIFAR-10, 100 epochs, fp32: pool=cls: " in texts[0]


# --- the README's part ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["no markers", "<!-- results:end -->\n<!-- results:begin -->\n", None])
def test_a_readme_without_markers_is_refused_before_anything_is_written(tmp_path, text):
    readme = tmp_path / "README.md"
    if text is not None:
        readme.write_text(text)
    with pytest.raises(UsageError, match=r"README\.md"):
        main(["--results", str(tmp_path), "--out", str(tmp_path / "paper"), "--readme", str(readme)])
    assert not (tmp_path / "paper").exists()
