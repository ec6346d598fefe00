"""Owns the proof that a report is the same from one process and from several, and that it needs no second one.
Refuses to measure seconds.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine

from harness.evidence import processes
from harness.evidence.cells import ahead, read_evidence
from harness.evidence.figures import plans as figures
from harness.evidence.figures.digest import png_bytes
from harness.evidence.figures.fonts import WHOLE, families, write_part
from harness.evidence.figures.plans import drawn, plans
from harness.evidence.figures.style import styles
from harness.evidence.quality import curves_of, finite
from harness.records.read import read_run
from harness.report import main
from harness.studies import STUDIES
from harness.timing.synthetic import write_records
from tests.resealed import reseal
from tests.test_report import ROOT, write_run


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve runs of four cells, and three that are not what they were."""
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, 12, epochs=3, seeds=3)
    runs = sorted(folder.iterdir())
    for run, name in ((runs[10], "epochs.jsonl"), (runs[1], "predictions.npz"), (runs[6], "epochs.jsonl")):
        (run / name).write_bytes(b"[")
        reseal(run)
    return folder


def report(records: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, bytes], str, str]:
    """All files, and what was said."""
    capsys.readouterr()
    assert main(["--results", str(records), "--out", str(out), "--bench", str(out / "none")]) == 0
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    said, complaints = capsys.readouterr()
    return files, said.replace(str(out), "OUT"), complaints


def several(monkeypatch: pytest.MonkeyPatch, cores: int = 2) -> None:
    monkeypatch.setattr(processes, "cores", lambda: cores)
    monkeypatch.setattr(ahead, "FEWEST", 1)
    monkeypatch.setattr(ahead, "AT_ONCE", 1)
    monkeypatch.setattr(figures, "FEWEST", 1)


def test_a_report_is_the_same_from_any_number_of_processes(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    several(monkeypatch, 1)
    alone = report(records, tmp_path / "1", capsys)
    several(monkeypatch, 3)
    assert report(records, tmp_path / "3", capsys) == alone
    files, _, complaints = alone
    assert complaints.count("its curve cannot be read") == 2
    assert complaints.count("its predictions cannot be used") == 1
    assert "figures/reliability-c10.pdf" in files and "tables/targets.md" in files


def whoami(number: int) -> tuple[int, bool]:
    return number, parent_process() is not None


def leave(number: int) -> tuple[int, bool]:
    """Ends every process but the first."""
    if parent_process() and number == 3:
        os._exit(1)
    return number, parent_process() is not None


def test_results_keep_their_order_and_few_things_are_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 2)
    with Processes() as pool:
        assert list(pool.each(whoami, range(9), fewest=9)) == [(number, True) for number in range(9)]
        assert list(pool.each(whoami, range(9), fewest=10)) == [(number, False) for number in range(9)]


def test_what_a_killed_process_leaves_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 2)
    with Processes() as pool:
        first = list(pool.each(leave, range(30), fewest=1))
        assert [number for number, _ in first] == list(range(30))
        assert first[3] == (3, False)
        assert list(pool.each(whoami, range(3), fewest=1)) == [(number, False) for number in range(3)]


def test_where_no_process_can_be_started_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> Any:
        raise PermissionError(13, "no semaphores here")

    monkeypatch.setattr(processes, "cores", lambda: 2)
    monkeypatch.setattr(processes, "_pool", refused)
    with Processes() as pool:
        assert list(pool.each(whoami, range(3), fewest=1)) == [(number, False) for number in range(3)]


ORPHANS = r"""
import os, time
from harness.evidence import processes
def work(number):
    os.write(1, f"{os.getpid()}\n".encode())  # at once: print may write the number and the line's end apart
    time.sleep(60)
processes.cores = lambda: 2
with processes.Processes() as pool:
    list(pool.each(work, range(2), fewest=1))
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to see whether a process is there")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_killed_report(how: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    children = [Path("/proc", parent.stdout.readline().strip()) for _ in range(2)]
    assert all(child.is_dir() for child in children)
    parent.send_signal(how)
    parent.wait()
    end = time.monotonic() + 30
    while any(map(lives, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(lives, children))


def lives(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the font


def some_figures(records: Path, part: Path | None) -> list[tuple[bytes, bytes, list[str]]]:
    evidence = read_evidence([records])
    looks = styles(group.row for group in evidence.cells)
    planned = [plan for plan in plans(evidence, STUDIES["main"]) if not plan.lacking]
    chosen = [plan for plan in planned if plan.name in ("reliability-c10", "robustness-c10", "model-size")]
    assert len(chosen) == 3
    return [drawn((plan, looks, part)) for plan in chosen]


def test_figures_look_the_same_with_a_part_of_the_font(records: Path, tmp_path: Path) -> None:
    whole = some_figures(records, None)
    for name in ("first", "second"):  # each report cuts its own, and the first one's is gone
        (tmp_path / name).mkdir()
        part = some_figures(records, write_part(tmp_path / name))
        assert [png for _, png, _ in part] == [png for _, png, _ in whole]
        assert [complaints for _, _, complaints in part] == [[]] * 3
        shutil.rmtree(tmp_path / name)


def test_what_the_part_lacks_comes_from_the_whole_font(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    part = write_part(tmp_path)
    png = []
    for family in ([WHOLE], families(part)):
        with matplotlib.rc_context({"font.family": family}), warnings.catch_warnings():
            warnings.simplefilter("error")  # of a missing glyph
            figure = Figure((3, 1))
            figure.text(0.1, 0.5, "Ätna, 5 ± 2 → β; Ж")
            png.append(png_bytes(figure, ""))
    assert png[0] == png[1]


# --- what a report must not do twice, or stumble over


def test_a_layout_is_made_once_for_both_files(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, execute = [], ConstrainedLayoutEngine.execute
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda self, fig: made.append(execute(self, fig)))
    some_figures(records, None)
    assert len(made) == 3


def test_a_number_too_long_for_a_float_is_none() -> None:
    assert finite(10**400) is None
    assert finite(10**300) == 10**300


def test_epochs_that_cannot_be_counted_have_no_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path, "compact", "c10", 0, 0.5)
    odd = ('"epoch": true', '"epoch": 9223372036854775808', '"epoch": -1', '"epoch": 1.5', '"epoch": null')
    lines = "".join(f'{{{text}, "test_accuracy": 0.9}}\n' for text in odd)
    text = '{"epoch": 1, "test_accuracy": 1, "test_loss": "much"}\n{"epoch": 2, "test_accuracy": 0.5, "test_loss": 2}\n'
    (run / "epochs.jsonl").write_text(lines + text)
    reseal(run)
    series = curves_of([read_run(run)]).series
    assert series["test_accuracy"].to_plain() == {name: [100, 50] for name in ("mean", "low", "high")} | {
        "epoch": [1, 2]
    }
    assert series["test_loss"].epoch.tolist() == [2]
