"""Owns the part of the paper that says what the studies found: a paragraph, a table and a figure for each.
Refuses to judge: its sentences are those of conclusions.py.
"""

from collections.abc import Sequence
from itertools import groupby

from harness.evidence.conclusions import conclusions
from harness.evidence.findings import Finding
from harness.evidence.tables.captions import made_with
from harness.evidence.tables.study import study_tables
from harness.evidence.writing.table import WRITTEN_BY, escape_latex

NONE_YET = "No study has been run yet."


def studies_text(instances: Sequence[Finding], figures: Sequence[str]) -> str:
    """`figures`: the names of those that the report draws. Quick forms check the way and are no finding."""
    full = [one for one in instances if not one.quick]
    parts = [f"% {WRITTEN_BY}"]
    for _, of_study in groupby(full, key=lambda one: one.study_name):
        members = list(of_study)
        parts.append(rf"\subsection*{{{escape_latex(members[0].study.question)}}}")
        for one in members:
            parts += _section(one, figures)
    return "\n\n".join(parts if full else [*parts, NONE_YET]) + "\n"


SHOWN = {
    "forest": "Effects with their intervals",
    "interaction": "Accuracy by the levels of both factors",
    "scaling": "Accuracy along the axis of the study",
}


def _section(one: Finding, figures: Sequence[str]) -> list[str]:
    items = [rf"\item {escape_latex(sentence)}" for sentence in conclusions(one)]
    tables = [rf"\tableof{{{table.name}}}" for table in study_tables(one)]
    drawn = {name: what for kind, what in SHOWN.items() if (name := f"{kind}-{one.name}") in figures}
    pictures = [
        rf"\figureof{{{name}}}{{{escape_latex(f'{what}: {one.title}. {made_with(one.cells)}')}}}"
        for name, what in drawn.items()
    ]
    head = rf"\paragraph{{{escape_latex(_upper(one.title))}.}}"
    return [
        "\n".join([head, r"\begin{itemize}\itemsep0pt", *items, r"\end{itemize}"]),
        "\n".join([*tables, *pictures]),
    ]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
