"""Owns the one place of a README that is not written by hand: what stands between two marker lines.
Refuses a README without exactly one pair of markers.
"""

from collections.abc import Sequence
from pathlib import Path

from harness.evidence.writing.table import WRITTEN_BY, Table, escape_markdown
from harness.records.write import write_atomically
from variants.fields import UsageError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def read_parts(path: Path) -> tuple[str, str]:
    """What stands before and after the results, marker lines included."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--readme {path}: {getattr(error, 'strerror', None) or error}") from None
    begins, ends = ([i for i, line in enumerate(lines) if line.strip() == mark] for mark in (BEGIN, END))
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise UsageError(f"--readme {path}: one line {BEGIN} and after it one line {END} are needed")
    return "".join(lines[: begins[0] + 1]), "".join(lines[ends[0] :])


def write_results(path: Path, table: Table, told: Sequence[Sequence[str]] = ()) -> None:
    """The table, and below it a line for each study: where it was run, and what it found."""
    before, after = read_parts(path)
    lines = [f"* Study {escape_markdown(' '.join(sentence.strip() for sentence in study))}\n" for study in told]
    studies = "".join([*lines, "\n"]) if lines else ""
    content = f"{before}<!-- {WRITTEN_BY} -->\n\n{table.to_markdown()}\n{studies}{after}"
    write_atomically(path, content.encode())
