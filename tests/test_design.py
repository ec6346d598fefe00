"""The architecture, checked: imports point one way, rooms that must not know torch do not, files stay small."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The flow inside harness/: a file imports only what stands before it, or files of its own room.
FLOW = (
    "datasets", "recipes", "config", "study", "studies", "data", "counting", "records", "training", "commands",
    "statistics", "evidence", "cell", "experiment", "looking", "timing", "sweeping", "cost", "run", "sweep", "bench",
    "compare", "look", "simulate", "verify", "predict", "export", "report", "reproduce", "__main__",
)  # fmt: skip

# The same inside the largest room.
EVIDENCE = (
    "writing", "names", "quality", "cells", "effects", "findings", "again", "published", "captions", "tables",
    "csv_results", "figures", "paper", "page",
)  # fmt: skip


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_variants_know_nothing_of_the_harness():
    for path in sources("variants"):
        assert not [name for name in imports(path) if name.split(".")[0] in ("harness", "argparse", "tests")], path


@pytest.mark.parametrize("path", sources("harness"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    follows(path, "harness", FLOW)


@pytest.mark.parametrize("path", sources("harness/evidence"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_inside_evidence_point_one_way(path):
    follows(path, "harness/evidence", EVIDENCE)


def follows(path, folder, flow):
    room, prefix = path.relative_to(ROOT / folder).parts[0].removesuffix(".py"), folder.replace("/", ".") + "."
    if room == "__init__":
        return
    assert room in flow, f"{room} has no place in the flow of {folder}: add it here and to ARCHITECTURE.md"
    for name in imports(path):
        if name.startswith(prefix):
            other = name.removeprefix(prefix).split(".")[0]
            assert flow.index(other) <= flow.index(room), f"{path} imports {name}, which comes later"


@pytest.mark.parametrize(("folder", "flow"), [("harness", FLOW), ("harness/evidence", EVIDENCE)])
def test_every_room_of_the_flow_exists(folder, flow):
    there = {p.name.removesuffix(".py") for p in (ROOT / folder).iterdir() if p.suffix == ".py" or p.is_dir()}
    assert there - {"__init__", "__pycache__"} == set(flow)


@pytest.mark.parametrize("room", ["harness/records", "harness/statistics", "harness/evidence", "harness/sweeping"])
def test_rooms_without_torch(room):
    for path in sources(room):
        assert not [name for name in imports(path) if name.split(".")[0] in ("torch", "torchvision", "timm")], path


def test_importing_a_command_imports_no_torch():
    names = ("run", "sweep", "cost", "bench", "compare", "look", "simulate", "verify", "predict", "export", "report")
    names += ("studies", "__main__")
    modules = ", ".join(f"harness.{name}" for name in names)
    code = f"import sys, variants.catalog, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_inits_are_empty():
    assert not [p for folder in ("variants", "harness") for p in (ROOT / folder).rglob("__init__.py") if p.read_text()]


@pytest.mark.parametrize("path", [*sources("variants"), *sources("harness")], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_fit_in_the_head_and_say_what_they_do(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    if path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(text)), f"{path} opens without saying what it does"


MOST_PARAMETERS = 6
MANY_PARAMETERS: dict[str, str] = {}  # file:function, and why it has more
SMALL_FILE = 60  # lines
SMALL_FILES: dict[str, str] = {}  # file, and why it is no part of the only file that imports it


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_no_function_has_many_parameters():
    """What belongs together is one object."""
    found = {
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in (*sources("harness"), *sources("variants"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and parameters(node) > MOST_PARAMETERS
    }
    assert found == set(MANY_PARAMETERS), "let one object hold what belongs together"


def test_no_small_file_serves_one_other_alone():
    paths = [path for path in sources("harness") if path.name != "__init__.py"]
    imported = {path: imports(path) for path in paths}
    found = set()
    for path in paths:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        users = [other for other in paths if name in imported[other]]
        if len(users) == 1 and len(path.read_text().splitlines()) < SMALL_FILE:
            found.add(str(path.relative_to(ROOT)))
    kinds = ("harness/evidence/figures/", "harness/evidence/tables/")  # a figure may have a file of its own
    alone = {name for name in found if not name.startswith(kinds)}
    assert alone == set(SMALL_FILES), "merge it into the file that uses it, or give a reason in SMALL_FILES"


def test_no_name_that_says_nothing():
    names = {p.stem for folder in ("variants", "harness") for p in (ROOT / folder).rglob("*.py")}
    assert not names & {"utils", "util", "misc", "common", "helpers", "base"}


def test_the_loop_names_no_variant():
    from variants.catalog import CATALOG

    for path in sources("harness/training"):
        strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        assert not strings & set(CATALOG), path


def test_every_field_of_a_recipe_is_read_somewhere():
    """A knob that nothing reads is a lie in every record."""
    import dataclasses

    from harness.recipes import Recipe
    from variants.config import ViTConfig

    for record, own in ((Recipe, "recipes.py"), (ViTConfig, "config.py")):
        paths = [p for folder in ("harness", "variants") for p in sources(folder) if p.name != own]
        code = "\n".join(p.read_text() for p in paths)
        unread = [
            f.name for f in dataclasses.fields(record) if not re.search(rf"\.{f.name}\b|[\"']{f.name}[\"']", code)
        ]
        assert unread == [], f"nothing outside {own} reads these fields of {record.__name__}"


# --- the README is true ----------------------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text()
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.S) for line in block.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.startswith(("python -m harness.", "bash run_all.sh"))]


def test_readme_is_short():
    """Without the results, which grow by a line a study."""
    by_hand = re.sub(r"<!-- results:begin -->.*<!-- results:end -->", "", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(by_hand.splitlines()) <= 130


def test_readme_names_both_commands():
    assert {"bash run_all.sh --quick", "bash run_all.sh --test", "bash run_all.sh"} <= set(readme_commands())


@pytest.mark.parametrize("command", sorted({c for c in readme_commands() if c.startswith("python")}))
def test_readme_commands_parse(command):
    """Each command of the README is one that its parser takes, with names that exist."""
    import importlib
    import shlex

    from harness.data.load import dataset_facts
    from variants.catalog import config_of

    words = shlex.split(command)
    args = importlib.import_module(words[2]).parser().parse_args(words[3:])
    names = getattr(args, "variant", None) or []
    for name in [names] if isinstance(names, str) else names:
        if not name.startswith("my_"):
            config_of(name)
    if isinstance(getattr(args, "dataset", None), str) and not args.dataset.startswith("folder:"):
        dataset_facts(args.dataset)


def test_run_all_explains_itself():
    done = subprocess.run(["bash", str(ROOT / "run_all.sh"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "pipefail" not in done.stdout, "help shows the header and nothing of the script"
    assert done.stdout.rstrip().endswith("is not trained again)")
    assert all(word in done.stdout for word in ("--quick", "--test", "SEEDS", "VARIANTS", "DATASETS", "RECIPES"))
