"""Train one cell and leave its record. Killed or stopped, the same command goes on where it was.

examples:
  python -m harness.run --variant compact --dataset c100
  python -m harness.run --variant vanilla --dataset c10 --recipe published --seed 1
  python -m harness.run --variant compact --dataset digits --recipe quick          (no download, seconds)
  python -m harness.run --variant my_variant.py:MINE --dataset c10 --set recipe.lr=5e-4 variant.pool=mean
  python -m harness.run --variant timm:resnet18 --dataset folder:data/tiny-imagenet --epochs 20 --dry-run
  python -m harness.run --variant compact --dataset c10 --weights RUN_ID           (goes on from another run's weights)
  python -m harness.run --variant patch2-conv --dataset c10 --recipe published --dry-run --json
  torchrun --nproc-per-node 4 -m harness.run --variant vanilla --dataset c10       (the same batches on four devices)
"""

import json
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from harness.commands import DEVICE_OPTIONS, Parser, asked_for, run_command, seconds, silence_others
from harness.config import RunConfig, resolve
from harness.data.load import dataset_facts
from harness.datasets import DATASETS, Dataset
from harness.recipes import RECIPE_HELP, canonical
from harness.records.lock import BusyError
from harness.records.read import Run, check_images, named_run, read_run, run_state
from harness.training.signals import listening, wait
from harness.training.track import places
from variants.catalog import CATALOG, check_known
from variants.fields import UsageError
from variants.timm_baseline import from_scratch

if TYPE_CHECKING:
    import torch

    from harness.training.world import World

WAIT_S = 1.0
HOLDOUT_HELP = "judge on this share cut from train instead of test: for choosing anything"
SAVE_HELP = "how much at most is lost when the process is killed: the same command goes on (default: 60)"


def parser() -> Parser:
    p = Parser("harness.run", __doc__ or "")
    p.add_argument("--variant", required=True, help=f"{', '.join(CATALOG)}; timm:MODEL; path/to/file.py:NAME")
    p.add_argument("--dataset", required=True, help=f"{', '.join(DATASETS)}; folder:PATH with train and test or val")
    p.add_argument("--recipe", type=canonical, default="common", help=f"{RECIPE_HELP} (default: common)")
    p.add_argument("--seed", type=int, default=0, help="of weights, data order and augmentation (default: 0)")
    p.add_argument("--epochs", type=int, help="warm-up keeps its share (default: the recipe's)")
    p.add_argument("--batch-size", type=int, help="(default: the recipe's)")
    p.add_shared(*DEVICE_OPTIONS, "weights")
    p.add_argument("--holdout", type=float, default=0.0, metavar="SHARE", help=HOLDOUT_HELP)
    p.add_shared("set")
    p.add_argument("--name", default="", help="a label for the record; no part of the run's identity")
    p.add_shared("track", "data-dir", "out")
    p.add_argument("--fresh", action="store_true", help="train again what is done; its record is kept as replaced-...")
    p.add_argument("--save-every", type=seconds, default=60.0, metavar="SECONDS", help=SAVE_HELP)
    p.add_shared("no-weights")
    p.add_argument("--dry-run", action="store_true", help="print what would be done, its cost and a guess of its time")
    p.add_argument("--json", action="store_true", help="of --dry-run: one JSON object, with the learning rates too")
    p.add_argument("--quiet", action="store_true", help="no progress")
    return p


def configure(args: Namespace, dataset: Dataset) -> tuple[RunConfig, "torch.device"]:
    """Every field checked before torch is imported; then the device decides precision and compilation."""
    config = resolve(
        args.variant,
        dataset,
        args.recipe,
        seed=args.seed,
        epochs=args.epochs,
        batch_size=args.batch_size,
        holdout=args.holdout,
        settings=args.set,
        label=args.name,
    )
    check_known(args.variant)
    from harness.training import device as devices
    from harness.training.world import own_device

    if args.deterministic:
        devices.make_deterministic()
    device = devices.choose(own_device(args.device))
    precision, compiles = asked_for(args, *devices.defaults(device))
    config = replace(config, precision=precision, compile=compiles)
    if args.weights:
        from harness.training.setup import starting_from

        (config,) = starting_from([config], named_run(args.weights))
    return config, device


def main(arguments: list[str] | None = None) -> int:
    silence_others()
    args = parser().parse_args(arguments)
    if args.json and not args.dry_run:
        raise UsageError("--json prints what --dry-run finds out: add --dry-run")
    dataset = dataset_facts(args.dataset)
    config, device = configure(args, dataset)
    if args.dry_run:
        known = planned(config, dataset, device, args.accumulate)
        print(json.dumps(known, indent=1, allow_nan=False)) if args.json else describe(known)
        return 0
    from harness.training.world import joined

    with joined(device) as world:
        if world.rank:
            return follow_first(config, device, args, world)
        return conclude(done_already(config, args, world) or train(config, device, args, world))


def done_already(config: RunConfig, args: Namespace, world: "World") -> Run | None:
    folder = args.out / config.run_id
    if run_state(folder) != "done" or args.fresh:
        return None
    run = read_run(folder)
    check_images(run, config.dataset, args.data_dir)
    print("this run is done already; --fresh trains it again")
    world.told(None)
    return run


def follow_first(config: RunConfig, device: "torch.device", args: Namespace, world: "World") -> int:
    from harness.experiment import Options, follow
    from harness.training.setup import Stepping

    stepping = Stepping(accumulate=args.accumulate, resident=args.resident, world=world)
    follow(config, args.data_dir, device, Options(stepping=stepping, skip_broken=args.broken == "skip"))
    return 0


@listening()
def train(config: RunConfig, device: "torch.device", args: Namespace, world: "World") -> Run:
    """Waits where another process trains the same run: what that one leaves is the answer."""
    from harness.experiment import Options, run_cell
    from harness.training.setup import Stepping

    print("" if args.quiet else places(args.track, args.out), end="", flush=True)
    is_announced, stepping = False, Stepping(args.graph == "on", args.accumulate, args.resident, world)
    kept, skips = (not args.no_weights, tuple(args.track)), args.broken == "skip"
    options = Options(args.fresh, args.save_every, stepping, *kept, skips)
    while True:
        try:
            return run_cell(config, args.data_dir, args.out, device, args.quiet, options)
        except BusyError as busy:
            if not is_announced:
                print(f"{busy}; waiting for it", flush=True)
            is_announced = True
            wait(WAIT_S)


def conclude(run: Run) -> int:
    """The last lines: accuracy, time, and where the record is."""
    from harness.training.progress import duration

    result = run.result
    if not run.ok:
        print(f"FAILED: {result['reason']}\nrecord: {run.folder}", file=sys.stderr)
        return 1
    split, trained, judged = result["split"], duration(result["train_seconds"]), duration(result["eval_seconds"])
    compiling = f" + compilation {duration(result['compile_seconds'])}" if result["compile_seconds"] else ""
    print(
        f"{split} accuracy {result[f'{split}_accuracy']:.2%} after {result['epochs']} epochs, "
        f"{result['images_seen']:,} images\n"
        f"time: training {trained} + evaluation {judged}{compiling}\n"
        f"record: {run.folder}"
    )
    return 0


def planned(config: RunConfig, dataset: Dataset, device: "torch.device", accumulate: int = 1) -> dict[str, Any]:
    """What is known before the run: `config` and `cost` as its record will have them, a learning rate for each epoch
    (that of its first step), and a guess of the time from a few uncompiled steps with a batch or a part of one."""
    from harness.cell import counted
    from harness.data.pipeline import held_out_count
    from harness.training.estimate import FAILURES, measured_seconds
    from harness.training.optimiser import learning_rate
    from variants.weights import start

    recipe, images = config.recipe, dataset.train_count
    if config.holdout:
        images -= held_out_count(images, config.holdout)
    steps = -(-images // recipe.batch_size)
    model = from_scratch(config.variant).module()
    if config.weights_digest:
        start(model, config.weights, config.weights_digest)  # those that do not fit are refused here too
    try:
        guess: dict[str, Any] = {"seconds": measured_seconds(config, dataset, device, accumulate), "reason": None}
    except FAILURES as error:
        guess = {"seconds": None, "reason": f"a step fails: {type(error).__name__}: {error}"}
    return {
        "config": config.to_plain(),
        "cost": asdict(counted(config, model)),
        "steps_per_epoch": steps,
        "learning_rates": [learning_rate(recipe, epoch * steps, steps) for epoch in range(recipe.epochs)],
        "estimate": {**guess, "device": str(device)},
    }


def describe(known: dict[str, Any]) -> None:
    """The same in a few lines."""
    from harness.training.progress import duration

    cost, estimate = known["cost"], known["estimate"]
    print(json.dumps(known["config"], indent=1))
    macs = "unknown" if cost["macs"] is None else f"{cost['macs']:,}"
    print(f"parameters {cost['params']:,}  MACs {macs}")
    guess = "time unknown" if estimate["seconds"] is None else f"about {duration(estimate['seconds'])}"
    print(f"{guess} on {estimate['device']} (a guess from a few uncompiled steps)")
    print(f"record would be: {known['config']['run_id']}")


if __name__ == "__main__":
    run_command(main)
