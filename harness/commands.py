"""What all command lines share: their parser, options and kinds of argument, and how an error becomes a sentence and an
exit code: 0 done, 1 failed, 2 cannot be done as asked, 128 + its number for a signal (130 for Ctrl-C).
"""

import argparse
import contextlib
import errno
import math
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from harness.config import PRECISIONS
from harness.records.environment import is_launched
from harness.training.signals import StoppedError
from harness.training.track import TRACKERS, tracker
from variants.fields import UsageError

SCRIPT = "small-vits"  # what pip installs; see harness/__main__.py
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a full disk answers
OTHERS_WAIT_S = 3.0  # torchrun ends them meanwhile
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # how OpenMP's idle threads wait: any, GNU's, Intel's


def as_typed(text: str) -> str:
    """Commands by the name under which this one was started: `small-vits run` where that was typed."""
    return text.replace("python -m harness.", f"{SCRIPT} ") if Path(sys.argv[0]).stem == SCRIPT else text


class Parser(argparse.ArgumentParser):
    """argparse with the docstring as help, whole option names only, and an error of two lines."""

    def __init__(self, prog: str, description: str):
        super().__init__(
            prog=as_typed(f"python -m {prog}"),
            description=as_typed(description),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_shared(self, *names: str) -> None:
        for name in names:
            self.add_argument(f"--{name}", **SHARED[name])

    def error(self, message: str) -> NoReturn:
        let_the_first_speak()
        self.exit(2, f"{self.prog}: {message}\nsee {self.prog} --help\n")


def whole(text: str, most: int = 10**9) -> int:
    """An argument that counts something: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, 1 or more, is needed")
    if int(text) > most:
        raise argparse.ArgumentTypeError(f"{text}: must be at most {most:,}")
    return int(text)


def place(text: str) -> Path:
    """An argument that names a file or folder. An unset variable of the shell is empty, and none."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: a path is needed; the current folder is .")
    return Path(text)


def directory(text: str) -> Path:
    """An argument that names a folder, which need not exist yet."""
    path = place(text)
    there = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write into or read from {path}: {there} is no folder")
    return path


def new_file(text: str) -> Path:
    """An argument that names a file to be written."""
    path = place(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; a file's name is needed")
    directory(str(path.parent))
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


# Options of several commands.
DEVICE_OPTIONS = ("device", "precision", "compile", "graph", "accumulate", "deterministic", "resident", "broken")
SHARED: dict[str, dict[str, Any]] = {
    "device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1, ... (default: auto)"},
    "precision": {
        "choices": PRECISIONS,
        "help": "(default: bf16 on GPUs that have it, else fp32); fp16 has a gradient scaler, for GPUs without bf16",
    },
    "compile": {"choices": ("on", "off"), "help": "torch.compile (default: on for CUDA, off on the CPU)"},
    "graph": {
        "choices": ("on", "off"),
        "default": "on",
        "help": "a training step as one CUDA graph (default: on; never on the CPU, in fp16 or under torchrun)",
    },
    "accumulate": {
        "type": whole,
        "default": 1,
        "metavar": "K",
        "help": "compute each batch in K parts, for a card that does not hold it whole: the same result (default: 1)",
    },
    "deterministic": {"action": "store_true", "help": "the same bits each time on a GPU too; slower"},
    "resident": {
        "choices": ("auto", "device", "host", "stream"),
        "default": "auto",
        "help": "where images are kept: on the device, in the host's memory or, of a folder, in their files, decoded "
        "as they are needed; the results are the same (default: the first that has room)",
    },
    "broken": {
        "choices": ("refuse", "skip"),
        "default": "refuse",
        "help": "images of a folder that cannot be decoded: skip trains without them, and names them (default: refuse)",
    },
    "set": {
        "nargs": "+",
        "action": "extend",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "any other field, as recipe.NAME=VALUE or variant.NAME=VALUE",
    },
    "weights": {
        "type": place,
        "metavar": "FILE_OR_RUN",
        "help": "start from weights of the same architecture, of a run or timm's own file: with a new head for another "
        "number of classes, with interpolated positions at another image size",
    },
    "no-weights": {"action": "store_true", "help": "keep no model.safetensors"},
    "track": {
        "type": tracker,
        "action": "append",
        "default": [],
        "metavar": "TOOL",
        "help": f"show runs in {', '.join(TRACKERS)} too, without an account in OUT/track; may be given several times",
    },
    "data-dir": {"type": directory, "default": Path("data"), "metavar": "DIR", "help": "(default: data)"},
    "out": {"type": directory, "default": Path("results/runs"), "metavar": "DIR", "help": "(default: results/runs)"},
}


def asked_for(args: Namespace, precision: Any, compiles: Any) -> tuple[Any, Any]:
    """Precision and compilation as the options have them, else these defaults of the device."""
    return args.precision or precision, compiles if args.compile is None else args.compile == "on"


def wait_passively() -> None:
    """Has idle OpenMP threads sleep, unless the user has chosen: threads that spin take the cores of other programs,
    and beside two of these a run took five times as long. GNU's first look about 10,000 times whether there is work,
    less than a millisecond: asleep at once, augmentation is half as fast. OpenMP reads it once, when torch is loaded;
    children inherit it."""
    if not any(name in os.environ for name in WAITING):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def run_command(main: Callable[[list[str] | None], int], arguments: list[str] | None = None) -> NoReturn:
    """Runs a command's main and exits."""
    wait_passively()
    try:
        code = _code(main, arguments)
        print(end="", flush=True)  # a full disk shows here, not when the interpreter has begun to end
    except UsageError as error:
        code = _failed(as_typed(str(error)), 2)
    except StoppedError as stopped:
        text = f"{stopped}; the same command goes on: {_typed(main, arguments)}"
        code = stopped.exit_code if is_other() else _failed(text, stopped.exit_code)
    except KeyboardInterrupt:
        code = _failed("interrupted", 130)
    except BrokenPipeError:  # `| head` has seen enough
        _silence_stdout()
        code = 1
    except OSError as error:
        if error.errno not in FULL:
            raise
        _silence_stdout()
        code = _failed(f"cannot write {error.filename or 'the output'}: {error.strerror}", 2)
    sys.exit(code)


def _code(main: Callable[[list[str] | None], int], arguments: list[str] | None) -> Any:
    try:
        return main(arguments)
    except SystemExit as parsed:  # --help, or what the parser refused
        return parsed.code


def _failed(text: str, code: int) -> int:
    let_the_first_speak()
    with contextlib.suppress(OSError):  # standard error may be on the same full disk
        print(text, file=sys.stderr, flush=True)
    return code


def is_other() -> bool:
    """Whether this process is not the first of those that torchrun started."""
    return is_launched() and os.environ.get("RANK") != "0"


def let_the_first_speak() -> None:
    """What is wrong for all processes is told once."""
    if is_other():
        time.sleep(OTHERS_WAIT_S)


def silence_others() -> None:
    if is_other():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # to the end of the process


def _typed(main: Callable[..., int], arguments: list[str] | None) -> str:
    """What a user types to run it; a module run by -m is called __main__ and has its name in its spec."""
    spec = getattr(sys.modules.get(main.__module__), "__spec__", None)
    words = sys.argv[1:] if arguments is None else arguments
    launcher = (
        ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1")] if is_launched() else ["python"]
    )
    return as_typed(shlex.join([*launcher, "-m", spec.name if spec else main.__module__, *words]))


def _silence_stdout() -> None:
    """The interpreter would write once more what is left, fail, and exit with a message and a code of its own."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
