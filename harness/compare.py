"""Compare two runs, or two cells over their seeds, from their records alone: no torch, no data set.

A and B are run folders, run ids, or cell ids (all seeds of the cell). Ids are looked up in results/runs if it holds a
finished run, else in results/reference, or in what --results names. Differences are B - A.

examples:
  python -m harness.compare c10-vit-d48l4p4-e10-s0-298330dc95 c10-vit-d48l4p4-e10-s1-94f25cb488
  python -m harness.compare CELL_ID OTHER_CELL_ID --results results/runs results/reference
  python -m harness.compare results/runs/RUN_ID /elsewhere/RUN_ID --json
"""

import json

from harness.commands import Parser, place, run_command
from harness.evidence.cells.contrast import contrast
from harness.evidence.cells.contrast_text import lines_of, to_plain
from harness.evidence.cells.sides import side_of
from harness.evidence.folders import folders_of


def parser() -> Parser:
    p = Parser("harness.compare", __doc__ or "")
    p.add_argument("a", metavar="A", help="run folder, run id or cell id")
    p.add_argument("b", metavar="B", help="run folder, run id or cell id")
    p.add_argument("--results", type=place, nargs="+", action="extend", metavar="DIR", help="(default: see above)")
    p.add_argument("--json", action="store_true", help="one object and nothing else")
    return p


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    folders = folders_of(args.results)
    found = contrast(side_of(args.a, folders), side_of(args.b, folders))
    print(json.dumps(to_plain(found), indent=1, allow_nan=False) if args.json else "\n".join(lines_of(found)))
    return 0


if __name__ == "__main__":
    run_command(main)
