"""Checkpoints damaged in every way: what is found is the newest whole one of this run, or none; nothing is raised."""

import hashlib
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from harness.training import checkpoint
from harness.training.checkpoint import PARTS, Checkpoints, Position, read_state
from harness.training.history import History
from tests.mutations import BYTES, Change, cases

MAKER = {"run": "this run", "source_digest": "a" * 64}


def parts_of(model: nn.Module) -> Any:
    """What a checkpoint holds of a Training."""
    optimiser, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False)
    device = torch.device("cpu")
    return SimpleNamespace(model=model, optimiser=optimiser, average=None, scaler=scaler, device=device)


def saved(folder: Path, maker: dict[str, str], seed: int) -> list[Path]:
    """The last two of three checkpoints, as the loop saves them."""
    folder.mkdir()
    torch.manual_seed(seed)
    model = nn.Linear(2, 3)
    training = parts_of(model)
    checkpoints = Checkpoints(folder, maker, History([{"epoch": 1, "seed": seed}]))
    for batches in (1, 2, 3):
        model(torch.rand(4, 2)).sum().backward()
        training.optimiser.step()
        checkpoints.save(Position(1, batches, sums=[0.5 * batches, 1.0]), training)
    return sorted(folder.glob(checkpoint.PATTERN))


class Original:
    """Two checkpoints of a run, one of another, and a folder in which the newer of the two is damaged."""

    def __init__(self, root: Path):
        self.older, self.newest = saved(root / "run", MAKER, 0)
        self.other = saved(root / "other", {**MAKER, "run": "another run"}, 1)[-1]
        self.content = {path: path.read_bytes() for path in (self.older, self.newest, self.other)}
        self.state = comparable(read_state(self.older))
        self.folder = root / "damaged"
        self.folder.mkdir()

    def laid_out(self, newest: bytes) -> Path:
        for path in self.folder.iterdir():
            path.unlink()
        (self.folder / self.older.name).write_bytes(self.content[self.older])
        (self.folder / self.newest.name).write_bytes(newest)
        return self.folder / self.newest.name


def comparable(value: Any) -> Any:
    """Tensors as lists, which can be compared as a whole."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original(tmp_path_factory.mktemp("checkpoints"))


def harm(original: Original) -> str | None:
    """What becomes of a run that goes on: the state before must be found, and the damaged one lie aside."""
    checkpoints = Checkpoints(original.folder, dict(MAKER))
    try:
        found = checkpoints.find()
        if not found or comparable(checkpoints.state) != original.state:
            return "another state than the one before is found"
        checkpoints.restore(parts_of(nn.Linear(2, 3)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    aside = [path.name for path in original.folder.glob("unreadable-*")]
    return None if len(aside) == 1 else f"set aside: {aside}"


# --- sorts of damage that are a checkpoint's own ---------------------------------------------------------------------


def sealed_again(change: Callable[[random.Random, dict[str, Any]], Any]) -> Change:
    """What another program would write, with a checksum that is right."""

    def changed(draw: random.Random, content: bytes, _: bytes) -> bytes:
        state = torch.load(io.BytesIO(content[:-32]), weights_only=True)
        again = change(draw, state)
        out = io.BytesIO()
        torch.save(state if again is None else again, out)
        return out.getvalue() + hashlib.sha256(out.getvalue()).digest()

    return changed


def part_missing(draw: random.Random, state: dict[str, Any]) -> None:
    del state[draw.choice(sorted(PARTS))]


def part_of_another_kind(draw: random.Random, state: dict[str, Any]) -> None:
    state[draw.choice(["maker", "carried", "position"])] = draw.choice([None, 1, "x", [1], torch.zeros(1)])


SORTS: dict[str, Change] = {
    **BYTES,
    "a part missing": sealed_again(part_missing),
    "a part of another kind": sealed_again(part_of_another_kind),
    "no parts": sealed_again(lambda draw, _: draw.choice([[], 1, "x", torch.zeros(2)])),
    "text with a right checksum": lambda *_: b"{}" + hashlib.sha256(b"{}").digest(),
    "another run's": lambda draw, content, other: other,
}


def damaged(original: Original, sorts: dict[str, Change], count: int) -> Iterator[tuple[str, str | None]]:
    for sort, changed in cases(sorts, count, original.content[original.newest], original.content[original.other], "0"):
        original.laid_out(changed)
        yield sort, harm(original)


@pytest.mark.parametrize("rounds", [10, pytest.param(150, marks=pytest.mark.long)])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_found(original, rounds, capsys):
    assert [one for one in damaged(original, SORTS, rounds * len(SORTS)) if one[1]] == []


def loaded(path: Path) -> dict[str, Any]:
    return torch.load(io.BytesIO(path.read_bytes()[:-32]), weights_only=True)


@pytest.mark.parametrize("sort", ["a bit flipped", "a part missing"])
def test_damage_is_seen_where_nothing_is_checked(original, sort, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "read_state", loaded)
    assert any(found for _, found in damaged(original, {sort: SORTS[sort]}, 60))
