"""The command lines, asked for what cannot be done: exit code 2, at most three lines that say why, nothing written."""

import importlib
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from PIL import Image

from harness import commands
from harness.commands import run_command

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"
RUN_ID, OTHER_ID = "c10-vit-d48l4p4-e10-s0-298330dc95", "c10-vit-d48l4p4-e10-s1-94f25cb488"
MOST_LINES, MOST_SIGNS = 3, 2000


class Case(NamedTuple):
    kind: str
    words: tuple[str, ...]  # the command's name first


# --- requests that would be carried out, each to be spoilt in one place ----------------------------------------------

RUN = ("run", "--variant", "compact", "--dataset", "digits", "--recipe", "quick", "--device", "cpu")
SWEEP = ("sweep", "quick", "--device", "cpu")
COST = ("cost", "--variant", "compact", "--dataset", "digits")
TRAIN = ("bench", "train", "--dataset", "digits", "--device", "cpu")
INFER = ("bench", "infer", "--dataset", "digits", "--device", "cpu")
PIPELINE = ("bench", "pipeline", "--dataset", "digits", "--device", "cpu")
BODY = ("bench", "body", "--dataset", "digits", "--device", "cpu")
REPORT = ("report", "--results", str(REFERENCE))
IN_REFERENCE = ("--results", str(REFERENCE))
SIMULATE = ("simulate",)
VERIFY = ("verify",)
WHOLE = (RUN, SWEEP, COST, TRAIN, INFER, PIPELINE, BODY, ("bench", "start"), ("bench", "report"), REPORT)
WHOLE += (("compare", RUN_ID, OTHER_ID, *IN_REFERENCE), SIMULATE, ("verify", "--records"))

NO_NUMBER = (
    "",
    " ",
    "many",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "0x10",
    "10%",
    "1,5",
    "--",
    "🚀",
    "½",
    "None",
    "[1]",
    "1 2",
)
NO_WHOLE = (
    "",
    " ",
    "many",
    "nan",
    "inf",
    "1.5",
    "1e3",
    "0x10",
    "10s",
    "1,2",
    "--",
    "🚀",
    "²",
    "None",
    "../1",
    "9" * 5000,
)
NO_COUNT = (*NO_WHOLE, "0", "-1", "-0", "+-1")
NO_NAME = ("", " ", "nosuch", "COMPACT", "🚀", "../../etc/passwd", "/", "-", "a b", "compact,vanilla", "x" * 5000)
NO_PATH = ("", "x" * 5000, "x" * 300, "/".join("x" * 3000), "a\0b", "new\nline", "\udcff", "esc\x1b[31m")
NO_CHOICE = ("", "fp8", "FP32", "true", "1", "🚀")
NO_SETTING = (
    *("", "=", ".", ".=", "lr", "lr=1", "recipe", "recipe.lr", "recipe=1", "recipe.=1", ".lr=1", "model.lr=1"),
    *("recipe.lrate=1", "recipe.LR=1", "recipe.lr.x=1", "Recipe.lr=1", "variant.widht=48", "variant.pool.x=mean"),
    *("recipe.__class__=1", "variant.module=1", "variant.__init__=1", "recipe. lr=1", "recipe.lr =1"),
)
NO_VALUE = {
    "recipe.lr": ("", "0", "-1", "nan", "inf", "1e999", "fast", "1e-3,1e-4", "True", "None", "1e-3=", "=1e-3"),
    "recipe.lr_min": ("-1", "1", "nan", "None"),
    "recipe.epochs": ("0", "-1", "1.0", "1e2", "nan", "9" * 400, "9" * 5000, "ten", ""),
    "recipe.batch_size": ("0", "-32", "2.5", "9" * 400, "None"),
    "recipe.warmup_epochs": ("-1", "11", "nan", "9" * 400),
    "recipe.cycles": ("0", "11", "x"),
    "recipe.beta1": ("1", "-0.1", "nan"),
    "recipe.weight_decay": ("-0.1", "inf"),
    "recipe.optimizer": ("", "sgd", "AdamW", "adam "),
    "recipe.schedule": ("cos", "COSINE"),
    "recipe.augment": ("flop", "flip,flop", "flip;crop", "Flip", " flip"),
    "recipe.crop_scale": ("1", "1,2,3", "0,1", "0.9,0.1", "a,b", "0.5,2", "none", "nan,1"),
    "recipe.mix": ("Mixup", "both"),
    "recipe.mix_per_image": ("maybe", "2", "", "on"),
    "recipe.label_smoothing": ("1", "-1", "nan"),
    "recipe.drop_path": ("1", "-0.1", "nan", "nothing"),
    "recipe.train_share": ("0", "1.1", "nan"),
    "recipe.randaugment_magnitude": ("31", "-1"),
    "variant.width": ("0", "-8", "7", "nan", "1e2", "9" * 5000, "None"),
    "variant.depth": ("0", "x"),
    "variant.heads": ("0", "7"),
    "variant.patch": ("0", "3", "5"),
    "variant.pool": ("max", "", "CLS"),
    "variant.qkv_bias": ("perhaps", "nan"),
    "variant.norm_eps": ("0", "-1"),
    "variant.dropout": ("1", "-0.5", "nan"),
    "variant.image_size": ("32", "0", "8.0"),
    "variant.num_classes": ("100", "-1"),
    "variant.resize": ("-1", "9"),
}
NO_DATASET = (
    "",
    "c11",
    "C10",
    "digit",
    "cifar10",
    "folder",
    "folder:",
    "folder:.",
    "folder:..",
    "folder:/",
    "folder:@64",
)
NO_DATASET += ("folder:x/..", "folder:nosuch", "folder:../../nosuch", "folder:file.txt", "folder:empty", "folder: ")
NO_DATASET += (
    "folder:images",
    "folder:torn",
    "folder:uneven",
    "folder:" + "x" * 5000,
    "folder:🚀",
    "folder:CON",
    "FOLDER:x",
)
NO_DATASET += ("folder:" + "x" * 300, "folder:nosuch@0", "folder:nosuch@64", "folder:@", "folder:...", "c10/", "c10 ")
NO_VARIANT = (*NO_NAME, "compct", "vanila", "vit_tiny", "timm:", "timm:nosuch", "timm:🚀", "timm:../x", ".py:", "x.py")
NO_FILE = (
    *("nosuch.py:MINE", "file.txt:MINE", "empty:MINE", "folder.py:MINE", "syntax.py:MINE", "raises.py:MINE"),
    *("exits.py:MINE", "lines.py:MINE", "refuses.py:MINE", "bytes.py:MINE", "tabs.py:MINE", "absent.py:MINE"),
    *("good.py:MIEN", "good.py:", "good.py:mine", "good.py:MINE:MINE", "good.py:os", "number.py:MINE", "type.py:MINE"),
    *("narrow.py:MINE", "fixed.py:MINE", "picky.py:MINE", "/nosuch/good.py:MINE", "../good.py:MINE"),
    *(f"{'x' * 5000}.py:MINE", f"{'x' * 300}.py:MINE"),
)  # fmt: skip

FILES = {
    "file.txt": "text\n",
    "good.py": "import os\nfrom variants.compact import COMPACT as MINE\n",
    "syntax.py": "def MINE(:\n",
    "raises.py": "raise RuntimeError('first line\\nsecond\\nthird\\nfourth')\n",
    "exits.py": "import sys\nsys.exit(0)\n",
    "lines.py": "import nosuchmodule\n",
    "refuses.py": "from variants.config import ViTConfig\nMINE = ViTConfig(patch=5)\n",
    "bytes.py": b"\xff\xfe\x00MINE = 1\n",
    "tabs.py": "if True:\n\tx = 1\n        MINE = 2\n",
    "absent.py": "YOURS = 1\n",
    "number.py": "MINE = 3\n",
    "type.py": "from variants.config import ViTConfig as MINE\n",
    "narrow.py": "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n    width: int = 3\n"
    "MINE = A()\n",
    "fixed.py": "from dataclasses import dataclass, field\n@dataclass(frozen=True)\nclass A:\n"
    "    image_size: int = field(default=32, init=False)\n    num_classes: int = 10\n"
    "    def module(self): ...\nMINE = A()\n",
    "picky.py": "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n"
    "    image_size: int = 32\n    num_classes: int = 10\n    def module(self): ...\n"
    "    def __post_init__(self):\n        assert self.image_size == 32, 'only\\nat\\n32\\npixels'\nMINE = A()\n",
    "readme.md": "no markers\n",
    "twice.md": "<!-- results:begin -->\n<!-- results:begin -->\n<!-- results:end -->\n",
    "turned.md": "<!-- results:end -->\n<!-- results:begin -->\n",
    "latin.md": b"\xe9\xe8\n",
    "torn/train/a/1.png": b"no picture",
    "torn/test/a/1.png": b"no picture",
    "unfinished/config.json": "{}",
    "garbled/config.json": "{",
    "listed/config.json": "[]",
    "listed/result.json": "[]",
    "hollow/config.json": "{}",
    "hollow/env.json": "{}",
    "hollow/cost.json": "{}",
    "hollow/result.json": "{}",
}  # fmt: skip


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with everything in it that an argument may wrongly point at."""
    folder = tmp_path_factory.mktemp("scratch")
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("empty", "folder.py", "images/train/a", "images/test/b"):
        (folder / name).mkdir(parents=True)
    for name in ("images/train/a", "images/test/b", "uneven/train/a", "uneven/train/b", "uneven/test/a"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name / "1.png")
    return folder


# --- the bad requests ------------------------------------------------------------------------------------------------


def spoilt(kind: str, whole: Sequence[str], option: str, values: Sequence[str]) -> Iterator[Case]:
    """The option added to a whole request, with each of the values."""
    for value in values:
        yield Case(kind, (*whole, f"{option}={value}"))


def unknown_options() -> Iterator[Case]:
    for whole, option in product(WHOLE, ("--nosuch", "-x", "--nosuch=1", "---", "--🚀")):
        yield Case("unknown option", (*whole, option))
    near = {
        RUN: (
            "--varient=compact",
            "--epoch=1",
            "--batch_size=8",
            "--dry_run",
            "--Quiet",
            "--seeds=1",
            "--lr=1",
            "--e=1",
        ),
        SWEEP: ("--variant=compact", "--recipe=s1", "--job=2", "--stat", "--dryrun", "--name=x", "--fresh"),
        COST: ("--variants=compact", "--data_dir=x", "--tables", "--device=cpu"),
        REPORT: ("--result=x", "--output=x", "--studies=main", "--pdf"),
        SIMULATE: ("--study=1", "--seed=1", "--draws=1"),
        TRAIN: ("--images=1", "--batch-sizes=1", "--epochs=1"),
        INFER: ("--steps=1", "--recipe=s1", "--batch-size=1"),
    }
    for whole, options in near.items():
        for option in options:
            yield Case("near miss of an option", (*whole, option))
    for whole in (RUN, SWEEP, COST, SIMULATE, REPORT, TRAIN):
        yield Case("word that belongs to nothing", (*whole, "--json" if whole == RUN else "--", "extra", "words"))


def missing_words() -> Iterator[Case]:
    lacking = (
        *(("run",), ("run", "--variant", "compact"), ("run", "--dataset", "digits"), ("sweep",), ("bench",)),
        *(("compare",), ("compare", RUN_ID), ("verify",), ("sweep", "--quick"), ("bench", "--rounds", "1")),
    )
    yield from (Case("something required is missing", words) for words in lacking)
    with_value = {
        RUN: "variant dataset recipe seed epochs batch-size device precision compile holdout set name data-dir out "
        "save-every",
        SWEEP: "seeds seed dataset variants recipes epochs cell jobs device precision compile data-dir out",
        COST: "variant dataset data-dir set out",
        TRAIN: "variant recipe batch-size steps workers device dataset precision compile set rounds out",
        REPORT: "results out study bench cost readme",
        SIMULATE: "studies seeds draw",
        VERIFY: "first device data-dir",
    }
    for whole, options in with_value.items():
        for option in options.split():
            yield Case("option without its value", (*whole, f"--{option}"))


def wrong_numbers() -> Iterator[Case]:
    counts = {
        RUN: ("--epochs", "--batch-size"),
        SWEEP: ("--epochs", "--seeds", "--jobs"),
        SIMULATE: ("--studies", "--seeds"),
        TRAIN: ("--steps", "--workers", "--batch-size", "--rounds"),
        INFER: ("--batch-sizes",),
        PIPELINE: ("--images",),
        ("bench", "report"): ("--records", "--epochs"),
        ("verify", str(REFERENCE / RUN_ID)): ("--first",),
    }
    for whole, options in counts.items():
        for option in options:
            yield from spoilt("no count", whole, option, NO_COUNT)
    for whole, option in ((RUN, "--seed"), (SWEEP, "--seed"), (SWEEP, "--cell"), (SIMULATE, "--draw")):
        yield from spoilt("no whole number", whole, option, (*NO_WHOLE, "-1"))
    yield from spoilt("no number", RUN, "--holdout", (*NO_NUMBER, "1", "-0.1", "1.5"))
    yield from spoilt("no number", RUN, "--save-every", (*NO_NUMBER, "-1"))
    yield from spoilt("out of range", RUN, "--seed", ("4294967296", "99999999999999999999"))
    yield from spoilt("out of range", SWEEP, "--seed", ("4294967296",))
    yield from spoilt("out of range", SWEEP, "--seeds", ("10001", "99999999999999"))
    yield from spoilt("out of range", SWEEP, "--jobs", ("1025", "99999999999999"))
    yield from spoilt("out of range", SWEEP, "--cell", ("999999", "99999999999999999999"))
    yield from spoilt("out of range", SIMULATE, "--seeds", ("1",))
    yield from spoilt("out of range", RUN, "--epochs", ("9" * 400,))
    yield from spoilt("out of range", SWEEP, "--epochs", ("9" * 400,))


def wrong_names() -> Iterator[Case]:
    for whole in (RUN, COST, TRAIN, INFER):
        yield from spoilt("unknown variant", whole, "--variant", NO_VARIANT)
        yield from spoilt("variant file that is none", whole, "--variant", NO_FILE)
    yield from spoilt("unknown variant", SWEEP, "--variants", NO_VARIANT)
    yield from spoilt("variant file that is none", SWEEP, "--variants", NO_FILE)
    for whole in (RUN, COST, SWEEP):
        yield from spoilt("unknown data set", whole, "--dataset", NO_DATASET)
    for whole in (TRAIN, PIPELINE, BODY):
        yield from spoilt("unknown data set", whole, "--dataset", ("", "c11", "folder:empty", "DIGITS", "🚀"))
    for whole, option in ((RUN, "--recipe"), (SWEEP, "--recipes"), (TRAIN, "--recipe"), (PIPELINE, "--recipe")):
        yield from spoilt("unknown recipe", whole, option, (*NO_NAME, "comon", "S1", "publish"))
    for name in (*NO_NAME, "mian", "Main", "main,pooling"):
        yield Case("unknown study", ("sweep", name))
        yield Case("unknown study", (*REPORT, f"--study={name}"))
    for whole in (RUN, SWEEP, TRAIN, PIPELINE, BODY, INFER):
        yield from spoilt(
            "unknown device", whole, "--device", ("", "gpu", "CPU", "cpu0", "cuda:x", "tpu", "meta", "🚀")
        )
    for whole, option in product((RUN, SWEEP, TRAIN), ("--precision", "--compile")):
        yield from spoilt("none of the choices", whole, option, NO_CHOICE)
    for name in ("", "tain", "Train", "training", "🚀", "../train", "x" * 5000):
        yield Case("none of the choices", ("bench", name))
    for name in (*NO_NAME, RUN_ID[:-1], RUN_ID.upper(), f"../reference/{RUN_ID}", f"{RUN_ID}/", str(REFERENCE)):
        yield Case("no run and no cell", ("compare", name, RUN_ID, *IN_REFERENCE))
        yield Case("no run and no cell", ("compare", RUN_ID, name, *IN_REFERENCE))


def wrong_settings() -> Iterator[Case]:
    for whole in (RUN, TRAIN, COST):
        for text in NO_SETTING:
            yield Case("no setting", (*whole, "--set", text))
    for field, texts in NO_VALUE.items():
        for text in texts:
            yield Case("no value of its field", (*RUN, "--set", f"{field}={text}"))
            if field.startswith("variant") and field not in ("variant.image_size", "variant.num_classes"):
                yield Case("no value of its field", (*COST, "--set", f"{field}={text}"))


def wrong_paths() -> Iterator[Case]:
    for whole in (RUN, SWEEP, TRAIN, REPORT):
        yield from spoilt("no place to write into", whole, "--out", (*NO_PATH, "file.txt", "file.txt/below"))
    for whole in (RUN, SWEEP, COST, VERIFY):
        yield from spoilt("no path", whole, "--data-dir", NO_PATH)
    yield from spoilt("no path", REPORT, "--bench", (*NO_PATH, "file.txt"))
    no_readme = (*NO_PATH, "nosuch.md", "empty", "readme.md", "twice.md", "turned.md", "latin.md", "file.txt/x.md")
    yield from spoilt("no README with markers", REPORT, "--readme", no_readme)
    for path in (*NO_PATH, "nosuch", "file.txt", "file.txt/below", "/nosuch/../nosuch", "🚀"):
        yield Case("no such folder", ("report", "--results", path))
        yield Case("no such folder", ("compare", RUN_ID, RUN_ID, "--results", path))
        yield Case("no such folder", ("verify", "--records", path))
    for path in (*NO_PATH, "nosuch", "file.txt", "empty", "unfinished", "garbled", "listed", "hollow", str(REFERENCE)):
        yield Case("no run to repeat", ("verify", path))
    for path in ("unfinished", "garbled", "listed", "hollow"):
        yield Case("no run and no cell", ("compare", path, RUN_ID, *IN_REFERENCE))


def contradictions() -> Iterator[Case]:
    both = (
        *((*SWEEP, "--seeds", "1", "--seed", "0"), (*SWEEP, "--status", "--cell", "0")),
        *((*SWEEP, "--cell", "0", "--jobs=2"), (*SWEEP, "--status", "--jobs", "2")),
        ("sweep", "budget", "--epochs", "3"),
        *((*COST, "--json", "--table"), (*COST, "--json", "--summary"), (*COST, "--set", "recipe.lr=1")),
        *((*RUN, "--set", "recipe.lr=1", "recipe.lr=1"), (*RUN, "--set", "recipe.lr=1", "--set", "recipe.lr=2")),
        (*RUN, "--variant", "timm", "--recipe", "published"),
        (*RUN, "--variant", "timm", "--set", "variant.pool=cls"),
        *((*SWEEP, "--variants", "timm", "--recipes", "published"), (*SWEEP, "--variants", "timm", "nosuch")),
        *(("compare", RUN_ID, name, *IN_REFERENCE) for name in (RUN_ID, str(REFERENCE / RUN_ID))),
        *(("verify", "--records", "--first", "2"), ("verify", RUN_ID, OTHER_ID)),
        ("sweep", "pooling", "--variants", "compact", "vanilla"),
        (*RUN, "--variant", "timm", "--set", "recipe.dropout=0.1", "variant.patch=3"),
    )  # fmt: skip
    yield from (Case("words that contradict each other", words) for words in both)


CASES = [
    case
    for cases in (
        *(unknown_options, missing_words, wrong_numbers, wrong_names),
        *(wrong_settings, wrong_paths, contradictions),
    )
    for case in cases()
]
COMMANDS = sorted({case.words[0] for case in CASES})


# --- asking ----------------------------------------------------------------------------------------------------------

# What begins where everything was found to be in order; a request that gets there was not refused.
BEGINNINGS = (
    *("harness.experiment.load", "harness.data.load.load", "harness.timing.turns.made_up"),
    *("harness.timing.models.compare_inference", "harness.timing.models.compare_bodies"),
    *("harness.timing.commands.compare_start", "harness.timing.commands.compare_reports"),
    *(
        "harness.sweep.announce",
        "harness.cost.show",
        "harness.simulate.simulate",
        "harness.report.read_evidence",
        "harness.verify.verify",
    ),
)
Listing = dict[Path, tuple[int, int]]


def went_on(*args: Any, **named: Any) -> NoReturn:
    raise AssertionError("it was carried out")


@pytest.fixture
def asking(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the scratch directory, where nothing that was not refused is carried out."""
    monkeypatch.chdir(scratch)
    for name in BEGINNINGS:
        monkeypatch.setattr(name, went_on)
    return scratch


def listing(folder: Path) -> Listing:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def faults(code: object, out: str, err: str, before: Listing, after: Listing) -> list[str]:
    """In what an answer is not a refusal as it should be."""
    found = {
        f"exit code {code}": code != 2,
        f"{len(err.splitlines())} lines on stderr": not 1 <= len(err.splitlines()) <= MOST_LINES,
        f"{len(err)} characters on stderr": len(err) > MOST_SIGNS,
        "a traceback": "Traceback" in err,
        f"on stdout: {out[:60]!r}": bool(out),
        "something was written": before != after,
    }
    return [fault for fault, is_there in found.items() if is_there]


def faulty(cases: Iterable[Case], folder: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[Case, list[str]]]:
    """The cases that are not refused as they should be. Each is asked in this process: a new one takes a second."""
    found, before = [], listing(folder)
    capsys.readouterr()
    for case in cases:
        main = importlib.import_module(f"harness.{case.words[0]}").main
        code: object = None
        try:
            run_command(main, list(case.words[1:]))
        except SystemExit as left:
            code = left.code
        except BaseException as error:
            code = repr(error)
        told, after = capsys.readouterr(), listing(folder)
        if wrong := faults(code, told.out, told.err, before, after):
            found.append((case, wrong))
        before = after
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_arguments_are_refused(name, asking, capsys, tried):
    cases = [case for case in CASES if case.words[0] == name]
    found = faulty(cases, asking, capsys)
    assert not found, f"{len(found)} of {len(cases)}, such as {found[:10]}"
    tried("bad argument lists", Counter(case.kind for case in cases))


def test_there_are_enough_and_no_two_alike():
    assert len(CASES) == len({case.words for case in CASES}) >= 1000
    assert COMMANDS == ["bench", "compare", "cost", "report", "run", "simulate", "sweep", "verify"]


def test_what_is_spoilt_is_whole_before(asking, monkeypatch):
    """Each request without its fault would be carried out, so that a refusal is about the fault."""
    monkeypatch.setattr("harness.compare.contrast", went_on)
    monkeypatch.setattr("harness.verify.check_all", went_on)
    for words in WHOLE:
        with pytest.raises(AssertionError, match="it was carried out"):
            importlib.import_module(f"harness.{words[0]}").main(list(words[1:]))


# --- as a person types them ------------------------------------------------------------------------------------------

TYPED = [next(case for case in CASES if case.words[0] == name and case.kind != "unknown option") for name in COMMANDS]
TYPED += [Case("no path", (*RUN, "--out=\udcff")), Case("unknown variant", (*SWEEP, "--variants", "漢字", "ümlaut"))]


@pytest.mark.parametrize("case", TYPED, ids=lambda case: f"{case.words[0]}: {case.kind}")
def test_bad_arguments_are_refused_in_a_process_of_their_own(case, scratch, tried):
    before, env = listing(scratch), os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"harness.{case.words[0]}", *map(os.fsencode, case.words[1:])]
    done = subprocess.run(command, cwd=scratch, env=env, capture_output=True, text=True)
    assert faults(done.returncode, done.stdout, done.stderr, before, listing(scratch)) == []
    tried("bad argument lists", {"typed at a shell": 1})


@pytest.mark.parametrize(
    "words",
    [["--qick"], ["quick"], [""], ["-q"], ["--quick", "--cpu"], ["--plan", "extra"], ["--full", ""], ["--cpu=1"],
     ["new\nline"], ["x" * 5000], ["--help", "me"], ["../--quick"]],
    ids=lambda words: repr(" ".join(words)[:20]),
)  # fmt: skip
def test_run_all_refuses_words_that_it_does_not_know(words, scratch, tried):
    before = listing(scratch)
    done = subprocess.run(["bash", str(ROOT / "run_all.sh"), *words], cwd=scratch, capture_output=True, text=True)
    assert faults(done.returncode, done.stdout, done.stderr, before, listing(scratch)) == []
    assert "--help" in done.stderr
    tried("bad argument lists", {"run_all.sh": 1})


# --- the test bites --------------------------------------------------------------------------------------------------


class NeverRaisedError(Exception):
    """In the place of the errors that are caught."""


def too_early(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """The folder for the record made before the arguments are looked at."""
    numbers = count()

    def resolve_late(*args: Any, **named: Any) -> Any:
        Path("empty", f"made-{next(numbers)}").mkdir()
        return resolve(*args, **named)

    return resolve_late


DEFECTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "an error with the whole usage": lambda patch: patch.setattr(commands.Parser, "error", ArgumentParser.error),
    "a UsageError that nobody catches": lambda patch: patch.setattr(commands, "UsageError", NeverRaisedError),
    "a folder made before the arguments are checked": lambda patch: patch.setattr(
        "harness.run.resolve", too_early(importlib.import_module("harness.run").resolve)
    ),
    "exit code 1": lambda patch: patch.setattr(
        commands.Parser, "error", lambda self, message: self.exit(1, f"{message}\n")
    ),
    "control characters let through": lambda patch: patch.setattr(commands, "_complaint", lambda word: None),
    "any text taken for a path": lambda patch: patch.setattr(commands, "place", Path),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect, asking, monkeypatch, capsys, tried):
    cases = CASES[:: 5 if "path" not in defect else 1]
    if "path" in defect:
        cases = [case for case in CASES if case.kind in ("no place to write into", "no path")]
    DEFECTS[defect](monkeypatch)
    found = faulty(cases, asking, capsys)
    for path in asking.glob("empty/made-*"):
        path.rmdir()
    assert len(found) >= 10, "the test does not see it"
    tried("bad argument lists", {}, {defect: len(found)})
