"""What a study would cost on a device, from what harness.bench measured there: hours, energy and memory. It needs
neither torch nor the device, and is checked against finished runs.

A run whose step was measured takes that rate. Any other is scaled by MACs from the nearest measured step: of the same
variant, else of the most similar MACs a batch. Its range holds the seconds per MAC of every measured step, and at least
a factor of 1.5, or the square root of the ratio of their MACs a batch. Evaluation is a third of a step for each image,
under corruptions too. Where finished runs missed a prediction by more, every range is widened to it.
"""

import contextlib
import math
import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from harness.commands import as_typed, asked_for
from harness.config import RunConfig, images_of, resolve, run_config_from_plain
from harness.counting.closed_form import items, total
from harness.datasets import DATASETS, EMBEDDED, Dataset
from harness.evidence.cells import cost_of_plain, read_costs
from harness.records.benchmarks import Comparison, read_comparisons
from harness.records.read import REFERENCE_RUNS, load_runs, run_state
from harness.sweeping.plan import PlannedRun, on_device, seeds_together
from variants.catalog import CATALOG, TYPES
from variants.config import ViTConfig
from variants.fields import UsageError

BENCH, COSTS = Path("results/bench"), Path("results/cost")
LEAST = 1.5  # a factor: MACs tell nothing of norms, copies, launches and augmentation
TRAINING = re.compile(r"(?:train|gpu) (\S+) (\S+) batch (\d+)(?:, (.+))?")  # the names that harness.bench gives
TOGETHER = re.compile(r"seeds (\S+) .*, (\d+) at once")


class Span(NamedTuple):
    low: float
    likely: float
    high: float


Setting = tuple[str, bool, int | None]  # precision, compilation, threads of a CPU: rates of one serve no other


@dataclass(frozen=True)
class Rate:
    """A measured step; or what follows from one for another step."""

    config: RunConfig
    seconds: Span  # an image
    facts: Mapping[str, Any]
    origin: str = "measured"


@dataclass(frozen=True)
class Device:
    """In the setting that was asked for, else the one in which most was measured; None: nothing of use was."""

    name: str
    setting: Setting | None
    rates: Sequence[Rate]
    together: Sequence[Comparison]

    def rate(self, config: RunConfig) -> Rate | None:
        if same := [rate for rate in self.rates if step_of(rate.config) == step_of(config)]:
            low, high = min(rate.seconds.low for rate in same), max(rate.seconds.high for rate in same)
            return replace(same[0], seconds=Span(low, same[0].seconds.likely, high))
        macs, known = macs_of(config), [(rate, macs) for rate in self.rates if (macs := macs_of(rate.config))]
        if not macs or not known:
            return None
        work = macs * config.recipe.batch_size

        def distance(pair: tuple[Rate, float]) -> tuple[bool, float]:
            other = pair[0].config
            return other.variant_name != config.variant_name, abs(math.log(pair[1] * other.recipe.batch_size / work))

        nearest, its_macs = min(known, key=distance)
        likely, factor = nearest.seconds.likely / its_macs * macs, distance((nearest, its_macs))[1]
        by_each, factor = [rate.seconds.likely / own * macs for rate, own in known], max(LEAST, math.exp(factor / 2))
        seconds = Span(min(*by_each, likely / factor), likely, max(*by_each, likely * factor))
        origin = f"by MACs from {nearest.config.variant_name} {nearest.config.recipe_source}"
        joules = nearest.facts.get("joules_per_1000_images")  # at the same power
        facts = {**nearest.facts, "joules_per_1000_images": joules and joules * likely / nearest.seconds.likely}
        return Rate(config, seconds, facts | {"peak_memory_bytes": None}, origin)

    def seeds_as_one(self, variant: str, count: int) -> Span | None:
        """How many times as long as one seed. Where others alone were measured, as long as one after another, with all
        that those gained or lost."""
        if count == 1:
            return Span(1, 1, 1)
        found = [(m[1], one) for one in self.together if (m := TOGETHER.fullmatch(one.name)) and int(m[2]) == count]
        own = [one for name, one in found if name == variant]
        likely = own[0].ratio if own else 1.0
        ratios = [r for one in own or [one for _, one in found] for r in (one.ratio_low, one.ratio_high)] + [likely]
        return Span(count / max(ratios), count / likely, count / min(ratios)) if found else None


@cache
def macs_of(config: RunConfig) -> float | None:
    """Of an image; without torch a model that is no ViTConfig is known as results/cost has it."""
    if type(config.variant) is ViTConfig:
        return total(list(items(config.variant)), "macs")
    return cost_of_plain(read_costs(COSTS), config.variant_name, config.overrides, config.dataset).get("macs")


def step_of(config: RunConfig) -> tuple[Any, ...]:
    """What a step's time depends on; the classes of its head and mirrored images hardly matter."""
    recipe, variant = config.recipe, {**asdict(config.variant), "num_classes": 0}
    augment = [re.sub("-(cifar|svhn)$", "", name) for name in recipe.augment if name != "flip"]
    mix = recipe.mix, recipe.mix_prob, recipe.mix_per_image
    return variant, recipe.batch_size, recipe.optimizer, recipe.clip > 0, recipe.ema > 0, augment, mix


# --- what was measured -----------------------------------------------------------------------------------------------


def devices(args: Namespace) -> list[Device]:
    """Those of results/bench that --device means: by a part of their names, or by cpu or cuda."""
    if args.accumulate > 1 or args.deterministic or args.graph == "off":
        raise UsageError("harness.bench measures no --accumulate, --deterministic or --graph off: leave them out")
    measured, wanted = map(read_comparisons, sorted(BENCH.glob("*.json"))), args.device.lower()
    return [
        _device(name, of, args)
        for name, of in measured
        if wanted == "auto" or wanted in name.lower() or wanted in {one.env.get("device") for one in of}
    ]


def _device(name: str, measured: Iterable[Comparison], args: Namespace) -> Device:
    settings: dict[Setting, list[Comparison]] = {}
    for one in measured:
        if {"precision", "compile"} <= one.facts.keys() and one.env.get("shared_device") is not True:
            setting = setting_of(one.facts["precision"], one.facts["compile"], one.env)
            if setting[:2] == asked_for(args, *setting[:2]):
                settings.setdefault(setting, []).append(one)
    rates = {setting: [rate for one in of if (rate := _rate(one))] for setting, of in settings.items()}
    best = max(rates, key=lambda setting: len(rates[setting]), default=None)
    return Device(name, best, rates[best], settings[best]) if best and rates[best] else Device(name, None, (), ())


def setting_of(precision: str, compiled: bool, env: Mapping[str, Any]) -> Setting:
    return precision, compiled, env.get("threads") if env.get("device") == "cpu" else None


def _rate(one: Comparison) -> Rate | None:
    """None of another benchmark, or where its variant or recipe is no longer there. No file that it names is run."""
    variant, recipe, size, more = m.groups() if (m := TRAINING.fullmatch(one.name)) else ("", "", "", None)
    if variant not in CATALOG and not variant.startswith("timm:"):
        return None
    words = more.split(", ") if more else []
    dataset = words.pop(0) if words and words[0] in DATASETS else "c10"
    try:
        config = resolve(variant, DATASETS[dataset], recipe, batch_size=int(size), settings=words)
    except UsageError:
        return None
    ratios = one.ratio_high, one.ratio, one.ratio_low  # of paired rounds: the only spread that is kept
    return Rate(config, Span(*(one.ratio / ratio / one.ours for ratio in ratios)), one.facts)


def recorded_over_predicted(device: Device, out: Path) -> tuple[list[float], int]:
    """Seconds of training of the finished runs that had the device for themselves; and how many others there are."""
    ratios, runs = [], load_runs(dict.fromkeys([REFERENCE_RUNS, out]))
    for run in runs:
        alone = run.ok and run.result["shared_device"] is False and run.env.get("device_name") == device.name
        seconds, images = run.result["train_seconds"], run.result["images_seen"]
        if alone and seconds and images and run.config.get("variant_type") in TYPES:  # no file that it names is run
            with contextlib.suppress(UsageError):  # it is of a variant that is no more
                config = run_config_from_plain(run.config)
                rate = device.rate(config)
                if rate and setting_of(config.precision, config.compile, run.env) == device.setting:
                    ratios.append(seconds / images / rate.seconds.likely)
    return ratios, len(runs) - len(ratios)


# --- what it would cost ----------------------------------------------------------------------------------------------


def estimate(device: Device, args: Namespace, planned: Sequence[PlannedRun], facts: Mapping[str, Dataset]) -> dict:
    """As `--json` prints it. A span is low, likely and high; null is unknown."""
    told: dict[str, Any] = {"device": device.name, "setting": device.setting}
    if device.setting is None:
        return told
    runs = on_device(planned, *device.setting[:2])
    todo = [run for run in runs if run_state(args.out / run.config.run_id) != "done"]
    ratios, others = recorded_over_predicted(device, args.out)

    def costs(runs: Sequence[PlannedRun]) -> dict[str, Any]:
        """One error is that of all runs, so low and high are summed."""
        parts = [_part(group, device, facts, ratios) for group in seeds_together(runs, args.seeds_at_once)]
        hours, kwh, peaks = ([part[name] for part in parts if part[name]] for name in ("hours", "kwh", "memory_bytes"))
        return {
            "runs": len(runs),
            "runs_unknown": sum(part["runs"] for part in parts if not part["hours"]),
            "hours": Span(*map(sum, zip(*hours))) if hours else None,
            "kwh": Span(*map(sum, zip(*kwh))) if kwh and len(kwh) == len(hours) else None,
            "memory_bytes": max(peaks) if peaks and args.seeds_at_once == 1 else None,
            "rates": sorted({part["rate"] for part in parts}),
        }

    titles = dict.fromkeys(run.row.title for run in runs)
    rows = {title: [[run for run in of if run.row.title == title] for of in (todo, runs)] for title in titles}
    told["rows"] = [{"row": title, "to_train": costs(left), "all": costs(of)} for title, (left, of) in rows.items()]
    check = {"recorded_over_predicted": ratios, "not_compared": others}
    return told | {"to_train": costs(todo), "all": costs(runs)} | check


def _part(group: Sequence[PlannedRun], device: Device, facts: Mapping[str, Dataset], ratios: Sequence[float]) -> dict:
    config, part = group[0].config, {"runs": len(group), "hours": None, "kwh": None, "memory_bytes": None}
    rate, times = device.rate(config), device.seeds_as_one(config.variant_name, len(group))
    if rate is None or times is None:
        return part | {"rate": "unknown"}
    (trained, evaluated), (low, likely, high) = images_of(config, facts[config.dataset]), rate.seconds
    missed, images = [likely * ratio for ratio in ratios], trained + evaluated / 3
    seconds = min(low, *missed, low), likely, max(high, *missed, high)
    compiling, joules = rate.facts.get("compile_seconds") or 0.0, rate.facts.get("joules_per_1000_images")
    part["hours"] = Span(*((images * s + compiling) * t / 3600 for s, t in zip(seconds, times)))
    if joules:
        part["kwh"] = Span(*(hours * joules / likely / 1e6 for hours in part["hours"]))
    memory = rate.facts.get("peak_memory_bytes") if len(group) == 1 else None
    return part | {"rate": rate.origin, "memory_bytes": memory}


# --- shown on a terminal ---------------------------------------------------------------------------------------------


def how_to_measure(args: Namespace, planned: Sequence[PlannedRun], found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The commands that measure, on the device, what no device here has measured."""
    rows = [row for told in found for row in told.get("rows", ()) if args.seeds_at_once == 1]
    measured = {row["row"] for row in rows if row["all"]["rates"] == ["measured"]}
    variants: dict[str, dict[str, None]] = {}
    for run in planned:
        if run.row.title not in measured:
            words = ["--dataset digits"] if run.config.dataset == EMBEDDED else []
            words += [f"--{name} {value}" for name in ("precision", "compile") if (value := getattr(args, name))]
            words += [f"--set {' '.join(run.row.settings)}"] if run.row.settings else []
            variants.setdefault(" ".join([run.row.recipe, *words]), {})[run.row.variant] = None
    kinds = ["train"] + ["seeds"] * (args.seeds_at_once > 1)
    asked = [(kind, f"--at-once {args.seeds_at_once} " * (kind == "seeds")) for kind in kinds]
    return [
        as_typed(f"python -m harness.bench {kind} {count}--variant {' '.join(names)} --recipe {words}")
        for words, names in variants.items()
        for kind, count in asked
    ]


def estimate_text(told: Mapping[str, Any], brief: bool = False) -> str:
    """A table of the study's rows and what they come to; `brief`: the hours alone."""
    if told["setting"] is None:
        return f"{told['device']}: unknown, no training was measured there, or not in this precision or compilation"
    (precision, compiled, threads), left, of = told["setting"], told["to_train"], told["all"]
    how = f"{precision}{', compiled' * compiled}{f', {threads} threads' if threads else ''}"
    hours = f"{told['device']} ({how}): {_hours_text(left)} to train, {_hours_text(of)} in all, one after another"
    if brief:
        return hours
    table = [
        [row["row"], left["runs"], *_limits(left["hours"]), _gigabytes(of["memory_bytes"]), "; ".join(of["rates"])]
        for row, left, of in ((row, row["to_train"], row["all"]) for row in told["rows"])
    ]
    headers = ["row", "to train", "hours", "low to high", "GB", "rate"]
    lines = [tabulate(table, headers=headers, colalign=("left", *["right"] * 4, "left"), disable_numparse=True), hours]
    spans = [(*_limits(part["kwh"]), what) for part, what in ((left, "to train"), (of, "in all")) if part["kwh"]]
    energy = ", ".join(f"{likely} kWh ({limits}) {what}" for likely, limits, what in spans)
    lines.append(f"energy: {energy or 'unknown, joules were not measured for all of it'}")
    peak = f"{_gigabytes(of['memory_bytes'])} GB is the largest peak that was measured; " if of["memory_bytes"] else ""
    lines.append(f"memory: {peak}unknown where there is a -")
    ratios, others = told["recorded_over_predicted"], told["not_compared"]
    if ratios:
        errors = [f"{100 / ratio - 100:+.0f} %" for ratio in (max(ratios), min(ratios))]
        found = f"by {len(ratios)} finished runs alone on it, training was predicted {' to '.join(errors)} off"
    else:
        found = "not, no finished run was alone on it"
    return "\n".join([*lines, f"checked: {found}; {others} others shared it, or had another device or setting"])


def _hours_text(part: Mapping[str, Any]) -> str:
    unknown = f", {part['runs_unknown']} of them unknown" if part["runs_unknown"] else ""
    likely, limits = _limits(part["hours"])
    return f"{likely} h ({limits}) for " * bool(part["hours"]) + f"{part['runs']} runs{unknown}"


def _limits(span: Span | None) -> tuple[str, str]:
    return (_number(span.likely), f"{_number(span.low)} to {_number(span.high)}") if span else ("-", "-")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def _gigabytes(count: float | None) -> str:
    return f"{count / 1e9:.1f}" if count else "-"
