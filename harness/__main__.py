"""The command small-vits, or python -m harness: every command line of the suite behind one name. Installed by pip; the
commands, their options and their help are those of python -m harness.NAME."""

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from harness.commands import SCRIPT, as_typed, run_command
from variants.fields import UsageError, near_matches

PACKAGE = "small-vit-ablations"
COMMANDS = (
    *("run", "sweep", "report", "reproduce", "compare", "cost"),
    *("bench", "predict", "look", "export", "simulate", "verify"),
)
PLACES = """\
they read and write below the current folder: data/, results/, paper/; the reference runs and the paper's template are
in the repository, not in what pip installs"""


def main() -> NoReturn:
    sys.path.append("")  # as with python -m: a variant file may import what lies beside it in the current folder
    name, *words = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        run_command(import_module(f"harness.{name}").main, words)
    run_command(about, [name])


def about(arguments: list[str] | None) -> int:
    (word,) = arguments or ["--help"]
    if word in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {summary(name)}" for name in COMMANDS]
        usage = as_typed("python -m harness.COMMAND")
        print("\n".join([f"usage: {usage} ...", "", *lines, "", f"each has its own help: {usage} --help", PLACES]))
    elif word == "--version":
        print(SCRIPT, _version())
    else:
        raise UsageError(f"unknown command {word!r}: {near_matches(word, COMMANDS)}")
    return 0


def summary(name: str) -> str:
    """The first sentence of a command's docstring, read from its file: an import would take longer than the list."""
    docstring = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
    return " ".join(re.split(r"(?<=\.)\s", docstring)[0].split())


def _version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "(not installed: it runs from a checkout)"


if __name__ == "__main__":
    main()
