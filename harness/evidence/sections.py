"""Owns the part of the paper that says what the studies found: a paragraph, a table and a figure for each.
Refuses to judge: its sentences are those of conclusions.py.
"""

from collections.abc import Sequence
from itertools import groupby

from harness.evidence.conclusions import conclusions
from harness.evidence.instances import Instance
from harness.evidence.study_tables import study_tables
from harness.evidence.table import WRITTEN_BY, escape_latex

NONE_YET = "No study has been run yet."


def studies_text(instances: Sequence[Instance], figures: Sequence[str]) -> str:
    """`figures`: the names of those that the report draws. Quick forms check the way and are no finding."""
    full = [one for one in instances if not one.quick]
    parts = [f"% {WRITTEN_BY}"]
    for _, of_study in groupby(full, key=lambda one: one.study_name):
        members = list(of_study)
        parts.append(rf"\subsection*{{{escape_latex(members[0].study.question)}}}")
        for one in members:
            parts += _section(one, figures)
    return "\n\n".join(parts if full else [*parts, NONE_YET]) + "\n"


def _section(one: Instance, figures: Sequence[str]) -> list[str]:
    sentences = " ".join(escape_latex(sentence) for sentence in conclusions(one))
    tables = [rf"\tableof{{{table.name}}}" for table in study_tables(one)]
    drawn = [name for kind in ("forest", "interaction", "scaling") if (name := f"{kind}-{one.name}") in figures]
    pictures = [rf"\figureof{{{name}}}{{{escape_latex(one.title)}.}}" for name in drawn]
    return [rf"\paragraph{{{escape_latex(_upper(one.title))}.}} {sentences}", "\n".join([*tables, *pictures])]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
