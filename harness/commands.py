"""Owns what all command lines share: their parser, and turning an error into a message and an exit code.
Refuses logic.
"""

import argparse
import errno
import math
import os
import shlex
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.training.signals import StoppedError
from variants.fields import UsageError

MOST_SIGNS = 1000  # of one argument
MOST = 10**9  # of anything that is counted
LONGEST_NAME = 255  # of a file, in bytes, on every file system that is in use
UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no text, line ends


class Parser(argparse.ArgumentParser):
    """argparse with the docstring as help, whole option names only, and an error of two lines."""

    def __init__(self, prog: str, description: str):
        super().__init__(
            prog=f"python -m {prog}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        for word in words:
            if complaint := _complaint(word):
                self.error(complaint)
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nsee {self.prog} --help\n")


def _complaint(word: str) -> str | None:
    """What no argument may be: it would garble messages, tables and file names, or never end."""
    if len(word) > MOST_SIGNS:
        return f"an argument has {len(word):,} characters, {MOST_SIGNS:,} are the most: {word[:40]!r}..."
    if any(unicodedata.category(sign) in UNPRINTED for sign in word):
        return f"{word!r}: an argument is one line of text, without control characters"
    return f"{word}: a value is needed" if word.endswith("=--") else None  # of which argparse makes an empty list


def whole(text: str, most: int = MOST) -> int:
    """An argument that counts something: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, 1 or more, is needed")
    if int(text) > most:
        raise argparse.ArgumentTypeError(f"{text}: {most:,} are the most")
    return int(text)


def place(text: str) -> Path:
    """An argument that names a file or folder. An unset variable of the shell is empty, and none."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: a path is needed; here is .")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(text).parts):
        raise argparse.ArgumentTypeError(f"{text!r}: no file can have a name of more than {LONGEST_NAME} bytes")
    return Path(text)


def directory(text: str) -> Path:
    """An argument that names a folder, which need not exist yet."""
    path = place(text)
    there = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write into or read from {path}: {there} is no folder")
    return path


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
        print(f"{stopped}; the same command goes on: {_command(main, arguments)}", file=sys.stderr)
        code = stopped.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 1
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        print(f"no file can have so long a name: {str(error.filename)[:80]}...", file=sys.stderr)
        code = 2
    sys.exit(code)
