"""What all figures share: a description (plain data and how they are drawn), one look for each variant and recipe, and
files that carry a digest of the data they show.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
from fontTools import subset
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from PIL import Image

from harness.records.write import write_atomically

COLUMN_IN, PAGE_IN = 3.4, 7.0  # a column and a page of a two-column paper
LEGEND_LINE_IN = 0.16
MOST_SIGNS = 80  # of a data set in a file's name
DIGEST_KEY = "data-digest"
PARTS = ("lines", "panels", "bars", "rows")  # of a figure's data: what there is to draw
FONT = "DejaVu Sans for reports"
LETTERS = (*range(0x20, 0x250), *range(0x370, 0x530), *range(0x2010, 0x2270))  # Latin, Greek, Cyrillic, punctuation

RC: Any = {
    "font.family": FONT,
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
    "axes.titley": 1.0,  # else every drawing asks all ticks whether a title has to make room for them
    "lines.linewidth": 1.2,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
    "figure.dpi": 220,
    "text.hinting": "none",  # which pays on coarse screens alone, and takes as long as the rest of the text
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Plan:
    """A figure before it is drawn."""

    name: str
    data: dict[str, Any]  # numbers, texts, lists and dicts alone
    draw: Callable[[dict[str, Any], "Looks"], Figure]
    without: str  # why there is no such figure, where its data hold nothing to draw

    @property
    def lacking(self) -> str:
        return "" if any(self.data.get(part) for part in PARTS) else self.without


# --- looks -----------------------------------------------------------------------------------------------------------

# Okabe and Ito's colours, which the colour-blind can tell apart. The catalogue's variants have fixed ones, whether or
# not they were run; all others take from the second list.
BLUE, VERMILION, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GRAY = "#E69F00", "#56B4E9", "#000000", "#888888"
_KNOWN = (
    *("vanilla", "compact", "patch2", "timm", "compact-cls", "patch2-conv", "vit-224", "vit-lite-7-4", "cvt-7-4"),
    *("cct-7-3x1", "small-p4", "resnet18", "vit-base-224"),
)
COLORS = dict(zip(_KNOWN, cycle((BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, BLACK))))
_VARIANTS = {name: (color, marker) for (name, color), marker in zip(COLORS.items(), "os^DPvX<>phos")}
_MORE_VARIANTS = [(c, m) for m in "*d8" for c in (ORANGE, SKY, BLACK, BLUE, VERMILION, GREEN)]
_RECIPES: dict[str, tuple[Any, str]] = {"published": ("-", "full"), "common": ("--", "none"), "quick": ("-", "full")}
_DASHES = ((1, 1), (5, 1, 1, 1), (3, 3), (5, 1, 1, 1, 1, 1), (1, 3))
_MORE_RECIPES = [((0, dash), fill) for dash, fill in zip(_DASHES, ("left", "bottom", "right", "top", "left"))]


@dataclass(frozen=True)
class Style:
    color: str
    marker: str
    line: Any
    fill: str

    @property
    def lines(self) -> dict[str, Any]:
        """Keywords for a line with small markers."""
        face = "white" if self.fill == "none" else self.color
        own = {"color": self.color, "linestyle": self.line, "marker": self.marker}
        return own | {"markersize": 3.5, "markerfacecolor": face}

    @property
    def markers(self) -> dict[str, Any]:
        """Keywords for a marker alone; half-filled ones have white in their other half."""
        fill = "full" if self.fill == "none" else self.fill
        own = {"linestyle": "none", "fillstyle": fill, "markerfacecoloralt": "white", "markeredgewidth": 1.0}
        return self.lines | own | {"markersize": 5}


Looks = Mapping[tuple[str, str], Style]  # by variant and recipe


def styles(rows: Iterable[tuple[str, str]]) -> Looks:
    """What has no fixed style takes the next free one, in the order of the names."""
    rows = set(rows)
    variants = _assign({variant for variant, _ in rows}, _VARIANTS, _MORE_VARIANTS)
    recipes = _assign({recipe for _, recipe in rows}, _RECIPES, _MORE_RECIPES)
    return {(variant, recipe): Style(*variants[variant], *recipes[recipe]) for variant, recipe in rows}


def _assign(names: set[str], fixed: Mapping[str, Any], more: list[Any]) -> dict[str, Any]:
    return dict(zip(sorted(names - fixed.keys()), cycle(more))) | dict(fixed)


# --- parts of a figure -----------------------------------------------------------------------------------------------


def without_owners(text: str) -> str:
    """`width=96` for `variant.width=96`."""
    return re.sub(r"(^|, )(variant|recipe)\.(?=\w+=)", r"\1", text)


def shortened(text: str, most: int = 52) -> str:
    """A long name without its middle: a path to a person's own file would push everything else out of the legend."""
    text = without_owners(text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def panels(count: int, across: int, size_in: tuple[float, float], **more: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, row by row; what is left of the last row stays blank."""
    figure = Figure(figsize=size_in)
    grid = figure.subplots(-(-count // across), across, squeeze=False, **more).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def add_legend(figure: Figure, handles: Sequence[Any], labels: Iterable[str], title: str = "", **more: Any) -> None:
    """Below the figure, in as many columns as its width has room for; the figure grows by the legend's lines."""
    labels = [shortened(label) for label in labels]
    width, height = figure.get_size_inches()
    columns = max(1, int(width / (0.062 * max(map(len, labels)) + 0.45)))
    figure.set_size_inches(width, height + LEGEND_LINE_IN * (-(-len(labels) // columns) + bool(title)))
    place = {"loc": "outside lower center", "ncols": columns, "title": title or None, "title_fontsize": 7}
    figure.legend(handles, labels, **place, **more)


def keep_accuracies(axes: Axes) -> None:
    """Two seeds can have an interval wider than what accuracies there are."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1), min(high, 101))


# --- files -----------------------------------------------------------------------------------------------------------


def write_plans(plans: Sequence[Plan], looks: Looks, folder: Path) -> list[str]:
    """Each figure as PDF and PNG; one line of text for each one written, skipped or removed."""
    wanted = [plan for plan in plans if not plan.lacking]
    for plan in wanted:
        for suffix, content in zip(("pdf", "png"), drawn(plan, looks)):
            write_atomically(folder / f"{plan.name}.{suffix}", content)
    return [
        *(f"figures/{plan.name}.pdf .png" for plan in wanted),
        *(f"figures/{plan.name}: skipped, {plan.lacking}" for plan in plans if plan.lacking),
        *_remove_stale(folder, {plan.name for plan in wanted}),
    ]


def drawn(plan: Plan, looks: Looks) -> tuple[bytes, bytes]:
    """PDF and PNG, the same bytes every time: without dates and versions, and whatever a person's matplotlibrc says."""
    _register_font()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.use("Agg")
        matplotlib.rcParams.update(RC)
        figure, digest = plan.draw(plan.data, looks), data_digest(plan.data)
        png, pdf = io.BytesIO(), io.BytesIO()
        told: dict[str, Any] = {"metadata": {"Software": None, DIGEST_KEY: digest}, "pil_kwargs": {"compress_level": 3}}
        FigureCanvasAgg(figure).print_png(png, **told)
        figure.set_layout_engine("none")  # the PDF has the same layout: it takes as long as drawing
        undated = {"Creator": None, "Producer": None, "CreationDate": None}
        FigureCanvasPdf(figure).print_pdf(pdf, metadata={**undated, "Keywords": digest})
        return pdf.getvalue(), png.getvalue()


@cache
def _register_font() -> TemporaryDirectory[str]:
    """DejaVu Sans without rare letters and its tables for ligatures, which matplotlib would take apart again for each
    PDF: a fifth of the time of all figures. The folder lives as long as the process.
    """
    folder = TemporaryDirectory()
    path = Path(folder.name) / "font.ttf"
    options = subset.Options(legacy_kern=True, glyph_names=True, notdef_outline=True)
    options.drop_tables += ["FFTM", "GSUB", "GPOS", "GDEF", "MATH"]
    with subset.load_font(font_manager.findfont("DejaVu Sans"), options) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=LETTERS)
        subsetter.subset(font)
        font.save(path)
    font_manager.fontManager.ttflist.append(font_manager.FontEntry(fname=str(path), name=FONT))
    return folder


def _remove_stale(folder: Path, written: set[str]) -> list[str]:
    """Removes figures that this report did not write: those whose PNG carries a digest of ours."""
    lines = []
    for png in sorted(folder.glob("*.png")):
        if png.stem not in written and read_digest(png) is not None:
            png.with_suffix(".pdf").unlink(missing_ok=True)
            png.unlink()
            lines.append(f"figures/{png.stem}: removed, it was drawn from other records")
    return lines


def data_digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, allow_nan=False).encode()).hexdigest()


def read_digest(path: Path) -> str | None:
    """The digest in a PNG that a report wrote; None for any other file."""
    try:
        with Image.open(path) as image:
            return image.info.get(DIGEST_KEY)
    except (OSError, ValueError):  # no image, or a damaged one
        return None


def slug(dataset: str) -> str:
    """A file name; two folders whose names differ only in what a file name cannot hold stay apart."""
    plain = dataset.replace("folder:", "folder-")
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", plain)[:MOST_SIGNS]
    digest = hashlib.sha256(dataset.encode(errors="surrogatepass")).hexdigest()
    return safe if safe == plain else f"{safe}-{digest[:6]}"
