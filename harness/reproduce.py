"""Train a study, then write its tables and figures: what run_all.sh does with the words of harness.sweep, the word
`report`, and the words of harness.report.

Both happen in one process, so that a signal to run_all.sh reaches the sweep, which saves first. Where runs failed, the
others are reported and the exit code is the sweep's; after a sweep that was stopped nothing is written.
"""

import sys

from harness import report, sweep
from harness.commands import run_command
from harness.training.signals import StoppedError
from variants.fields import UsageError


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if "report" not in words:
        raise UsageError("bash run_all.sh calls this: words of harness.sweep, the word report, words of harness.report")
    at = words.index("report")
    try:
        code = sweep.main(words[:at])
    except StoppedError as stopped:
        print(f"{stopped}; no report was written; the same command goes on", file=sys.stderr)
        return stopped.exit_code
    return report.main(words[at + 1 :]) or code


if __name__ == "__main__":
    run_command(main)
