"""Train every cell of a study that is not done yet, seed by seed (small forms that train several at once: the dearest
row first); failed and unfinished ones are tried again.

A failed cell is named and does not stop the others. The exit code is 0 when every cell asked for is done, else 1.

examples:
  python -m harness.sweep --list                                what each study asks, and how many cells it has
  python -m harness.sweep pooling --quick                       its small form on embedded data, a cell on each core
  python -m harness.sweep tokenizer --seeds 3 --dataset c100    the first three seeds on another data set
  python -m harness.sweep main --seed 0 --dataset c10 --variants vanilla compact
  python -m harness.sweep main --dry-run                        which cells, and a guess of the time
  python -m harness.sweep main --status                         done, running, failed, missing, time left
  python -m harness.sweep main --jobs 4                         four at once, on as many GPUs as there are
  python -m harness.sweep main --cell 17                        one cell: a task of a cluster's job array
"""

import argparse
import contextlib
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from harness.commands import Parser, directory, run_command, whole
from harness.config import PRECISION_HELP, PRECISIONS
from harness.data.load import available_bytes, dataset_facts
from harness.datasets import EMBEDDED, Dataset
from harness.recipes import RECIPE_HELP, canonical
from harness.records.read import FOLDER, check_images, read_run, run_state
from harness.records.schema import ASIDE
from harness.studies import STUDIES
from harness.study import Study
from harness.sweeping.plan import Planned, dearest_first, on_device, plan
from harness.sweeping.remaining import Guess, remaining
from harness.sweeping.show import about, listing, plan_lines, status_text
from harness.sweeping.standing import standings
from harness.sweeping.together import Together
from harness.sweeping.turns import NO_DATA, absent_data, concluded, outcome, told, train_all
from harness.sweeping.workers import Job, Place, Workers, default_jobs, environments, place_of, told_at_once
from harness.training.signals import StoppedError, handled_by
from variants.catalog import check_known, config_of
from variants.fields import UsageError, near_matches

if TYPE_CHECKING:
    import torch

MOST_SEEDS, MOST_JOBS = 10_000, 1024  # a plan lists every cell, and each job is a process


def parser() -> Parser:
    p = Parser("harness.sweep", __doc__ or "")
    p.add_argument("study", help=f"one of {', '.join(STUDIES)}")
    seeds = p.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seeds", type=seed_count, metavar="N", help="the first N seeds, 0 to N-1 (default: the study's)"
    )
    seeds.add_argument("--seed", type=int, nargs="+", metavar="S", help="these seeds")
    p.add_argument("--dataset", "--datasets", nargs="+", metavar="NAME", help="(default: the study's)")
    p.add_argument("--variants", nargs="+", metavar="NAME", help="(default: the study's)")
    p.add_argument("--recipes", type=canonical, nargs="+", metavar="NAME", help=f"{RECIPE_HELP} (default: the study's)")
    p.add_argument("--epochs", type=int, metavar="N", help="another number of passes for every cell")
    p.add_argument("--list", action=ListStudies, help="list the studies and exit")
    p.add_argument("--quick", action="store_true", help="the study's small form on embedded data")
    act = p.add_mutually_exclusive_group()
    act.add_argument("--status", action="store_true", help="where the cells stand and how long is left; trains nothing")
    act.add_argument(
        "--cell", type=int, metavar="K", help="only the cell with this number; --dry-run shows each row's first"
    )
    act.add_argument(
        "--jobs",
        type=jobs,
        metavar="N",
        help="N cells at once, each in a process of its own, which holds the data and has its share of the threads "
        "(default: 1; of small forms on a CPU as many, on one thread each, as there are cores and memory for)",
    )
    p.add_argument("--dry-run", action="store_true", help="print how many cells, which, and a guess of the time")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    p.add_argument("--precision", choices=PRECISIONS, help=PRECISION_HELP)
    p.add_argument("--compile", choices=("on", "off"), help="torch.compile (default: on for CUDA, off on the CPU)")
    p.add_argument("--deterministic", action="store_true", help="the same bits each time on a GPU too; slower")
    p.add_argument("--data-dir", type=directory, default=Path("data"), metavar="DIR", help="(default: data)")
    p.add_argument("--out", type=directory, default=Path("results/runs"), metavar="DIR", help="(default: results/runs)")
    return p


class ListStudies(argparse.Action):
    """Like --help: answers at once, whatever else was asked."""

    def __init__(self, option_strings: Sequence[str], dest: str, **named: Any):
        super().__init__(option_strings, dest, nargs=0, **named)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(listing(STUDIES))
        parser.exit()


def jobs(text: str) -> int:
    return whole(text, most=MOST_JOBS)


def seed_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SEEDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seeds, 1 to {MOST_SEEDS:,}; seeds by name are --seed 0 1"
        )
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    args = parser().parse_args(words)
    study = chosen(args)
    facts = {name: dataset_facts(name, args.data_dir) for name in study.datasets}
    planned = plan(study, facts, args.epochs)
    if not planned:
        raise UsageError("nothing to do: no variant here has such a recipe")
    for name in sorted(set(args.variants or []) - {cell.config.variant_name for cell in planned}):
        print(f"note: {name} is left out, no recipe was published for it", file=sys.stderr)
    if args.cell is not None and not 0 <= args.cell < len(planned):
        raise UsageError(f"--cell {args.cell}: this plan has the cells 0 to {len(planned) - 1}")
    if args.status:
        return show_status(args, planned, facts)
    if may_be_several(args, study):
        with ending():
            place = place_of(args.device)
            count = args.jobs or default_jobs(place.kind, os.environ, available_bytes())
            if count > 1:
                return train_at_once(args, planned, words, place, count)
    return train_in_turn(args, planned, facts)


def chosen(args: Namespace) -> Study:
    """The study as it was asked for; a misspelt name must not just be missing from the plan."""
    if args.study not in STUDIES:
        raise UsageError(f"unknown study {args.study!r}: {near_matches(args.study, STUDIES)}")
    for name in args.variants or []:
        config_of(name)
        check_known(name)
    study = STUDIES[args.study]
    if args.quick:
        if study.quick is None:
            raise UsageError(f"{args.study} has no small form: leave out --quick")
        study = study.quick
    seeds = range(args.seeds) if args.seeds else args.seed
    return study.narrowed(args.variants, args.recipes, args.dataset, seeds)


def may_be_several(args: Namespace, study: Study) -> bool:
    """Whether cells may train at once: N were asked for, or it is a small form and depends on the device."""
    if args.dry_run or args.cell is not None:
        return False
    is_small = (args.quick or args.study == "quick") and set(study.datasets) == {EMBEDDED}
    return args.jobs > 1 if args.jobs else is_small


# --- what would be done, and what has been ---------------------------------------------------------------------------


def guesser(facts: dict[str, Dataset], device: "torch.device") -> Guess:
    """Tries a cell's model on this device, once for all seeds; the estimate itself, once for all steps alike."""
    from harness.training.estimate import seconds_of

    known: dict[str, float | None] = {}

    def guess(cell: Planned) -> float | None:
        if cell.plan_id not in known:
            known[cell.plan_id] = seconds_of(cell.config, facts[cell.config.dataset], device)
        return known[cell.plan_id]

    return guess


def show_status(args: Namespace, planned: Sequence[Planned], facts: dict[str, Dataset]) -> int:
    """Needs torch only where the records do not say how long a cell takes."""

    def device() -> "torch.device":
        from harness.training import device as devices

        return devices.choose(args.device)

    def name() -> str:
        from harness.training.device import describe

        return describe(device())["device_name"]

    compiles = None if args.compile is None else args.compile == "on"
    cells = standings(planned, args.out, args.precision, compiles)
    print(f"{args.study}: {len(cells)} cells in {args.out}\n")
    left = remaining(cells, name, lambda cell: guesser(facts, device())(cell))
    print(status_text(cells, left))
    if aside := sorted(path.name for path in args.out.glob(f"{ASIDE}*")):
        print(f"set aside, since what they hold is no record: {', '.join(aside)}")
    return 0


def announce(cells: Sequence[Planned], todo: Sequence[Planned], guess: Guess, device_name: str, each: bool) -> None:
    """How many cells, and about how long they take on this device."""
    print(counted(cells, todo), flush=True)
    if each:
        print("\n".join(plan_lines(todo, guess)), flush=True)
    seconds = [guess(cell) for cell in todo]
    if todo:
        more = " and what could not be guessed" if None in seconds else ""
        total = about(sum(known or 0 for known in seconds))
        print(f"about {total}{more} on {device_name} (a guess from a few uncompiled steps of each model)", flush=True)


def counted(cells: Sequence[Planned], todo: Sequence[Planned]) -> str:
    return f"{len(cells)} cell{'s' * (len(cells) > 1)}, {len(cells) - len(todo)} done, {len(todo)} to train"


# --- training --------------------------------------------------------------------------------------------------------


def train_in_turn(args: Namespace, planned: Sequence[Planned], facts: dict[str, Dataset]) -> int:
    from harness.training import device as devices

    if args.deterministic:
        devices.make_deterministic()
    device = devices.choose(args.device)
    cells = on_device(planned, *settled(args, *devices.defaults(device)))
    if args.cell is not None:
        cells = [cells[args.cell]]
    todo = to_train(cells, args)
    if args.cell is None or args.dry_run:
        name = devices.describe(device)["device_name"]
        announce(cells, todo, guesser(facts, device), name, args.dry_run)
    elif not todo:
        print(f"cell {args.cell} is done already: {cells[0].title}, {outcome(args.out / cells[0].config.run_id)}")
    return 0 if args.dry_run else train_all(todo, args.data_dir, args.out, device)


def to_train(cells: Sequence[Planned], args: Namespace) -> list[Planned]:
    """Those that are not done. One of other images that only have the same name is not skipped in silence."""
    todo = []
    for cell in cells:
        folder = args.out / cell.config.run_id
        if run_state(folder) != "done":
            todo.append(cell)
        elif cell.config.dataset.startswith(FOLDER):
            check_images(read_run(folder), cell.config.dataset, args.data_dir)
    return todo


def settled(args: Namespace, precision: str, compiles: bool) -> tuple[str, bool]:
    return args.precision or precision, compiles if args.compile is None else args.compile == "on"


def train_at_once(args: Namespace, planned: Sequence[Planned], words: Sequence[str], place: Place, count: int) -> int:
    """Each cell by this command with --cell, in a process that has its own device or its share of the threads."""
    small = args.jobs is None  # several by default
    cells = on_device(planned, *settled(args, place.precision, place.compiles))
    todo = to_train(cells, args)
    how = f", {count} at a time (--dry-run guesses how long one after another)" if todo else ""
    print(f"{counted(cells, todo)}{how}", flush=True)
    absent = absent_data({cell.config.dataset for cell in todo}, args.data_dir)
    problems = [told(cell, NO_DATA) for cell in todo if cell.config.dataset in absent]
    command, words = [sys.executable, "-m", "harness.sweep"], without_jobs(words)
    there = [cell for cell in todo if cell.config.dataset not in absent]
    by_number = {cell.number: cell for cell in (dearest_first(there) if small else there)}
    jobs = [Job(cell.number, cell.title, [*command, "--cell", str(cell.number), *words]) for cell in by_number.values()]
    together = Together(sum(cell.config.recipe.epochs for cell in there))
    own = environments(count, place, args.device, os.environ, 1 if small else None)
    workers = Workers(own, together.heard if small else told_at_once)
    with contextlib.closing(together), contextlib.closing(workers.run(jobs)) as running:
        for nth, (job, code) in enumerate(running, 1):
            config = by_number[job.number].config
            end = "FAILED" if code else f"done, {outcome(args.out / config.run_id)}"
            text = f"[{nth}/{len(jobs)}] cell {job.number}: {job.title}: {end}"
            together.ended(job, config.recipe.epochs, text, failed=code != 0)
            if code:
                problems.append(told(by_number[job.number], f"exit code {code} (see above)"))
    return concluded(problems, len(todo))


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """A signal leaves at once, else the children would be left behind, training. Leaving asks them to stop: each saves
    its cell's state, and the same command goes on."""

    def heard(number: int, frame: FrameType | None) -> NoReturn:
        raise StoppedError(number)

    with handled_by(heard):
        yield


def without_jobs(words: Sequence[str]) -> list[str]:
    """The same command for one cell; `--jobs 4` and `--jobs=4` are both possible."""
    values = {index + 1 for index, word in enumerate(words) if word == "--jobs"}
    return [word for at, word in enumerate(words) if at not in values and word.partition("=")[0] != "--jobs"]


if __name__ == "__main__":
    run_command(main)
