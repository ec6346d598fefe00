"""How tables are written: a table in its four forms (Markdown, LaTeX with booktabs, CSV, HTML), each escaping what
people typed, and how the numbers in its cells read.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

from harness.statistics.intervals import mean_interval

Item = TypeVar("Item")
Columns = Mapping[str, Callable[[Item], str]]  # each column's head, and how it writes the cell of a row's item

HOLE, DAGGER = "—", "†"
MOST_IN_A_COLUMN = 4  # columns of a table that fits into one column of a two-column paper
MOST_PRINTED = 30  # rows that LaTeX prints; Markdown and CSV have all
WRITTEN_BY = "written by python -m harness.report, not by hand"

_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "†": r"\dag{}",
    "—": "---",
    "→": r"$\to$",
}
_MARKDOWN = {**{sign: "\\" + sign for sign in "\\`*_[]~$#|"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"}
_NUMBER = re.compile(r"[+-]?\d")
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+")
_MINUS = re.compile(r"(?<![\w.$-])-(?=\d)")  # before a number; within a word it is a hyphen
# What the paper's font has: ASCII, the Latin letters but a few, and common punctuation.
_TYPESET = {*map(chr, range(0x20, 0x17F)), *"–‘’“”•…€™"} - set("\u0126\u0127\u0138\u013f\u0140\u0149\u0166\u0167")


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    too_wide_for_print: tuple[str, ...] = ()  # columns that LaTeX leaves out
    bold: frozenset[tuple[int, int]] = frozenset()  # (row, column), both from 0; a CSV has no bold
    on_wide: str = ""  # the caption's sentences on columns that LaTeX leaves out
    conclusions: tuple[str, ...] = ()  # sentences that Markdown has below the caption
    written_by: str = WRITTEN_BY  # what LaTeX's first line says

    @classmethod
    def of(cls, name: str, columns: Columns[Item], items: Iterable[Item], caption: str, **more: Any) -> "Table":
        """A row for each item."""
        rows = tuple(tuple(write(item) for write in columns.values()) for item in items)
        return cls(name, tuple(columns), rows, caption, **more)

    def to_markdown(self) -> str:
        rules = ["---:" if right else "---" for right in self._right_aligned()]
        lines = [map(escape_markdown, self.columns), rules, *self._body(escape_markdown, "**", "**")]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        below = "".join(f"\n* {escape_markdown(sentence)}" for sentence in self.conclusions)
        caption = escape_markdown(f"{self.caption} {self.on_wide}".strip())
        return f"{table}\n\n{caption}\n" + (below and f"{below}\n")

    def to_latex(self) -> str:
        shown = [i for i, column in enumerate(self.columns) if column not in self.too_wide_for_print]
        right = self._right_aligned()
        spec = "".join("r" if right[i] else "l" for i in shown)
        cells = [[*map(escape_latex, self.columns)], *self._body(escape_latex, r"\textbf{", "}")]
        head, *body = [" & ".join(line[i] for i in shown) + r" \\" for line in cells[: MOST_PRINTED + 1]]
        more = f" The first {MOST_PRINTED} of {len(self.rows)} rows." if len(self.rows) > MOST_PRINTED else ""
        place = "table*" if len(shown) > MOST_IN_A_COLUMN else "table"
        lines = [
            f"% {self.written_by}; needs booktabs and graphicx",
            rf"\begin{{{place}}}",
            r"\centering",
            r"\setlength{\belowcaptionskip}{4pt}",  # the caption stands above
            rf"\caption{{{escape_latex(self.caption + more)}}}",
            rf"\label{{tab:{self.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{spec}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}}",
            rf"\end{{{place}}}",
        ]
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        text = io.StringIO()
        rows = ([escape_csv(cell) for cell in row] for row in (self.columns, *self.rows))
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()

    def to_html(self, facts: Sequence[int] = ()) -> str:
        """`facts`: number of what the page filters each row by, if by anything."""
        sides = [' class="number"' if right else "" for right in self._right_aligned()]
        heads = "".join(f'<th scope="col"{side}>{escape_html(head)}</th>' for side, head in zip(sides, self.columns))
        cells = [
            "".join(f"<td{side}>{text}</td>" for side, text in zip(sides, row))
            for row in self._body(escape_html, "<b>", "</b>")
        ]
        own = [f' data-of="{fact}"' for fact in facts] or [""] * len(cells)
        rows = "\n".join(f"<tr{of}>{row}</tr>" for of, row in zip(own, cells))
        caption = f"<caption>{escape_html(f'{self.caption} {self.on_wide}')}</caption>"
        head = f"<thead><tr>{heads}</tr></thead>"
        return f'<table id="table-{escape_html(self.name)}">\n{caption}\n{head}\n<tbody>\n{rows}\n</tbody>\n</table>'

    def _body(self, escape: Callable[[str], str], begin: str, end: str) -> list[list[str]]:
        return [
            [f"{begin}{escape(cell)}{end}" if (i, j) in self.bold else escape(cell) for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]

    def _right_aligned(self) -> list[bool]:
        """Columns of numbers, whatever holes they have; the first column names its row."""
        columns = [[row[i] for row in self.rows if row[i] != HOLE] for i in range(len(self.columns))]
        numbers = [bool(cells) and all(_NUMBER.match(c) or c.startswith(HOLE) for c in cells) for cells in columns]
        return [False, *numbers[1:]]


def escape_markdown(text: str) -> str:
    return "".join(_MARKDOWN.get(sign, sign) for sign in _one_line(text))


def escape_latex(text: str) -> str:
    """A sign that LaTeX has no glyph for stands as its number; after a line's end [ and * would be an argument."""
    signs = (_LATEX.get(sign) or (sign if sign in _TYPESET else f"[U+{ord(sign):04X}]") for sign in _one_line(text))
    escaped = _MINUS.sub("$-$", "".join(signs))
    return f"{{}}{escaped}" if escaped[:1] in ("[", "*") else escaped


def escape_html(text: str) -> str:
    return escape(_one_line(text))


def escape_csv(text: str) -> str:
    """Numbers without thousands separators."""
    text = _one_line(text)
    return text.replace(",", "") if _GROUPED.fullmatch(text) else text


def _one_line(text: str) -> str:
    """Without signs that cannot be printed, such as the bytes of a folder's name that are no UTF-8."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


# --- numbers in a cell -----------------------------------------------------------------------------------------------


def spread(values: Sequence[float], failed: int = 0) -> str:
    """`77.25 ± 0.40 (5)`, `77.25 (1)`, `77.25 ± 0.40 (4, 1 failed)`, `— (1 failed)`, `—`."""
    failures = [f"{failed} failed"] if failed else []
    if not values:
        return " ".join([HOLE, *(f"({text})" for text in failures)])
    mean, half, n = mean_interval(values)
    interval = "" if half is None else f" ± {half:.2f}"
    return f"{mean:.2f}{interval} ({', '.join([str(n), *failures])})"


def difference(mean: float | None, half: float | None) -> str:
    """`-1.32 ± 0.80`, `-1.32`, `—`."""
    interval = "" if half is None else f" ± {half:.2f}"
    return HOLE if mean is None else f"{signed(mean)}{interval}"


def signed(value: float) -> str:
    """`+1.32`, `-0.00` for a little less than nothing, and `+0.00` for nothing, whatever rounding left of it."""
    return f"{round(value, 6) + 0.0:+.2f}"


def mean_difference(values: Sequence[float]) -> str:
    return signed(mean_interval(values)[0]) if values else HOLE


def p_value(p: float | None) -> str:
    """Three significant digits, so that no rounding hides on which side of .05 it lies."""
    return HOLE if p is None else f"{p:.3g}" if p > 1e-300 else "<1e-300"


def mean(values: Sequence[float], form: str = ".2f") -> str:
    return format(mean_interval(values)[0], form) if values else HOLE


def half_width(values: Sequence[float]) -> str:
    half = mean_interval(values)[1] if values else None
    return HOLE if half is None else f"{half:.2f}"


def whole(value: float | None) -> str:
    return HOLE if value is None else f"{value:,.0f}"


def scaled(value: float | None, unit: float) -> str:
    """Three significant digits, trailing zeros included."""
    return HOLE if value is None else f"{value / unit:#.3g}".rstrip(".")


def minutes(value: float) -> str:
    """Tenths below a hundred minutes, whole minutes above; seconds matter only below one."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def mean_minutes(values: Sequence[float]) -> str:
    return minutes(mean_interval(values)[0]) if values else HOLE


def joined(texts: Iterable[str], separator: str = ", ") -> str:
    """The different texts in the order in which they come, or a hole."""
    return separator.join(dict.fromkeys(texts)) or HOLE


def sentences(*texts: str) -> str:
    return " ".join(filter(None, texts))
