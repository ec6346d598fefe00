"""What a study would cost on a device: by hand from made-up rates, never from two devices, and beside finished runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import sweep
from harness.config import resolve
from harness.counting.closed_form import items, total
from harness.datasets import DATASETS
from harness.records.benchmarks import Comparison, write_comparisons
from harness.records.schema import RESULT_FIELDS
from harness.records.write import RunWriter
from harness.sweeping import estimate
from harness.timing import gpu

ROOT = Path(__file__).resolve().parents[1]
GPU, OTHER = "NVIDIA Fake 100", "NVIDIA Fake 200"
FACTS = {"precision": "bf16", "compile": True, "compile_seconds": 36.0}
JOULES = {"peak_memory_bytes": 2_000_000_000, "joules_per_1000_images": 30.0}
COMPACT = "train compact s2 batch 256"
IMAGES = 100 * 50_000 + (100 + 35) * 10_000 / 3  # of a run: 100 epochs, and a third of what is evaluated


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def measure(name: str, speed: float, device: str = GPU, spread: float = 1.0, **facts) -> None:
    ratios = (2.0, 2.0 / spread, 2.0 * spread)
    env = {"device": "cuda", "device_name": device, "shared_device": facts.pop("shared", False)}
    one = Comparison(name, "images/s", speed, speed / 2, "slow", *ratios, 3, facts=FACTS | facts, env=env)
    write_comparisons(Path("results/bench"), device, [one])


def told(capsys, words: str) -> dict:
    assert sweep.main([*words.split(), "--estimate", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def device_of(capsys, words: str) -> dict:
    (found,) = told(capsys, words)["devices"]
    return found


def shown(capsys, words: str) -> str:
    assert sweep.main([*words.split(), "--estimate"]) == 0
    return capsys.readouterr().out


def finished(config, folder: str, seconds: float, device: str = GPU, shared: bool = False) -> None:
    writer = RunWriter(Path(folder) / config.run_id)
    writer.begin(config.to_plain(), {"device": "cuda", "device_name": device, "threads": 8}, {})
    result = {"outcome": "ok", "split": "test", "test_accuracy": 0.5, "images_seen": 5_000_000}
    result |= {"train_seconds": seconds, "shared_device": shared}
    writer.finish(dict.fromkeys(RESULT_FIELDS) | result)


def compact(dataset: str = "c10", **fields):
    return resolve("compact", DATASETS[dataset], "published", precision="bf16", compile=True, **fields)


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_measured_step(capsys):
    """Hours with the spread of the rounds and with compilation, energy by the power, memory; on CIFAR-100 too."""
    measure(COMPACT, 10_000.0, spread=1.25, **JOULES)
    found = device_of(capsys, "pooling --seeds 1 --dataset c10 c100")
    seq = found["rows"][0]["to_train"]
    assert found["setting"] == ["bf16", True, None] and seq["rates"] == ["measured"]
    hours = [2 * (IMAGES / 10_000 * factor + 36) / 3600 for factor in (0.8, 1, 1.25)]
    assert seq["runs"] == 2 and seq["hours"] == pytest.approx(hours)
    assert seq["kwh"] == pytest.approx([0.3 * h for h in hours])  # 30 J for 1,000 images at 10,000 a second: 300 W
    assert seq["memory_bytes"] == 2_000_000_000
    text = shown(capsys, "pooling --seeds 1 --dataset c10")
    assert "pool=seq" in text and "kWh" in text and "2.0 GB is the largest peak" in text and "not, no finished" in text


def test_another_step_is_scaled_by_macs_from_the_nearest(capsys):
    measure(COMPACT, 10_000.0, **JOULES)
    measure("gpu vanilla s1 batch 128", 1_000.0)
    row = device_of(capsys, "main --dataset c10 --seeds 1 --variants timm compact vanilla")["rows"]
    by_row = {one["row"]: one["to_train"] for one in row}
    assert by_row["vanilla published"]["rates"] == by_row["compact published"]["rates"] == ["measured"]
    common = by_row["compact common"]
    assert common["rates"] == ["by MACs from compact s2"] and common["memory_bytes"] is None
    per_mac = {name: 1 / speed / macs(name) for name, speed in (("compact", 10_000), ("vanilla", 1_000))}
    images = 200 * 50_000 + 235 * 10_000 / 3
    likely = images * per_mac["compact"] * macs("compact")
    low, high = min(likely / 1.5, images * per_mac["vanilla"] * macs("compact")), likely * 1.5
    assert common["hours"] == pytest.approx([(s + 36) / 3600 for s in (low, likely, high)])
    assert by_row["compact common"]["kwh"] and by_row["vanilla common"]["kwh"] is None, "energy where it was measured"


def macs(name: str) -> int:
    return total(list(items(resolve(name, DATASETS["c10"]).variant)), "macs")


def test_the_range_is_as_wide_as_a_step_is_far(capsys):
    """From one measured variant to another of many times its work, and of a timm model without a count: unknown."""
    measure(COMPACT, 10_000.0)
    row = device_of(capsys, "main --dataset c10 --seeds 1 --variants vanilla --recipes published")["rows"][0]["all"]
    low, likely, high = row["hours"]
    far = (macs("vanilla") * 128 / (macs("compact") * 256)) ** 0.5
    assert high - 0.01 == pytest.approx((likely - 0.01) * far) and low - 0.01 == pytest.approx((likely - 0.01) / far)
    found = device_of(capsys, "main --dataset c10 --seeds 2 --variants compact timm")
    assert found["all"]["runs_unknown"] == 2 and found["all"]["hours"]
    assert "2 of them unknown" in shown(capsys, "main --dataset c10 --seeds 2 --variants compact timm")


def test_seeds_at_once(capsys):
    """By the measured gain; of a variant that was not measured, anything between that and none; else unknown."""
    measure(COMPACT, 10_000.0)
    assert device_of(capsys, "pooling --seeds 4 --seeds-at-once 4")["to_train"]["hours"] is None
    for name in ("compact", "vanilla"):
        measure(f"seeds {name} s2 batch 256, 4 at once", 10.0)  # twice as fast as one after another
    pooling = "pooling --seeds 4", "pooling --seeds 4 --seeds-at-once 4"
    one, four = (device_of(capsys, words)["rows"][0]["all"] for words in pooling)
    assert four["hours"] == pytest.approx([h / 2 for h in one["hours"]]) and four["memory_bytes"] is None
    words = "main --dataset c10 --recipes published --variants compact-cls --seeds 4 --seeds-at-once 4"
    alone, spread = (device_of(capsys, text)["all"]["hours"] for text in (words.rpartition(" --")[0], words))
    assert spread == pytest.approx([alone[0] / 2, alone[1], alone[2]])
    assert "seeds --at-once 4 --variant compact --recipe published" in shown(capsys, "pooling --seeds-at-once 4")


def test_what_is_done_does_not_count(capsys):
    measure(COMPACT, 10_000.0)
    finished(compact(seed=1), "results/runs", 500.0)
    finished(compact(seed=2), "results/runs", 500.0)
    finished(replace(compact(seed=3), precision="fp32"), "results/runs", 500.0)  # another run of this device's setting
    found = device_of(capsys, "pooling")
    assert (found["to_train"]["runs"], found["all"]["runs"]) == (13, 15)
    assert found["rows"][0]["to_train"]["hours"][1] == pytest.approx(found["rows"][0]["all"]["hours"][1] * 3 / 5)


# --- devices and records ---------------------------------------------------------------------------------------------


def test_two_devices_are_never_mixed(capsys):
    measure(COMPACT, 10_000.0)
    measure("train vanilla s1 batch 128", 1_000.0, OTHER)
    words = "main --dataset c10 --seeds 1 --recipes published --variants vanilla"
    one, other = told(capsys, words)["devices"]
    assert (one["device"], other["device"]) == (GPU, OTHER)
    assert one["all"]["rates"] == ["by MACs from compact s2"] and other["all"]["rates"] == ["measured"]
    assert device_of(capsys, f"{words} --device 200")["all"]["rates"] == ["measured"]
    lines = shown(capsys, f"{words} --device FAKE").splitlines()
    assert [line.partition(" (")[0] for line in lines if "in all" in line] == [GPU, OTHER], "a line each"
    assert len(told(capsys, f"{words} --device cuda")["devices"]) == 2
    assert told(capsys, f"{words} --device cpu")["devices"] == []


def test_rates_of_another_setting_or_a_shared_device_do_not_count(capsys):
    measure(COMPACT, 99.0, precision="fp32", compile=False)
    measure("gpu compact s2 batch 256", 99.0, shared=True)
    measure("train compact-cls s2 batch 256", 10_000.0)
    measure("train compact common batch 128", 9_000.0)
    measure("train gone.py:MINE s2 batch 256", 1.0)
    measure("pipeline s1", 1.0)
    found = device_of(capsys, "pooling --seeds 1")
    assert found["setting"] == ["bf16", True, None]  # and compact-cls is what pool=cls makes of compact
    near = ["by MACs from compact common"]
    assert [row["all"]["rates"] for row in found["rows"]] == [near, ["measured"], near]
    assert device_of(capsys, "pooling --seeds 1 --precision fp32")["rows"][0]["all"]["rates"] == ["measured"]
    assert device_of(capsys, "pooling --precision fp16")["setting"] is None
    text = shown(capsys, "pooling --precision fp16")
    assert "unknown" in text and "--recipe published --precision fp16" in text


def test_it_is_checked_against_finished_runs_that_were_alone(capsys):
    """Of 5,000,000 images at 10,000 a second: 500 s. Every range is widened to what was recorded."""
    measure(COMPACT, 10_000.0)
    before = device_of(capsys, "pooling --seeds 1 --dataset c100")["all"]["hours"]
    finished(compact(seed=0), "results/reference", 625.0)
    finished(compact(seed=1), "results/runs", 400.0)
    finished(compact(seed=2), "results/reference", 9_000.0, shared=True)
    finished(compact(seed=3), "results/reference", 9_000.0, device=OTHER)
    finished(replace(compact(seed=4), compile=False), "results/reference", 9_000.0)
    found = device_of(capsys, "pooling --seeds 1 --dataset c100")
    assert sorted(found["recorded_over_predicted"]) == pytest.approx([0.8, 1.25]) and found["not_compared"] == 3
    text = shown(capsys, "pooling")
    assert "by 2 finished runs alone on it, training was predicted -20 % to +25 % off; 3 others shared it" in text
    low, likely, high = found["rows"][0]["all"]["hours"]
    assert likely == pytest.approx(before[1] / 3, rel=0.02)
    assert [(h - 0.01) / (likely - 0.01) for h in (low, high)] == pytest.approx([0.8, 1.25])


def test_an_unmeasured_device_is_unknown(capsys):
    assert "none" in shown(capsys, "pooling")
    measure(COMPACT, 10_000.0)
    text = shown(capsys, "pooling --device h100")
    assert text.startswith(f"h100: unknown, it is not among the devices of results/bench: {GPU}\n")
    assert "python -m harness.bench train --variant compact --recipe published --set variant.pool=cls" in text


def test_it_needs_no_torch_and_the_repository_s_own_rates_are_enough(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = "import sys; sys.modules['torch'] = None; from harness.sweep import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "main", "--estimate", "--device", "amd"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "AMD EPYC, 2 cores (fp32, 2 threads)" in done.stdout and "by 3 finished runs alone on it" in done.stdout
    assert "unknown" in shown(capsys, "main --device h100")


def test_what_a_first_look_at_a_gpu_leaves_is_read(capsys):
    """Its loop beside its staged steps, under a name that gives a rate."""
    look = object.__new__(gpu.Look)
    look.config, look.sizes = compact(), gpu.SIZES["cuda"]
    look.facts = {
        "smoke": {"precision": "bf16", "graph": True, "peak_memory_bytes": 10**9, "compile_s": 36.0},
        "loop": {"epoch_s": 5.0, "eval_s": 1.0, "joules": 1800.0},
        "parts": {"staged_s": 4.0},
    }
    one = look.compared()
    assert (one.name, one.ours, one.ratio) == ("gpu compact s2 batch 256", 10_000.0, pytest.approx(0.8))
    write_comparisons(Path("results/bench"), GPU, [replace(one, env={"device": "cuda", "shared_device": None})])
    seq = device_of(capsys, "pooling --seeds 1")["rows"][0]["all"]
    hours = (IMAGES / 10_000 + 36) / 3600
    assert seq["hours"][1] == pytest.approx(hours) and seq["kwh"][1] == pytest.approx(0.3 * hours)  # 300 W


def test_what_changes_times_unmeasured_is_refused():
    assert estimate.LEAST > 1
    for words in ("--accumulate 2", "--deterministic", "--graph off"):
        with pytest.raises(estimate.UsageError, match="leave them out"):
            sweep.main(["pooling", "--estimate", *words.split()])
