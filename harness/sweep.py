"""Train every run of a study that is not done yet; failed and unfinished ones are tried again.

They go seed by seed, of small forms that train several at once the longest first. A failed run is named and does not
stop the others. The exit code is 0 when every run asked for is done, else 1.

examples:
  python -m harness.sweep --list                                what each study asks, and how many runs it has
  python -m harness.sweep pooling --quick                       its small form on embedded data, a run on each core
  python -m harness.sweep tokenizer --seeds 3 --dataset c100    the first three seeds on another data set
  python -m harness.sweep main --seed 0 --dataset c10 --variants vanilla compact
  python -m harness.sweep main --dry-run                        which runs, and a guess of the time
  python -m harness.sweep main --estimate --device h100         hours, energy and memory, by what was measured there
  python -m harness.sweep main --status                         done, running, failed, missing, time left (or --json)
  python -m harness.sweep main --jobs 4                         four at once, on as many GPUs as there are
  python -m harness.sweep pooling --seeds 16 --seeds-at-once 16   sixteen seeds of each cell trained as one
  python -m harness.sweep tuning --dataset c10 --weights RUN_ID   each run starts from the same weights
  python -m harness.sweep main --cell 17                        one run: a task of a cluster's job array
  python -m harness.sweep main --launcher ray --gpus-per-run 0.25   four runs on each GPU of this machine
  python -m harness.sweep main --launcher ray --address auto    on the cluster that this machine belongs to
  python -m harness.sweep main --seeds-at-once 5 --cell 3       five seeds of a cell: a task; --dry-run says how many
"""

import argparse
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.commands import DEVICE_OPTIONS, Parser, asked_for, run_command, whole
from harness.data.load import dataset_facts
from harness.datasets import EMBEDDED, Dataset
from harness.recipes import RECIPE_HELP, canonical
from harness.records.environment import is_launched
from harness.records.read import named_run
from harness.records.schema import ASIDE
from harness.studies import STUDIES
from harness.study import Study
from harness.sweeping.plan import PlannedRun, about, in_tasks, on_device, plan
from harness.sweeping.status import status_plain, status_text, statuses
from harness.sweeping.train import outcome, to_train, train_at_once, train_in_turn
from harness.sweeping.workers import default_jobs, place_of
from harness.training.signals import listening
from harness.training.track import places
from variants.catalog import check_known, config_of
from variants.fields import UsageError, near_matches

JOBS = partial(whole, most=1024)  # each is a process
JOBS_HELP = """N runs at once, each in a process of its own, which holds the data and has its share of the threads
(default: 1; of small forms on a CPU as many, on one thread each, as there are cores and memory for)"""
ESTIMATE_HELP = """hours, energy and memory on the device whose name in results/bench holds that of --device (default:
each); by its measured rates, else scaled by MACs; trains nothing"""
CELL_HELP = """only the run of this number, or of seeds at once the group, as --dry-run shows it: in a job array
$SLURM_ARRAY_TASK_ID"""
SEEDS_HELP = """N seeds of a cell trained as one, for small models on a GPU that waits for its host (a CPU is slower
with it); each is the run that it is by itself, but for rounding and dropout's numbers (default: 1)"""
RAY_HELP = """Each worker needs the same code and the data under --data-dir. Where workers see OUT, a run goes on from
its checkpoint on another machine too; elsewhere its record is sent back when it ends or is stopped."""


def gpus(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number from 0 to 1 is needed; a run computes on one GPU")
    return value


def seed_count(text: str) -> int:
    try:
        return whole(text, most=10_000)  # a plan lists every run
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; seeds by name are --seed 0 1") from None


def task_number(text: str) -> int:
    """An unset variable of the shell leaves nothing to read."""
    try:
        return int(text)
    except ValueError:
        told = f"{text!r}: a number is needed, as --dry-run shows it; of a job array, is SLURM_ARRAY_TASK_ID set?"
        raise argparse.ArgumentTypeError(told) from None


def parser() -> Parser:
    p = Parser("harness.sweep", __doc__ or "")
    p.add_argument("study", nargs="?", help=f"one of {', '.join(STUDIES)}")
    seeds = p.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seeds", type=seed_count, metavar="N", help="the first N seeds, 0 to N-1 (default: the study's)"
    )
    seeds.add_argument("--seed", type=int, nargs="+", metavar="S", help="these seeds")
    p.add_argument("--dataset", "--datasets", nargs="+", metavar="NAME", help="(default: the study's)")
    p.add_argument("--variants", nargs="+", metavar="NAME", help="(default: the study's)")
    p.add_argument("--recipes", type=canonical, nargs="+", metavar="NAME", help=f"{RECIPE_HELP} (default: the study's)")
    p.add_argument("--epochs", type=int, metavar="N", help="another number of epochs for every run")
    p.add_argument("--list", action="store_true", help="list the studies and exit")
    p.add_argument("--quick", action="store_true", help="the study's small form on embedded data")
    act = p.add_mutually_exclusive_group()
    act.add_argument("--status", action="store_true", help="the state of each run and how long is left; trains nothing")
    act.add_argument("--estimate", action="store_true", help=ESTIMATE_HELP)
    act.add_argument("--cell", type=task_number, nargs="?", const="", metavar="K", help=CELL_HELP)
    act.add_argument("--jobs", type=JOBS, metavar="N", help=JOBS_HELP)
    p.add_argument("--seeds-at-once", type=seed_count, default=1, metavar="N", help=SEEDS_HELP)
    p.add_argument("--fail-fast", action="store_true", help="end with the first run that fails")
    ray = p.add_argument_group("on several machines or GPUs, by Ray (extra [ray])", RAY_HELP)
    ray.add_argument("--launcher", choices=("here", "ray"), default="here", help="(default: here)")
    ray.add_argument("--address", metavar="HOST:PORT", help="of a cluster, or auto (default: RAY_ADDRESS or its own)")
    ray.add_argument("--gpus-per-run", type=gpus, metavar="F", help="(default: 1, where there are GPUs)")
    ray.add_argument("--cpus-per-run", type=whole, metavar="N", help="and threads (default: OMP_NUM_THREADS, else 1)")
    p.add_argument("--dry-run", action="store_true", help="print how many runs, which, and a guess of the time")
    p.add_argument("--json", action="store_true", help="of what trains nothing: one object and nothing else")
    p.add_shared(*DEVICE_OPTIONS, "weights", "no-weights", "track", "data-dir", "out")
    return p


def list_studies(as_json: bool) -> int:
    names = ("study", "runs", "quick", "question")
    rows = [(name, of.run_count, of.quick and of.quick.run_count, of.question) for name, of in STUDIES.items()]
    headers = ["study", "runs", "--quick", "question"]
    print(json.dumps([dict(zip(names, row)) for row in rows], indent=1) if as_json else tabulate(rows, headers))
    return 0


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    p = parser()
    args = p.parse_args(words)
    if args.list:
        return list_studies(args.json)
    if args.study is None:
        p.error("the following arguments are required: study (--list names them)")
    if is_launched():
        raise UsageError("torchrun is for one run, harness.run: a sweep starts its processes itself (--jobs)")
    if args.json and not (args.status or args.dry_run or args.estimate):
        raise UsageError("--json prints what is found out and trains nothing: add --status or --dry-run or --estimate")
    if args.seeds_at_once > 1 and (args.jobs or 1) > 1:
        raise UsageError("--seeds-at-once trains the seeds in one process: leave out --jobs")
    if args.seeds_at_once > 1 and args.precision == "fp16":
        raise UsageError("--precision fp16 has one loss scale, which seeds cannot share: bf16, or --seeds-at-once 1")
    on_ray = args.launcher == "ray"
    if not on_ray and (args.address or args.gpus_per_run is not None or args.cpus_per_run):
        raise UsageError("--address, --gpus-per-run and --cpus-per-run are for --launcher ray")
    if on_ray and (args.jobs or args.cell is not None):
        raise UsageError("--launcher ray trains as many runs at once as the cluster has room for: no --jobs, no --cell")
    study = chosen(args)
    facts = {name: dataset_facts(name) for name in study.datasets}
    planned = plan(study, facts, args.epochs)
    if not planned:
        raise UsageError("nothing to do: no variant here has such a recipe")
    if args.weights:
        planned = from_weights(planned, named_run(args.weights))
    planned = in_tasks(planned, args.seeds_at_once)
    for name in sorted(set(args.variants or []) - {run.config.variant_name for run in planned}):
        print(f"note: {name} is left out, no recipe was published for it", file=sys.stderr)
    if args.cell is not None and not 0 <= args.cell <= planned[-1].task:
        kind = "groups of seeds" if args.seeds_at_once > 1 else "runs"
        raise UsageError(f"--cell {args.cell}: this plan has the {kind} 0 to {planned[-1].task}")
    if args.status:
        return show_status(args, planned)
    if args.estimate:
        return show_estimate(args, planned, facts)
    if args.cell is None and not args.json:
        print(places(args.track, args.out), end="", flush=True)
    if on_ray and not args.dry_run:
        from harness.sweeping.cluster import train_on_ray

        return train_on_ray(args, planned)
    code = at_once(args, planned, words) if may_be_several(args, study) else None
    return in_turn(args, planned, facts) if code is None else code


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


def from_weights(planned: Sequence[PlannedRun], place: Path) -> list[PlannedRun]:
    from harness.training.setup import starting_from

    started = starting_from([run.config for run in planned], place)
    return [replace(run, config=config, plan_id=config.plan_id) for run, config in zip(planned, started)]


def show_status(args: Namespace, planned: Sequence[PlannedRun]) -> int:
    found = statuses(planned, args.out, *asked_for(args, None, None))
    aside = sorted(path.name for path in args.out.glob(f"{ASIDE}*"))
    if args.json:
        told = {"study": args.study, "out": str(args.out), "set_aside": aside}
        print(json.dumps(told | status_plain(found), indent=1, allow_nan=False))
        return 0
    print(f"{args.study}: {len(found)} runs in {args.out}\n")
    print(status_text(found))
    if aside:
        print(f"set aside, since what they hold is no record: {', '.join(aside)}")
    return 0


def show_estimate(args: Namespace, planned: Sequence[PlannedRun], facts: Mapping[str, Dataset]) -> int:
    from harness.sweeping.estimate import devices, estimate, estimate_text, how_to_measure

    found = [estimate(device, args, planned, facts) for device in devices(args)]
    measured, commands = [told for told in found if told["setting"]], how_to_measure(args, planned, found)
    if args.json:
        told = {"study": args.study, "out": str(args.out), "devices": found, "to_measure": commands}
        print(json.dumps(told, indent=1))
        return 0
    if not found:
        known = "; ".join(device.name for device in devices(Namespace(**{**vars(args), "device": "auto"})))
        print(f"{args.device}: unknown, it is not among the devices of results/bench: {known or 'none'}")
    for told in sorted(found, key=measured.__contains__):
        print(estimate_text(told, brief=len(measured) > 1))
    if commands:
        print("\n  ".join([f"to measure {'the rest' if measured else 'it'}, on the device:", *commands]))
    return 0


# --- training --------------------------------------------------------------------------------------------------------


def in_turn(args: Namespace, planned: Sequence[PlannedRun], facts: Mapping[str, Dataset]) -> int:
    from harness.training import device as devices

    if args.deterministic:
        devices.make_deterministic()
    device = devices.choose(args.device)
    runs = on_device(planned, *asked_for(args, *devices.defaults(device)))
    if args.cell is not None:
        runs = [run for run in runs if run.task == args.cell]
    todo = to_train(args, runs)
    if args.json:
        print(json.dumps(plan_plain(args, runs, todo, facts, device), indent=1))
    elif args.cell is None or args.dry_run:
        announce(runs, todo)
        if args.dry_run and args.cell is None:
            print(f"numbers for --cell: a job array's --array=0-{runs[-1].task}")
        if todo:
            announce_time(args, todo, facts, device)
    elif not todo:
        for run in runs:
            print(f"run {run.number} is done already: {run.title}, {outcome(args.out / run.config.run_id)}")
    return 0 if args.dry_run else train_in_turn(todo, args, device)


def may_be_several(args: Namespace, study: Study) -> bool:
    """Whether runs may train at once: N were asked for, or it is a small form and depends on the device."""
    if args.dry_run or args.cell is not None or args.seeds_at_once > 1:
        return False
    is_small = (args.quick or args.study == "quick") and set(study.datasets) == {EMBEDDED}
    return args.jobs > 1 if args.jobs else is_small


@listening()
def at_once(args: Namespace, planned: Sequence[PlannedRun], words: Sequence[str]) -> int | None:
    """None where the device takes one run after another."""
    place = place_of(args.device)
    count = args.jobs or default_jobs(place.kind, os.environ)
    if count == 1:
        return None
    runs = on_device(planned, *asked_for(args, place.precision, place.compiles))
    todo = to_train(args, runs)
    announce(runs, todo, f", {count} at a time (--dry-run guesses how long one after another)" if todo else "")
    return train_at_once(todo, args, words, place, count)


def announce(runs: Sequence[PlannedRun], todo: Sequence[PlannedRun], how: str = "") -> None:
    print(
        f"{len(runs)} run{'s' * (len(runs) > 1)}, {len(runs) - len(todo)} done, {len(todo)} to train{how}", flush=True
    )


def guesses(
    args: Namespace, todo: Sequence[PlannedRun], facts: Mapping[str, Dataset], device: Any
) -> Iterator[tuple[PlannedRun, float | None]]:
    """The first run of each cell and how many seconds a seed of it takes; None where a step of the model fails."""
    from harness.training.estimate import seconds_of

    for run in sorted({run.plan_id: run for run in reversed(todo)}.values(), key=lambda run: run.number):
        yield run, seconds_of(run.config, facts[run.config.dataset], device, args.accumulate)


def announce_time(args: Namespace, todo: Sequence[PlannedRun], facts: Mapping[str, Dataset], device: Any) -> None:
    """A guess for all and, of a dry run, of each cell, with the number of its first run."""
    from harness.training.device import describe

    seconds_of_cell = {}
    for run, seconds in guesses(args, todo, facts, device):
        seconds_of_cell[run.plan_id] = seconds
        time = "unknown" if seconds is None else f"about {about(seconds)} for each seed"
        if args.dry_run:
            print(f"  {run.task:>5}  {run.cell}: {time}")
    known = [seconds_of_cell[run.plan_id] for run in todo]
    total, more = about(sum(seconds or 0 for seconds in known)), " and what could not be guessed" * (None in known)
    name = describe(device)["device_name"]
    print(f"about {total}{more} on {name} (a guess from a few uncompiled steps of each model)", flush=True)


def plan_plain(
    args: Namespace, runs: Sequence[PlannedRun], todo: Sequence[PlannedRun], facts: Mapping[str, Dataset], device: Any
) -> dict[str, Any]:
    """What --dry-run tells, as `--json` prints it; `number` is that of a cell's first run that is not done."""
    from harness.training.device import describe

    cells = [
        {"number": run.task, "row": run.row.title, "dataset": run.config.dataset, "seconds_of_a_seed": seconds}
        | {"to_train": sum(other.plan_id == run.plan_id for other in todo)}
        for run, seconds in guesses(args, todo, facts, device)
    ]
    counts = {"runs": len(runs), "done": len(runs) - len(todo), "to_train": len(todo)}
    return {"study": args.study, "out": str(args.out), **counts, **describe(device), "cells": cells}


if __name__ == "__main__":
    run_command(main)
