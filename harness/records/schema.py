"""What a run on disk looks like: its files, their fields and what kind of value each holds, and the digests that show
whether anything was changed. For whoever writes, reads or checks records.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# 1 had neither corruption nor energy, 1 and 2 hold no digests: what they lack is read as null.
SCHEMA = 3
SEALED_SINCE = 3

FILES = ("config.json", "env.json", "cost.json", "epochs.jsonl", "predictions.npz", "result.json")  # the result last
WEIGHTS = "model.safetensors"  # beside them, outside git: a record is whole without
ASIDE = "unreadable-"  # how the name of a folder or checkpoint begins that was set aside
REPLACED = "replaced-"  # and that of a sound record that was trained again with --fresh


def is_aside(folder: Path) -> bool:
    """Whether it is kept, and counts for nothing."""
    return folder.name.startswith((ASIDE, REPLACED))


Kinds = tuple[type, ...]
NUMBER: Kinds = (int, float)

# What could not be measured is null, never 0.
RESULT_FIELDS: Mapping[str, Kinds] = {
    "schema": (int,),
    "outcome": (str,),  # ok | failed
    "reason": (str,),  # why it failed
    "split": (str,),  # test | val: what was evaluated; a run with a holdout never looks at test
    "test_accuracy": NUMBER,  # of the last planned epoch, 0 to 1
    "best_test_accuracy": NUMBER,  # of the best epoch: shown beside it, never used
    "test_nll": NUMBER,
    "val_accuracy": NUMBER,
    "epochs": (int,),
    "images_seen": (int,),
    "train_seconds": NUMBER,  # evaluation and compilation excluded
    "compile_seconds": NUMBER,
    "eval_seconds": NUMBER,  # on a GPU without those in which the host already drew the next epoch's first batches
    "images_per_second": NUMBER,
    "peak_memory_bytes": NUMBER,  # of all tensors at once; the memory that a CUDA graph holds between steps is more
    "params": (int,),
    "macs": NUMBER,
    "energy_joules": NUMBER,  # of the GPU, first step to last evaluation; null on a CPU, of several
    "corruption_accuracy": (dict,),  # kind -> accuracy at five strengths; null for a run with a holdout
    "corruption_seconds": NUMBER,
    "shared_device": (bool,),  # another process used the device, or the run took two or parts: its times enter no table
    "sessions": (list,),  # one for each start of the process: where, after how many epochs, what it measured
    "files": (dict,),  # the SHA-256 of every other file
    "digest": (str,),  # the SHA-256 of all that stands before it in the file
}

BY_THE_WRITER = ("schema", "files", "digest")
SINCE_2 = ("energy_joules", "corruption_accuracy", "corruption_seconds", "sessions")
SINCE_3 = ("files", "digest")

CONFIG_FIELDS: Mapping[str, Kinds] = {
    "schema": (int,),
    "run_id": (str,),
    "cell_id": (str,),
    "variant_name": (str,),
    "variant_type": (str,),
    "variant": (dict,),
    "dataset": (str,),
    "recipe_name": (str,),
    "recipe_source": (str,),
    "recipe": (dict,),
    "seed": (int,),
    "precision": (str,),
    "compile": (bool,),
    "holdout": NUMBER,
    "overrides": (list,),
    "label": (str,),
    "semantics": (int,),
    "weights": (str,),
    "weights_digest": (str,),
}

# One for each judged image, in canonical order; NumPy's kinds.
PREDICTIONS = {"labels": "iu", "predicted": "iu", "confidence": "f"}

# `loss` and `accuracy` of the evaluated split are named after it: test_loss or val_loss.
EPOCH_FIELDS = ("epoch", "train_loss", "train_accuracy", "lr", "seconds", "eval_seconds", "images_seen")


def misfits(plain: Mapping[str, Any], fields: Mapping[str, Kinds]) -> list[str]:
    """The fields that hold another kind of value than they should; null fits everywhere."""
    return [name for name, kinds in fields.items() if type(plain.get(name)) not in (*kinds, type(None))]


# --- the seal --------------------------------------------------------------------------------------------------------
# result.json holds the SHA-256 of every other file, and in its last line that of its own bytes before that line. It
# shows accidents and careless edits; whoever wants to can seal a forgery.

END = b"\n}\n"  # of a JSON object as the writer indents it


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sealed(content: bytes) -> bytes:
    """The same JSON object with one line more."""
    unsealed = content.removesuffix(END)
    return unsealed + _seal(unsealed)


def is_sealed(content: bytes) -> bool:
    unsealed = content[: -len(_seal(b""))]
    return content == unsealed + _seal(unsealed)


def _seal(unsealed: bytes) -> bytes:
    return f',\n "digest": "{digest(unsealed)}"'.encode() + END
