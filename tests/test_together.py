"""Seeds trained as one: each as by itself, with its own draws, its own failure, checkpoint and record."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness import verify
from harness.config import RunConfig, resolve
from harness.data.pipeline import DeviceSplit, Scaling, scaling, to_device
from harness.datasets import DATASETS
from harness.evidence.cells import read_evidence
from harness.evidence.paper import all_tables
from harness.experiment import Options, run_cell, run_seeds
from harness.recipes import PUBLISHED
from harness.records.lock import BusyError, owned
from harness.records.read import Run, run_state
from harness.studies import STUDIES
from harness.timing.turns import made_up
from harness.training import checkpoint, loop, setup, step
from harness.training import device as devices
from harness.training.checkpoint import Checkpoints
from harness.training.loop import train_seeds
from harness.training.setup import Training, build_model
from harness.training.signals import StoppedError
from harness.training.together import StackedSeeds, stack, stack_models, unstack
from tests.copies import of_one_block
from tests.test_resume import CPU, SETTINGS, assert_same, stopping_after
from variants.catalog import CATALOG
from variants.fields import UsageError

SEEDS = (0, 1, 2)
STEADY = [f"recipe.{name}=0" for name in ("dropout", "attention_dropout", "head_dropout", "drop_path", "warmup_epochs")]
STEADY += ["recipe.ema=0.9"]
SMALL = ("compact", "compact-cls", "vit-lite-7-4", "cvt-7-4", "small-p4")  # of which 20 steps are quick


class Exact(Scaling):
    """float64, in which two orders of a sum differ too little to matter."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return super().__call__(images).double()


def steady(name: str, recipe: str, settings: Sequence[str] = (), whole: bool = False) -> RunConfig:
    """Without random numbers in the model, unless the settings bring some."""
    chosen = {text.partition("=")[0] for text in settings}
    shallow = [] if whole else of_one_block(name, pixels=64)
    return resolve(
        name,
        DATASETS["c10"],
        recipe,
        epochs=1,
        batch_size=8 if whole or name in SMALL else 2,
        settings=[*(own for own in STEADY if own.partition("=")[0] not in chosen), *shallow, *settings],
    )


def training(config: RunConfig, seeds: Sequence[int], images: int, exact: bool = True) -> Training:
    data = made_up(DATASETS["c10"], images, 4)
    scale, split = scaling(data, config.recipe, CPU), to_device(data.train, CPU)
    models = [build_model(replace(config, seed=seed), CPU) for seed in seeds]
    if exact:
        scale, models = Exact(**vars(scale)), [model.double() for model in models]
    own = replace(config, seed=seeds[0])
    return Training(own, stack_models(models, seeds), split, DeviceSplit(split.images[:4], split.labels[:4]), scale)


def losses_of(of: Training) -> torch.Tensor:
    """Of each step and seed."""
    seen, whole = [], of.loss_of

    def spy(batch: Any) -> Any:
        loss, sums = whole(batch)
        seen.append(loss.detach().reshape(-1).clone())
        return loss, sums

    of.loss_of = spy  # type: ignore[method-assign]
    for _ in train_seeds(of):
        pass
    return torch.stack(seen)


def differing(config: RunConfig, steps: int) -> list[str]:
    """What of seeds trained together is not as each has it by itself."""
    images = steps * config.recipe.batch_size
    together, found = training(config, SEEDS, images), []
    losses_TS = losses_of(together)
    assert losses_TS.shape == (steps, len(SEEDS)) and together.average is not None
    for place, seed in enumerate(SEEDS):
        alone = training(config, [seed], images)
        before = [p.detach().clone() for p in alone.model.parameters()]
        losses_T1 = losses_of(alone)
        assert any((p != old).any() for p, old in zip(alone.model.parameters(), before)), "the weights move"
        if not torch.allclose(losses_TS[:, place], losses_T1[:, 0], rtol=1e-8, atol=0):
            found.append(f"losses of seed {seed}")
        assert alone.average is not None
        mine, own = unstack(together.average.model.state_dict(), place), alone.average.model.state_dict()
        found += [f"{name} of seed {seed}" for name in own if not torch.allclose(mine[name], own[name], 1e-5, 1e-7)]
    assert (losses_TS[0] != losses_TS[0, 0]).any(), "seeds differ"
    return found


def own_recipe(name: str) -> str:
    return "published" if name in PUBLISHED else "common"


@pytest.mark.parametrize("name", CATALOG)
def test_each_seed_is_trained_as_by_itself(name, one_thread):
    """With all that has a state: optimiser, average, a batch norm's statistics."""
    assert not differing(steady(name, own_recipe(name)), 20 if name in SMALL else 2)


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["own", "common"])
@pytest.mark.parametrize("name", [name for name in CATALOG if name != "vit-base-224"])  # 3 x 86 M in float64: 14 GB
def test_whole_models_are_trained_as_each_by_itself(name, recipe):
    assert not differing(steady(name, own_recipe(name) if recipe == "own" else recipe, whole=True), 20)


@pytest.mark.parametrize("settings", [["recipe.clip=0.1"], ["recipe.clip=0.1", "recipe.clip_scope=each"]])
def test_each_seed_is_clipped_by_its_own_norm(settings):
    assert not differing(steady("compact", "common", settings), 4)


# --- planted couplings: what the comparison above would see ----------------------------------------------------------


def test_one_draw_for_two_seeds_is_seen(monkeypatch):
    real = setup.data_generator
    monkeypatch.setattr(setup, "data_generator", lambda seed, epoch: real(min(seed, 1), epoch))
    losses_TS = losses_of(training(steady("compact", "common"), SEEDS, 16))
    monkeypatch.undo()
    alone_T1 = losses_of(training(steady("compact", "common"), SEEDS[2:], 16))
    assert not torch.allclose(losses_TS[:, 2], alone_T1[:, 0], rtol=1e-8, atol=0)


def test_one_norm_for_all_seeds_is_seen(monkeypatch):
    real = step.gradient_norm
    clipped = steady("compact", "common", ["recipe.clip=0.1"])

    def shared(weights: Sequence[nn.Parameter], seeds: int = 1) -> torch.Tensor:
        norm = real(weights, seeds)
        return norm.norm().expand_as(norm)

    monkeypatch.setattr(step, "gradient_norm", shared)
    assert differing(clipped, 4)


# --- what each has of its own ----------------------------------------------------------------------------------------


def test_a_step_in_float32_has_the_gradients_of_each():
    config = steady("compact", "s2")
    of = training(config, SEEDS, 8, exact=False)
    loss, _ = of.loss_of(next(of.batches(of.train_split, 1)))
    loss.sum().backward()
    for place, seed in enumerate(SEEDS):
        alone = training(config, [seed], 8, exact=False)
        alone.loss_of(next(alone.batches(alone.train_split, 1)))[0].backward()
        mine = torch.cat([p.grad[place].flatten() for p in of.model.parameters() if p.grad is not None])
        own = torch.cat([p.grad.flatten() for p in alone.model.parameters() if p.grad is not None])
        assert (mine - own).norm() < 1e-5 * own.norm()


class Own(nn.Module):
    """What models of one's own may hold."""

    def __init__(self, kind: str):
        super().__init__()
        self.config, self.kind = SimpleNamespace(image_size=4, num_classes=3), kind
        layer, noise = nn.Linear(48, 48), torch.randn(48, 48)
        self.layers = nn.ModuleList([layer] * 2) if kind == "shared" else nn.ModuleList([layer, nn.Linear(48, 48)])
        self.head = nn.Linear(48, 3)
        self.register_buffer("step", noise, persistent=kind != "unsaved")
        self.noise = noise if kind == "attribute" else None  # a tensor that the module does not know as its own
        if kind == "tied weight":
            self.layers[1].weight = layer.weight  # type: ignore[index]
        if kind == "tied buffer":
            for one in self.layers:
                one.register_buffer("mask", noise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        noise: Any = self.step if self.noise is None else self.noise
        x, layers = images.flatten(1) @ noise, list[Any](self.layers)
        for layer in layers:
            x = layer(x * layer.mask[0] if self.kind == "tied buffer" else x).relu()
        return self.head(x + 1 if self.kind == "branch" and x.sum() > 0 else x)


def own_models(kind: str) -> list[Own]:
    models = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        models.append(Own(kind))
    return models


@pytest.mark.parametrize("kind", ["plain", "shared", "tied weight", "tied buffer", "unsaved"])
def test_models_of_one_s_own_are_computed_as_each_by_itself(kind):
    models, images = own_models(kind), torch.randn(5, 3, 4, 4)
    together: Any = stack_models(models, SEEDS)
    for _ in range(2):
        torch.testing.assert_close(together(images), torch.stack([model(images) for model in models]))
        for model in (together, *models):
            model.zero_grad()
            model(images).square().sum().backward()
            torch.optim.SGD(model.parameters(), 0.001).step()
    again: Any = stack_models(own_models(kind), SEEDS)
    again.load_state_dict(stack([unstack(together.state_dict(), index) for index in range(3)]))
    torch.testing.assert_close(again(images), together(images))


@pytest.mark.parametrize("kind", ["attribute", "branch"])
def test_what_cannot_be_computed_together_is_refused(kind):
    with pytest.raises(UsageError, match="--seeds-at-once 1"):
        stack_models(own_models(kind), SEEDS)


@pytest.mark.parametrize("recipe", ["s1", "s2", "common", "cct"])
def test_the_first_batch_of_a_seed_is_that_of_its_own_run(recipe):
    config = resolve("compact", DATASETS["c10"], recipe, settings=["recipe.augment=crop,flip,autoaugment-cifar,erase"])
    data = made_up(DATASETS["c10"], 300)
    split, scale = to_device(data.train, CPU), scaling(data, config.recipe, CPU)

    def first(*seeds: int) -> Any:
        generators = [setup.data_generator(seed, 1) for seed in seeds]
        return next(setup.training_batches(split, config.recipe, scale, *generators))

    together = first(*SEEDS)
    for place, seed in enumerate(SEEDS):
        alone = first(seed)
        assert torch.equal(together.images[place], alone.images) and torch.equal(together.labels[place], alone.labels)
        assert all(torch.equal(m[place], o) for m, o in zip(together.mix or (), alone.mix or (), strict=True))
    assert not torch.equal(together.labels[0], together.labels[1])


@pytest.mark.parametrize("setting", ["dropout", "drop_path"])
def test_random_numbers_within_a_model_are_each_seed_s_own(setting):
    config = resolve("vit-lite-7-4", DATASETS["c10"], "common", settings=[f"recipe.{setting}=0.5", "variant.depth=2"])
    model = build_model(config, CPU)
    outputs = StackedSeeds([model] * 2, (0, 1)).train()(torch.randn(4, 3, 32, 32))
    assert not torch.allclose(outputs[0], outputs[1])


@pytest.mark.parametrize("name", ["compact", pytest.param("resnet18", marks=pytest.mark.long)])
def test_all_seeds_are_one_compiled_graph(monkeypatch, name):
    """With dropout and mixing; without a break, and as without compilation."""
    real = torch.compile
    whole = {"dynamic": False, "fullgraph": True, "backend": "aot_eager"}
    monkeypatch.setattr(torch, "compile", lambda function, **_: real(function, **whole))
    settings = ["recipe.mix=either", *(["recipe.drop_path=0.1"] if name == "compact" else [])]
    plain = steady(name, "common", settings)
    eager, compiled = (training(replace(plain, compile=on), SEEDS[:2], 16, exact=False) for on in (False, True))
    setup.warm_up(compiled)
    assert torch.equal(losses_of(compiled), losses_of(eager))


def test_what_cannot_be_compiled_as_one_is_trained_without(tmp_path, monkeypatch, capsys):
    def failing(function: Any, **_: Any) -> Any:
        def call(*args: Any) -> Any:
            raise RuntimeError("no rule for this operator\nand more")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    chosen = [replace(config, compile=True) for config in configs([0, 1], epochs=1)]
    runs = run_seeds(chosen, Path("data"), tmp_path, CPU, quiet=True)
    assert all(run.ok and run.result["sessions"][0]["compiled"] is False for run in runs)
    assert "not compiled, RuntimeError: no rule for this operator\n" in capsys.readouterr().err


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(function)] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["compact", "vit-lite-7-4", "resnet18"])
def test_more_seeds_are_no_more_operators(name):
    def calls(seeds: int) -> Counter[str]:
        config = steady(name, "common", ["recipe.clip=1"])
        of = training(config, range(seeds), config.recipe.batch_size, exact=False)
        batch = next(of.batches(of.train_split, 1))
        of.batches = lambda split, epoch, done=0: iter([batch])  # type: ignore[method-assign]
        of.eval_split = DeviceSplit(of.eval_split.images[:1], of.eval_split.labels[:1])
        with Counting() as counting, pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "judged", lambda *_: [])
            patch.setattr(loop, "read", lambda *_: [SimpleNamespace(nll=1.0, accuracy=0.5)] * seeds)
            for _ in train_seeds(of):
                pass
        return counting.calls

    two, five = calls(2), calls(5)
    assert two == five and two.total() > 100


def test_a_state_is_put_together_and_taken_apart():
    step = torch.tensor(3.0)
    states = [{"w": torch.tensor([1.0, 2.0]) * k, "scalar": torch.tensor(float(k)), "step": step} for k in SEEDS]
    whole = stack(states, shared=("step",))
    for k, state in enumerate(states):
        assert all(torch.equal(unstack(whole, k)[name], value) for name, value in state.items())


# --- records ---------------------------------------------------------------------------------------------------------


def configs(seeds: Sequence[int] = SEEDS, epochs: int = 2) -> list[RunConfig]:
    settings = [*SETTINGS, "recipe.batch_size=128"]
    return [resolve("compact", DATASETS["digits"], "quick", epochs=epochs, settings=settings, seed=s) for s in seeds]


def trained(out: Path, seeds: Sequence[int] = SEEDS, **options: Any) -> list[Run]:
    return run_seeds(configs(seeds), Path("data"), out, CPU, quiet=True, options=Options(**options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "is_shared", lambda device: False)  # whatever else runs here
        return trained(tmp_path_factory.mktemp("together"))


def test_each_seed_has_a_record_of_its_own(whole):
    assert [run.config["seed"] for run in whole] == [0, 1, 2] and all(run.ok for run in whole)
    assert len({run.result["test_nll"] for run in whole}) == 3
    assert len({str(run.result["corruption_accuracy"]) for run in whole}) == 3
    for run in whole:
        assert [session["seeds"] for session in run.result["sessions"]] == [[0, 1, 2]]
        assert run.result["shared_device"] is True  # so that its times enter no table of runs by themselves
        assert len(run.epochs()) == 2 and (run.predictions()["predicted"] >= 0).all()


def test_their_times_stand_in_a_table_of_their_own(whole):
    evidence = read_evidence([whole[0].folder.parent])
    (cell,) = evidence.cells
    assert len(cell.runs) == 3 and not cell.timed("train_seconds")
    table = next(table for table in all_tables(evidence, STUDIES["main"]) if table.name == "seeds-at-once")
    ((*_, at_once, minutes, per_hour),) = table.rows
    seconds = sum(line["seconds"] + line["eval_seconds"] for line in whole[0].epochs())
    assert (at_once, float(minutes)) == ("3", pytest.approx(seconds / 60, abs=0.1))
    assert float(per_hour.replace(",", "")) == pytest.approx(3 * 3600 / seconds, rel=0.01)


def test_a_seed_by_itself_ends_near_the_one_among_others(whole, tmp_path):
    """Nothing but rounding and dropout lies between them."""
    (config,) = configs([1])
    alone = run_cell(config, Path("data"), tmp_path, CPU, quiet=True)
    assert alone.config["run_id"] == whole[1].config["run_id"]
    assert alone.result["test_nll"] == pytest.approx(whole[1].result["test_nll"], rel=0.1)
    assert "seeds" not in alone.result["sessions"][0]


def test_verify_repeats_the_same_set(whole, capsys):
    assert verify.main([str(whole[1].folder), "--device", "cpu", "--quiet"]) == 0
    assert "equal to the last bit" in capsys.readouterr().out


@pytest.mark.parametrize("steps", [1, 11, 12, 13, 23])  # 12 an epoch
def test_stopped_seeds_end_as_if_they_had_not_been_stopped(whole, tmp_path, monkeypatch, steps):
    with monkeypatch.context() as patch:
        stopping_after(patch, steps)
        with pytest.raises(StoppedError):
            trained(tmp_path)
    assert {run_state(tmp_path / config.run_id) for config in configs()} == {"unfinished"}
    for again, run in zip(trained(tmp_path), whole, strict=True):
        assert_same(again, run)


def test_seeds_at_different_places_do_not_join(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopping_after(patch, 3)
        with pytest.raises(StoppedError):
            trained(tmp_path, [0])
    runs = trained(tmp_path)
    assert [[s.get("seeds") for s in run.result["sessions"]] for run in runs] == [[None, None], [[1, 2]], [[1, 2]]]


def test_a_seed_of_another_process_is_left_out_and_named(tmp_path, capsys):
    with owned(tmp_path / configs()[1].run_id):
        assert [run.config["seed"] for run in trained(tmp_path)] == [0, 2]
        assert configs()[1].run_id in capsys.readouterr().out
        with pytest.raises(BusyError):
            trained(tmp_path, [1])


def test_what_is_done_is_not_trained_again(tmp_path, monkeypatch):
    first = trained(tmp_path, [1])
    runs = trained(tmp_path)
    assert runs[1].result == first[0].result and runs[0].result["sessions"][0]["seeds"] == [0, 2]


def failing(seeds: Sequence[int], after: int) -> Callable[..., Any]:
    """The losses of these seeds are no numbers from a step on."""
    real, steps = setup.seeds_loss, iter(range(10_000))

    def seeds_loss(*args: Any) -> Any:
        loss, sums = real(*args)
        bad = torch.zeros_like(loss)
        if next(steps) >= after:
            bad[list(seeds)] = torch.nan
        return loss + bad, sums + bad[:, None]

    return seeds_loss


def test_a_seed_that_diverges_fails_alone(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(setup, "seeds_loss", failing([1], 14))
    runs = trained(tmp_path)
    assert [run.ok for run in runs] == [True, False, True]
    assert "epoch 2, step 14" in runs[1].result["reason"] and len(runs[1].epochs()) == 1
    assert "step 14" in capsys.readouterr().err
    for one, run in zip(runs[::2], whole[::2]):
        assert_same(one, run)


def test_a_failed_seed_is_saved_no_more_and_asks_for_no_saving(tmp_path, monkeypatch):
    """The first seed is the one that is asked whether a checkpoint is due."""
    real, saved = Checkpoints.save, Counter()

    def counted(self: Checkpoints, position: Any, training: Any) -> None:
        saved[self.folder.name.split("-")[4]] += 1
        real(self, position, training)

    monkeypatch.setattr(Checkpoints, "save", counted)
    monkeypatch.setattr(setup, "seeds_loss", failing([0], 3))
    assert [run.ok for run in trained(tmp_path, save_every_s=3600.0)] == [False, True, True]
    assert saved == {"s1": 1, "s2": 1}, "after the last epoch"


def test_a_failure_is_recorded_although_the_others_are_stopped(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(setup, "seeds_loss", failing([1], 3))
        stopping_after(patch, 8)
        with pytest.raises(StoppedError):
            trained(tmp_path)
    assert [run_state(tmp_path / config.run_id) for config in configs()] == ["unfinished", "failed", "unfinished"]


def test_a_failed_seed_takes_nobody_back_to_where_it_failed(tmp_path, monkeypatch):
    """It starts again by itself; the others go on from where they were stopped."""
    with monkeypatch.context() as patch:
        patch.setattr(setup, "seeds_loss", failing([1], 3))
        stopping_after(patch, 14)
        with pytest.raises(StoppedError):
            trained(tmp_path, save_every_s=0.0)
    runs = trained(tmp_path)
    assert all(run.ok for run in runs)
    assert [[s["after_epochs"] for s in run.result["sessions"]] for run in runs] == [[0, 1], [0], [0, 1]]


def test_a_process_that_dies_between_two_saves_loses_no_common_position(whole, tmp_path, monkeypatch):
    """Seed 0 is one checkpoint ahead of the others: all go on from the one that all have."""
    real, count = Checkpoints.save, iter(range(100))

    def dying(self: Checkpoints, position: Any, training: Any) -> None:
        if next(count) == 4:
            raise KeyboardInterrupt
        real(self, position, training)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, save_every_s=0.0)
    assert len({*(tmp_path / configs()[0].run_id).glob("checkpoint-*")}) == 2
    for again, run in zip(trained(tmp_path), whole, strict=True):
        assert_same(again, run)


def test_without_a_common_position_each_goes_on_from_its_own(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopping_after(patch, 14)
        with pytest.raises(StoppedError):
            trained(tmp_path, save_every_s=0.0)
    for config in configs([1, 2]):
        sorted((tmp_path / config.run_id).glob("checkpoint-*"))[-1].unlink()
    sorted((tmp_path / configs()[0].run_id).glob("checkpoint-*"))[0].unlink()
    runs = trained(tmp_path)
    assert [run.result["sessions"][-1].get("seeds") for run in runs] == [None, [1, 2], [1, 2]]
    assert all(len(run.epochs()) == 2 and len(run.result["sessions"]) == 2 for run in runs)


def test_nobody_is_due_after_a_saving(tmp_path, monkeypatch):
    """Not even a seed that has failed and is saved no more: the first one is asked."""
    checkpoints = [Checkpoints(tmp_path, {}, every_s=3600.0) for _ in SEEDS]
    monkeypatch.setattr(Checkpoints, "save", lambda self, position, training: None)
    monkeypatch.setattr(checkpoint, "OneSeed", lambda *_: None)
    for own in checkpoints:
        own._due_s = 0.0
    checkpoint.save(checkpoints, [checkpoint.Position()] * 3, SimpleNamespace(failures={0: "it diverged"}))  # type: ignore[arg-type]
    assert not any(own.due() for own in checkpoints)


def test_another_set_is_not_repeated_by_verify(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stopping_after(patch, 13)
        with pytest.raises(StoppedError):
            trained(tmp_path)
    run = trained(tmp_path, [2])[0]
    assert verify.main([str(run.folder), "--device", "cpu", "--quiet"]) == 0
    assert "after epoch 1 it was trained in another way" in capsys.readouterr().out


def test_out_of_memory_names_the_number_of_seeds_first(tmp_path, monkeypatch):
    def full(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(setup, "seeds_loss", full)
    runs = trained(tmp_path)
    assert all("try --seeds-at-once 1 or" in run.result["reason"] for run in runs)


def test_when_no_seed_is_left_the_training_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "seeds_loss", failing(SEEDS, 3))
    runs = trained(tmp_path)
    assert [run.result["reason"].split(" (")[0] for run in runs] == [
        "the loss or its gradient is not finite at epoch 1, step 3"
    ] * 3
