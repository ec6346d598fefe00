"""The command lines, asked for what cannot be done: exit code 2, at most three lines that say why, nothing written."""

import importlib
import shlex
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.commands import run_command

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"
RUN_ID, OTHER_ID = "c10-vit-d48l4p4-e10-s0-298330dc95", "c10-vit-d48l4p4-e10-s1-94f25cb488"

# Requests that would be carried out, each to be spoilt in one place.
RUN = "run --variant compact --dataset digits --recipe quick --device cpu"
SWEEP = "sweep quick --device cpu --jobs 1"
COST = "cost --variant compact --dataset digits"
TRAIN = "bench train --dataset digits --device cpu"
REPORT = f"report --results {REFERENCE}"
COMPARE = f"compare {RUN_ID} {OTHER_ID} --results {REFERENCE}"
WHOLE = (
    *(RUN, SWEEP, COST, TRAIN, "bench infer --device cpu", "bench pipeline --device cpu", "bench body --device cpu"),
    *("bench start", "bench report", REPORT, COMPARE, "simulate", "verify --records", "look compact"),
    *("predict x y", "export x --onnx"),
)

# (the request, a word of the answer)
CASES = [
    *((f"{whole} --nosuch", "--nosuch") for whole in WHOLE),
    (f"{SWEEP} --stat", "--stat"),
    ("bench tain", "train"),
    ("sweep mian", "main"),
    (f"{REPORT} --study mian", "main"),
    (f"{RUN} --variant compct", "compact"),
    (f"{SWEEP} --variants compact vanila --recipes published", "vanilla"),
    (f"{COST} --variant vit_tiny", "timm:MODEL"),
    (f"{RUN} --variant timm:resnet81", "resnet18"),
    ("bench gpu --device cpu --variant compct", "compact"),
    (f"{RUN} --dataset c11", "c10"),
    (f"{SWEEP} --dataset cifar10", "c10"),
    (f"{COST} --dataset c1000", "c100"),
    (f"{TRAIN} --dataset ''", "c10"),
    (f"{RUN} --recipe vit-cifr", "vit-cifar"),
    (f"{SWEEP} --recipes comon", "common"),
    (f"{RUN} --device gpu", "unknown device"),
    (f"{RUN} --precision fp8", "fp16"),
    (f"compare {RUN_ID[:-1]} {OTHER_ID} --results {REFERENCE}", RUN_ID),
    # what is missing
    ("run --variant compact", "--dataset"),
    ("sweep", "study"),
    ("bench", "BENCHMARK"),
    (f"compare {RUN_ID}", "required: B"),
    ("verify", "which run?"),
    ("predict nosuch nosuch.png", "no weights"),
    (f"predict {REFERENCE / RUN_ID} nosuch.png", "--no-weights"),
    ("export nosuch --timm", "no weights"),
    ("export nosuch --timm .", "a file's name is needed"),
    (f"export nosuch --onnx {__file__}/model.onnx", "is no folder"),
    ("compare mine.csv --latex .", "a file's name is needed"),
    (f"export {RUN_ID}", "--onnx or --timm"),
    (f"{RUN} --weights nosuch", "no weights"),
    (f"{RUN} --weights {REFERENCE / RUN_ID}", "--no-weights"),
    ("look", "RUN_OR_VARIANT"),
    # numbers
    (f"{RUN} --epochs many", "invalid int"),
    (f"{RUN} --epochs 0", "at least 1"),
    (f"{RUN} --batch-size=-32", "at least 1"),
    (f"{RUN} --seed 4294967296", "below"),
    (f"{RUN} --holdout 1", "below 1"),
    (f"{RUN} --holdout 0.9999 --dry-run", "leaves 0"),
    (f"{RUN} --save-every nan", "seconds"),
    (f"{RUN} --track wandbb", "one of tensorboard, wandb"),
    (f"{SWEEP} --seeds 0", "1 or more"),
    (f"{SWEEP} --seeds 10001", "10,000"),
    ("sweep quick --cell 999999", "the runs 0 to"),
    ("sweep quick --cell -1", "the runs 0 to"),
    ("sweep quick --seeds-at-once 2 --cell 4", "the groups of seeds 0 to 3"),
    ("sweep quick --cell", "is SLURM_ARRAY_TASK_ID set?"),
    ("sweep quick --cell ''", "is SLURM_ARRAY_TASK_ID set?"),
    ("sweep quick --cell one", "a number is needed"),
    ("simulate --seeds 1", "2"),
    (f"{TRAIN} --steps 0", "1 or more"),
    (f"verify {REFERENCE / RUN_ID} --first 0", "1 or more"),
    # files and folders
    (f"{RUN} --out ''", "a path is needed"),
    (f"{RUN} --out file.txt", "is no folder"),
    (f"{SWEEP} --data-dir file.txt/below", "is no folder"),
    ("report --results nosuch", "nosuch"),
    (f"{REPORT} --readme nosuch.md", "nosuch.md"),
    (f"{REPORT} --readme readme.md", "readme.md"),
    (f"compare {RUN_ID} {OTHER_ID} --results nosuch", "nosuch"),
    ("verify nosuch", "nosuch"),
    ("verify garbled", "garbled"),
    (f"look {REFERENCE / RUN_ID}", "no weights"),
    ("look garbled", "garbled"),
    (f"{RUN} --dataset folder:nosuch", "class folders"),
    (f"{RUN} --dataset folder:torn", "torn"),
    (f"{RUN} --variant nosuch.py:MINE", "does not exist"),
    (f"{RUN} --variant syntax.py:MINE", "SyntaxError"),
    (f"{COST} --variant raises.py:MINE", "RuntimeError: first line"),
    (f"{RUN} --variant good.py:MIEN", "MINE"),
    (f"{SWEEP} --variants number.py:MINE", "no config"),
    (f"{RUN} --variant picky.py:MINE", "cannot be for"),
    # contradictions
    (f"{SWEEP} --seeds 1 --seed 0", "not allowed"),
    (f"{SWEEP} --status", "not allowed"),
    ("sweep quick --quick", "no small form"),
    ("sweep budget --epochs 3", "epochs"),
    ("sweep main --variants timm --recipes published", "nothing to do"),
    ("sweep pooling --variants compact vanilla", "no row"),
    (f"{COST} --json --table", "not allowed"),
    ("cost --write --variant compact", "whole catalogue"),
    ("cost --write --dataset c10", "whole catalogue"),
    (f"{COST} --out x", "add --write"),
    (f"{COST} --json --summary", "leave out --summary"),
    ("sweep main --seeds 0", "seeds by name are --seed 0 1"),
    ("sweep main --seeds-at-once 2 --jobs 2", "leave out --jobs"),
    ("sweep main --seeds-at-once 2 --precision fp16", "one loss scale"),
    (f"{COST} --set recipe.lr=1", "variant"),
    (f"{RUN} --json", "--dry-run"),
    ("sweep main --json", "add --status or --dry-run"),
    ("sweep main --estimate --accumulate 2", "leave them out"),
    ("sweep main --estimate --cell 1", "not allowed"),
    ("sweep --quick", "required: study"),
    ("compare nosuch.csv", "cannot be read"),
    ("compare file.csv --by epochs", "file.csv, line 2: no epochs"),
    (f"{COMPARE} --latex x.tex", "for files of results"),
    ("reproduce quick", "the word report is missing"),
    (f"{RUN} --variant timm --recipe published", "no recipe was published"),
    (f"{RUN} --variant timm --set variant.pool=cls", "no field"),
    (f"compare {RUN_ID} {RUN_ID} --results {REFERENCE}", "with itself"),
    (f"verify --records {REFERENCE} --first 2", "--first"),
]
# One value of each kind of field, and each way of writing no setting at all.
SETTINGS = {
    "lr=1": "recipe.NAME=VALUE",
    "recipe.lr": "recipe.NAME=VALUE",
    "recipe.lrate=1": "lr",
    "recipe.__class__=1": "no field",
    "recipe.lr=": "float is needed",
    "recipe.lr=nan": "finite",
    "recipe.lr=-1": "must be above 0",
    "recipe.lr_min=1": "must be at most lr",
    "recipe.epochs=1.0": "int is needed",
    f"recipe.epochs={'9' * 400}": "must be at most",
    "recipe.warmup_epochs=11": "a cycle's length",
    "recipe.beta1=1": "must be at least 0 and below 1",
    "recipe.optimizer=adamv": "adamw",
    "recipe.augment=flip,flop": "flip",
    "recipe.crop_scale=1": "2 values",
    "recipe.crop_scale=0.9,0.1": "smaller number must come first",
    "recipe.mix_per_image=maybe": "true or false",
    "recipe.lr=1 recipe.lr=1": "twice",
    "variant.width=7": "does not divide",
    "variant.pool=max": "mean",
    "variant.image_size=64": "the data set's",
}
CASES += [(f"{RUN} --set {words}", told) for words, told in SETTINGS.items()]

FILES = {
    "file.txt": "text\n",
    "readme.md": "no markers\n",
    "file.csv": "method,seed,accuracy\nA,0,0.5\n",
    "good.py": "from variants.compact import COMPACT as MINE\n",
    "syntax.py": "def MINE(:\n",
    "raises.py": "raise RuntimeError('first line\\nsecond\\nthird\\nfourth')\n",
    "number.py": "MINE = 3\n",
    "picky.py": "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n"
    "    image_size: int = 32\n    num_classes: int = 10\n    def module(self): ...\n"
    "    def __post_init__(self):\n        assert self.image_size == 32, 'only\\nat\\n32\\npixels'\nMINE = A()\n",
    "torn/train/a/1.png": "no picture",
    "torn/test/a/1.png": "no picture",
    "garbled/config.json": "{",
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with everything in it that an argument may wrongly point at."""
    folder = tmp_path_factory.mktemp("scratch")
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def check_refusal(code: object, out: str, err: str, told: str) -> None:
    assert code == 2 and told in err and "Traceback" not in err and out == ""
    assert 1 <= len(err.splitlines()) <= 3 and len(err) <= 2000


@pytest.mark.parametrize(("request_", "told"), CASES, ids=lambda text: text[:70])
def test_bad_arguments_are_refused(request_, told, scratch, monkeypatch, capsys):
    """In this process: a new one takes a second."""
    monkeypatch.chdir(scratch)
    name, *words = shlex.split(request_)
    before = listing(scratch)
    with pytest.raises(SystemExit) as left:
        run_command(importlib.import_module(f"harness.{name}").main, words)
    answer = capsys.readouterr()
    check_refusal(left.value.code, answer.out, answer.err, told)
    assert listing(scratch) == before, "something was written"


@pytest.mark.parametrize("words", [["--qick"], ["--plan", "extra"]], ids=" ".join)
def test_run_all_refuses_words_that_it_does_not_know(words, scratch):
    done = subprocess.run(["bash", str(ROOT / "run_all.sh"), *words], cwd=scratch, capture_output=True, text=True)
    check_refusal(done.returncode, done.stdout, done.stderr, "--help")


# What begins where everything was found to be in order.
BEGINNINGS = (
    *("harness.experiment.load", "harness.data.load.load", "harness.timing.training.made_up"),
    "harness.timing.models.build_model",
    *("harness.timing.commands.take_turns", "harness.timing.commands.write_records", "harness.sweep.announce"),
    *("harness.cost.show", "harness.simulate.simulate", "harness.report.read_evidence", "harness.verify.check_all"),
    *("harness.compare.contrast", "harness.looking.subject.of_variant", "variants.weights.card_of"),
)


def went_on(*args: Any, **named: Any) -> NoReturn:
    raise AssertionError("it was carried out")


@pytest.mark.parametrize("whole", WHOLE)
def test_what_is_spoilt_is_whole_before(whole, scratch, monkeypatch):
    """Each request without its fault would be carried out, so that a refusal is about the fault."""
    monkeypatch.chdir(scratch)
    for name in BEGINNINGS:
        monkeypatch.setattr(name, went_on)
    name, *words = shlex.split(whole)
    with pytest.raises(AssertionError, match="it was carried out"):
        importlib.import_module(f"harness.{name}").main(words)
