"""Owns what all command lines share: their parser, and turning an error into a message and an exit code.
Refuses logic.
"""

import argparse
import contextlib
import errno
import math
import os
import shlex
import sys
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from harness.training.signals import StoppedError
from variants.fields import UsageError

MOST_SIGNS = 1000  # of one argument
MOST = 10**9  # of anything that is counted
LONGEST_NAME = 255  # of a file, in bytes, on every file system that is in use
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what a disk below standard output says
UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no text, line ends
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how OpenMP's idle threads wait: any, GNU's, Intel's


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


def wait_passively() -> None:
    """Has idle OpenMP threads sleep, unless the user has chosen: threads that spin take the cores of other programs,
    and beside two of these a run took five times as long. GNU's first look about 10,000 times whether there is work,
    less than a millisecond: asleep at once, augmentation is half as fast. OpenMP reads it once, when torch is loaded;
    children inherit it."""
    if not any(name in os.environ for name in WAITING):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def run_command(main: Callable[[list[str] | None], int], arguments: list[str] | None = None) -> NoReturn:
    """Runs a command's main and exits: 2 for what cannot be done as asked, 130 when interrupted."""
    wait_passively()
    try:
        code = main(arguments)
    except SystemExit as parsed:  # --help, or what the parser refused
        code = parsed.code
    except UsageError as error:
        _say(str(error))
        code = 2
    except StoppedError as stopped:
        _say(f"{stopped}; the same command goes on: {_command(main, arguments)}")
        code = stopped.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        code = 130
    except OSError as error:
        code = _expected(error)
        if not code:
            raise
    unwritten = _unwritten()
    sys.exit(code or unwritten)


def _expected(error: OSError) -> int:
    """The exit code; 0 for what is a mistake of ours."""
    if isinstance(error, BrokenPipeError):
        return 1
    if error.errno == errno.ENAMETOOLONG:
        _say(f"no file can have so long a name: {str(error.filename)[:80]}...")
        return 2
    if error.errno in FULL and error.filename is None:  # a file of the command's own may have been meant: try once more
        return _unwritten("\n")
    return 0


def _unwritten(text: str = "") -> int:
    """Writes what standard output still holds: 0, or the exit code where it takes no more."""
    try:
        if sys.stdout:  # None where the shell closed it
            sys.stdout.write(text)
            sys.stdout.flush()
        return 0
    except BrokenPipeError:
        _silence(sys.stdout)
        return 1
    except OSError as error:
        _silence(sys.stdout)
        _say(f"standard output cannot be written: {error.strerror or error}")
        return 2


def _say(text: str) -> None:
    """On stderr; where that is full too, as in one log of both, the exit code has to do."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """The interpreter would write once more what is left, fail, and exit with a message and a code of its own."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
