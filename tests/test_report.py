"""Tables and figures say what the records say: made-up records, and values worked out by hand."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.datasets import DATASETS
from harness.evidence.cells import Costs, folders_of, read_costs, read_evidence
from harness.evidence.figures import drawing
from harness.evidence.figures.cells import curves_data
from harness.evidence.figures.costs import sizes_data
from harness.evidence.figures.drawing import data_digest, read_digest, styles
from harness.evidence.paper import all_figures, all_tables, write_tables
from harness.evidence.writing import Table, signed, spread
from harness.records.schema import RESULT_FIELDS
from harness.records.write import RunWriter
from harness.report import main
from harness.studies import STUDIES
from harness.study import Row, Study
from tests.resealed import reseal
from variants.catalog import CATALOG
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
GOLDEN_NAMES = ("main.md", "main.tex", "main.csv", "cells.md", "cells.csv", "cost.md", "published.md")
MAIN = STUDIES["main"]
C10 = DATASETS["c10"]
COSTS = read_costs(ROOT / "results" / "cost")
SHAPES = len({(of.image_size, of.num_classes) for of in DATASETS.values()})


def write_run(
    root: Path,
    variant: str,
    dataset: str,
    seed: int = 0,
    accuracy: float | None = 0.5,
    *,
    recipe: str = "published",
    epochs: int = 100,
    cell: str = "",
    config: dict[str, Any] | None = None,
    env: dict[str, Any] | None = None,
    cost: dict[str, Any] | None = None,
    **result: Any,
) -> Path:
    """A record as the training room leaves it; `accuracy=None` is a failed run."""
    config = config or {}
    told = "-".join([variant, dataset, recipe, *config.get("overrides", []), cell])
    cell_id = "".join(sign if sign.isalnum() else "-" for sign in told).strip("-")
    plain = {"run_id": f"{cell_id}-s{seed}", "cell_id": cell_id, "variant_name": variant, "variant_type": "vit"}
    plain |= {"variant": {"image_size": 32, "num_classes": 100 if dataset == "c100" else 10}, "dataset": dataset}
    plain |= {"recipe_name": recipe, "recipe": {"epochs": epochs}, "seed": seed, "precision": "bf16", "compile": True}
    plain |= {"recipe_source": "s1", "holdout": 0.0, "overrides": [], "label": "", "semantics": 1, **config}
    facts = {"device": "cuda", "device_name": "GPU A", "torch": "2.15.0", "data_digest": f"digest of {dataset}"}
    facts |= env or {}
    counts = {"params": 119_051, "params_without_head": 118_657, "macs": 7_100_000, "macs_without_head": 7_099_520}
    counts |= {"attention_macs": 710_000, "activations_without_head": 400_000, "by_module": None, **(cost or {})}
    writer = RunWriter(root / f"{cell_id}-s{seed}")
    writer.begin(plain, facts, counts)
    for epoch in (1, 2) if accuracy is not None else ():
        measured = {"test_accuracy": (accuracy or 0) * epoch / 2, "test_loss": 2 / epoch, "train_loss": 3 / epoch}
        counted = {"seconds": 1.0, "eval_seconds": 0.1, "images_seen": 100 * epoch}
        writer.epoch({"epoch": epoch, "train_accuracy": 0.5, "lr": 1e-3, **counted, **measured})
    values: dict[str, Any] = dict.fromkeys(name for name in RESULT_FIELDS if name != "schema")
    values |= {"outcome": "failed" if accuracy is None else "ok", "split": "test", "test_accuracy": accuracy}
    values |= {"best_test_accuracy": accuracy, "shared_device": False, "epochs": epochs, "images_seen": epochs * 50_000}
    writer.finish(values | result)
    return writer.folder


def write_golden_runs(root: Path) -> None:
    """What tests/golden was worked out from.

    compact c10: 76, 77, 78: mean 77, sd 1, se 1/sqrt(3) = .57735, t(2) = 4.30265: +-2.4841; best epoch one point
    higher; 300, 360, 420 s = 6 min. compact c100: 46, 48: mean 47, sd sqrt(2), se 1, t(1) = 12.7062; two digests.
    vanilla c10: 91, 92: mean 91.5, se .5: +-6.3531; two devices, so no time. Attention: 710,000 / 7,100,000 = 10.0 %.
    """
    for seed, accuracy in enumerate((0.76, 0.77, 0.78)):
        measured: dict[str, Any] = {
            "best_test_accuracy": accuracy + 0.01,
            "test_nll": 0.7 + seed / 10,
            "peak_memory_bytes": 5e8,
        }
        measured |= {"train_seconds": 300.0 + 60 * seed, "images_per_second": 1000.0 + 100 * seed}
        write_run(root, "compact", "c10", seed, accuracy, **measured)
    write_run(root, "compact", "c10", 3, None, reason="loss is nan at epoch 3, step 7")
    for seed, accuracy in enumerate((0.46, 0.48)):
        env = {"data_digest": f"copy {seed}"}
        write_run(root, "compact", "c100", seed, accuracy, env=env, cost={"params": 123_557}, train_seconds=600.0)
    big: dict[str, Any] = {"epochs": 200, "cost": {"params": 6_268_810, "macs": 426_000_000, "attention_macs": None}}
    write_run(root, "vanilla", "c10", 0, 0.91, train_seconds=1200.0, **big)
    write_run(root, "vanilla", "c10", 1, 0.92, train_seconds=9000.0, env={"device_name": "CPU B"}, **big)
    write_run(root, "vanilla", "c100", 0, 0.65, train_seconds=1200.0, shared_device=True, **big)
    write_run(root, "patch2", "c10", 0, None, epochs=200)
    short = {"overrides": ["epochs=10"], "label": "=cmd|'x_y&z'"}
    on_cpu: dict[str, Any] = {"env": {"device_name": "CPU B"}, "train_seconds": 30.0}
    write_run(root, "compact", "c10", 0, 0.5, recipe="common", epochs=10, config=short, **on_cpu)
    write_run(root, "compact", "c10", 0, 0.99, cell="holdout", config={"holdout": 0.1}, split="val", val_accuracy=0.99)
    uncounted = ("params", "macs", "params_without_head", "macs_without_head", "attention_macs")
    unknown: dict[str, Any] = dict.fromkeys(uncounted)
    write_run(root, "my_vits/x.py:MINE", "folder:/data/pets", 0, 0.8, recipe="common", epochs=200, cost=unknown)


def table(root: Path, name: str, study: Study = MAIN, costs: Costs | None = None) -> Table:
    return {t.name: t for t in all_tables(read_evidence([root], costs), study)}[name]


def cell_of(shown: Table, column: str, **where: str) -> str:
    rows = [dict(zip(shown.columns, row)) for row in shown.rows]
    found = [row for row in rows if all(row[key] == value for key, value in where.items())]
    assert len(found) == 1, f"{where}: {len(found)} rows"
    return found[0][column]


# --- numbers


def test_text_of_numbers() -> None:
    """.3 - .1 - .2 is a little less than nothing in floating point; a true difference keeps its side."""
    differences = (0.3 - 0.1 - 0.2, -0.0, -0.004, 0.004, -1.325)
    assert [signed(d) for d in differences] == ["+0.00", "+0.00", "-0.00", "+0.00", "-1.32"]
    assert [spread([77.25, 77.25]), spread([77.25]), spread([])] == ["77.25 ± 0.00 (2)", "77.25 (1)", "—"]
    assert spread([], failed=2) == "— (2 failed)"


# --- tables


@pytest.fixture(scope="module")
def golden_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # captions name the folder as it was given
        write_golden_runs(Path("runs"))
        write_tables(all_tables(read_evidence([Path("runs")]), MAIN), Path("tables"))
    return folder / "tables"


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_tables_are_the_golden_ones(name: str, golden_folder: Path) -> None:
    assert (golden_folder / name).read_text(encoding="utf-8") == (GOLDEN / name).read_text(encoding="utf-8")


def test_every_planned_row_is_shown_with_no_run_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "From results/reference: 0 runs done, 0 failed." in out
    assert "figures/model-size: skipped" in out
    with Path("paper/tables/main.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert [(row[0], row[1]) for row in rows] == [row.name for row in MAIN.rows]
    assert all(row[2].isdecimal() and set(row[3:]) == {"—"} for row in rows), "epochs are planned, the rest is open"
    assert not list(Path("paper").rglob("*.png"))


def test_cells_that_differ_are_two_rows_that_say_so_if_they_can(tmp_path: Path) -> None:
    write_run(tmp_path, "compact", "c10", 0, 0.6, cell="a")
    write_run(tmp_path, "compact", "c10", 0, 0.7, cell="b", config={"precision": "fp32", "compile": False})
    write_run(tmp_path, "compact", "svhn", 0, 0.8)
    shown = table(tmp_path, "main")
    assert [row[1] for row in shown.rows if row[0] == "compact"] == [
        "published [compiled, bf16]",
        "published [not compiled, fp32]",
        "common",
    ]
    assert cell_of(shown, "SVHN (%)", recipe="published [compiled, bf16]") == "80.00 (1)"
    write_run(tmp_path / "same", "compact", "c10", 0, 0.6, cell="a")
    write_run(tmp_path / "same", "compact", "c10", 0, 0.7, cell="b")
    rows = table(tmp_path / "same", "main").rows
    assert sorted(row[5] for row in rows if row[0] == "compact") == ["60.00 (1)", "70.00 (1)", "—"]


def test_one_cell_reached_by_two_names_has_the_plainer_one(tmp_path: Path) -> None:
    write_run(tmp_path, "compact-cls", "c10", 0, 0.6, config={"cell_id": "same"})
    write_run(tmp_path, "compact", "c10", 1, 0.7, config={"cell_id": "same", "overrides": ["variant.pool=cls"]})
    assert cell_of(table(tmp_path, "cells"), "n", variant="compact-cls") == "2"


def test_of_a_cell_and_seed_the_first_folder_counts_and_no_failed_record_hides_a_done_one(tmp_path, capsys) -> None:
    write_run(tmp_path / "failed", "compact", "c10", 0, outcome="failed", reason="it fell")
    write_run(tmp_path / "a", "compact", "c10", 0, 0.9)
    write_run(tmp_path / "b", "compact", "c10", 0, 0.6)
    for folders, left_out in ((["a", "b"], "b"), (["failed", "a"], "failed"), (["a", "failed"], "failed")):
        (group,) = read_evidence([tmp_path / name for name in folders]).cells
        assert group.accuracies == [90] and not group.failed
        assert f"left out {tmp_path / left_out}" in capsys.readouterr().err


def test_no_timing_column_mixes_devices(tmp_path: Path) -> None:
    write_run(tmp_path, "compact", "c10", 0, train_seconds=60.0)
    write_run(tmp_path, "patch2", "c10", 0, train_seconds=120.0, env={"device_name": "GPU B"})
    shown = table(tmp_path, "main")
    for device, variant, other in (("GPU A", "compact", "patch2"), ("GPU B", "patch2", "compact")):
        column = f"minutes per run, {device}"
        assert cell_of(shown, column, variant=variant, recipe="published") != "—"
        assert cell_of(shown, column, variant=other, recipe="published") == "—"
    (time,) = [plan for plan in all_figures(read_evidence([tmp_path]), MAIN) if plan.name == "accuracy-vs-time"]
    assert time.data["heading"] == "on GPU A; 1 cell measured elsewhere left out"
    assert len(time.data["panels"][0]["points"]) == 1


def test_published_numbers_are_met_missed_or_open(tmp_path: Path) -> None:
    write_run(tmp_path, "compact", "c10", 0, 0.7725)  # equal is reached, whatever 100 x .7725 is in binary
    write_run(tmp_path, "compact", "c100", 0, 0.4720)
    write_run(tmp_path, "vanilla", "c10", 0, 0.99, epochs=10, config={"overrides": ["epochs=10"]})
    write_run(tmp_path, "vanilla", "c100", 0, 0.99, epochs=200, config={"overrides": ["recipe.lr=0.1"]})
    write_run(tmp_path, "vanilla", "svhn", 0, 0.99, epochs=100)  # another number of passes under the same name
    write_run(tmp_path, "patch2", "c10", 0, 0.9, epochs=200)
    shown = table(tmp_path, "published")
    verdicts = {(row[0], row[3]): (row[6], row[8]) for row in shown.rows}
    assert verdicts["S2", "CIFAR-10"] == ("+0.00", "reached")
    assert verdicts["S2", "CIFAR-100"] == ("-0.01", "missed")
    assert {verdicts["S1", name] for name in ("CIFAR-10", "CIFAR-100", "SVHN")} == {("—", "open")}
    assert verdicts["S0", "CIFAR-10"] == ("—", "—")
    assert cell_of(shown, "published (%)", source="S0") == "none published"
    printed = [cell_of(shown, "printed", source=source) for source in ("S0", "S4", "tintn")]
    assert printed == ["—", "2024-07-14", "2023-03-06"]
    assert cell_of(shown, "run ids", source="S0") == "patch2-c10-published-s0"


def test_unusable_records_are_named_and_missing_where_they_are_needed_alone(tmp_path: Path, capsys) -> None:
    write_run(tmp_path, "compact", "c10", 0, config={"cell_id": None})
    write_run(tmp_path, "compact", "c10", 1, 0.5).joinpath("epochs.jsonl").write_text("not json\n")
    write_run(tmp_path, "patch2", "c10", 0).joinpath("epochs.jsonl").unlink()
    write_run(tmp_path, "vanilla", "c10", 0)
    evidence = read_evidence([tmp_path])
    tables = {table.name: table for table in all_tables(evidence, MAIN)}
    assert {row[0] for row in tables["targets"].rows} == {"vanilla"}
    assert {row[0] for row in tables["cells"].rows} == {"vanilla", "compact", "patch2"}
    assert [line["row"][0] for line in curves_data(evidence.cells, "c10")["lines"]] == ["vanilla"]
    errors = capsys.readouterr().err
    assert "no usable cell_id" in errors and errors.count("its curve cannot be read") == 2


# --- costs


def test_the_main_table_has_every_cost_and_pass_before_anything_is_trained(tmp_path: Path) -> None:
    shown = table(tmp_path, "main", costs=COSTS)
    heads = {row[:2]: row[2:5] for row in shown.rows}
    assert heads.keys() == {row.name for row in MAIN.rows}
    assert all("—" not in head for head in heads.values())
    assert heads["patch2", "common"] == ("200", "2.73", "0.916")
    assert heads["vanilla", "published"][1:] == ("6.27", "0.428")
    assert [heads[row.name][0] for row in MAIN.rows] == [str(row.resolve(C10).recipe.epochs) for row in MAIN.rows]
    assert all(set(row[5:]) == {"—"} for row in shown.rows)


@pytest.mark.parametrize(
    ("variant", "overrides", "counted", "shown"),
    [
        ("vanilla", ["variant.width=96"], 1_234_567, "1.23"),  # an altered variant: never the catalogue's
        ("patch2", ["variant.depth=2"], None, "—"),
        ("vanilla", ["epochs=10", "recipe.lr=0.1"], None, "6.27"),  # the recipe's fields change no cost
        ("compact", [], 222_000, "0.222"),  # of another size: the catalogue may have changed since
        ("mine.py:NET", [], 777_000, "0.777"),  # no file of the catalogue's costs
        ("mine.py:NET", [], None, "—"),
    ],
)
def test_a_cell_has_the_cost_of_its_record_or_of_the_catalogue(tmp_path, variant, overrides, counted, shown) -> None:
    cost = {"params": counted, "macs": counted}
    write_run(tmp_path, variant, "c10", config={"overrides": overrides}, cost=cost)
    recipe = ", ".join(["published", *overrides])
    assert cell_of(table(tmp_path, "main", costs=COSTS), "params (M)", variant=variant, recipe=recipe) == shown
    changed = [text.removeprefix("variant.") for text in overrides if text.startswith("variant.")]
    lines = [row[4] for row in table(tmp_path, "cost", costs=COSTS).rows if row[0] == ", ".join([variant, *changed])]
    assert counted is None or f"{counted:,}" in lines


def test_a_planned_row_with_an_altered_variant_is_a_hole(tmp_path: Path) -> None:
    study = replace(MAIN, rows=(Row("compact", "common", ("variant.pool=mean",)), Row("compact", "common")))
    shown = table(tmp_path, "main", study, COSTS)
    assert [row[3] for row in shown.rows] == ["—", "0.119"]


def test_the_cost_table_lists_the_catalogue_once_a_shape(tmp_path: Path) -> None:
    shown = table(tmp_path, "cost", costs=COSTS)
    assert [row[0] for row in shown.rows].count("vanilla") == SHAPES
    assert {row[0] for row in shown.rows} == set(CATALOG) and len(shown.rows) == SHAPES * len(CATALOG)
    assert cell_of(shown, "data sets", variant="vanilla", pixels="32", classes="10") == "CIFAR-10, SVHN"
    share = cell_of(shown, "attention share of MACs (%)", variant="patch2", pixels="32", classes="10")
    assert share == f"{100 * 9 * 2 * 257**2 * 192 / 915_676_224:.1f}"
    assert cell_of(shown, "activations without head", variant="patch2", pixels="32", classes="10") == "10,735,212"
    first = [row[4] for row in shown.rows if row[1:3] == ("32", "10")]
    assert first == sorted(first, key=lambda text: int(text.replace(",", "")))


def test_a_run_of_a_catalogue_variant_adds_no_line(tmp_path: Path) -> None:
    told = COSTS["vanilla", "c10"]
    write_run(tmp_path, "vanilla", "c10", cost={"params": told["params"], "macs": None})
    shown = table(tmp_path, "cost", costs=COSTS)
    assert len(shown.rows) == SHAPES * len(CATALOG)
    assert cell_of(shown, "MACs", variant="vanilla", pixels="32", classes="10") == f"{told['macs']:,}"


def test_the_sizes_are_those_of_the_whole_catalogue_at_the_study_s_first_data_set(tmp_path: Path) -> None:
    cost = {"params": 400_000, "macs": 5_000_000}
    write_run(tmp_path, "compact", "c10", config={"overrides": ["variant.width=96"]}, cost=cost)
    bars = sizes_data(read_evidence([tmp_path]).cells, COSTS, "c10")["bars"]
    sizes = {bar["variant"]: bar["params"] for bar in bars}
    assert sizes.keys() == {*CATALOG, "compact, width=96"} and [*sizes.values()] == sorted(sizes.values())
    assert {(bar["pixels"], bar["classes"]) for bar in bars} == {(32, 10)}
    assert sizes["resnet18"] == 11_173_962 and sizes["compact, width=96"] == 400_000
    small = {bar["variant"]: bar["params"] for bar in sizes_data((), COSTS, "digits")["bars"]}
    assert small["vanilla"] == 6_245_770


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"variant": "compact", "dataset": "c10", "params": 1}'])
def test_a_file_that_holds_no_cost_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "compact-c10.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"compact-c10\.json holds no cost") as told:
        read_costs(tmp_path)
    assert "harness.cost --write" in str(told.value)
    assert read_costs(tmp_path / "nowhere") == {}


# --- figures


def test_figures_carry_the_digest_of_their_data(tmp_path: Path) -> None:
    write_golden_runs(tmp_path / "runs")
    main(["--results", str(tmp_path / "runs"), "--cost", str(tmp_path / "none"), "--out", str(tmp_path)])
    planned = [plan for plan in all_figures(read_evidence([tmp_path / "runs"]), MAIN) if not plan.lacking]
    names = {plan.name for plan in planned}
    assert names >= {"curves-c10", "curves-c100", "curves-folder-pets", "accuracy-vs-time", "model-size"}
    for plan in planned:
        digest = data_digest(plan.data)
        assert read_digest(tmp_path / f"figures/{plan.name}.png") == digest
        assert digest.encode() in (tmp_path / f"figures/{plan.name}.pdf").read_bytes()


def test_curves_of_a_data_set_with_holdout_runs_only_are_validation_curves(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "compact", "c10", 0, 0.5, config={"holdout": 0.1}, split="val")
    lines = folder / "epochs.jsonl"
    lines.write_text(lines.read_text().replace("test_", "val_"))
    reseal(folder)
    (curves,) = [plan for plan in all_figures(read_evidence([tmp_path]), MAIN) if plan.name == "curves-c10"]
    assert curves.data["split"] == "val"
    assert curves.data["lines"][0]["accuracy"]["mean"] == [25, 50]


def test_stale_figures_of_ours_go_and_others_stay(tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    write_run(tmp_path / "runs", "compact", "svhn", 0)
    nothing = str(tmp_path / "nothing")
    unmeasured = ["--bench", nothing, "--cost", nothing, "--out", str(tmp_path)]
    main(["--results", str(tmp_path / "runs"), *unmeasured])
    (figures / "curves-mine.png").write_bytes(b"\x89PNG\r\n\x1a\nsomebody's own")
    (figures / "notes.txt").touch()
    assert (figures / "curves-svhn.pdf").exists()
    (tmp_path / "empty").mkdir()
    main(["--results", str(tmp_path / "empty"), *unmeasured])
    assert sorted(path.name for path in figures.iterdir()) == ["curves-mine.png", "notes.txt"]


def test_every_variant_of_the_catalogue_looks_different() -> None:
    looks = styles((name, "common") for name in [*CATALOG, "a.py:A", "b.py:B"])
    assert len({(look.color, look.marker) for look in looks.values()}) == len(CATALOG) + 2
    assert styles([("vanilla", "common")])["vanilla", "common"] == looks["vanilla", "common"]


# --- the command


def report(arguments: list[str], cwd: Path, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    code = "import sys\nfrom harness.commands import run_command\nfrom harness.report import main\n"
    code += "import atexit\natexit.register(lambda: print('TORCH', 'torch' in sys.modules))\nrun_command(main)"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, env=env, capture_output=True, text=True)


def test_twice_gives_the_same_bytes_and_needs_no_torch(tmp_path: Path) -> None:
    for variant, seed in (("compact", 0), ("compact", 1), ("vanilla", 0)):
        write_run(tmp_path / "runs", variant, "c10", seed, 0.5 + seed / 10)
    contents = []
    for out, hash_seed in (("first", "1"), ("second", "2")):
        done = report(["--results", "runs", "--out", out], tmp_path, hash_seed)
        assert (done.returncode, done.stderr) == (0, "")
        assert "TORCH False" in done.stdout
        assert "| compact | published | 100 |" in done.stdout
        files = sorted(path for path in (tmp_path / out).rglob("*") if path.is_file())
        contents.append({path.relative_to(tmp_path / out).as_posix(): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    evidence = read_evidence([tmp_path / "runs"])
    drawn = [plan for plan in all_figures(evidence, MAIN) if not plan.lacking]
    tables = all_tables(evidence, MAIN)
    wanted = {f"tables/{t.name}.{kind}" for t in tables for kind in ("md", "csv", *(["tex"] if t.rows else []))}
    assert {name for name in contents[0] if name.startswith("tables/")} == wanted, "no empty table on paper"
    assert sum(name.startswith("figures/") for name in contents[0]) == 2 * len(drawn)


def test_bad_arguments_name_the_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="did you mean quick"):
        main(["--study", "quik"])
    with pytest.raises(UsageError, match="--results nowhere: there is no such folder"):
        main(["--results", "nowhere"])
    assert not Path("paper").exists()
    Path("file").touch()
    with pytest.raises(SystemExit):
        main(["--results", ".", "--out", "file"])
    assert "cannot write" in capsys.readouterr().err


def test_own_runs_come_before_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("results/reference"), "compact", "c10", 0, 0.5)
    Path("results/runs/unfinished").mkdir(parents=True)
    write_run(Path("results/runs"), "compact", "c10", 1, 0.6).rename("results/runs/replaced-it")
    assert folders_of(None) == [Path("results/reference")]
    write_run(Path("results/runs"), "compact", "c10", 1, 0.6)
    assert folders_of(None) == [Path("results/runs")]


def test_figures_of_many_rows_show_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(drawing, "drawn", lambda *_: (b"", b""))
    for number in range(30):
        write_run(tmp_path / "runs", f"v{number:02d}", "c10", 0, 0.5)
    main(["--results", str(tmp_path / "runs"), "--out", str(tmp_path)])
    assert "figures show the first 24 of 30 rows" in capsys.readouterr().out
    lines = all_figures(read_evidence([tmp_path / "runs"]), MAIN)[0].data["lines"]
    assert [line["row"][0] for line in lines] == [f"v{number:02d}" for number in range(24)]
    assert len(table(tmp_path / "runs", "main").rows) == 30 + len(MAIN.rows)
