"""harness.bench: timing in turn, the baselines, the floors, and what is kept and shown of it all."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import bench, report
from harness.commands import run_command
from harness.config import resolve
from harness.counting.cost import cost_of
from harness.data.pipeline import scaling, to_device
from harness.datasets import DATASETS
from harness.evidence.figures.costs import benchmark_data, draw_benchmarks
from harness.evidence.figures.drawing import read_digest
from harness.evidence.tables.costs import (
    TRAINING,
    benchmark_table,
    read_measured,
    training_table,
)
from harness.experiment import build_model
from harness.recipe import fitted
from harness.recipes import RECIPES
from harness.records.benchmarks import RECKONED, USABLE, Comparison, file_of, read_comparisons, write_comparisons
from harness.timing import commands as commands_module
from harness.timing import floors as floors_module
from harness.timing.body import timms
from harness.timing.commands import A_RUN, BUSY, SPIN, busy, compare_beside, spent
from harness.timing.conventional import Images, Loop, loader, transforms
from harness.timing.floors import Floors, floors, step_bytes, step_flops
from harness.timing.goals import GOALS, goal
from harness.timing.pipeline import compare_pipelines, conventional_images
from harness.timing.staging import made_up
from harness.timing.step import Staged, compare_training
from harness.timing.turns import Rounds, take_turns
from harness.training.loop import Compute, train
from harness.training.progress import Progress
from tests.mutations import NOT_FINITE, OTHER_VALUES
from variants.catalog import CATALOG, build
from variants.config import ViTConfig
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
ONE = Comparison(
    "pipeline s1", "images/s", 200.0, 10.0, "torchvision", 20.0, 18.0, 22.0, 5, goal=25.0, facts={"a": None}
)


def test_ways_take_turns_and_the_first_round_does_not_count(capsys):
    called, clocks = [], {"a": iter([9.0, 1.0, 2.0, 6.0]), "b": iter([9.0, 2.0, 8.0, 6.0])}

    def way(name):
        return lambda: (called.append(name), next(clocks[name]))[1]

    rounds = take_turns({"a": way("a"), "b": way("b")}, 3)
    assert called == ["a", "b", "b", "a", "a", "b", "b", "a"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and "warmed up" in told[0] and told[3].startswith("round 3 of 3, about 0 s")
    assert rounds.seconds == {"a": [1.0, 2.0, 6.0], "b": [2.0, 8.0, 6.0]}
    assert rounds.ratios("a", "b") == [2.0, 4.0, 1.0]


def test_a_ratio_is_of_speeds_and_paired_by_round():
    rounds = Rounds({"a": [1.0, 2.0, 6.0], "b": [2.0, 8.0, 6.0]})
    one = rounds.compare("x", "images/s", {"a": 30.0, "b": 10.0}, ("a", "b"), goal=7.0)
    assert (one.ours, one.baseline) == (15.0, pytest.approx(10 / 6))  # medians of 2 and 6 seconds
    assert (one.ratio, one.ratio_low, one.ratio_high, one.rounds) == (6.0, 3.0, 12.0, 3)
    assert one.reached is False and replace(one, goal=5.9).reached is True and replace(one, goal=None).reached is None


def test_comparisons_replace_those_of_their_name_and_stay_with_their_device(tmp_path):
    path = write_comparisons(tmp_path, "NVIDIA H200", [ONE, replace(ONE, name="start")])
    assert path == file_of(tmp_path, "NVIDIA H200") == tmp_path / "nvidia-h200.json"
    write_comparisons(tmp_path, "NVIDIA H200", [replace(ONE, ratio=30.0, ratio_high=30.0)])
    sizes = [replace(ONE, name=f"infer batch {size}") for size in (512, 64, 1)]
    sized = read_comparisons(write_comparisons(tmp_path, "sizes", sizes))[1]
    assert [one.name for one in sized] == ["infer batch 1", "infer batch 64", "infer batch 512"]
    write_comparisons(tmp_path, "AMD EPYC, 2 cores", [ONE])
    device, found = read_comparisons(path)
    assert device == "NVIDIA H200" and [(one.name, one.ratio) for one in found] == [
        ("pipeline s1", 30.0),
        ("start", 20.0),
    ]
    assert [device for device, _ in read_measured(tmp_path)] == ["AMD EPYC, 2 cores", "NVIDIA H200", "sizes"]


def damaged(**changes) -> str:
    """A file of one comparison, in which these fields were changed by hand; `top_` for those of the whole file."""
    top = {name[4:]: value for name, value in changes.items() if name.startswith("top_")}
    entry = asdict(ONE) | {name: value for name, value in changes.items() if not name.startswith("top_")}
    return json.dumps({"schema": 1, "device_name": "x", "comparisons": [entry]} | top)


BROKEN = {
    "": "no JSON: Expecting value",
    "[]": "it says no schema",
    "[" * 200_000: "no JSON: ",  # in words of each Python's own
    '{"schema": 99}': "schema 99, this version reads 1",
    damaged(top_schema=True): "it says no schema",
    damaged(top_device_name=3): "it has no usable device_name or comparisons",
    damaged(top_comparisons={}): "it has no usable device_name or comparisons",
    damaged(top_comparisons=["x"]): "comparison 1 is no object",
    damaged(top_comparisons=[{}]): "comparison 1 has no usable name, unit, ours, ",
    damaged(ratio="abc"): "comparison 1 has no usable ratio",
    damaged(ratio=float("nan")): "no JSON: NaN is no number",
    damaged(ratio_high=float("inf")): "no JSON: Infinity is no number",
    damaged(ratio=None, ours=True): "comparison 1 has no usable ours, ratio",
    damaged(ratio_high=1e300): "comparison 1 has no usable ratio_high",
    damaged(ratio_low=21.0): "comparison 1 has a ratio of 20.0, from 21.0 to 22.0",
    damaged(baseline=-1): "comparison 1 has no usable baseline",
    damaged(rounds=2.5): "comparison 1 has no usable rounds",
    damaged(goal="high"): "comparison 1 has no usable goal",
    damaged(name="a\nb", unit=""): "comparison 1 has no usable name, unit",
    damaged(baseline_name="\ud800"): "comparison 1 has no usable baseline_name",
    damaged(facts=[], env=None): "comparison 1 has no usable facts, env",
    damaged(facts={"step_ms": "x", "pipeline_share": []}): "no usable facts.step_ms, facts.pipeline_share",
}


@pytest.mark.parametrize(("text", "words"), BROKEN.items(), ids=BROKEN.values())
def test_a_broken_file_is_named(tmp_path, text, words):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_comparisons(tmp_path / "x.json")
    told = str(caught.value)
    assert told.startswith(f"{tmp_path}/x.json is not a file of benchmarks: {words}") or words in told
    assert "\n" not in told


@pytest.mark.parametrize("text", [damaged(ratio=float("nan")), damaged(facts={"step_ms": "x"}), "[" * 200_000])
def test_a_broken_file_is_refused_before_anything_is_written(tmp_path, text, capsys):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "x.json").write_text(text)
    (tmp_path / "runs").mkdir()
    words = ["--results", str(tmp_path / "runs"), "--bench", str(tmp_path / "bench"), "--out", str(tmp_path / "paper")]
    with pytest.raises(SystemExit) as caught:
        run_command(report.main, words)
    error = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(error) == 1 and error[0].startswith(f"{tmp_path}/bench/x.json is not")
    assert not (tmp_path / "paper").exists()


def test_whatever_is_changed_is_refused_or_shown(tmp_path):
    """Every value of a file, each in its turn: what is let in, tables and figures can show."""
    trained = replace(ONE, facts=dict.fromkeys(RECKONED, 1.0), env={"device": "cpu"})
    plain = json.loads(write_comparisons(tmp_path, "x", [trained]).read_text())
    entry, refused = plain["comparisons"][0], 0
    values = (*OTHER_VALUES, *NOT_FINITE, 1e300, -1e-300, 1e-300, 1e14, "\0", "$\\frac", "\udc00", "²", "9" * 5000)
    places = [(holder, key) for holder in (plain, entry, entry["facts"], entry["env"]) for key in holder]
    for (holder, key), value in product(places, values):
        sound, holder[key] = holder[key], value
        (tmp_path / "x.json").write_text(json.dumps(plain))
        holder[key] = sound
        try:
            measured = read_measured(tmp_path)
        except UsageError:
            refused += 1
            continue
        for table in (benchmark_table(measured), training_table(measured)):
            (table.to_markdown() + table.to_csv() + table.to_latex()).encode()
        if measured[0][1] and holder in (plain, entry):
            draw_benchmarks(benchmark_data(measured), {}).savefig(io.BytesIO(), dpi=20)
        write_comparisons(tmp_path, "x", [replace(ONE, name="another")])
    assert refused > len(places) * len(values) / 2


def test_what_is_nested_too_deep_to_be_written_again_is_said(tmp_path):
    path = write_comparisons(tmp_path, "x", [ONE])
    path.write_text(path.read_text().replace('"env": {}', f'"env": {{"a": {"[" * 600}{"]" * 600}}}'))
    with pytest.raises(UsageError, match=r"x\.json: what it holds is nested too deep"):
        write_comparisons(tmp_path, "x", [replace(ONE, name="another")])


def test_facts_that_a_table_reckons_with_are_numbers():
    assert {fact for fact, _ in TRAINING.values()} == set(RECKONED)
    assert set(USABLE) == {field.name for field in fields(Comparison)}


def test_all_that_was_measured_can_be_read():
    assert all(found for _, found in read_measured(ROOT / "results" / "bench"))


@pytest.mark.parametrize("name", RECIPES)
def test_the_baseline_knows_every_recipes_augmentation(name):
    recipe = fitted(RECIPES[name], DATASETS["c10"])
    recipe = replace(recipe, batch_size=8)
    data = made_up(DATASETS["c10"], 12)
    images, labels = next(iter(loader(conventional_images(data, recipe), recipe, 10, workers=0)))
    assert images.shape == (8, 3, 32, 32) and images.dtype == torch.float32
    assert labels.shape == ((8,) if recipe.mix == "none" else (8, 10))


def test_the_baseline_refuses_what_torchvision_lacks():
    with pytest.raises(UsageError, match="crop-paste"):
        transforms(replace(RECIPES["s1"], augment=("crop-paste",)), 32, (0.5,) * 3, (0.5,) * 3)


def test_the_conventional_loop_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=64)
    images = (labels * 200)[:, None, None, None] + rng.integers(0, 20, (64, 8, 8, 3))
    recipe = replace(RECIPES["quick"], batch_size=16)
    data = Images(images.astype(np.uint8), labels, transforms(recipe, 8, (0.5,) * 3, (0.5,) * 3))
    torch.manual_seed(0)
    loop = Loop(build("compact", 8, 2), recipe, loader(data, recipe, 2, workers=0), CPU)
    first = loop.epoch()
    assert [loop.epoch() for _ in range(5)][-1] < 0.8 * first


def test_the_floors_by_hand(monkeypatch):
    variant = ViTConfig(image_size=8, patch=4, width=4, depth=1, heads=2, mlp_width=8, pool="mean", num_classes=3)
    config = resolve("compact", DATASETS["c10"], "quick", batch_size=5)
    config = replace(config, variant=variant)
    cost = cost_of("x", variant, "c10", check=False)
    assert cost.macs is not None and cost.params is not None and cost.activations_without_head is not None
    # tokens 4: tokenizer 16, qkv 48, scores 32, values 16, proj 16, mlp 32 + 16, head 3
    assert cost.activations_without_head + 3 == 16 + 48 + 32 + 16 + 16 + 32 + 16 + 3
    assert step_flops(config, cost) == 6 * cost.macs * 5
    assert step_bytes(config) == 40 * cost.params + 4 * 5 * (179 - 32) * 5
    for half in ("bf16", "fp16"):
        assert step_bytes(replace(config, precision=half)) == 40 * cost.params + 2 * 5 * (179 - 32) * 5
    monkeypatch.setattr(floors_module, "matrix_rate", lambda device, precision: 1e9)
    monkeypatch.setattr(floors_module, "bandwidth", lambda device: 1e6)
    found = floors(config, cost, CPU)
    assert found.flops_s == 30 * cost.macs / 1e9 and found.bound_s == found.bytes_s
    assert found.bytes_s == (40 * cost.params + 4 * 5 * (179 - 32) * 5) / 1e6
    assert Floors(None, None).bound_s is None and Floors(2.0, None).bound_s == 2.0


def test_pipelines_are_compared_over_the_same_images():
    recipe = replace(fitted(RECIPES["s1"], DATASETS["c10"]), batch_size=16)
    one = compare_pipelines("s1", recipe, made_up(DATASETS["c10"], 40), CPU, workers=1, rounds=1)
    assert one.name == "pipeline s1" and one.goal == 25 and one.ours > 0 and one.baseline > 0
    assert one.facts["images"] == 40 and one.facts["augment"] == ["crop", "flip", "autoaugment-pil-cifar"]


@pytest.mark.parametrize("settings", [[], ["recipe.clip=1.0", "recipe.ema=0.9", "recipe.mix=cutmix"]])
def test_training_is_compared_with_both_baselines(settings, monkeypatch):
    monkeypatch.setitem(floors_module.MATRIX_SIDE, "cpu", 64)
    monkeypatch.setitem(floors_module.COPY_BYTES, "cpu", 2**16)
    config = resolve("compact", DATASETS["digits"], "quick", batch_size=8, settings=settings)
    cost = cost_of("compact", config.variant, "digits", check=False)
    found = compare_training(config, cost, made_up(DATASETS["digits"], 20), CPU, workers=1, rounds=2)
    name = ", ".join(["compact quick batch 8", "digits", *sorted(settings)])
    assert [one.name for one in found] == [f"train {name}", f"loop {name}"]
    train, loop = found
    assert train.rounds == loop.rounds == 2 and train.ours == loop.ours > 0
    missing = {name for name, value in train.facts.items() if value is None}
    assert missing == {"compile_seconds", "joules_per_1000_images"}
    assert train.facts["share_of_bound"] == pytest.approx(
        max(train.facts["flops_floor_ms"], train.facts["bytes_floor_ms"]) / train.facts["step_ms"]
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_staged_steps_are_those_of_the_real_loop(monkeypatch, precision):
    """On the same batches both end with the same weights: what the loop is compared with leaves nothing out."""
    monkeypatch.setattr("harness.training.loop.data_generator", lambda seed, epoch: np.random.default_rng(0))
    settings = ["recipe.clip=0.5", "recipe.ema=0.9", "recipe.mix=cutmix", "recipe.warmup_epochs=1"]
    rest: dict[str, Any] = {"epochs": 2, "batch_size": 8, "settings": settings, "precision": precision}
    config = resolve("compact", DATASETS["digits"], "quick", **rest)
    data, weights = made_up(DATASETS["digits"], 20), []
    split, few, scale = to_device(data.train, CPU), to_device(data.test, CPU), scaling(data, config.recipe, CPU)
    for staged in (False, True):
        model = build_model(config, CPU)
        compute = Compute(model, config)
        if staged:
            Staged(config, model, compute, split, scale).epoch()
        else:
            next(train(config, model, compute, split, few, scale, Progress("", 2, 20, quiet=True)))
        weights.append([*model.parameters(), *compute.judged.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_timms_body_has_our_shape_and_others_are_refused():
    config = CATALOG[bench.BODY]
    assert isinstance(config, ViTConfig)
    counts = [sum(p.numel() for p in model.parameters()) for model in (timms(config), config.module())]
    assert counts[0] == counts[1]
    with pytest.raises(UsageError, match="pool"):
        timms(CATALOG["compact"])


def test_every_goal_belongs_to_a_benchmark_that_can_be_run():
    assert goal("cpu", "pipeline s1") == 25 and goal("cuda", "nonsense") is None
    assert {name.split()[0] for _, name in GOALS} <= {*bench.KINDS, "loop"}


def test_a_command_is_measured_from_outside():
    seconds, peak = spent(["-c", "import time; time.sleep(0.2); x = bytearray(10**8)"])
    assert seconds > 0.2 and peak > 10**8
    with pytest.raises(subprocess.CalledProcessError):
        spent(["-c", "raise SystemExit(3)"])


def test_a_run_is_timed_alone_and_beside_busy_processes(monkeypatch):
    """Asleep 2 s and 4 s, spinning 1 s and 10 s."""
    beside, called = [0], []
    real = busy

    @contextlib.contextmanager
    def counted(count):
        with real(count):
            beside[0] = count
            yield

    def fake(command):
        spins = command[0] == "-c"
        called.append((spins, beside[0]))
        assert command[2 : 2 + len(A_RUN)] == list(A_RUN) and command[-2] == "--out"
        return {(False, 0): 2.0, (False, BUSY): 4.0, (True, 0): 1.0, (True, BUSY): 10.0}[called[-1]], 0

    monkeypatch.setattr(commands_module, "busy", counted)
    monkeypatch.setattr(commands_module, "spent", fake)
    found = compare_beside(1)
    assert set(called) == {(False, 0), (False, BUSY), (True, 0), (True, BUSY)}
    assert [(one.name, one.ratio, one.ours, one.reached) for one in found] == [
        ("beside 2 busy processes", 0.5, 15.0, True),
        ("beside 2 busy processes against spinning", 2.5, 15.0, None),
        ("beside nobody against spinning", 0.5, 30.0, None),
    ]


def test_the_run_that_spins_is_as_openmp_has_it(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    code = SPIN.replace("sys.exit(main(sys.argv[1:]))", "sys.exit('OMP_WAIT_POLICY' in os.environ)")
    assert code != SPIN
    spent(["-c", code])
    spent(["-c", SPIN, *A_RUN, "--dry-run"])


def test_busy_processes_compute_and_end():
    before = os.times()
    with busy(2) as others:
        time.sleep(1)
    assert len(others) == 2 and all(other.poll() is not None for other in others)
    assert os.times().children_user - before.children_user > 0.2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pipelin"], "invalid choice"),
        (["pipeline", "--rounds", "0"], "1 or more"),
        (["pipeline", "--dataset", "c11"], "c10"),
        (["train", "--variant", "compct"], "compact"),
        (["infer", "--batch-sizes", "many"], "whole number"),
        (["start", "--device", "cpu"], "--device"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, tmp_path):
    command = [sys.executable, "-m", "harness.bench", *arguments]
    if arguments[0] != "pipelin":
        command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


def test_the_command_measures_prints_and_keeps(tmp_path, capsys):
    arguments = ["infer", "--dataset", "digits", "--batch-sizes", "1", "2", "--rounds", "1", "--device", "cpu"]
    assert bench.main([*arguments, "--out", str(tmp_path), "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in printed] == ["infer compact batch 1, digits", "infer compact batch 2, digits"]
    assert printed[0]["env"]["source_digest"] and printed[0]["facts"]["latency_ms"] > 0
    assert bench.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "times as fast" in capsys.readouterr().out
    assert len(read_measured(tmp_path)[0][1]) == 2


def test_the_report_shows_every_comparison_and_every_miss(tmp_path):
    write_comparisons(tmp_path / "bench", "AMD EPYC, 2 cores", [ONE, replace(ONE, name="start", goal=None)])
    measured = read_measured(tmp_path / "bench")
    assert benchmark_table(measured).rows[0] == (
        *("AMD EPYC, 2 cores", "pipeline s1", "images/s", "200", "10", "20.0 (18.0 to 22.0)"),
        *("5", "25.0", "no", "torchvision"),
    )
    assert benchmark_table(measured).rows[1][7:9] == ("—", "—")
    trained = replace(ONE, name="train x", facts={"step_ms": 2.0, "share_of_bound": 0.5, "peak_memory_bytes": 3e6})
    table = training_table([("here", [ONE, trained])])
    assert table.rows == (("here", "x", "2.0", "—", "—", "50.0", "—", "—", "3.0", "—", "—"),)
    assert [bar["reached"] for bar in benchmark_data(measured)["panels"][0]["bars"]] == [False, None]
    empty = tmp_path / "runs"
    empty.mkdir()
    for folder in ("bench", "nothing"):
        out = tmp_path / f"paper-{folder}"
        report.main(["--results", str(empty), "--bench", str(tmp_path / folder), "--out", str(out)])
        assert (out / "tables" / "benchmarks.md").exists() == (folder == "bench")
        drawn = read_digest(out / "figures" / "benchmarks.png") if folder == "bench" else None
        assert (drawn is not None) == (folder == "bench")


def test_paths_stay_inside_the_folder():
    assert file_of(Path("x"), "../../A B/c").parent == Path("x")
