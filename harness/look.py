"""Look into a model: where it attends, what its layers have learned, what it gets wrong. Each figure as PNG and PDF, in
a folder of OUT for each model; a sentence where a model has no such thing.

RUN is a run's folder, a run id, or a cell id (all its seeds), with weights; it is looked at on its own test images.
VARIANT is a name of the catalogue, timm:MODEL or path/to/file.py:NAME, looked at as it starts (pretrained where its
config says so) on two photographs, or on the test images of --dataset. Blocks and heads count from 1.

examples:
  python -m harness.look results/runs/RUN_ID
  python -m harness.look RUN_ID --block 4                  (each head of block 4)
  python -m harness.look RUN_ID --head 2                   (head 2 of every block)
  python -m harness.look RUN_ID --images my/pictures
  python -m harness.look compact vanilla --dataset c10
  python -m harness.look timm:deit_tiny_patch16_224 --set variant.pretrained=true
"""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from harness.commands import Parser, directory, place, run_command, whole
from harness.compare import side_of
from harness.config import parse_settings
from harness.evidence.cells import folders_of
from harness.records.read import Run
from variants.catalog import CATALOG
from variants.fields import UsageError, near_matches


def parser() -> Parser:
    p = Parser("harness.look", __doc__ or "")
    many: dict[str, Any] = {"type": place, "nargs": "+", "action": "extend"}
    p.add_argument("names", nargs="+", metavar="RUN_OR_VARIANT", help="see above")
    p.add_argument("--out", type=directory, default=Path("figures"), metavar="DIR", help="(default: figures)")
    p.add_argument("--block", type=whole, metavar="N", help="attention of each head of this block")
    p.add_argument("--head", type=whole, metavar="N", help="attention of this head (default: the mean over heads)")
    p.add_argument("--images", metavar="FILE_OR_FOLDER", help="look at these instead", **many)
    p.add_argument("--dataset", help="of a VARIANT: its image size, classes and test images")
    p.add_argument("--results", metavar="DIR", help="where ids are looked up (default: as harness.compare)", **many)
    p.add_shared("set", "data-dir")
    p.add_argument(
        "--json", action="store_true", help="one object: of each model each figure's files, or why there is none"
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    if parse_settings(args.set)["recipe"]:
        raise UsageError("--set recipe.*: a variant is looked at as it starts, without a recipe")
    chosen = [one for name in args.names for one in chosen_by(name, args)]
    from harness.looking.figures import write_figures
    from harness.looking.subject import of_run, of_variant

    found: dict[str, dict[str, list[str] | str]] = {}
    for one in chosen:
        subject = of_run(one, args) if isinstance(one, Run) else of_variant(one, args)
        told = found[subject.name] = {}
        for name, files in write_figures(subject, args.out / subject.name):
            told[name] = files
            if not args.json:
                print(f"{name}: {f'none: {files}' if isinstance(files, str) else f'{files[0]} .png'}", flush=True)
    if args.json:
        print(json.dumps(found, indent=1))
    return 0


def chosen_by(name: str, args: Namespace) -> list[Any]:
    """The runs that it names, or itself if it is a variant's: a wrong one is refused before the first is drawn."""
    if name in CATALOG or name.startswith("timm:") or ".py:" in name:
        return [name]
    try:
        runs = list(side_of(name, folders_of(args.results)).runs)
    except UsageError as error:
        variant = "" if Path(name).exists() else f"\nnor is it a variant: {near_matches(name, CATALOG)}"
        raise UsageError(f"{error}{variant}") from None
    if args.dataset or args.set:
        raise UsageError(f"--dataset and --set are for variants: {name} has its own")
    return runs


if __name__ == "__main__":
    run_command(main)
