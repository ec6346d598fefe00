"""Train a study, then write its tables and figures.

Words of harness.sweep, the word `report`, words of harness.report: what run_all.sh calls. Both happen in one process,
so that a signal to run_all.sh reaches the sweep, which saves first. Where runs failed, the others are reported and the
exit code is the sweep's; after a sweep that was stopped nothing is written.

example:
  python -m harness.reproduce quick --device cpu --out my/runs report --study quick --results my/runs --out my/paper
"""

import argparse
import sys

from harness import report, sweep
from harness.commands import Parser, run_command
from harness.training.signals import StoppedError
from variants.fields import UsageError


def parser() -> Parser:
    p = Parser("harness.reproduce", __doc__ or "")
    p.add_argument("words", nargs=argparse.REMAINDER, metavar="STUDY ... report ...", help="see above")
    return p


def main(arguments: list[str] | None = None) -> int:
    words = parser().parse_args(arguments).words
    if "report" not in words:
        raise UsageError("the word report is missing: words of harness.sweep, report, words of harness.report")
    at = words.index("report")
    try:
        code = sweep.main(words[:at])
    except StoppedError as stopped:
        print(f"{stopped}; no report was written; the same command goes on", file=sys.stderr)
        return stopped.exit_code
    return report.main(words[at + 1 :]) or code


if __name__ == "__main__":
    run_command(main)
