"""Checkpoints damaged in every way: what is found is the newest whole one of this run, or none; nothing is raised."""

import hashlib
import io
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from harness.training import checkpoint
from harness.training.checkpoint import PARTS, Checkpoints, Position, read_state, restore
from harness.training.history import History
from tests.mutations import PLACES, Sort, bytes_sorts, cases

MAKER = {"run": "this run", "source_digest": "a" * 64}
UNCHECKED = "the checksum is not compared"
UNEXPECTED = "what torch cannot load raises what it likes"
UNPARTED = "the parts of a checkpoint are not looked for"
ANYBODY_S = "nobody asks whose checkpoint it is"
NARROW = "a file that cannot be opened is not expected"


def parts_of(model: nn.Module) -> Any:
    """What a checkpoint holds of a Training."""
    optimiser, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False)
    return SimpleNamespace(model=model, optimiser=optimiser, average=None, scaler=scaler)


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
    checkpoints.wait()
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
            path.rmdir() if path.is_dir() else path.unlink()
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
    before = os.path.lexists(original.folder / original.newest.name)
    try:
        found = checkpoints.find()
        assert checkpoints.state is not None or not found
        if not found or comparable(checkpoints.state) != original.state:
            return "another state than the one before is found"
        model = nn.Linear(2, 3)
        restore(checkpoints.state or {}, parts_of(model))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    aside = [path.name for path in original.folder.glob("unreadable-*")]
    return None if len(aside) == before else f"set aside: {aside}"


# --- sorts of damage that are a checkpoint's own ---------------------------------------------------------------------


def sealed_again(
    change: Callable[[random.Random, dict[str, Any]], Any],
) -> Callable[[random.Random, bytes, bytes], bytes]:
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


SORTS = {
    **bytes_sorts(UNCHECKED, UNCHECKED),
    "a part missing": Sort(sealed_again(part_missing), UNPARTED),
    "a part of another kind": Sort(sealed_again(part_of_another_kind), UNPARTED),
    "no parts": Sort(sealed_again(lambda draw, _: draw.choice([[], 1, "x", torch.zeros(2)])), UNPARTED),
    "text with a right checksum": Sort(lambda *_: b"{}" + hashlib.sha256(b"{}").digest(), UNEXPECTED),
    "another run's": Sort(lambda draw, content, other: other, ANYBODY_S),
}


def damaged(original: Original, sorts: dict[str, Sort], count: int) -> Iterator[tuple[str, str | None]]:
    for sort, changed in cases(sorts, count, original.content[original.newest], original.content[original.other], "0"):
        original.laid_out(changed)
        yield sort, harm(original)


def loaded(path: Path) -> dict[str, Any]:
    return torch.load(io.BytesIO(path.read_bytes()[:-32]), weights_only=True)


def narrow(path: Path) -> dict[str, Any]:
    try:
        return read_state(path)
    except OSError as error:
        raise RuntimeError(str(error)) from None


def plant(defect: str, patch: pytest.MonkeyPatch) -> None:
    if defect == UNCHECKED:  # and so the bytes that it guards are believed, or raise what nobody expects
        patch.setattr(checkpoint, "read_state", loaded)
    elif defect == UNEXPECTED:
        patch.setattr(
            checkpoint, "read_state", lambda path: torch.load(io.BytesIO(checkpoint._payload(path.read_bytes())))
        )
    elif defect == UNPARTED:
        patch.setattr(checkpoint, "read_state", loaded)
    elif defect == ANYBODY_S:
        patch.setattr(Checkpoints, "__post_init__", lambda checkpoints: checkpoints.maker.clear())
    elif defect == NARROW:
        patch.setattr(checkpoint, "read_state", narrow)


# --- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [15, pytest.param(150, marks=pytest.mark.long)])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_found(original, rounds, tried, capsys):
    wrong, kinds = [], Counter[str]()
    for sort, found in damaged(original, SORTS, rounds * len(SORTS)):
        kinds[sort] += 1
        wrong += [f"{sort}: {found}"] if found else []
    assert wrong == []
    tried("damaged checkpoints", kinds)


def test_each_sort_of_damage_bites_where_a_defect_lets_it(original, tried, monkeypatch, capsys):
    harmless, defects = [], Counter[str]()
    for sort, how in SORTS.items():
        with monkeypatch.context() as patch:
            plant(how.defect, patch)
            found = next((found for _, found in damaged(original, {sort: how}, 60) if found), None)
        defects[how.defect] += 1
        if not found:
            harmless.append(f"{sort} does no harm although {how.defect}")
    assert harmless == []
    tried("damaged checkpoints", {}, defects)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_no_checkpoint(original, place, tried, monkeypatch, capsys):
    def found() -> str | None:
        PLACES[place](original.laid_out(original.content[original.newest]))
        return harm(original)

    assert found() is None
    plant(NARROW, monkeypatch)
    assert place == "no file" or found()
    tried("damaged checkpoints", {place: 1}, {NARROW: place != "no file"})


def test_a_second_one_of_the_same_name_does_not_take_the_first_one_s_place(original, capsys):
    original.laid_out(b"")
    (original.folder / f"unreadable-{original.newest.name}").write_bytes(b"of before")
    assert Checkpoints(original.folder, MAKER).find()
    aside = {path.name: path.read_bytes() for path in original.folder.glob("unreadable-*")}
    name = f"unreadable-{original.newest.name}"
    assert aside == {name: b"of before", f"{name}-2": b""}


def test_where_both_are_damaged_nothing_is_found_and_nothing_is_lost(original, capsys):
    original.laid_out(b"newest")
    (original.folder / original.older.name).write_bytes(b"older")
    assert not Checkpoints(original.folder, MAKER).find()
    assert sorted(path.read_bytes() for path in original.folder.glob("unreadable-*")) == [b"newest", b"older"]
    assert capsys.readouterr().err.count("set aside as unreadable-checkpoint-") == 2
