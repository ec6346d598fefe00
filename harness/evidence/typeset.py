"""Owns the way from main.tex to main.pdf, by whichever LaTeX is installed.
Refuses to need one: without it the tables and figures stand alone.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from variants.fields import UsageError

COMMANDS = {
    "latexmk": ["latexmk", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"],
    "pdflatex": ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"],
    "tectonic": ["tectonic", "--untrusted"],
}
PASSES = {"pdflatex": 3}  # the others repeat by themselves
LIMIT_S = 300
TEMPLATE = Path(__file__).resolve().parents[2] / "paper" / "main.tex"


def find_latex() -> str | None:
    return next((name for name in COMMANDS if shutil.which(name)), None)


def typeset(folder: Path) -> str:
    """Builds folder/main.pdf; one line of text on what came of it. main.tex is put there if it is missing."""
    source = folder / "main.tex"
    if not source.exists():
        shutil.copyfile(TEMPLATE, source)
    latex = find_latex()
    if latex is None:
        return f"{source}: not typeset, none of {', '.join(COMMANDS)} is installed; any LaTeX with booktabs will do"
    with tempfile.TemporaryDirectory() as build:
        for path in folder.iterdir():  # what TeX leaves beside its result must not lie in the paper's folder
            if path.name != "main.pdf":
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, Path(build) / path.name)
        for _ in range(PASSES.get(latex, 1)):
            _run([*COMMANDS[latex], "main.tex"], Path(build), source)
        shutil.copyfile(Path(build) / "main.pdf", folder / "main.pdf")
    return f"main.pdf (typeset by {latex})"


def _run(command: list[str], build: Path, source: Path) -> None:
    fixed = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}  # no date of today in the file
    try:
        done = subprocess.run(
            command, cwd=build, env=os.environ | fixed, capture_output=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"{source}: {command[0]} was not done after {LIMIT_S} s") from None
    if done.returncode or not (build / "main.pdf").exists():
        raise UsageError(f"{source}: {command[0]} refuses it: {_reason(build, done.stdout)}")


def _reason(build: Path, output: bytes) -> str:
    """TeX's first complaint, with the line that it is about."""
    log = build / "main.log"
    text = (log.read_bytes() if log.exists() else output).decode("utf-8", "replace")
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("!")), None)
    if first is None:
        return " ".join((lines or ["no reason given"])[-1:])
    where = next((line for line in lines[first:] if line.startswith("l.")), "")
    return f"{lines[first].lstrip('! ')} {where}".strip()
