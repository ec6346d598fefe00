"""What is committed follows from results/reference: the README's table, the paper's tables, the figures' data."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import report
from harness.evidence.figures.drawing import read_digest
from harness.records.read import problems_of, read_run
from harness.records.schema import FILES

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"


def own_benchmarks() -> bool:
    """Whether results/bench holds more than was committed; without git, nobody can tell."""
    command = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "results/bench"]
    try:
        return bool(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    except OSError:
        return False


AGAIN = "run: python -m harness.report --results results/reference --readme README.md --html"
OWN_RUNS = any((ROOT / "results" / "runs").glob("*/result.json")) or own_benchmarks() or (ROOT / "figures").exists()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rebuilt")
    shutil.copy(ROOT / "README.md", out / "README.md")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        words = ["--results", "results/reference", "--out", str(out), "--readme", str(out / "README.md"), "--html"]
        assert report.main(words) == 0
    return out


def test_readme_table(rebuilt):
    assert (rebuilt / "README.md").read_text() == (ROOT / "README.md").read_text(), AGAIN


def contents(paper: Path) -> dict[str, bytes | str | None]:
    """Of a figure the digest of its data: its bytes depend on matplotlib's version."""
    texts = [*(paper / "tables").iterdir(), *(paper / name for name in ("numbers.tex", "studies.tex", "index.html"))]
    figures = {path.name: read_digest(path) for path in (paper / "figures").glob("*.png")}
    return figures | {path.name: path.read_bytes() for path in texts}


@pytest.mark.skipif(OWN_RUNS, reason="paper/ may show what was run and measured in this checkout")
def test_paper(rebuilt):
    found, committed = contents(rebuilt), contents(ROOT / "paper")
    assert found.keys() == committed.keys(), AGAIN
    assert [name for name in found if found[name] != committed[name]] == [], AGAIN


def test_reference_records_are_whole_and_hold_no_path_of_the_machine():
    folders = [path for path in REFERENCE.iterdir() if path.is_dir()]
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == set(FILES) and problems_of(folder) == []
        run = read_run(folder)
        assert run.ok and run.env["commit"] and run.env["dirty"] is False
        assert not [path for path in folder.glob("*.json") if re.search("/root|/home", path.read_text())]
