"""Owns how figures look: sizes, fonts, and one colour, marker and line a variant and recipe, everywhere the same.
Refuses to know what is drawn.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from textwrap import wrap
from typing import Any

COLUMN_IN, PAGE_IN = 3.4, 7.0  # a column and a page of a two-column paper
LEGEND_LINE_IN = 0.16

RC: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
    "figure.dpi": 220,  # at which a layout is made
    "savefig.dpi": 220,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "figure.constrained_layout.use": True,
}

# Okabe and Ito's colours, which the colour-blind can tell apart; a second round of them has other markers.
_VARIANTS = {
    "vanilla": ("#0072B2", "o"),
    "compact": ("#D55E00", "s"),
    "patch2": ("#009E73", "^"),
    "timm": ("#CC79A7", "D"),
    "compact-cls": ("#E69F00", "P"),
    "patch2-conv": ("#56B4E9", "v"),
    "vit-224": ("#000000", "X"),
    "vit-lite-7-4": ("#0072B2", "<"),
    "cvt-7-4": ("#D55E00", ">"),
    "cct-7-3x1": ("#009E73", "p"),
    "small-p4": ("#CC79A7", "h"),
    "resnet18": ("#E69F00", "o"),
}
COLORS = {name: color for name, (color, _) in _VARIANTS.items()}  # of the catalogue, whether or not it was run
_MORE_VARIANTS = [(c, m) for m in "*d8" for c in ("#E69F00", "#56B4E9", "#000000", "#0072B2", "#D55E00", "#009E73")]
_RECIPES: dict[str, tuple[Any, str]] = {"published": ("-", "full"), "common": ("--", "none"), "quick": ("-", "full")}
_MORE_RECIPES = [
    ((0, (1, 1)), "left"),
    ((0, (5, 1, 1, 1)), "bottom"),
    ((0, (3, 3)), "right"),
    ((0, (5, 1, 1, 1, 1, 1)), "top"),
    ((0, (1, 3)), "left"),
]


@dataclass(frozen=True)
class Style:
    color: str
    marker: str
    line: Any
    fill: str

    @property
    def lines(self) -> dict[str, Any]:
        """Keywords for a line with small markers, colour excepted."""
        face = "white" if self.fill == "none" else self.color
        return {"linestyle": self.line, "marker": self.marker, "markersize": 3.5, "markerfacecolor": face}

    @property
    def markers(self) -> dict[str, Any]:
        """Keywords for a marker alone; half-filled ones have white in their other half."""
        face = "white" if self.fill == "none" else self.color
        fill = "full" if self.fill == "none" else self.fill
        own = {"color": self.color, "marker": self.marker, "linestyle": "none", "fillstyle": fill}
        return own | {"markerfacecolor": face, "markerfacecoloralt": "white", "markeredgewidth": 1.0}


def styles(rows: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Style]:
    """A style for each (variant, recipe). What has no fixed one takes the next free, in the order of the names."""
    rows = sorted(set(rows))
    variants = _assign(sorted({variant for variant, _ in rows}), _VARIANTS, _MORE_VARIANTS)
    recipes = _assign(sorted({recipe for _, recipe in rows}), _RECIPES, _MORE_RECIPES)
    return {(variant, recipe): Style(*variants[variant], *recipes[recipe]) for variant, recipe in rows}


def _assign(names: list[str], fixed: dict[str, Any], more: list[Any]) -> dict[str, Any]:
    spare = cycle(more)
    return {name: fixed[name] if name in fixed else next(spare) for name in names}


SETTING = re.compile(r"(^|, )(variant|recipe)\.(?=\w+=)")


def shortened(text: str, most: int = 52) -> str:
    """A setting without its owner, and the middle of a long name left out: a path to a person's own file would push
    everything else out of the legend."""
    text = SETTING.sub(r"\1", text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def in_lines(row: Iterable[str], width: int) -> str:
    """Variant and recipe above a panel, so many letters wide."""
    parts = (SETTING.sub(r"\1", part) for part in row)
    return "\n".join(line for part in parts for line in wrap(part, width + 2, max_lines=3, placeholder=" …"))


def legend_columns(labels: Iterable[str], width_in: float) -> int:
    longest = max(map(len, labels), default=1)
    return max(1, int(width_in / (0.062 * longest + 0.45)))
