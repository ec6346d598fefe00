"""Made-up records, for the benchmark of the report: they are what the suite itself writes, and the report's numbers are
those of the records."""

import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev

import pytest

from harness import report
from harness.config import run_config_from_plain
from harness.records.read import load_runs, read_run, run_state
from harness.records.schema import FILES
from harness.records.write import RunWriter
from harness.studies import STUDIES
from harness.timing.synthetic import write_records

WRITTEN = sorted(FILES)


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sixty")
    write_records(folder, 60, epochs=8)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_they_are_finished_runs_with_a_true_identity(sixty: Path) -> None:
    runs = load_runs([sixty])
    assert len(runs) == 60 and all(run_state(run.folder) == "done" for run in runs)
    for run in runs:
        assert run_config_from_plain(run.config).run_id == run.config["run_id"] == run.folder.name
        lines = run.epochs()
        assert [line["epoch"] for line in lines] == list(range(1, run.config["recipe"]["epochs"] + 1))
        accuracies = [line["test_accuracy"] for line in lines]
        assert run.result["test_accuracy"] == accuracies[-1] > accuracies[0] > 0
        assert run.result["best_test_accuracy"] == max(accuracies) <= 1
        assert run.cost["params"] > 0 and run.env["data_digest"]


def test_the_suite_s_own_writer_writes_the_same_bytes(sixty: Path, tmp_path: Path) -> None:
    for run in load_runs([sixty])[::20]:
        writer = RunWriter(tmp_path / run.folder.name)
        writer.begin({name: value for name, value in run.config.items() if name != "schema"}, run.env, run.cost)
        for line in run.epochs():
            writer.epoch(line)
        writer.finish({name: value for name, value in run.result.items() if name != "schema"}, run.predictions())
        assert contents(writer.folder) == contents(run.folder)
        assert sorted(contents(run.folder)) == WRITTEN


def test_the_same_arguments_give_the_same_records_and_fewer_a_part_of_them(sixty: Path, tmp_path: Path) -> None:
    write_records(tmp_path, 33, epochs=8)
    some = contents(tmp_path)
    assert len(some) == 33 * len(WRITTEN)
    assert some.items() <= contents(sixty).items()


def test_no_two_records_are_one_run(tmp_path: Path) -> None:
    """Past the plain grid's 60 cells they differ in a learning rate, which must not be one that a recipe has."""
    write_records(tmp_path, 130, epochs=1, seeds=1)
    assert len(list(tmp_path.iterdir())) == 130
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("*/config.json")]
    assert len({(c["variant_name"], c["recipe_name"], c["dataset"], *c["overrides"]) for c in configs}) == 130


def test_more_seeds_make_fewer_cells(tmp_path: Path) -> None:
    write_records(tmp_path, 20, epochs=1, seeds=10)
    cells = [json.loads(path.read_text())["cell_id"] for path in tmp_path.glob("*/config.json")]
    assert sorted(map(cells.count, set(cells))) == [10, 10]


def test_writing_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from harness.timing.synthetic import write_records\n"
    code += f"write_records(Path({str(tmp_path)!r}), 200, epochs=1); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_main_table_s_cell_is_the_mean_of_its_five_records(sixty: Path, tmp_path: Path) -> None:
    chosen = {"variant_name": "compact", "dataset": "c100", "recipe_name": "common"}
    runs = [read_run(path.parent) for path in sixty.glob("*/config.json")]
    values = [100 * r.result["test_accuracy"] for r in runs if chosen.items() <= r.config.items()]
    half = 2.776445 * stdev(values) / math.sqrt(5)  # Student's t with four degrees of freedom
    table = report.all_tables(report.read_evidence([sixty]), STUDIES["main"])[0]
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    (row,) = [row for row in rows if (row["variant"], row["recipe"]) == ("compact", "common, epochs=8")]
    assert row["CIFAR-100 (%)"] == f"{fmean(values):.2f} ± {half:.2f} (5)"
