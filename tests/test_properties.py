"""What must hold for every configuration, setting, record and sample, tried on examples that nobody chose.

The short form always runs, the full one with -m long. Every group meets planted defects, which it must find.
"""

import itertools
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from harness import config as configs
from harness.config import RunConfig, parse_settings, resolve, run_config_from_plain
from harness.datasets import DATASETS
from harness.recipe import Recipe
from harness.recipes import RECIPES
from harness.records.check import problems_of
from harness.records.read import Run, load_runs, run_state
from harness.records.schema import EPOCH_FIELDS, RESULT_FIELDS
from harness.records.write import RunWriter
from harness.statistics import images, intervals, paired
from tests.properties import LONG_FORM, TEXT, Property, attempt, breaking
from variants import fields as records
from variants.catalog import CATALOG
from variants.config import ViTConfig
from variants.fields import UsageError, from_text, hints

# --- configurations --------------------------------------------------------------------------------------------------

WHOLE = st.one_of(st.sampled_from((0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 192)), st.integers(-3, 400))
SHARE = st.one_of(st.sampled_from((0.0, -0.0, 0.1, 0.5, 0.9, 1.0, 1e-5, 1e-3)), st.floats(0, 1))
NUMBER = st.one_of(SHARE, st.floats(-10, 400), WHOLE)
AUGMENT = st.sampled_from(("crop", "flip", "resized-crop", "randaugment", "trivialaugment", "erase", "autoaugment"))
JUNK = st.one_of(
    *(st.none(), st.booleans(), TEXT, st.binary(max_size=5), st.integers(), st.floats(), st.complex_numbers()),
    st.sampled_from((10**400, -(10**5000), math.nan, math.inf, object, ..., np.float64(0.5), np.int64(3), np.zeros(2))),
    st.lists(st.one_of(st.none(), TEXT, st.floats()), max_size=3),
    st.lists(st.one_of(st.none(), TEXT, st.floats()), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, among them many that its record accepts."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[0] is str:
        return st.lists(AUGMENT, max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(SHARE, st.floats(0.5, 2))
    if type(None) in args:
        return st.one_of(st.none(), SHARE)
    return {int: WHOLE, float: NUMBER, bool: st.booleans(), str: TEXT}[hint]


@st.composite
def changed(draw: st.DrawFn, bases: list[Any]) -> Any:
    """One of the records with up to eight fields set anew; a value that is refused is left out."""
    record = draw(st.sampled_from(bases))
    known = hints(type(record))
    for name in draw(st.lists(st.sampled_from(sorted(known)), max_size=8)):
        try:
            record = replace(record, **{name: draw(values_of(known[name]))})
        except UsageError:
            continue
    return record


VARIANTS = changed(list(CATALOG.values()))
RECIPE = changed(list(RECIPES.values()))
DATASET = st.one_of(st.sampled_from(sorted(DATASETS)), TEXT.map("folder:{}".format))
CONFIG = st.builds(
    RunConfig,
    variant_name=TEXT,
    variant=VARIANTS,
    dataset=DATASET,
    recipe_name=TEXT,
    recipe_source=TEXT,
    recipe=RECIPE,
    seed=st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1)),
    precision=st.sampled_from(("fp32", "bf16")),
    compile=st.booleans(),
    holdout=st.one_of(st.just(0.0), st.floats(0, 1, exclude_max=True)),
    overrides=st.lists(TEXT, max_size=3).map(tuple),
    label=TEXT,
)


def comes_back(config: RunConfig) -> None:
    plain = json.loads(json.dumps(config.to_plain(), allow_nan=False))
    again = run_config_from_plain(plain)
    assert again == config and again.to_plain() == config.to_plain()
    assert (plain["run_id"], plain["cell_id"]) == (again.run_id, again.cell_id) == (config.run_id, config.cell_id)
    assert configs.plan_id(plain) == config.plan_id == configs.plan_id(config.plan)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[RunConfig, RunConfig, str]:
    """A configuration, the same with one field that can change a result set anew, and that field's name."""
    config = draw(CONFIG)
    part = draw(st.sampled_from(("variant", "recipe", "run")))
    if part == "run":
        name = draw(st.sampled_from(("dataset", "seed", "precision", "compile", "holdout")))
        values = {"dataset": DATASET, "seed": WHOLE, "holdout": SHARE}
        value = draw(values[name] if name in values else values_of(hints(RunConfig)[name]))
        try:
            return config, replace(config, **{name: value}), name
        except UsageError:
            return config, config, name
    record = getattr(config, part)
    name = draw(st.sampled_from(sorted(hints(type(record)))))
    try:
        return (
            config,
            replace(config, **{part: replace(record, **{name: draw(values_of(hints(type(record))[name]))})}),
            name,
        )
    except UsageError:
        return config, config, name


def each_number_doubled() -> list[tuple[RunConfig, RunConfig, str]]:
    """Of one configuration, where its record accepts that."""
    found, config = [], resolve("compact", DATASETS["c10"], "common")
    for part in ("variant", "recipe"):
        record = getattr(config, part)
        for name in hints(type(record)):
            value = getattr(record, name)
            try:
                changed = replace(record, **{name: 2 * value or 1} if type(value) in (int, float) else {})
            except UsageError:
                continue
            found.append((config, replace(config, **{part: changed}), name))
    return found


def is_told_apart(pair: tuple[RunConfig, RunConfig, str]) -> None:
    """Two runs have one id exactly when nothing that can change a result differs."""
    one, other, name = pair
    same = replace(one, dataset=one.dataset_name) == replace(other, dataset=other.dataset_name)
    assert (one.run_id == other.run_id) == same
    assert (one.cell_id == other.cell_id) == (same or name == "seed")
    assert (one.plan_id == other.plan_id) == (same or name in ("seed", "precision", "compile"))


def is_called_anything(example: tuple[RunConfig, str, str]) -> None:
    config, first, second = example
    named = replace(config, variant_name=first, recipe_name=second, recipe_source=first, label=second)
    named = replace(named, overrides=(first, second))
    assert (named.run_id, named.cell_id, named.plan_id) == (config.run_id, config.cell_id, config.plan_id)


def is_spelt_anyhow(config: RunConfig) -> None:
    """Equal values are one experiment: 1 and 1.0, 0.0 and -0.0."""

    def respelt(record: Any) -> Any:
        told = {f.name: getattr(record, f.name) for f in fields(record)}
        turned = {name: -value for name, value in told.items() if type(value) is float and value == 0}
        whole = {name: int(value) for name, value in told.items() if type(value) is float and value.is_integer()}
        return replace(record, **{**whole, **turned})

    other = replace(config, variant=respelt(config.variant), recipe=respelt(config.recipe))
    other = replace(other, holdout=-0.0 if config.holdout == 0 else config.holdout)
    assert other == config and other.run_id == config.run_id


def is_valid_or_refused(example: tuple[Any, str, Any]) -> None:
    """Whatever a field is set to, the record is as good as any other, or a UsageError says why not."""
    record, name, value = example
    try:
        made = replace(record, **{name: value})
    except UsageError as error:
        assert str(error) and len(str(error).splitlines()) <= 3
        return
    if isinstance(made, RunConfig):
        comes_back(made)
    else:
        assert records.from_plain(type(made), json.loads(json.dumps(asdict(made), allow_nan=False))) == made


@st.composite
def fields_of(draw: st.DrawFn) -> tuple[Any, str, Any]:
    record = draw(st.one_of(VARIANTS, RECIPE, CONFIG))
    names = [f.name for f in fields(record) if f.name not in ("variant", "recipe")]
    return record, draw(st.sampled_from(names)), draw(JUNK)


# --- settings --------------------------------------------------------------------------------------------------------


@st.composite
def printed(draw: st.DrawFn) -> tuple[Any, str, str]:
    """A record, one of its fields, and that field's value as a person would write it."""
    record = draw(st.one_of(changed([v for v in CATALOG.values() if isinstance(v, ViTConfig)]), RECIPE))
    name = draw(st.sampled_from(sorted(hints(type(record)))))
    value = getattr(record, name)
    return record, name, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def is_read_back(example: tuple[Any, str, str]) -> None:
    record, name, text = example
    owner = "recipe" if isinstance(record, Recipe) else "variant"
    found = parse_settings([f"{owner}.{name}={text}"])[owner]
    assert found == {name: text} and from_text(record, found) == record


def is_kept_to_the_last_sign(example: tuple[str, str, str]) -> None:
    """What stands after the first = is the value, whatever it is."""
    owner, name, text = example
    assert parse_settings([f"{owner}.{name}={text}"])[owner] == {name: text}


def is_taken_or_refused(settings: list[str]) -> None:
    try:
        config = resolve("compact", DATASETS["c10"], "common", settings=settings)
    except UsageError as error:
        assert str(error) and len(str(error).splitlines()) <= 3
    else:
        comes_back(config)
        assert config.overrides == tuple(sorted(settings))


FIELD = st.sampled_from(
    [f"{owner}.{f.name}" for owner, kind in (("recipe", Recipe), ("variant", ViTConfig)) for f in fields(kind)]
)
SETTING = st.one_of(
    st.tuples(FIELD, TEXT).map("=".join),
    st.tuples(FIELD, st.one_of(st.floats(), st.integers(), st.booleans(), st.none()).map(str)).map("=".join),
    TEXT,
)

# --- records ---------------------------------------------------------------------------------------------------------

MEASURED = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
COUNTED = st.one_of(st.none(), st.integers(0, 2**53))
PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), TEXT
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
COUNTS = ("epochs", "images_seen", "params")
RESULT = st.fixed_dictionaries(
    {
        **{name: COUNTED if name in COUNTS else MEASURED for name in RESULT_FIELDS},
        "outcome": st.sampled_from(("ok", "failed")),
        "reason": st.one_of(st.none(), TEXT),
        "split": st.sampled_from(("test", "val")),
        "corruption_accuracy": st.one_of(st.none(), st.dictionaries(TEXT, st.lists(MEASURED, max_size=5), max_size=3)),
        "shared_device": st.one_of(st.none(), st.booleans()),
        "sessions": st.one_of(st.none(), st.lists(st.dictionaries(TEXT, PLAIN, max_size=3), max_size=2)),
    }
)  # fmt: skip
LINES = st.lists(st.fixed_dictionaries(dict.fromkeys(EPOCH_FIELDS, MEASURED)), max_size=4)
RECORD = st.tuples(
    CONFIG,
    st.dictionaries(TEXT, PLAIN, max_size=4),
    RESULT,
    LINES,
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5),
)
BY_THE_WRITER = ("schema", "files", "digest")


def written(folder: Path, config: RunConfig, env: Mapping, result: Mapping, lines: list, confidence: list) -> Path:
    writer = RunWriter(folder / config.run_id)
    writer.begin(config.to_plain(), dict(env), {"params": 1})
    for number, line in enumerate(lines, 1):
        writer.epoch({**line, "epoch": number})
    labels = np.arange(len(confidence), dtype=np.uint16)
    writer.finish(dict(result), {"labels": labels, "predicted": labels, "confidence": np.array(confidence, np.float32)})
    return writer.folder


def is_read_as_written(example: tuple) -> None:
    config, env, result, lines, confidence = example
    with tempfile.TemporaryDirectory() as name:
        folder = written(Path(name), *example)
        (run,) = load_runs([Path(name)])
        assert run_config_from_plain(run.config) == config and run.env == env
        assert {name: run.result[name] for name in RESULT_FIELDS if name not in BY_THE_WRITER} == {
            name: value for name, value in result.items() if name not in BY_THE_WRITER
        }
        assert run.epochs() == [{**line, "epoch": number} for number, line in enumerate(lines, 1)]
        assert run.predictions()["confidence"].tolist() == confidence
        assert run_state(folder) == ("done" if result["outcome"] == "ok" else "failed")
        assert all(isinstance(problem, str) and problem for problem in problems_of(folder))


BAD_NUMBER = st.sampled_from((math.nan, math.inf, -math.inf))


def is_never_let_in(example: tuple) -> None:
    """A number that is none stops the writer, and what it leaves is no finished run."""
    record, number, place = example
    config, env, result, lines, confidence = record
    if place == "epoch":
        lines = [*lines, {**dict.fromkeys(EPOCH_FIELDS), "train_loss": number}]
    elif place == "env":
        env = {**env, "deep": [{"down": number}]}
    else:
        result = {**result, "test_nll": number}
    with tempfile.TemporaryDirectory() as name:
        try:
            written(Path(name), config, env, result, lines, confidence)
        except ValueError:
            pass
        else:
            raise AssertionError("it was let in")
        assert not list(Path(name).glob("*/result.json")) and load_runs([Path(name)]) == []


# --- statistics ------------------------------------------------------------------------------------------------------

# Accuracies in percent and their differences, exact in binary, so that shifting and doubling them rounds nothing.
POINT = st.one_of(st.sampled_from((0.0, 0.25, 50.0, 100.0)), st.integers(-6400, 6400).map(lambda n: n / 64))
SAMPLE = st.one_of(
    st.lists(POINT, max_size=9), st.tuples(POINT, st.integers(1, 9)).map(lambda pair: [pair[0]] * pair[1])
)
SOME = SAMPLE.filter(len)
ROUGH = st.lists(st.one_of(st.floats(-100, 100), st.floats(-1e-160, 1e-160), st.just(5e-324)), max_size=9)
BY_SEED = st.dictionaries(st.integers(0, 9), POINT, max_size=8)
P_VALUES = st.lists(st.one_of(st.none(), st.sampled_from((0.0, 0.01, 0.05, 0.5, 1.0)), st.floats(0, 1)), max_size=8)
near = pytest.approx


def numbers_in(found: Any) -> list[float]:
    """Every number in a result, however deep."""
    if isinstance(found, (bool, int, float)):
        return [float(found)]
    parts = vars(found).values() if hasattr(found, "__dict__") else found if isinstance(found, (list, tuple)) else ()
    return [number for part in parts for number in numbers_in(part)]


def mean_interval_fits(example: tuple[list[float], float, int]) -> None:
    sample, shift, power_of_two = example
    mean, half, n = intervals.mean_interval(sample)
    assert n == len(sample) and min(sample) - 1e-9 <= mean <= max(sample) + 1e-9
    assert (half is None) == (n == 1) and intervals.mean_interval(sample[::-1]) == (mean, half, n)
    moved, scaled = [x + shift for x in sample], [-(2.0**power_of_two) * x for x in sample]
    assert intervals.mean_interval(moved)[0] == near(mean + shift, abs=1e-9)
    assert intervals.mean_interval(scaled)[0] == near(-(2.0**power_of_two) * mean, rel=1e-12)
    if half is not None:
        assert half >= 0 and (half > 1e-9) == (max(sample) > min(sample))
        assert intervals.mean_interval(moved)[1] == near(half, abs=1e-9)
        assert intervals.mean_interval(scaled)[1] == near(2.0**power_of_two * half, rel=1e-12)
        assert half == near(stats.t.ppf(0.975, n - 1) * np.std(sample, ddof=1) / math.sqrt(n), abs=1e-9)


def bootstrap_fits(example: tuple[list[float], float, int, int]) -> None:
    sample, shift, power_of_two, seed = example
    found = intervals.bca_interval(sample, seed, resamples=200)
    assert (found is None) == (len(sample) < 2)
    if found is None:
        return
    assert min(sample) - 1e-9 <= found[0] <= found[1] <= max(sample) + 1e-9
    assert found == intervals.bca_interval(sample, seed, resamples=200)
    scaled = intervals.bca_interval([2.0**power_of_two * x for x in sample], seed, resamples=200)
    moved = intervals.bca_interval([x + round(shift) for x in sample], seed, resamples=200)
    assert scaled == near(tuple(2.0**power_of_two * end for end in found), rel=1e-9, abs=1e-9)
    assert moved == near(tuple(end + round(shift) for end in found), rel=1e-9, abs=1e-9)


def pairing_is_antisymmetric(example: tuple[dict[int, float], dict[int, float]]) -> None:
    a, b = example
    found, turned = paired.paired(a, b), paired.paired(b, a)
    assert (
        (found.n, found.dropped) == (turned.n, turned.dropped) == (len(a.keys() & b.keys()), len(a.keys() ^ b.keys()))
    )
    assert (found.mean is None) == (turned.mean is None) == (found.n == 0)
    if found.mean is not None:
        assert found.mean == -(turned.mean or 0.0)
    assert (found.half, found.spread, found.t_p) == (turned.half, turned.spread, turned.t_p)
    assert (found.sign_flip_p, found.smallest_sign_flip_p) == (turned.sign_flip_p, turned.smallest_sign_flip_p)


def differences_are_judged(differences: list[float]) -> None:
    """As documented where there is nothing to judge, as SciPy's paired test where there is."""
    found = paired.of_differences(differences)
    equal = len(set(differences)) <= 1
    assert (found.sign_flip_p is None) == (found.n < 2) and (found.spread is None) == (found.n < 2)
    assert (found.t_p is None) == (found.n < 2 or (equal and any(differences)))
    assert (found.half is None) == (found.n < 2 or (equal and any(differences)))
    if found.n >= 2 and equal:
        assert found.spread == 0 and found.t_p in (None, 1.0)
    if found.n >= 2 and not equal:
        assert found.t_p == near(stats.ttest_1samp(differences, 0)[1], rel=1e-6, abs=1e-12)
    again = paired.of_differences(differences[::-1])
    assert numbers_in(again) == near(numbers_in(found), rel=1e-12)


def signs_are_counted(differences: list[float]) -> None:
    found = paired.sign_flip_p(differences)
    assert (found is None) == (len(differences) < 2)
    if found is None:
        return
    assert paired.smallest_p(len(differences)) <= found <= 1
    assert found == paired.sign_flip_p([-x for x in differences]) == paired.sign_flip_p(sorted(differences))
    signs = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(math.fsum(sign * x for sign, x in zip(one, differences))) for one in signs]
    assert found == sum(one >= sums[0] for one in sums) / len(sums)


def holm_is_in_order(example: tuple[list[float | None], int]) -> None:
    p_values, turn = example
    found = paired.holm(p_values)
    assert [p is None for p in found] == [p is None for p in p_values]
    known = [(p, q) for p, q in zip(p_values, found) if p is not None and q is not None]
    assert all(p <= q <= 1 for p, q in known)
    assert all(q <= other for (p, q), (raw, other) in itertools.permutations(known, 2) if p < raw)
    turned = paired.holm([*p_values[turn:], *p_values[:turn]])
    assert turned == [*found[turn:], *found[:turn]]
    ordered = sorted(p for p, _ in known)
    for p, q in known:  # Holm's own words: the largest of what every smaller p was multiplied to
        steps = [min(1.0, (len(ordered) - at) * other) for at, other in enumerate(ordered) if other <= p]
        assert q == max(steps)


def images_are_symmetric(example: list[tuple[int, int, int]]) -> None:
    labels, first, second = (np.array(column, dtype=np.int64) for column in zip(*example))
    found, turned = images.agreement(labels, first, second), images.agreement(labels, second, first)
    assert found.n == len(example) and (found.both, found.neither) == (turned.both, turned.neither)
    assert (found.only_first, found.only_second) == (turned.only_second, turned.only_first)
    assert found.difference == -turned.difference == near((second == labels).mean() - (first == labels).mean())
    low, high = images.difference_interval(found, 0, resamples=200)
    assert -1 <= low <= high <= 1 and (
        low < high or found.both + found.neither in (0, found.n) or found.n < 9 or low == 0
    )
    table = images.confusion(labels, first, 4)
    assert table.sum() == len(example) and table.trace() == found.both + found.only_first
    by_class = images.class_accuracy(labels, first, 4)
    for row, share in zip(table, by_class):
        assert math.isnan(share) if row.sum() == 0 else 0 <= share <= 1
    assert np.allclose((table.diagonal() / np.maximum(table.sum(1), 1))[table.sum(1) > 0], by_class[table.sum(1) > 0])


def mcnemar_is_symmetric(example: tuple[int, int]) -> None:
    a, b = example
    p = images.mcnemar_p(a, b)
    assert 0 < p <= 1 and p == images.mcnemar_p(b, a)
    assert p == near(stats.binomtest(min(a, b), a + b).pvalue if a + b else 1.0, rel=1e-9)
    assert images.mcnemar_p(min(a, b), max(a, b) + 1) <= p or a == b


def calibration_adds_up(example: list[tuple[float, bool, bool]]) -> None:
    confidence, right, side = (np.array(column) for column in zip(*example))
    whole = images.calibration_bins(confidence, right)
    assert whole.images_B.sum() == len(example) and 0 <= whole.calibration_error <= 1
    assert abs(whole.overconfidence) <= whole.calibration_error + 1e-12
    assert images.calibration_error(confidence[::-1], right[::-1]) == near(whole.calibration_error, abs=1e-12)
    if 0 < side.sum() < len(side):
        halves = (images.calibration_bins(confidence[part], right[part]) for part in (side, ~side))
        assert np.allclose(list(vars(sum_of(halves)).values()), list(vars(whole).values()))


def sum_of(bins: Any) -> images.Bins:
    first, second = bins
    return first + second


def improvement_is_a_share(example: tuple[list[float], list[float], int]) -> None:
    x, y, seed = example
    found, turned = (paired.probability_of_improvement(*pair, seed, 200) for pair in ((x, y), (y, x)))
    assert found.probability + turned.probability == near(1)
    assert found.probability == near(stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)))
    assert (found.interval is None) == (min(len(x), len(y)) < 2)
    if found.interval:
        assert 0 <= found.interval[0] <= found.interval[1] <= 1


@st.composite
def grids(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.lists(st.integers(2, 4), min_size=3, max_size=4))  # two or three factors, and replicates
    values = draw(st.lists(POINT, min_size=math.prod(shape), max_size=math.prod(shape)))
    return np.array(values).reshape(shape)


def shares_add_up(grid: np.ndarray) -> None:
    found = paired.variance_shares(grid)
    assert (found is None) == bool((grid == grid.flat[0]).all())
    if found is None:
        return
    parts = [*found.effects.values(), found.residual]
    assert sum(parts) == near(1) and all(-1e-12 <= part <= 1 + 1e-12 for part in parts)
    turned = paired.variance_shares(grid.swapaxes(0, 1)[:, ::-1])
    assert turned is not None and turned.residual == near(found.residual, abs=1e-9)
    for axes, part in found.effects.items():
        elsewhere = tuple(sorted({0: 1, 1: 0}.get(axis, axis) for axis in axes))
        assert turned.effects[elsewhere] == near(part, abs=1e-9)
    moved = paired.variance_shares(4 * grid - 7)
    assert moved is not None and [*moved.effects.values(), moved.residual] == near(parts, abs=1e-9)
    cells = grid.mean(-1, keepdims=True)
    assert found.residual == near(((grid - cells) ** 2).sum() / ((grid - grid.mean()) ** 2).sum(), abs=1e-9)


def power_rises(example: tuple[int, int, float, float]) -> None:
    seeds, more, difference, spread = example
    found = paired.power(seeds, difference, spread)
    assert 0.05 - 1e-9 <= found <= 1 and found == paired.power(seeds, -difference, spread)
    assert paired.power(seeds + more, difference, spread) >= found - 1e-7
    assert paired.power(seeds, 1.5 * difference, spread) >= found - 1e-7
    assert paired.power(seeds, difference, 1.5 * spread) <= found + 1e-7


def seeds_are_the_fewest(example: tuple[float, float]) -> None:
    difference, spread = example
    found = paired.seeds_needed(difference, spread)
    if found is None:
        assert not difference or spread <= 0 or paired.power(paired.MOST_SEEDS, difference, spread) < paired.WANTED
        return
    assert paired.power(found, difference, spread) >= paired.WANTED and found == paired.seeds_needed(
        -difference, spread
    )
    assert found == 2 or paired.power(found - 1, difference, spread) < paired.WANTED


def nothing_is_nan(sample: list[float]) -> None:
    """Whatever finite numbers come, down to the smallest: a number, None, or the documented refusal of nothing."""
    found: list[Any] = [
        paired.of_differences(sample),
        intervals.bca_interval(sample, 0, 50),
        intervals.sample_spread(sample),
    ]
    found += [paired.sign_flip_p(sample), paired.paired_t_p(sample), paired.paired(dict(enumerate(sample)), {0: 1.0})]
    if sample:
        found += [intervals.mean_interval(sample), paired.probability_of_improvement(sample, sample, 0, 50)]
    assert all(math.isfinite(number) for number in numbers_in(found))
    known = [number for number in (found[0].t_p, found[0].sign_flip_p) if number is not None]
    assert all(0 <= p <= 1 for p in known) and (found[0].half is None or found[0].half >= 0)


# --- all of them -----------------------------------------------------------------------------------------------------

OF_CONFIGS = {
    "a configuration comes back from its record": Property(CONFIG, comes_back),
    "what can change a result tells two runs apart": Property(pairs(), is_told_apart, 200, each_number_doubled()),
    "a name or label changes no identity": Property(st.tuples(CONFIG, TEXT, TEXT), is_called_anything, 60),
    "equal values are one experiment": Property(CONFIG, is_spelt_anyhow, 60),
    "any value of a field is valid or refused": Property(fields_of(), is_valid_or_refused, 250),
}
OF_SETTINGS = {
    "a printed value is read back": Property(printed(), is_read_back, 200),
    "all after the first = is the value": Property(
        st.tuples(st.sampled_from(("recipe", "variant")), st.text("abc_.", max_size=5), TEXT),
        is_kept_to_the_last_sign,
        telling=[("recipe", "a", "b=c"), ("variant", "a", "="), ("variant", "a", "b=c=d")],
    ),
    "any text is taken or refused": Property(st.lists(SETTING, max_size=3), is_taken_or_refused, 300),
}
OF_RECORDS = {
    "a record is read as it was written": Property(RECORD, is_read_as_written, 40),
    "a number that is none is never let in": Property(
        st.tuples(RECORD, BAD_NUMBER, st.sampled_from(("epoch", "env", "result"))), is_never_let_in, 20
    ),
}
OF_STATISTICS = {
    "the t-interval": Property(st.tuples(SOME, POINT, st.integers(-3, 3)), mean_interval_fits),
    "the bootstrap interval": Property(st.tuples(SAMPLE, POINT, st.integers(-3, 3), st.integers(0, 9)), bootstrap_fits),
    "pairs are antisymmetric": Property(st.tuples(BY_SEED, BY_SEED), pairing_is_antisymmetric),
    "differences and SciPy's test": Property(SAMPLE, differences_are_judged),
    "sign flips, all counted": Property(SAMPLE.map(lambda sample: sample[:7]), signs_are_counted),
    "Holm's adjustment": Property(st.tuples(P_VALUES, st.integers(0, 8)), holm_is_in_order),
    "agreement, confusion, accuracy by class": Property(
        st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30), images_are_symmetric
    ),
    "McNemar's test": Property(st.tuples(st.integers(0, 60), st.integers(0, 60)), mcnemar_is_symmetric),
    "calibration": Property(
        st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans()), min_size=1, max_size=30), calibration_adds_up
    ),
    "probability of improvement": Property(st.tuples(SOME, SOME, st.integers(0, 9)), improvement_is_a_share),
    "shares of variance": Property(grids(), shares_add_up),
    "power": Property(
        st.tuples(st.integers(2, 50), st.integers(1, 50), st.floats(0, 5), st.floats(0.01, 5)), power_rises
    ),
    "seeds needed": Property(
        st.tuples(st.one_of(st.just(0.0), st.floats(0.001, 5)), st.floats(0, 5)), seeds_are_the_fewest
    ),
    "nothing is NaN": Property(ROUGH, nothing_is_nan, 200, [[1e-162, 2e-162], [5e-324, 0.0], [1e-200, 3e-200, 1.0]]),
}
GROUPS = {"configs": OF_CONFIGS, "--set": OF_SETTINGS, "records": OF_RECORDS, "statistics": OF_STATISTICS}
PROPERTIES = {(group, name): one for group, properties in GROUPS.items() for name, one in properties.items()}


@pytest.mark.parametrize(("group", "name"), PROPERTIES)
def test_holds(group, name, tried):
    one = PROPERTIES[group, name]
    tried(f"hypothesis: {group}", {name: attempt(one, one.number)})


@pytest.mark.long
@pytest.mark.parametrize(("group", "name"), PROPERTIES)
def test_holds_for_many_more(group, name, tried):
    one = PROPERTIES[group, name]
    tried(f"hypothesis: {group}", {name: attempt(one, LONG_FORM * one.number)})


# --- the properties bite ---------------------------------------------------------------------------------------------

PLAN: Any = vars(RunConfig)["plan"].fget
READ_EPOCHS, SEEDS_NEEDED = Run.epochs, paired.seeds_needed


def cut(settings: list[str]) -> dict[str, dict[str, str]]:
    return configs.parse_settings(["=".join(setting.split("=")[:2]) for setting in settings])


def one_word(name: str, text: str, hint: Any) -> Any:
    return hint(text) if hint in (int, float, bool) else text


def only_multiplied(p_values: list[float | None]) -> list[float | None]:
    known = [p for p in p_values if p is not None]
    return [p if p is None else min(1.0, sum(other >= p for other in known) * p) for p in p_values]


def right_twice(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> images.Agreement:
    a, b = first == labels, second == labels
    return images.Agreement(int((a & b).sum()), int(a.sum()), int((~a & b).sum()), int((~a & ~b).sum()))


def half_a_sum(first: images.Bins, second: images.Bins) -> images.Bins:
    return images.Bins(first.images_B + second.images_B, first.confidence_B + second.confidence_B, first.right_B)


def unweighted(grid: np.ndarray) -> paired.Shares | None:
    cells = grid.mean(-1)
    without = {axes: tuple(set(range(cells.ndim)) - set(axes)) for axes in paired.together(cells.ndim)}
    effects = {axes: float(cells.mean(others).var()) for axes, others in without.items()}
    return paired.Shares(effects, float(grid.var(-1).mean())) if np.ptp(grid) else None


def ties_won(x: list[float], y: list[float], seed: int, resamples: int) -> paired.Improvement:
    return paired.Improvement(float(np.greater_equal.outer(x, y).mean()), None)


# Group, property, what is replaced, and by what.
PLANTED: dict[str, tuple[str, str, str, Any]] = {
    "run_id without its digest": (
        *("configs", "what can change a result tells two runs apart", "harness.config._digest"),
        lambda value: "0" * 10,
    ),
    "a field that is no part of the identity": (
        *("configs", "what can change a result tells two runs apart", "harness.config.without_later"),
        lambda values: {name: v for name, v in values.items() if name not in ("heads", "mlp_width", "lr", "clip")},
    ),
    "a label in the identity": (
        *("configs", "a name or label changes no identity", "harness.config.RunConfig.plan"),
        property(lambda config: {**PLAN(config), "label": config.label}),
    ),
    "-0.0 beside 0.0": ("configs", "equal values are one experiment", "variants.fields._as_float", float),
    "fields that nobody checks": (
        *("configs", "any value of a field is valid or refused", "harness.recipe.check_fields"),
        lambda record: None,
    ),
    "lists that stay lists": (
        *("configs", "a configuration comes back from its record", "harness.config.from_plain"),
        lambda kind, plain: kind(**plain),
    ),
    "a value cut at its second =": (
        *("--set", "all after the first = is the value", "tests.test_properties.parse_settings"),
        cut,
    ),
    "a tuple read as one word": ("--set", "a printed value is read back", "variants.fields._parse", one_word),
    "a number read without care": ("--set", "any text is taken or refused", "variants.fields._parse", one_word),
    "epochs from the last to the first": (
        *("records", "a record is read as it was written", "harness.records.read.Run.epochs"),
        lambda run: READ_EPOCHS(run)[::-1],
    ),
    "NaN in a record": (
        *("records", "a number that is none is never let in", "harness.records.write.json_bytes"),
        lambda value: json.dumps(value).encode(),
    ),
    "a one-sided interval": (
        *("statistics", "the t-interval", "harness.statistics.intervals.t_quantile"),
        lambda degrees: float(stats.t.ppf(0.95, degrees)),
    ),
    "the ends of an interval exchanged": (
        *("statistics", "the bootstrap interval", "harness.statistics.intervals._bca_levels"),
        lambda sample, means: np.array([0.975, 0.025]),
    ),
    "differences without their sign": (
        *("statistics", "pairs are antisymmetric", "harness.statistics.paired.mean_interval"),
        lambda differences: intervals.mean_interval([abs(one) for one in differences]),
    ),
    "a t-test by the normal distribution": (
        *("statistics", "differences and SciPy's test", "harness.statistics.paired.paired_t_p"),
        lambda differences: 2 * float(stats.norm.sf(abs(np.mean(differences)) / (np.std(differences) or 1.0))),
    ),
    "sign flips of which ties do not count": (
        *("statistics", "sign flips, all counted", "harness.statistics.paired.ROUNDING"),
        -1e-9,
    ),
    "Holm without the running maximum": (
        *("statistics", "Holm's adjustment", "harness.statistics.paired.holm"),
        only_multiplied,
    ),
    "an image counted twice": (
        *("statistics", "agreement, confusion, accuracy by class", "harness.statistics.images.agreement"),
        right_twice,
    ),
    "McNemar's test, one-sided": (
        *("statistics", "McNemar's test", "harness.statistics.images.mcnemar_p"),
        lambda first, second: float(stats.binom.cdf(first, first + second, 0.5)),
    ),
    "bins that do not add": ("statistics", "calibration", "harness.statistics.images.Bins.__add__", half_a_sum),
    "a tie that counts as won": (
        *("statistics", "probability of improvement", "harness.statistics.paired.probability_of_improvement"),
        ties_won,
    ),
    "sums of squares without their weights": (
        *("statistics", "shares of variance", "harness.statistics.paired.variance_shares"),
        unweighted,
    ),
    "a bound that knows no degrees of freedom": (
        *("statistics", "power", "harness.statistics.paired.t_quantile"),
        lambda degrees: 1.96,
    ),
    "one seed too many": (
        *("statistics", "seeds needed", "harness.statistics.paired.seeds_needed"),
        lambda difference, spread: (found := SEEDS_NEEDED(difference, spread)) and found + 1,
    ),
    "a spread whose square is 0": ("statistics", "nothing is NaN", "harness.statistics.paired.FLOOR", 0.0),
}


def test_every_property_meets_a_defect():
    assert {(group, name) for group, name, *_ in PLANTED.values()} == set(PROPERTIES)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_is_found(defect, monkeypatch, tried):
    group, name, where, instead = PLANTED[defect]
    monkeypatch.setattr(where, instead)
    found = breaking(PROPERTIES[group, name], min(100, PROPERTIES[group, name].number))
    assert found, "no example breaks the property"
    tried(f"hypothesis: {group}", {}, {defect: found})
