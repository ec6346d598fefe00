"""paper/tour.ipynb runs from start to end; its committed outputs are those of its code, small, and hold nothing of the
machine that made them. `python -m tests.test_tour` writes them anew."""

import contextlib
import importlib
import json
import os
import platform
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOUR = ROOT / "paper" / "tour.ipynb"
MOST_BYTES = 250_000
PICTURES = 9
LACKING = "the extra [notebook] is not installed"
TRAINED = "trained"  # tag of a cell whose numbers follow from training, and so from the machine's arithmetic

Cell = dict[str, Any]


def code_cells(notebook: dict[str, Any]) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def committed() -> dict[str, Any]:
    return json.loads(TOUR.read_text(encoding="utf-8"))


def texts(cell: Cell) -> str:
    """What is printed; where numbers follow from training without them, their room and the verdict after them."""
    printed = "".join(line for output in cell["outputs"] for line in output.get("text", []))
    if TRAINED not in cell["metadata"].get("tags", []):
        return printed
    lines = [line.partition("): ")[0] for line in printed.splitlines()]
    return "\n".join(" ".join(re.sub(r"[-+<]?\d[\d.]*", "#", line).split()) for line in lines)


def pictures(cell: Cell) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def executed(folder: Path) -> dict[str, Any]:
    """A copy with new outputs, by a kernel of this Python that starts in paper/ and writes into `folder` alone."""
    names = ("nbformat", "nbclient", "jupyter_client.manager", "jupyter_client.kernelspec", "ipykernel")
    nbformat, nbclient, manager, kernelspec, _ = (pytest.importorskip(name, reason=LACKING) for name in names)
    notebook = nbformat.read(TOUR, as_version=4)
    this_python = kernelspec.KernelSpecManager(kernel_dirs=[])  # whatever kernels a person has registered
    kernel = manager.AsyncKernelManager(kernel_name="python3", kernel_spec_manager=this_python)
    places = {"metadata": {"path": str(TOUR.parent)}}
    options = {"timeout": 600, "record_timing": False, "coalesce_streams": True, "resources": places}
    env = os.environ | {"TMPDIR": str(folder), "IPYTHONDIR": str(folder / "ipython")}
    nbclient.NotebookClient(notebook, km=kernel, **options).execute(cleanup_kc=True, env=env)
    notebook.metadata.language_info = {"name": "python"}  # without the version
    return json.loads(nbformat.writes(notebook))


def test_it_runs_from_start_to_end_and_its_outputs_are_those_of_the_code(tmp_path):
    before = sorted(TOUR.parent.rglob("*"))
    found = code_cells(executed(tmp_path))  # an error in a cell is raised
    assert sorted(TOUR.parent.rglob("*")) == before, "it writes beside itself"
    assert not [*tmp_path.rglob("result.json")], "it leaves its runs behind"
    for old, new in zip(code_cells(committed()), found, strict=True):
        told = f"{''.join(old['source'])}\n\nto write its outputs anew: python -m tests.test_tour"
        assert (pictures(new), texts(new)) == (pictures(old), texts(old)), told


def test_what_is_committed():
    cells = code_cells(committed())
    first, rest = cells[0], cells[1:]
    assert not first["outputs"] and all(cell["outputs"] for cell in rest), "each cell but the imports shows something"
    assert [cell["execution_count"] for cell in cells] == list(range(1, 1 + len(cells))), "run in order, and once"
    assert sum(map(pictures, cells)) == PICTURES
    assert TOUR.stat().st_size < MOST_BYTES


def test_outputs_hold_nothing_of_a_machine():
    notebook = committed()
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    for cell in code_cells(notebook):
        assert cell["metadata"].keys() <= {"tags"}, "times of execution"
        for output in cell["outputs"]:
            assert output.get("name", "stdout") == "stdout" and output["output_type"] != "error"
            text = "".join([*output.get("text", []), *output.get("data", {}).get("text/plain", [])])
            assert not re.search(r"(^|[\s'\"(=])(/|~|[A-Z]:\\)\w", text), f"a path: {text}"
            for name in (platform.node(), tempfile.gettempdir(), str(ROOT), "Warning", "it/s", "\r"):
                assert not name or name not in text, f"{name}: {text}"


def test_its_commands_parse():
    """Those that it shows to be typed; RUN stands for a run."""
    cells = [cell["source"] for cell in committed()["cells"] if cell["cell_type"] == "markdown"]
    text = "".join(line for source in cells for line in source).replace("\\\n", " ")
    shown = re.findall(r"python -m (harness\.\w+)([^`\n#]*)", text)
    assert len(shown) > 6
    for module, words in shown:
        with contextlib.suppress(SystemExit) if "--list" in words else contextlib.nullcontext():
            importlib.import_module(module).parser().parse_args(shlex.split(words))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        notebook = executed(Path(scratch))
    TOUR.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {TOUR.relative_to(ROOT)}", file=sys.stderr)
