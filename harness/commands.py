"""Owns what all command lines share: their parser, and turning an error into a message and an exit code.
Refuses logic.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from typing import NoReturn

from harness.training.signals import StoppedError
from variants.fields import UsageError


class Parser(argparse.ArgumentParser):
    """argparse with the docstring as help, whole option names only, and an error of two lines."""

    def __init__(self, prog: str, description: str):
        super().__init__(
            prog=f"python -m {prog}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nsee {self.prog} --help\n")


def whole(text: str) -> int:
    """An argument that counts something: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, 1 or more, is needed")
    return int(text)


def seconds(text: str) -> float:
    """An argument that is a length of time: 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of seconds, 0 or more, is needed")
    return value


def _command(main: Callable[..., int], arguments: list[str] | None) -> str:
    """What a person types to run it; a module run by -m is called __main__ and knows its name from its spec."""
    spec = getattr(sys.modules.get(main.__module__), "__spec__", None)
    words = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", spec.name if spec else main.__module__, *words])


def run_command(main: Callable[[list[str] | None], int], arguments: list[str] | None = None) -> NoReturn:
    """Runs a command's main and exits: 2 for what cannot be done as asked, 130 when interrupted."""
    try:
        code = main(arguments)
    except UsageError as error:
        print(error, file=sys.stderr)
        code = 2
    except StoppedError as stopped:
        print(f"{stopped}; nothing is lost, the same command goes on: {_command(main, arguments)}", file=sys.stderr)
        code = stopped.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 1
    sys.exit(code)
