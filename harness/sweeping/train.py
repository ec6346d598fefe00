"""Trains the runs of a plan, in turn or several at once. A run that fails is named and does not stop the others; one
that another process is training is left to it. `args` are those of harness.sweep."""

import os
import sys
import traceback
from argparse import Namespace
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from harness.records.environment import ROOT
from harness.records.lock import BusyError
from harness.records.read import FOLDER, check_images, read_run, run_state
from harness.sweeping.plan import PlannedRun, seeds_together
from harness.sweeping.workers import Display, Job, Place, environments, run_jobs
from harness.training.signals import StoppedError, at_once, heed, listening, wait
from variants.fields import UsageError

WAIT_S = 1.0
# harness.sweep of this very code: where that is installed, -m would take a checkout in the current folder instead.
OWN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from harness.__main__ import main; main()"
COMMAND = (sys.executable, "-c", OWN, "sweep")


def to_train(args: Namespace, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Those that are not done; one of other images that only have the same name is not skipped in silence."""
    todo = []
    for run in runs:
        folder = args.out / run.config.run_id
        if run_state(folder) != "done":
            todo.append(run)
        elif run.config.dataset.startswith(FOLDER):
            check_images(read_run(folder), run.config.dataset, args.data_dir)
    return todo


class Problems:
    """The runs that failed, each named when it does and all of them at the end."""

    def __init__(self, args: Namespace) -> None:
        self.titles: list[str] = []
        self.fail_fast: bool = args.fail_fast

    @property
    def are_enough(self) -> bool:
        """To end the sweep."""
        return self.fail_fast and bool(self.titles)

    def add(self, run: PlannedRun, reason: str) -> None:
        tqdm.write(f"FAILED {run.title}: {reason}", file=sys.stderr)
        self.titles.append(f"{run.title} (--cell {run.task})")

    def exit_code(self, count: int) -> int:
        if self.titles:
            told = f"{len(self.titles)} of {count} runs are not done"
            told = "ended with the first run that failed (--fail-fast)" if self.fail_fast else told
            print(f"{told}: {'; '.join(self.titles)}", file=sys.stderr)
        return 1 if self.titles else 0


def with_data(runs: Sequence[PlannedRun], args: Namespace, problems: Problems) -> list[PlannedRun]:
    """The runs whose data set is here or can be downloaded, found out before hours are spent on the others."""
    from harness.data.load import load

    absent = set()
    for name in sorted({run.config.dataset for run in runs}):
        try:
            with at_once():
                load(name, args.data_dir, args.broken == "skip")
        except UsageError as error:
            absent.add(name)
            print(error, file=sys.stderr, flush=True)
    for run in runs:
        if run.config.dataset in absent:
            problems.add(run, "no data (see above)")
    return [run for run in runs if run.config.dataset not in absent]


def outcome(folder: Path) -> str:
    result = read_run(folder).result
    return f"{result['split']} accuracy {result[result['split'] + '_accuracy']:.2%}"


# --- in turn ---------------------------------------------------------------------------------------------------------


@listening()
def train_in_turn(runs: Sequence[PlannedRun], args: Namespace, device: Any) -> int:
    """Runs of other processes come last, when they are waited for; those that were given up there are trained here."""
    problems, busy = Problems(args), set()
    waiting = deque(seeds_together(with_data(runs, args, problems), args.seeds_at_once))
    nth = {run.number: f"[{place}/{len(runs)}] " if len(runs) > 1 else "" for place, run in enumerate(runs, 1)}
    while waiting and not problems.are_enough:
        heed()
        group = waiting.popleft()
        for run in (run for run in group if run.number not in busy):
            print(f"{nth[run.number]}run {run.number}: {run.title} -> {args.out / run.config.run_id}", flush=True)
        try:
            failures = failures_of(group, args, device)
        except BusyError as error:
            if group[0].number not in busy:
                print(error, flush=True)
            failures = {}
        for run in group:
            if run.number not in failures:  # another process trains it
                busy.add(run.number)
                waiting.append([run])
            elif reason := failures[run.number]:
                problems.add(run, reason)
            else:
                print(f"{run.title}: {outcome(args.out / run.config.run_id)}", flush=True)
        if not failures and all(run.number in busy for others in waiting for run in others):
            wait(WAIT_S)
    return problems.exit_code(len(runs))


def failures_of(group: Sequence[PlannedRun], args: Namespace, device: Any) -> dict[int, str | None]:
    """Trains the runs, unless another process has done it meanwhile: why each failed, if it did, by its number. One
    that another process is training is not among them."""
    from harness.experiment import Options, run_seeds
    from harness.training.device import CaptureError
    from harness.training.setup import Stepping

    try:
        stepping = Stepping(args.graph == "on", args.accumulate, args.resident)
        kept: dict[str, Any] = {"weights": not args.no_weights, "track": tuple(args.track)}
        share = min(1.0, args.gpus_per_run or 1.0)
        options = Options(stepping=stepping, skip_broken=args.broken == "skip", gpu_share=share, **kept)
        records = run_seeds([run.config for run in group], args.data_dir, args.out, device, options=options)
        by_seed = {record.config["seed"]: None if record.ok else record.result["reason"] for record in records}
        return {run.number: by_seed[run.config.seed] for run in group if run.config.seed in by_seed}
    except (BusyError, StoppedError, CaptureError):  # after the last, only a new process can go on
        raise
    except UsageError as error:
        return dict.fromkeys((run.number for run in group), str(error))
    except Exception as error:  # one broken run must not cost the others
        traceback.print_exc()
        return dict.fromkeys((run.number for run in group), f"{type(error).__name__}: {error}")


# --- several at once -------------------------------------------------------------------------------------------------


def train_at_once(todo: Sequence[PlannedRun], args: Namespace, words: Sequence[str], place: Place, count: int) -> int:
    """Each run by the same command with --cell. Small ones, of which several are the default, take one thread each, the
    longest first, with a line for each that ends."""
    small, problems = args.jobs is None, Problems(args)
    runs = with_data(todo, args, problems)
    if problems.are_enough:
        return problems.exit_code(len(todo))
    by_number = {run.number: run for run in (longest_first(runs) if small else runs)}
    words = without_jobs(words)
    jobs = [Job(n, [*COMMAND, "--cell", str(n), *words], run.config.recipe.epochs) for n, run in by_number.items()]
    own = environments(count, place, args.device, os.environ, 1 if small else None)
    display = Display(sum(job.epochs for job in jobs), brief=small)
    with closing(display.bar), closing(run_jobs(jobs, own, display)) as ended:
        for nth, (job, code) in enumerate(ended, 1):
            run = by_number[job.number]
            end = "FAILED" if code else f"done, {outcome(args.out / run.config.run_id)}"
            display.end(job, f"[{nth}/{len(jobs)}] run {job.number}: {run.title}: {end}", failed=code != 0)
            if code:
                problems.add(run, f"exit code {code} (see above)")
                if problems.are_enough:
                    break
    return problems.exit_code(len(todo))


def longest_first(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The last row first, since studies list cheap rows first: a long run that starts last leaves other cores idle."""
    rows = [run.row for run in runs]
    return sorted(runs, key=lambda run: rows.index(run.row), reverse=True)


def without_jobs(words: Sequence[str]) -> list[str]:
    """The same command for one run; `--jobs 4` and `--jobs=4` are both possible."""
    before = ["", *words]
    return [word for word, last in zip(words, before) if "--jobs" not in (word.partition("=")[0], last)]
