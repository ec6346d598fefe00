"""What is committed follows from results/reference: the README's table, the paper's tables, the figures' data."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import report
from harness.config import run_config_from_plain
from harness.evidence.figures.drawing import read_digest
from harness.records.read import load_runs
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


AGAIN = "run: python -m harness.report --results results/reference --readme README.md"
OWN_RUNS = any((ROOT / "results" / "runs").glob("*/result.json")) or own_benchmarks()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rebuilt")
    shutil.copy(ROOT / "README.md", out / "README.md")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        words = ["--results", "results/reference", "--out", str(out), "--readme", str(out / "README.md")]
        assert report.main(words) == 0
    return out


def test_readme_table(rebuilt):
    assert (rebuilt / "README.md").read_text() == (ROOT / "README.md").read_text(), AGAIN


@pytest.mark.skipif(OWN_RUNS, reason="paper/ may show what was run and measured in this checkout")
def test_paper_tables(rebuilt):
    assert {p.name for p in (rebuilt / "tables").iterdir()} == {
        p.name for p in (ROOT / "paper" / "tables").iterdir()
    }, AGAIN
    for path in sorted((rebuilt / "tables").iterdir()):
        assert path.read_bytes() == (ROOT / "paper" / "tables" / path.name).read_bytes(), f"{path.name}: {AGAIN}"


@pytest.mark.skipif(OWN_RUNS, reason="paper/ may show what was run and measured in this checkout")
@pytest.mark.parametrize("name", ["numbers.tex", "studies.tex"])
def test_paper_text(rebuilt, name):
    assert (rebuilt / name).read_text() == (ROOT / "paper" / name).read_text(), AGAIN


@pytest.mark.skipif(OWN_RUNS, reason="paper/ may show what was run and measured in this checkout")
def test_paper_figures(rebuilt):
    """Their bytes depend on matplotlib's version, the digest of their data does not."""
    names = {p.name for p in (rebuilt / "figures").glob("*.png")}
    assert names == {p.name for p in (ROOT / "paper" / "figures").glob("*.png")}, AGAIN
    for name in names:
        assert read_digest(rebuilt / "figures" / name) == read_digest(ROOT / "paper" / "figures" / name), (
            f"{name}: {AGAIN}"
        )


def test_reference_records_are_whole():
    """Each has every file, an identity that its fields give, and every planned pass."""
    runs = load_runs([REFERENCE])
    assert len(runs) == len([p for p in REFERENCE.iterdir() if p.is_dir()])
    for run in runs:
        assert {p.name for p in run.folder.iterdir()} == set(FILES)
        assert run_config_from_plain(run.config).run_id == run.folder.name == run.config["run_id"]
        epochs, planned = run.epochs(), run.config["recipe"]["epochs"]
        assert run.ok and [line["epoch"] for line in epochs] == list(range(1, planned + 1))
        assert run.env["source_digest"] and run.env["commit"] and run.env["dirty"] is False
        predictions = run.predictions()
        hits = (predictions["labels"] == predictions["predicted"]).mean()
        assert (
            hits == pytest.approx(run.result["test_accuracy"])
            and run.result["test_accuracy"] == epochs[-1]["test_accuracy"]
        )


def test_reference_records_hold_no_path_of_the_machine():
    for path in REFERENCE.glob("*/*.json"):
        assert "/root" not in (text := path.read_text()) and "/home" not in text and json.loads(text) is not None
