"""Reports over damaged records: what is damaged is left out by name, and the rest says what it says without it.

Records of before schema 3 have no digests. What was changed in them may be believed, but must not end a report.
"""

import contextlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness import compare, verify
from harness.config import resolve
from harness.datasets import DATASETS
from harness.evidence.cells import read_evidence
from harness.evidence.findings import findings
from harness.evidence.paper import all_figures, all_tables
from harness.records import read
from harness.records.schema import FILES, SINCE_3
from harness.studies import STUDIES
from harness.sweeping.plan import on_device, plan
from harness.sweeping.status import statuses
from harness.timing.synthetic import write_cell
from tests.mutations import cases
from tests.test_fuzz_records import SORTS
from variants.fields import UsageError

Files = dict[str, bytes]
Records = dict[str, Files]  # by run

SEEDS = 4
POOLING = STUDIES["pooling"]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Two rows of a study by the run's name, with all their files."""
    return written(tmp_path_factory.mktemp("records"), ("compact", "compact-cls"), "c10", SEEDS)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a run of which nothing is as in those."""
    ((_, contents),) = written(tmp_path_factory.mktemp("others"), ("vanilla",), "c100", 1).items()
    return contents


def written(folder: Path, variants: Sequence[str], dataset: str, seeds: int) -> Records:
    for name in variants:
        config = resolve(name, DATASETS[dataset], "common", epochs=3, precision="bf16", compile=True)
        write_cell(folder, config, seeds)
    return {run.name: {name: (run / name).read_bytes() for name in FILES} for run in sorted(folder.iterdir())}


def laid_out(folder: Path, records: Records) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for run, contents in records.items():
        (folder / run).mkdir(parents=True)
        for name, content in contents.items():
            (folder / run / name).write_bytes(content)
    return folder


def reported(folder: Path) -> list[str]:
    """All tables, and the data of all figures."""
    evidence = read_evidence([folder])
    studied = findings(evidence, {"pooling": POOLING, "main": STUDIES["main"]})
    figures = all_figures(evidence, STUDIES["main"])
    tables = all_tables(evidence, STUDIES["main"], (), studied)
    return [table.to_markdown() for table in tables] + [f"{figure.name} {figure.data}" for figure in figures]


def in_turn(name: str, draw: random.Random, records: Records, others: Files) -> Iterator[tuple[str, str, bytes]]:
    """Half of the runs, each with a sort of damage to that file and its content then."""
    for run in draw.sample(list(records), len(records) // 2):
        sort = draw.choice(list(SORTS[name]))
        damage = cases({sort: SORTS[name][sort]}, 1, records[run][name], others[name], seed=f"{draw.random()}")
        yield sort, run, next(damage)[1]


def without(records: Records, run: str, name: str) -> Records:
    """As if the run had never been made, or had lost the file that only some tables need."""
    if name in ("epochs.jsonl", "predictions.npz"):
        rest = {file: content for file, content in records[run].items() if file != name}
        return {**records, run: rest}
    return {other: contents for other, contents in records.items() if other != run}


def of_before(records: Records) -> Records:
    """The same records as schema 2 had them: nothing says what their files have to be."""
    found = {}
    for run, contents in records.items():
        config, result = (json.loads(contents[name]) for name in ("config.json", "result.json"))
        result = {name: value for name, value in result.items() if name not in SINCE_3}
        plain = {"config.json": {**config, "schema": 2}, "result.json": {**result, "schema": 2}}
        found[run] = {**contents, **{name: json.dumps(value, indent=1).encode() for name, value in plain.items()}}
    return found


def rounds_of_damage(
    name: str, rounds: int, records: Records, others: Files
) -> Iterator[tuple[list[str], Records, Records]]:
    """The sorts of damage, the damaged records, and what is left without them."""
    draw = random.Random(f"{name} {rounds}")
    for _ in range(rounds):
        damaged, left, sorts = dict(records), dict(records), []
        for sort, run, content in in_turn(name, draw, records, others):
            damaged[run] = {**records[run], name: content}
            left = without(left, run, name)
            sorts.append(sort)
        yield sorts, damaged, left


def compare_reports(name: str, rounds: int, folder: Path, records: Records, others: Files) -> None:
    for sorts, damaged, left in rounds_of_damage(name, rounds, records, others):
        expected = reported(laid_out(folder, left))
        assert reported(laid_out(folder, damaged)) == expected, f"{sorts} change a table or a figure"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.long)])
def test_a_report_is_the_one_without_the_damaged_records(tmp_path, records, others, name, rounds, capsys):
    compare_reports(name, rounds, tmp_path / "runs", records, others)


@pytest.mark.parametrize("name", FILES)
def test_damage_that_nothing_checks_shows_in_a_report(tmp_path, records, others, name, monkeypatch, capsys):
    monkeypatch.setattr(read, "_content", lambda folder, name, digests: (folder / name).read_bytes())
    monkeypatch.setattr(read, "is_sealed", lambda content: True)
    with pytest.raises(Exception):  # noqa: B017 (another table, or whatever a report ends with)
        compare_reports(name, 60, tmp_path / "runs", records, others)


# --- other commands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_commands_name_the_damaged_record_and_end_as_usual(tmp_path, records, others, name, capsys):
    """`verify` finds every one, `compare` and training again refuse it, `--status` does not count it as done."""
    draw = random.Random(name)
    planned = on_device(plan(POOLING.narrowed(None, ["common"], ["c10"], range(SEEDS)), DATASETS, 3), "bf16", True)
    for sort, run, content in (case for _ in range(4) for case in in_turn(name, draw, records, others)):
        folder = laid_out(tmp_path / "runs", {**records, run: {**records[run], name: content}})
        sound = next(other for other in records if other != run)
        assert verify.main(["--records", str(folder)]) == 1, sort
        assert f"{run}\n" in capsys.readouterr().out, sort
        with pytest.raises(UsageError, match=run):
            verify.main([str(folder / run), "--device", "cpu"])
        with contextlib.suppress(UsageError):
            compare.main([str(folder / sound), str(folder / run)])
        done = [cell.folder for cell in statuses(planned, folder) if cell.state == "done"]
        assert folder / run not in done and len(done) == len(records) - 1, sort


# --- records of before schema 3 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.long)])
def test_no_record_without_digests_ends_a_report(tmp_path, records, others, name, rounds, capsys):
    planned, folder = plan(POOLING, DATASETS), tmp_path / "runs"
    for sorts, damaged, _ in rounds_of_damage(name, rounds, of_before(records), others):
        try:
            laid_out(folder, damaged)
            reported(folder)
            statuses(planned, folder)
            verify.main(["--records", str(folder)])
            for run in records:
                with contextlib.suppress(UsageError):
                    compare.main([str(folder / next(iter(records))), str(folder / run)])
        except Exception as error:
            raise AssertionError(f"{sorts} end a report") from error
