"""Nothing that is read can run anything: nothing here unpickles, and torchvision does only what has the published MD5
(test_data_published.py holds it to that)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(str(p.relative_to(ROOT)) for folder in ("harness", "variants") for p in (ROOT / folder).rglob("*.py"))

UNPICKLERS = {
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "yaml", "skops",
}  # fmt: skip
# What a call needs to be harmless.
ONLY_WITH = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
NEVER = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "torch.hub.load", "torch.jit.load",
    "torch.hub.load_state_dict_from_url", "torch.package.PackageImporter", "np.lib.format.read_array", "pd.read_pickle",
}  # fmt: skip
ALLOWED = {
    "variants/catalog.py": {"exec", "compile"},  # `--variant file.py:NAME` is a person's own program
}


def dangers(code: str) -> set[str]:
    """The names of what could run something that was read."""
    found = set()
    for node in ast.walk(ast.parse(code.replace("numpy", "np").replace("pandas", "pd"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS}
        elif isinstance(node, ast.ImportFrom):
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= members & {*ONLY_WITH, *NEVER} | {name for name in members if name.split(".")[0] in UNPICKLERS}
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keyword, wanted = ONLY_WITH.get(name, (None, None))
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if name in NEVER or (keyword and given.get(keyword) is not wanted) or given.get("allow_pickle"):
                found.add(name)
    return found


@pytest.mark.parametrize("name", FILES)
def test_nothing_else_unpickles(name):
    assert dangers((ROOT / name).read_text()) == ALLOWED.get(name, set())


PLANTED = """
import pickle
from pickle import loads
import joblib
from pandas import read_pickle
import pandas as pd; pd.read_pickle('x')
torch.load('x')
torch.load('x', weights_only=False)
torch.load('x', weights_only=trusted)
from torch import load
np.load('x')
import numpy; numpy.load('x', allow_pickle=True)
from numpy import load
np.save('x', y, allow_pickle=True)
eval('1')
torch.hub.load('a', 'b')
"""
HARMLESS = """
torch.load(x, weights_only=True); numpy.load(x, allow_pickle=False)
model.eval(); re.compile('x'); torch.compile(model)
import pickletools
"""


def test_what_unpickles_would_be_found_and_what_is_harmless_is_not():
    planted = PLANTED.strip().splitlines()
    assert [code for code in planted if not dangers(code)] == []
    assert [code for code in HARMLESS.splitlines() if dangers(code)] == []
