"""harness.bench: timing in turn, the baselines, the floors, what is kept and shown, made-up records, and the first look
at a GPU."""

import contextlib
import json
import subprocess
from dataclasses import asdict, replace
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import bench, report
from harness.config import resolve, run_config_from_plain
from harness.counting.cost import cost_of
from harness.data.load import Split
from harness.datasets import DATASETS
from harness.evidence.figures.costs import benchmark_data
from harness.evidence.tables.costs import TRAINING, benchmark_table, read_measured, training_table
from harness.recipes import RECIPES, fitted
from harness.records.benchmarks import RECKONED, Comparison, read_comparisons, write_comparisons
from harness.records.read import load_runs, run_state
from harness.timing import commands, gpu, training
from harness.timing.commands import BUSY, busy, spent
from harness.timing.conventional import Loop, conventional_batches, transforms
from harness.timing.models import BODY, timms
from harness.timing.synthetic import cells, write_records
from harness.timing.training import Staged, step_bytes, step_flops
from harness.timing.turns import Rounds, Way, made_up, take_turns
from harness.training.loop import train
from harness.training.setup import build_model, prepared
from tests.mutations import NOT_FINITE, OTHER_VALUES
from variants.catalog import CATALOG, build
from variants.config import ViTConfig
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
ONE = Comparison(
    "pipeline s1", "images/s", 200.0, 10.0, "torchvision", 20.0, 18.0, 22.0, 5, goal=25.0, facts={"a": None}
)


def compared(*words: str) -> list[Comparison]:
    """What a benchmark yields, before it is shown and kept."""
    args = bench.parser().parse_args([*words, "--rounds", "1"])
    module, function = bench.BENCHMARKS[args.kind][0].split(".")
    return list(getattr(import_module(f"harness.timing.{module}"), function)(args))


# --- taking turns ---


def test_ways_take_turns_and_the_first_round_does_not_count(capsys):
    called, clocks = [], {"a": iter([9.0, 1.0, 2.0, 6.0]), "b": iter([9.0, 2.0, 8.0, 6.0])}

    def way(name, amount):
        return Way(lambda: (called.append(name), next(clocks[name]))[1], amount)

    rounds = take_turns({"a": way("a", 30.0), "b": way("b", 10.0)}, 3)
    assert called == ["a", "b", "b", "a", "a", "b", "b", "a"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and "warmed up" in told[0] and told[3].startswith("round 3 of 3, about 0 s")
    assert rounds == Rounds(rounds.ways, {"a": [1.0, 2.0, 6.0], "b": [2.0, 8.0, 6.0]})
    one = rounds.compare("x", "images/s", "a", "b")
    assert (one.ours, one.baseline) == (15.0, pytest.approx(10 / 6))  # medians of 2 and 6 seconds
    assert (one.ratio, one.ratio_low, one.ratio_high, one.rounds) == (6.0, 3.0, 12.0, 3)  # of speeds, round by round
    assert one.reached is None and replace(one, goal=5.9).reached is True and replace(one, goal=6.1).reached is False


def test_every_goal_belongs_to_a_benchmark_that_can_be_run():
    assert {name.split()[0] for _, name in bench.GOALS} <= {*bench.BENCHMARKS, "loop"}


# --- what is kept ---


def test_comparisons_replace_those_of_their_name_and_stay_with_their_device(tmp_path):
    path = write_comparisons(tmp_path, "NVIDIA H200", [ONE, replace(ONE, name="start")])
    assert path == tmp_path / "nvidia-h200.json"
    write_comparisons(tmp_path, "NVIDIA H200", [replace(ONE, ratio=30.0, ratio_high=30.0)])
    device, found = read_comparisons(path)
    assert device == "NVIDIA H200"
    assert [(one.name, one.ratio) for one in found] == [("pipeline s1", 30.0), ("start", 20.0)]
    sizes = [replace(ONE, name=f"infer batch {size}") for size in (512, 64, 1)]
    sized = read_comparisons(write_comparisons(tmp_path, "../../A b/c", sizes))[1]
    assert [one.name for one in sized] == ["infer batch 1", "infer batch 64", "infer batch 512"]
    assert [device for device, _ in read_measured(tmp_path)] == ["../../A b/c", "NVIDIA H200"]


def damaged(**changes) -> str:
    """A file of one comparison, in which these fields were changed by hand."""
    return json.dumps({"schema": 1, "device_name": "x", "comparisons": [asdict(ONE) | changes]})


BROKEN = {
    "": "no JSON: Expecting value",
    '{"schema": 99}': "schema 99, this version reads 1",
    '{"schema": 1, "device_name": 3}': "it has no usable device_name or comparisons",
    damaged(ours=True, rounds=2.5, goal="high", facts=[]): "comparison 1 has no usable ours, rounds, goal, facts",
    damaged(ratio_low=21.0): "comparison 1 has a ratio of 20.0, from 21.0 to 22.0",
    damaged(facts={"step_ms": "x"}): "comparison 1 has no usable facts.step_ms",
}


@pytest.mark.parametrize(("text", "words"), BROKEN.items(), ids=BROKEN.values())
def test_a_broken_file_is_named(tmp_path, text, words):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_comparisons(tmp_path / "x.json")
    assert str(caught.value).startswith(f"{tmp_path}/x.json is not a file of benchmarks: {words}")


def test_a_broken_file_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "x.json").write_text("[]")
    words = ["--results", str(tmp_path), "--bench", str(tmp_path / "bench"), "--out", str(tmp_path / "paper")]
    with pytest.raises(UsageError, match=r"bench/x.json is not a file of benchmarks: it has no schema$"):
        report.main(words)
    assert not (tmp_path / "paper").exists()


def test_whatever_is_changed_is_refused_or_shown(tmp_path):
    """Every value of a file, each in its turn: what is let in, the tables can show."""
    trained = replace(ONE, facts=dict.fromkeys(RECKONED[:2], 1.0), env={"device": "cpu"})
    plain = json.loads(write_comparisons(tmp_path, "x", [trained]).read_text())
    entry, refused = plain["comparisons"][0], 0
    values = (*OTHER_VALUES, *NOT_FINITE, 1e14, "$\\frac", "²")
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
    assert refused > len(places) * len(values) / 2


def test_all_that_was_measured_can_be_read_and_facts_of_a_table_are_numbers():
    assert all(found for _, found in read_measured(ROOT / "results" / "bench"))
    assert {fact for fact, _ in TRAINING.values()} == set(RECKONED)


def test_tables_and_figure_show_every_comparison_and_every_miss(tmp_path):
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


# --- the baselines and the benchmarks of training ---


@pytest.mark.parametrize("name", RECIPES)
def test_the_baseline_has_every_recipes_augmentation(name):
    recipe = replace(fitted(RECIPES[name], DATASETS["c10"]), batch_size=8)
    images, labels = next(iter(conventional_batches(made_up(DATASETS["c10"], 12), recipe, workers=0)))
    assert images.shape == (8, 3, 32, 32) and images.dtype == torch.float32
    assert labels.shape == ((8,) if recipe.mix == "none" else (8, 10))


def test_the_baseline_refuses_what_torchvision_lacks():
    with pytest.raises(UsageError, match="crop-paste"):
        transforms(replace(RECIPES["s1"], augment=("crop-paste",)), 32, (0.5,) * 3, (0.5,) * 3)


def test_the_conventional_loop_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=64)
    images = (labels * 200)[:, None, None, None] + rng.integers(0, 20, (64, 8, 8, 3))
    data = replace(made_up(DATASETS["digits"], 1), train=Split(images.astype(np.uint8), labels))
    recipe = replace(RECIPES["quick"], batch_size=16)
    torch.manual_seed(0)
    loop = Loop(build("compact", 8, 10), recipe, conventional_batches(data, recipe, workers=0), CPU)
    first = loop.epoch()
    assert [loop.epoch() for _ in range(5)][-1] < 0.8 * first


def test_the_floors_by_hand():
    variant = ViTConfig(image_size=8, patch=4, width=4, depth=1, heads=2, mlp_width=8, pool="mean", num_classes=3)
    config = replace(resolve("compact", DATASETS["c10"], "quick", batch_size=5), variant=variant)
    cost = cost_of("x", variant, "c10", check=False)
    assert cost.macs is not None and cost.params is not None and cost.activations_without_head is not None
    # tokens 4: tokenizer 16, qkv 48, scores 32, values 16, proj 16, mlp 32 + 16, head 3
    assert cost.activations_without_head + 3 == 16 + 48 + 32 + 16 + 16 + 32 + 16 + 3
    assert step_flops(config) == 6 * cost.macs * 5
    assert step_bytes(config) == 40 * cost.params + 4 * 5 * (179 - 32) * 5
    for half in ("bf16", "fp16"):
        assert step_bytes(replace(config, precision=half)) == 40 * cost.params + 2 * 5 * (179 - 32) * 5


def test_the_rates_of_the_device_are_measured(monkeypatch):
    monkeypatch.setitem(training.MATRIX_SIDE, "cpu", 64)
    monkeypatch.setitem(training.COPY_BYTES, "cpu", 2**16)
    assert training.matrix_rate.__wrapped__(CPU, "fp32") > 1e6
    assert training.bandwidth.__wrapped__(CPU) > 1e6


def test_pipelines_are_compared_over_the_same_images():
    words = ["--images", "40", "--batch-size", "16", "--workers", "1", "--device", "cpu"]
    (one,) = compared("pipeline", *words)
    assert one.name == "pipeline s1" and one.ours > 0 and one.baseline > 0
    assert one.facts["images"] == 40 and one.facts["augment"] == ["crop", "flip", "autoaugment-pil-cifar"]


def test_training_is_compared_with_both_baselines(monkeypatch):
    monkeypatch.setattr(training, "matrix_rate", lambda device, precision: 1e9)
    monkeypatch.setattr(training, "bandwidth", lambda device: 1e6)
    settings = ["recipe.clip=1.0", "recipe.ema=0.9", "recipe.mix=cutmix"]
    words = ["--dataset", "digits", "--recipe", "quick", "--steps", "2", "--batch-size", "8", "--workers", "1"]
    train, loop = compared("train", *words, "--device", "cpu", "--set", *settings)
    name = ", ".join(["compact quick batch 8", "digits", *settings])
    assert (train.name, loop.name) == (f"train {name}", f"loop {name}") and train.ours == loop.ours > 0
    facts = train.facts
    assert {name for name, value in facts.items() if value is None} == {"compile_seconds", "joules_per_1000_images"}
    config = resolve("compact", DATASETS["digits"], "quick", batch_size=8, settings=settings)
    assert facts["flops_floor_ms"] == pytest.approx(1000 * (step_flops(config) or 0) / 1e9)
    assert facts["bytes_floor_ms"] == pytest.approx(1000 * (step_bytes(config) or 0) / 1e6)
    floor_ms = max(facts["flops_floor_ms"], facts["bytes_floor_ms"])
    assert facts["share_of_bound"] == pytest.approx(floor_ms / facts["step_ms"])
    assert facts["model_flop_utilisation"] == pytest.approx(facts["flops_floor_ms"] / facts["step_ms"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_staged_steps_are_those_of_the_real_loop(precision):
    """On the same batches both end with the same weights: what the loop is compared with leaves nothing out."""
    settings = ["recipe.clip=0.5", "recipe.ema=0.9", "recipe.mix=cutmix", "recipe.warmup_epochs=1"]
    rest: dict[str, Any] = {"epochs": 2, "batch_size": 8, "settings": settings, "precision": precision}
    config, weights = resolve("compact", DATASETS["digits"], "quick", **rest), []
    for staged in (False, True):
        data = made_up(DATASETS["digits"], 20)
        of = prepared(config, build_model(config, CPU), data, (data.train, data.test))
        if staged:
            Staged(of).steps()
        else:
            next(train(of))
        weights.append([*of.model.parameters(), *of.judged.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_seeds_as_one_are_compared_with_one_after_another():
    words = ["--dataset", "digits", "--recipe", "quick", "--steps", "2", "--batch-size", "8", "--at-once", "2", "3"]
    two, three = compared("seeds", *words, "--device", "cpu", "--set", "variant.depth=1")
    assert two.name == "seeds compact quick batch 8, digits, variant.depth=1, 2 at once" and two.unit == "seeds/h"
    assert two.baseline == three.baseline > 0 and two.baseline_name == "1 at once"
    for one, seeds in ((two, 2), (three, 3)):
        assert one.ours / one.baseline == pytest.approx(seeds / one.facts["times_of_one"])


def test_ways_of_attention_are_compared():
    found = compared("attention", "--batch-size", "2", "--tokens", "4", "--device", "cpu")
    assert len(found) == 6 and {one.baseline_name for one in found} == {"per-head"}
    assert found[0].name == "attention fused 4 tokens, width 48, batch 2" and found[0].facts["heads"] == 4


def test_timms_body_has_our_shape_and_others_are_refused():
    config = CATALOG[BODY]
    assert isinstance(config, ViTConfig)
    counts = [sum(p.numel() for p in model.parameters()) for model in (timms(config), config.module())]
    assert counts[0] == counts[1]
    with pytest.raises(UsageError, match="pool"):
        timms(CATALOG["compact"])


# --- whole commands ---


def test_a_command_is_measured_from_outside():
    seconds, peak = spent(["-c", "import time; time.sleep(0.2); x = bytearray(10**8)"])
    assert seconds > 0.2 and peak > 10**8
    with pytest.raises(subprocess.CalledProcessError):
        spent(["-c", "raise SystemExit(3)"])


def test_a_run_is_timed_alone_and_beside_busy_processes(monkeypatch):
    """2 s and 4 s; each warms up, and so a second time."""
    beside = []

    @contextlib.contextmanager
    def counted(count):
        with busy(count) as others:
            assert len(others) == count and all(other.poll() is None for other in others)
            beside.append(count)
            yield
        assert all(other.poll() is not None for other in others)

    monkeypatch.setattr(commands, "busy", counted)
    monkeypatch.setattr(commands, "spent", lambda command: ({0: 2.0, BUSY: 4.0}[beside[-1]], 0))
    (one,) = compared("beside")
    assert (one.name, one.ratio, one.ours, beside) == ("beside 2 busy processes", 0.5, 15.0, [0, BUSY, BUSY, 0])


def test_a_report_is_measured_against_a_tenth_and_against_its_goal(monkeypatch):
    """10 records in 2 s, 1 in 1 s."""

    def fake(command):
        count = len(list(Path(command[command.index("--results") + 1]).iterdir()))
        return {10: 2.0, 1: 1.0}[count], 100 * count

    monkeypatch.setattr(commands, "spent", fake)
    tenth, goal = compared("report", "--records", "10", "--epochs", "2")
    assert (tenth.name, tenth.ratio, tenth.ours, tenth.baseline) == ("report 10", 5.0, 5.0, 1.0)
    assert tenth.facts == {"seconds": 2.0, "epochs": 2, "peak_memory_bytes": 1000}
    assert (goal.baseline_name, goal.baseline, goal.ratio) == ("1,000 records in 10 s", 100.0, 0.05)
    assert bench.GOALS["cpu", goal.name.replace("10", "1000", 1)] == 1.0


def test_made_up_records_are_sound_runs_and_always_the_same(tmp_path):
    for name, count in (("seven", 7), ("six", 6)):
        write_records(tmp_path / name, count, epochs=3)
    runs = load_runs([tmp_path / "seven"])
    assert len(runs) == 7 and len({run.config["cell_id"] for run in runs}) == 2
    for run in runs:
        assert run_state(run.folder) == "done"
        assert run_config_from_plain(run.config).run_id == run.config["run_id"] == run.folder.name
        accuracies = [line["test_accuracy"] for line in run.epochs()]
        assert 0 < accuracies[0] < accuracies[-1] == run.result["test_accuracy"] <= 1
    for run in load_runs([tmp_path / "six"]):
        for file in run.folder.iterdir():
            assert file.read_bytes() == (tmp_path / "seven" / run.folder.name / file.name).read_bytes()


def test_no_two_made_up_cells_are_one():
    """Past the plain grid they differ in a learning rate, which must not be one that a recipe has."""
    assert len({config.cell_id for config in islice(cells(1), 130)}) == 130


def test_the_command_measures_prints_and_keeps(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(bench.GOALS, ("cpu", "infer compact batch 1, digits"), 1e9)
    arguments = ["infer", "--dataset", "digits", "--batch-sizes", "1", "2", "--rounds", "1", "--device", "cpu"]
    assert bench.main([*arguments, "--out", str(tmp_path), "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in printed] == ["infer compact batch 1, digits", "infer compact batch 2, digits"]
    assert [one["goal"] for one in printed] == [1e9, None]
    assert printed[0]["env"]["source_digest"] and "shared_device" in printed[0]["env"]
    assert printed[1]["facts"]["latency_ms"] == pytest.approx(2000 / printed[1]["ours"])
    assert bench.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "times as fast" in (out := capsys.readouterr().out) and "missed" in out
    assert len(read_measured(tmp_path)[0][1]) == 2


# --- a first look at a GPU ---

DRY = ["gpu", "--device", "cpu", "--dataset", "digits", "--batch-size", "128"]


def facts_in(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("gpu-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_dry_run_of_the_first_look_measures_everything_but_what_needs_cuda(tmp_path, capsys):
    assert bench.main([*DRY, "--variant", "compact", "--measure", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "need CUDA" in printed.err and "compact loop: batch size 128, steps 5, step ms " in printed.out
    env, *facts = facts_in(tmp_path)
    assert env["what"] == "environment" and env["device"] == "cpu" and env["source_digest"]
    assert [fact["what"] for fact in facts] == ["smoke", "loop", "parts", "profile"]
    smoke, loop, parts, profile = facts
    assert {fact["variant"] for fact in facts} == {"compact"} and {fact["recipe"] for fact in facts} == {"s2"}
    assert len(smoke["losses"]) == 2 and smoke["compile_s"] is None and smoke["compiled"] is False
    assert loop["epoch_s"] == pytest.approx(5 * loop["step_ms"] / 1000)
    assert loop["eval_s"] > 0 and loop["joules"] is None
    assert min(parts["host_step_ms"], parts["pipeline_host_s"], parts["staged_s"]) > 0
    assert parts["checkpoint_save_s"] > 0
    assert profile["profiled_ms"] >= profile["host_ms"] > 0 and "busy_ms" not in profile
    assert "aten::" in (tmp_path / profile["table"]).read_text()


def test_what_fails_is_a_fact_and_the_next_part_goes_on(tmp_path, monkeypatch, capsys):
    """What cannot be compiled goes on eager, and a later run adds to the file."""
    real = gpu.warm_up

    def failing(training):
        if training.config.compile:
            raise RuntimeError("no such kernel")
        return real(training)

    monkeypatch.setattr(gpu, "warm_up", failing)
    monkeypatch.setattr(gpu, "drain", lambda *words: 1 / 0)
    words = [*DRY, "--variant", "compact", "--out", str(tmp_path)]
    assert bench.main([*words, "--compile", "on", "--measure"]) == 1
    assert "RuntimeError: no such kernel" in capsys.readouterr().out
    assert bench.main(words) == 0
    failed, smoke, loop, parts, profile, *more = facts_in(tmp_path)[1:]
    assert (failed["what"], failed["part"], failed["error"]) == ("failed", "smoke", "RuntimeError: no such kernel")
    assert failed["compiled"] is True and smoke["compiled"] is False
    assert (parts["what"], parts["part"]) == ("failed", "parts") and "division by zero" in parts["error"]
    assert [fact["what"] for fact in (smoke, loop, profile)] == ["smoke", "loop", "profile"]
    assert [fact["what"] for fact in more] == ["environment", "smoke"]


def test_busy_and_idle_times_by_hand():
    """a and b overlap, c starts 15 later; a copy within b adds nothing."""
    kernels = [(45.0, 50.0, "c"), (0.0, 10.0, "a"), (5.0, 30.0, "b"), (6.0, 8.0, "a")]
    assert gpu.busy_and_gaps(kernels) == (35.0, [(15.0, "b", "c")])
