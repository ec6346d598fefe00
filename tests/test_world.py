"""One run on several devices, or in parts of a batch: the same batches, the same losses; one process writes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from harness import run, sweep, verify
from harness.cell import check_batches
from harness.config import RunConfig, resolve
from harness.data.augment.steps import FLOAT_STEPS, UINT8_STEPS
from harness.data.pipeline import WHOLE, DeviceSplit, Share, scaling, to_device, training_batches
from harness.datasets import DATASETS
from harness.evidence.tables.costs import trained_together
from harness.experiment import Options, run_cell
from harness.records.read import Run, read_run
from harness.timing.turns import made_up
from harness.training import estimate, evaluate
from harness.training.evaluate import Given, evaluate_corrupted, judged
from harness.training.loop import train_seeds
from harness.training.setup import Stepping, Training, build_model, data_generator
from harness.training.step import LossWatch
from harness.training.together import stack_models
from harness.training.world import World, own_device
from tests.processes import Process, command
from tests.test_resume import CPU
from tests.test_together import STEADY, Exact
from variants.fields import UsageError

STEPS, SIZE = 50, 12
IMAGES = (STEPS - 1) * SIZE + 3  # the last batch has fewer images than four processes
EVERYTHING = [
    "recipe.augment=crop,flip,randaugment,erase,crop-paste",
    "recipe.erase_prob=0.5",
    "recipe.erase_fill=noise",
]
EVERYTHING += ["recipe.mix=either", "recipe.mix_prob=0.8", "recipe.mixup_alpha=0.8", "recipe.clip=0.5"]
EVERYTHING += ["recipe.label_smoothing=0.1", "variant.depth=2"]


def config(*settings: str) -> RunConfig:
    own = {text.partition("=")[0]: text for text in (*STEADY, *EVERYTHING, *settings)}
    return resolve("compact", DATASETS["digits"], "quick", epochs=1, batch_size=SIZE, settings=[*own.values()])


def training(of: RunConfig, stepping: Stepping, seeds: Sequence[int] = (0,)) -> Training:
    """In float64, where two orders of a sum differ too little to matter."""
    data = made_up(DATASETS["digits"], IMAGES, 7)
    scale, split = Exact(**vars(scaling(data, of.recipe, CPU))), to_device(data.train, CPU)
    model = stack_models([build_model(replace(of, seed=seed), CPU).double() for seed in seeds], seeds)
    return Training(of, model, split, to_device(data.test, CPU), scale, stepping)


def seen(of: RunConfig, stepping: Stepping, seeds: Sequence[int] = (0,)) -> dict[str, Any]:
    """Of each step what the watch is shown: the loss over the whole batch and the gradient's norm in one number; and
    what is left at the end."""
    shown, see = [], LossWatch.see

    def spy(self: LossWatch, value: torch.Tensor, step: Any) -> None:
        shown.append(value.clone())
        see(self, value, step)

    LossWatch.see = spy  # type: ignore[method-assign]
    try:
        one = training(of, stepping, seeds)
        ((epoch, *_),) = train_seeds(one)
    finally:
        LossWatch.see = see  # type: ignore[method-assign]
    weights = torch.cat([p.detach().flatten() for p in (*one.model.parameters(), *one.judged.parameters())])
    line = {k: v for k, v in epoch.line.items() if "seconds" not in k}
    return {
        "steps": torch.stack(shown[:STEPS]),
        "weights": weights,
        "line": line,
        "predicted": epoch.evaluation.predicted,
    }


def in_a_process(rank: int, size: int, folder: Path, of: RunConfig, accumulate: int) -> None:
    torch.set_num_threads(1)
    method, patience = f"file://{folder}/meeting", timedelta(minutes=5)
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=size, timeout=patience)
    torch.save(seen(of, Stepping(accumulate=accumulate, world=World(rank, size))), folder / f"seen-{rank}.pt")
    dist.destroy_process_group()


def seen_by_all(size: int, folder: Path, of: RunConfig, accumulate: int = 1) -> list[dict[str, Any]]:
    started = [Process(folder / str(rank), in_a_process, rank, size, folder, of, accumulate) for rank in range(size)]
    assert [one.ended() for one in started] == [0] * size, [one.read("err") for one in started]
    return [torch.load(folder / f"seen-{rank}.pt", weights_only=False) for rank in range(size)]


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["steps"].shape == expected["steps"].shape and len(found["steps"]) == STEPS
    assert torch.allclose(found["steps"], expected["steps"], rtol=1e-8, atol=0)
    assert torch.allclose(found["weights"], expected["weights"], rtol=1e-6, atol=1e-9)
    assert found["line"] == pytest.approx(expected["line"], rel=1e-8)
    assert np.array_equal(found["predicted"], expected["predicted"])


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return seen(config(), Stepping())


@pytest.mark.parametrize(("size", "accumulate"), [(2, 1), (4, 1), (2, 3)])
def test_processes_take_the_steps_of_one(tmp_path, alone, size, accumulate):
    """50 steps, with every kind of draw, partners across the parts and a last batch of 3 images."""
    for found in seen_by_all(size, tmp_path, config(), accumulate):
        assert_equal(found, alone)


@pytest.mark.parametrize("accumulate", [2, 5, SIZE])
def test_the_parts_of_a_batch_add_up_to_it(alone, accumulate):
    assert_equal(seen(config(), Stepping(accumulate=accumulate)), alone)


def test_so_do_those_of_several_seeds():
    assert_equal(*(seen(config(), Stepping(accumulate=parts), seeds=(0, 1)) for parts in (3, 1)))


# --- what the comparison would see -----------------------------------------------------------------------------------


def first_batches(of: RunConfig, share: Share = WHOLE, images: int = IMAGES) -> list[Any]:
    data = made_up(DATASETS["digits"], images, 7)
    scale, split = scaling(data, of.recipe, CPU), to_device(data.train, CPU)
    return list(training_batches(split, of.recipe, scale, data_generator(0, 1), share=share))


def test_each_image_is_in_one_process_with_the_partner_that_it_has_alone():
    whole = first_batches(config())
    of_ranks = [first_batches(config(), Share(rank, 4)) for rank in range(4)]
    for batch, *parts in zip(whole, *of_ranks, strict=True):
        assert batch.partners == 0 and batch.weight == 1 and all(part.partners == 1 for part in parts)
        counted = [part for part in parts if part.weight]
        assert sum(part.weight for part in parts) == pytest.approx(4), "of which the mean is taken"
        assert torch.equal(torch.cat([part.labels[1:] for part in counted]), batch.labels)
        assert torch.equal(torch.cat([part.images[1:] for part in counted]), batch.images)
        assert torch.equal(torch.cat([part.images[:-1] for part in counted]), batch.images.roll(1, 0))
    assert sum(not part.weight for part in (parts[-1] for parts in of_ranks)) == 1, "3 images for 4 processes"


@pytest.mark.parametrize("name", [*UINT8_STEPS, *FLOAT_STEPS])
def test_an_image_is_augmented_as_alone(name):
    """Two images in two processes are both in each, once in the other order."""
    of, images = config(f"recipe.augment={name}", "recipe.erase_prob=1"), SIZE + 2
    of_ranks = [first_batches(of, Share(rank, 2), images) for rank in range(2)]
    for batch, *parts in zip(first_batches(of, images=images), *of_ranks, strict=True):
        assert torch.equal(torch.cat([part.images[1:] for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.images[:-1] for part in parts]), batch.images.roll(1, 0))


def test_fewer_images_to_judge_than_processes(monkeypatch):
    one, given = training(config(), Stepping()), []
    split = DeviceSplit(one.eval_split.images[:3], one.eval_split.labels[:3])
    monkeypatch.setattr(World, "sum", lambda self, tensor: given.append(tensor) or tensor)
    for rank in range(4):
        judged(one.model, one.model, split, one.scale, "fp32", World(rank, 4))
    with torch.no_grad():
        assert torch.allclose(torch.stack(given).sum(0), one.model.eval()(one.scale(split.images)).float())


class Sensitive(nn.Module):
    """Answers otherwise where any pixel is another."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        value = (images.double().sum(dim=(1, 2, 3)) * 1e3) % 1
        return torch.stack([value, 1 - value], dim=1)


def test_images_are_corrupted_as_by_one_process(monkeypatch):
    monkeypatch.setattr(World, "sum", lambda self, tensor: tensor)
    monkeypatch.setitem(evaluate.BATCH_IMAGES, "cpu", 0.125)  # batches of two of these images
    data, model = made_up(DATASETS["digits"], 4, 15), Sensitive()
    split, scale = to_device(data.test, CPU), scaling(data, config().recipe, CPU)
    split = replace(split, labels=torch.zeros_like(split.labels))

    def judged_by(world: World) -> np.ndarray:
        (found,) = evaluate_corrupted(Given(model, model, split, scale, "fp32", world), lambda done: None)
        return np.array([*found.values()])

    whole = judged_by(World())
    assert len(np.unique(whole)) > 5
    assert np.allclose(sum(judged_by(World(rank, 3)) for rank in range(3)), whole)


# --- commands --------------------------------------------------------------------------------------------------------

WORDS = ["--variant", "compact", "--dataset", "digits", "--recipe", "quick", "--device", "cpu"]
WORDS += ["--set", "variant.depth=1", "recipe.dropout=0.1", "recipe.ema=0.9", "--epochs"]


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return str(one.getsockname()[1])


def in_world(log: Path, rank: int, size: int, port: str, *words: str) -> Process:
    return Process(log, _in_world, rank, size, port, *words)


def _in_world(rank: int, size: int, port: str, *words: str) -> None:
    """What torchrun does for each process."""
    from harness.commands import run_command

    own = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": port,
    }
    os.environ |= {"TORCHELASTIC_RUN_ID": "none", **{name: str(value) for name, value in own.items()}}
    run_command(run.main, list(words))


def started(folder: Path, size: int, *words: str) -> list[Process]:
    port = free_port()
    return [in_world(folder / f"log{rank}", rank, size, port, *words) for rank in range(size)]


def only_run(out: Path) -> Run:
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return read_run(folder)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory) -> tuple[Path, list[Process]]:
    folder = tmp_path_factory.mktemp("two")
    processes = started(folder, 2, *WORDS, "3", "--out", str(folder / "runs"))
    assert [one.ended() for one in processes] == [0, 0], processes[0].read("err")
    return folder, processes


def test_one_process_writes_and_prints(by_two):
    folder, (first, second) = by_two
    done = only_run(folder / "runs")
    assert done.ok and done.env["world_size"] == 2 and done.result["sessions"][0]["world_size"] == 2
    assert "3/3" in first.read() and second.read() + second.read("err") == ""
    assert done.result["images_seen"] == 3 * DATASETS["digits"].train_count


def test_its_times_enter_no_table_of_single_devices(by_two):
    assert only_run(by_two[0] / "runs").result["shared_device"] is True


def test_a_run_that_is_done_is_not_trained_again(by_two):
    folder, _ = by_two
    before = only_run(folder / "runs").result
    again = started(folder, 2, *WORDS, "3", "--out", str(folder / "runs"))
    assert [one.ended() for one in again] == [0, 0] and "done already" in again[0].read()
    assert only_run(folder / "runs").result == before


@pytest.mark.parametrize("later", [2, 3])
def test_a_stopped_run_goes_on_with_as_many_processes_or_others(tmp_path, by_two, later):
    words = [*WORDS, "3", "--out", str(tmp_path / "runs")]
    first = started(tmp_path, 2, *words)
    first[0].until("epoch 1/3")
    for one in first:
        one.signal(signal.SIGTERM)
    assert first[0].ended() == 128 + signal.SIGTERM and "nothing is lost" in first[0].read("err")
    assert first[1].ended() == 128 + signal.SIGTERM and first[1].read("err") == ""
    assert "torchrun --nproc-per-node 2 -m" in first[0].read("err")
    (tmp_path / "later").mkdir()
    rest = started(tmp_path / "later", later, *words)
    assert [one.ended() for one in rest] == [0] * later, rest[0].read("err")
    mine, whole = only_run(tmp_path / "runs"), only_run(by_two[0] / "runs")
    assert [session.get("world_size", 1) for session in mine.result["sessions"]] == [2, later]
    tolerance = 0 if later == 2 else 0.2  # dropout's numbers are those of other processes
    assert [line["train_loss"] for line in mine.epochs()] == pytest.approx(
        [line["train_loss"] for line in whole.epochs()], rel=tolerance, abs=0
    )
    assert mine.epochs()[0]["train_loss"] == whole.epochs()[0]["train_loss"]


def test_a_lost_process_ends_the_run_which_goes_on_from_its_checkpoint(tmp_path):
    words = [*WORDS, "30", "--save-every", "0", "--out", str(tmp_path / "runs")]
    first, second = started(tmp_path, 2, *words)
    first.until("epoch 1/30")
    second.signal(signal.SIGKILL)
    assert first.ended() == 2
    assert "another process of this run has ended" in first.read("err") and "Traceback" not in first.read("err")
    again = command(tmp_path / "again", *words)
    again.until("goes on after epoch")
    again.signal(signal.SIGTERM)
    assert again.ended() == 128 + signal.SIGTERM


def test_a_process_says_what_is_wrong_with_it_alone_before_the_first_sees_it_gone(tmp_path):
    port, words = free_port(), [*WORDS, "30", "--out", str(tmp_path / "runs")]
    first = in_world(tmp_path / "log0", 0, 2, port, *words)
    second = in_world(tmp_path / "log1", 1, 2, port, *words, "--deterministic")
    assert (first.ended(), second.ended()) == (2, 2)
    assert second.read("err") == "process 1 has another deterministic than the first one\n"
    assert "another process of this run has ended" in first.read("err")
    times = [(tmp_path / f"log{rank}.err").stat().st_mtime_ns for rank in range(2)]
    assert times[1] < times[0], "else torchrun would have ended it by then"


@pytest.mark.parametrize(
    ("trouble", "told"), [("full", "out of memory on cpu at batch size 32"), ("unused", "take no part in its loss")]
)
def test_an_error_in_a_step_of_the_first_ends_the_run(tmp_path, trouble, told):
    """It is no record, which the others would not know of, and no traceback."""
    port, words = free_port(), [*WORDS, "30", "--out", str(tmp_path / "runs")]
    one, other = (Process(tmp_path / f"log{rank}", _in_trouble, trouble, rank, 2, port, *words) for rank in range(2))
    assert (one.ended(), other.ended()) == (2, 2)
    assert told in one.read("err") and "Traceback" not in one.read("err")
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert not (folder / "result.json").exists()


def _in_trouble(trouble: str, rank: int, size: int, port: str, *words: str) -> None:
    from harness import experiment
    from harness.training import step

    real, built = step.learning_rate, experiment.build_model

    def full(recipe: Any, number: int, steps: int) -> float:
        if number == 10 and rank == 0:
            raise MemoryError
        return real(recipe, number, steps)

    def unused(*given: Any) -> nn.Module:
        model = built(*given)
        model.unused = nn.Parameter(torch.zeros(1))
        return model

    if trouble == "full":
        step.learning_rate = full
    else:
        experiment.build_model = unused
    _in_world(rank, size, port, *words)


def test_torchrun_itself(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*launch, "-m", "harness.run", *WORDS, "1", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path).env["world_size"] == 2


# --- what is recorded ------------------------------------------------------------------------------------------------


def test_a_record_names_its_parts_and_verify_repeats_them(tmp_path, capsys):
    settings = ["variant.depth=1", "recipe.dropout=0.1"]
    own = resolve("compact", DATASETS["digits"], "quick", epochs=1, settings=settings)
    done = run_cell(own, Path("data"), tmp_path, CPU, True, Options(stepping=Stepping(accumulate=3)))
    (session,) = done.result["sessions"]
    assert session["accumulate"] == 3 and "world_size" not in session
    assert done.result["shared_device"] is True, "its times are not those of whole batches"
    assert trained_together(replace(done, result={"sessions": [{**session, "seeds": [0, 1]}]})) == ()
    assert verify.main([str(done.folder), "--quiet"]) == 0
    assert "equal to the last bit" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["world_size", "accumulate"])
def test_verify_compares_up_to_where_the_way_of_training_changed(way):
    sessions = [{"after_epochs": 0}, {"after_epochs": 0}, {"after_epochs": 2, way: 2}]
    record: Any = SimpleNamespace(result={"sessions": sessions}, config={"seed": 0}, folder=Path("run"))
    assert verify.first_session(record) == (sessions[0], 2)


def test_the_guess_of_a_dry_run_is_of_a_part(monkeypatch, capsys):
    sizes = []
    monkeypatch.setattr(estimate, "training_rate", lambda _, recipe, *rest: sizes.append(recipe.batch_size) or 1.0)
    assert run.main([*WORDS, "1", "--batch-size", "30", "--accumulate", "4", "--dry-run", "--json"]) == 0
    assert sizes == [7] and json.loads(capsys.readouterr().out)["config"]["recipe"]["batch_size"] == 30
    words = ["quick", "--seeds", "1", "--device", "cpu", "--dry-run"]
    for accumulate in (1, 4):
        assert sweep.main([*words, "--accumulate", str(accumulate)]) == 0
    half = len(sizes[1:]) // 2
    assert half and sizes[1 + half :] == [size // 4 for size in sizes[1 : 1 + half]]


# --- what cannot be done ---------------------------------------------------------------------------------------------


def test_batches_that_cannot_be_cut():
    two = Stepping(world=World(0, 2))
    with pytest.raises(UsageError, match="a batch of 3 images cannot be cut into 4 parts"):
        check_batches(nn.Linear(1, 1), 100, 3, replace(two, accumulate=2))
    with pytest.raises(UsageError, match=r"batch norm.*parts of it"):
        check_batches(nn.BatchNorm2d(3), 100, 10, Stepping(accumulate=2))
    with pytest.raises(UsageError, match="on CPUs several processes cannot train a model with batch norm"):
        check_batches(nn.BatchNorm2d(3), 100, 10, two)
    on_gpus, four = nn.BatchNorm2d(3, device="meta"), Stepping(world=World(0, 4))
    with pytest.raises(UsageError, match="a last batch of 3 images for 4 processes"):
        check_batches(on_gpus, 103, 10, four)
    check_batches(on_gpus, 104, 10, four)
    check_batches(on_gpus, 100, 10, four)
    check_batches(nn.Linear(1, 1), 100, 4, replace(two, accumulate=2))


def test_a_sweep_is_no_run(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="torchrun is for one run"):
        sweep.main(["quick"])


def test_each_process_takes_its_own_gpu(monkeypatch):
    assert own_device("cuda") == "cuda"
    monkeypatch.setattr(os, "environ", {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_RANK": "3"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (own_device("cuda"), own_device("auto"), own_device("cpu")) == ("cuda:3", "cuda:3", "cpu")
    with pytest.raises(UsageError, match="each process takes a GPU of its own"):
        own_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device("auto") == "auto"
