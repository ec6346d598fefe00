"""The command small-vits: the same commands, parsers and help as python -m harness.NAME, from a copy that pip installed
too."""

import ast
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from harness import __main__ as door
from harness import run
from harness.evidence import paper
from harness.records.environment import environment, source_digest
from harness.records.read import load_runs
from harness.sweeping.train import COMMAND
from harness.training.signals import StoppedError

ROOT = Path(__file__).resolve().parents[1]
TYPED = "/somewhere/bin/small-vits"


def through(monkeypatch, *words: str) -> object:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", [*words])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as left:
        door.main()
    return left.value.code


# --- what it says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=str)
def test_the_list_has_every_command_with_its_first_sentence(words, monkeypatch, capsys):
    assert through(monkeypatch, TYPED, *words) == 0
    told = capsys.readouterr().out
    lines = dict(line.strip().split(maxsplit=1) for line in told.splitlines() if line.startswith("  "))
    assert list(lines) == list(door.COMMANDS) and told.startswith("usage: small-vits COMMAND")
    for name, sentence in lines.items():
        docstring = ast.get_docstring(ast.parse((ROOT / "harness" / f"{name}.py").read_text())) or ""
        assert " ".join(docstring.split()).startswith(sentence) and sentence.endswith(".") and len(sentence) < 108


def test_every_command_line_is_in_the_list():
    paths = [path for path in (ROOT / "harness").glob("*.py") if "run_command(main)" in path.read_text()]
    assert {path.stem for path in paths} == set(door.COMMANDS)


def test_the_list_imports_no_command():
    code = "import sys; from harness.__main__ import about; about(None); sys.exit('harness.cost' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(("word", "told"), [("swep", "did you mean sweep"), ("--quick", "choose from bench, compare")])
def test_an_unknown_command_is_refused(word, told, monkeypatch, capsys):
    assert through(monkeypatch, TYPED, word, "--help") == 2
    answer = capsys.readouterr()
    assert answer.out == "" and f"unknown command {word!r}: {told}" in answer.err


@pytest.mark.parametrize("name", [*door.COMMANDS, "bench gpu"])
def test_help_is_that_of_the_module_in_the_words_that_were_typed(name, monkeypatch, capsys):
    assert through(monkeypatch, TYPED, *name.split(), "--help") == 0
    here = capsys.readouterr().out
    module, *more = name.split()
    with pytest.raises(SystemExit):
        monkeypatch.setattr(sys, "argv", ["harness/x.py"])
        importlib.import_module(f"harness.{module}").main([*more, "--help"])
    there = capsys.readouterr().out
    assert here.startswith(f"usage: small-vits {name} ") and "python -m" not in here
    assert there.startswith(f"usage: python -m harness.{name} ")
    usage = "\n\n"  # the usage's lines break elsewhere
    assert here.partition(usage)[2] == there.partition(usage)[2].replace("python -m harness.", "small-vits ")


@pytest.mark.parametrize(
    ("script", "typed"), [(TYPED, "small-vits run"), ("/x/harness/__main__.py", "python -m harness.run")]
)
def test_a_stopped_command_goes_on_as_it_was_typed(script, typed, monkeypatch, capsys):
    def main(words: list[str]) -> int:
        raise StoppedError(signal.SIGTERM)

    main.__module__ = "harness.run"
    monkeypatch.setattr(run, "main", main)
    assert through(monkeypatch, script, "run", "--name", "a b") == 128 + signal.SIGTERM
    assert capsys.readouterr().err.endswith(f"the same command goes on: {typed} --name 'a b'\n")


def test_a_sweep_s_jobs_are_of_this_code(tmp_path):
    """Whatever lies in the current folder: a checkout beside an installed copy, say."""
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").write_text("raise SystemExit('another harness')")
    done = subprocess.run([*COMMAND, "--list"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "pooling" in done.stdout, done.stderr


def test_without_its_template_the_paper_is_not_typeset(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "TEMPLATE", tmp_path / "none.tex")
    assert "not typeset" in paper.typeset(tmp_path) and not list(tmp_path.iterdir())


# --- installed -------------------------------------------------------------------------------------------------------


def lacks() -> str:
    try:
        version("pip")
        return "" if int(version("setuptools").split(".")[0]) >= 77 else "needs setuptools 77"
    except PackageNotFoundError as error:
        return f"needs {error.name}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """As pip installs a copy of this checkout, into a folder inside of somebody else's repository."""
    if reason := lacks():
        pytest.skip(reason)
    source, place = (tmp_path_factory.mktemp(name) for name in ("source", "place"))
    for name in ("harness", "variants"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (place / "mine.py").write_text("print('mine')\n")
    author = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "mine"]):
        subprocess.run(["git", *words], cwd=place, check=True, env=os.environ | author)
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(place / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place


def small_vits(installed: Path, *words: str) -> subprocess.CompletedProcess:
    """Typed in a folder that holds nothing of the suite."""
    own = os.environ | {"PYTHONPATH": str(installed / "site")}
    command = [str(installed / "site" / "bin" / "small-vits"), *words]
    return subprocess.run(command, cwd=installed, env=own, capture_output=True, text=True)


def test_the_installed_command_has_the_version_of_the_project(installed):
    told = small_vits(installed, "--version").stdout
    assert f'\nversion = "{told.removeprefix("small-vits ").strip()}"\n' in (ROOT / "pyproject.toml").read_text()


ASK = "import json; from harness.records.environment import environment; print(json.dumps(environment({}, '')))"


def test_an_installed_copy_names_its_code(installed):
    """The digest is that of this checkout. The commit is none: the repository around it holds other code."""
    own = os.environ | {"PYTHONPATH": str(installed / "site")}
    done = subprocess.run([sys.executable, "-c", ASK], cwd=installed, env=own, capture_output=True, text=True)
    known = json.loads(done.stdout)
    assert known["source_digest"] == source_digest() and known["commit"] is None and known["dirty"] is None


@pytest.fixture
def mine(installed) -> str:
    """A variant file that imports what lies beside it."""
    (installed / "parts.py").write_text("POOL = 'mean'\n")
    (installed / "my.py").write_text(
        "from dataclasses import replace\nfrom parts import POOL\nfrom variants.compact import COMPACT\n"
        "MINE = replace(COMPACT, pool=POOL, depth=1)\n"
    )
    return "my.py:MINE"


def test_an_installed_copy_plans_and_reads(installed, mine):
    done = small_vits(installed, "sweep", "quick", "--variants", "compact", mine, "--seeds", "1", "--status", "--json")
    assert done.returncode == 0, done.stderr
    assert [run["row"] for run in json.loads(done.stdout)["runs"]] == ["compact quick", f"{mine} quick"]
    runs = [run.name for run in sorted((ROOT / "results" / "reference").glob("*-e10-*"))][:2]
    done = small_vits(installed, "compare", *runs, "--results", str(ROOT / "results" / "reference"))
    assert done.returncode == 0 and "CIFAR-10, test images" in done.stdout, done.stderr
    done = small_vits(installed, "compare", *runs)
    assert done.returncode == 2 and "there is no finished run under results/reference" in done.stderr


@pytest.mark.long
def test_an_installed_copy_trains_and_reports(installed, mine):
    words = ["--dataset", "digits", "--recipe", "quick", "--epochs", "1", "--device", "cpu"]
    done = small_vits(installed, "run", "--variant", mine, *words)
    assert done.returncode == 0, done.stderr
    (record,) = load_runs([installed / "results" / "runs"])
    assert record.config["variant"]["pool"] == "mean" and record.env["source_digest"] == source_digest()
    done = small_vits(installed, "verify", "--records", "--json")
    assert json.loads(done.stdout)["records"] == 1 and json.loads(done.stdout)["problems"] == {}
    done = small_vits(installed, "report", "--paper")
    assert done.returncode == 0 and f"{record.result['test_accuracy']:.2%}"[:-1] in done.stdout
    assert "small-vits cost --write counts them" in done.stdout and "main.tex: not typeset" in done.stdout


def test_a_checkout_names_its_commit():
    known = environment({}, "")
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert known["commit"] == (git.stdout.strip() or None) and known["source_digest"] == source_digest(ROOT)
