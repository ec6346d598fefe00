"""Owns accuracy on corrupted test images: the table with the mean corruption error, and accuracy against strength.
Refuses a reference of another recipe without saying so, and kinds of corruption that only one side was tested on.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.augmentations import CORRUPTION_NAMES, CORRUPTION_STRENGTHS
from harness.datasets import title
from harness.evidence.captions import different_data, flag, made_with, sentences
from harness.evidence.groups import Evidence, Group, count
from harness.evidence.numbers import finite
from harness.evidence.rows import cells_of
from harness.evidence.style import COLUMN_IN, LEGEND_LINE_IN, Style, legend_columns, shortened
from harness.evidence.table import HOLE, Table
from harness.evidence.text import mean, spread
from harness.records.read import Run
from harness.statistics.intervals import LEVEL
from harness.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = "vanilla"
BY_KIND = tuple(f"{kind} (%)" for kind in CORRUPTION_NAMES)
COLUMNS = (
    *("variant", "recipe", "data set", "clean (%)", "corrupted (%)", "mean corruption error (%)", "against"),
    *BY_KIND,
)

ByKind = Mapping[str, list[float]]  # accuracy, 0 to 1, at each strength, weakest first
Reference = tuple[Group, ByKind]
References = Mapping[tuple[str, tuple[str, ...]], Sequence[Reference]]  # by data set and recipe


@dataclass(frozen=True)
class Tested:
    """A run on the clean test set and on the disturbed one."""

    clean: float
    by_kind: ByKind


def robustness_table(evidence: Evidence, study: Study) -> Table:
    groups = cells_of(evidence.groups, study)
    tested = [(group, runs) for group in groups if (runs := tested_runs(group))]
    without = sum(1 for group in groups if group.runs) - len(tested)
    shown = [group for group, _ in tested]
    references = _references(tested)
    caption = sentences(
        f"Test accuracy on corrupted images: {len(CORRUPTION_NAMES)} kinds at {CORRUPTION_STRENGTHS} strengths, the "
        "same disturbed images for every model. "
        f"Corrupted: mean over kinds and strengths, ± half-width of the {LEVEL:.0%} t-interval (number of runs). Mean "
        "corruption error: of each kind, the sum of errors over the strengths in percent of the reference's sum, "
        f"averaged over kinds; lower is better. The reference is {REFERENCE} on the same data set under the row's own "
        f"recipe, else under 'published' (column against); its own row says 100. {HOLE} where there is no reference.",
        f"Without a test on corrupted images, and left out: {count(without, 'cell')}." if without else "",
        made_with(shown, "n"),
        evidence.source,
        *different_data(shown),
    )
    rows = [_cells(group, runs, reference_of(group, references)) for group, runs in tested]
    return Table("robustness", COLUMNS, tuple(rows), caption, too_wide_for_print=BY_KIND)


def tested_runs(group: Group) -> list[Tested]:
    """Those that were tested on corrupted images."""
    pairs = ((finite(run.result.get("test_accuracy")), _by_kind(run)) for run in group.runs)
    return [Tested(clean, by_kind) for clean, by_kind in pairs if clean is not None and by_kind is not None]


def mean_corruption_error(errors: ByKind, reference: ByKind) -> float | None:
    """In percent (Hendrycks and Dietterich 2019); none where the reference makes no error or saw other corruptions."""
    if {kind: len(at) for kind, at in errors.items()} != {kind: len(at) for kind, at in reference.items()}:
        return None
    if not reference or not all(sum(at) > 0 for at in reference.values()):
        return None
    return 100 * sum(sum(errors[kind]) / sum(reference[kind]) for kind in reference) / len(reference)


def _by_kind(run: Run) -> ByKind | None:
    """Says on stderr what is there and cannot be used."""
    found = run.result.get("corruption_accuracy")
    if found is None:
        return None
    usable = isinstance(found, dict) and found and all(map(_is_accuracies, found.values()))
    if not usable:
        print(f"{run.folder}: its corruption_accuracy cannot be used", file=sys.stderr)
    return found if usable else None


def _is_accuracies(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(finite(value) is not None for value in values)


def _mean_of(runs: Sequence[Tested]) -> ByKind:
    """Over the runs; runs of one cell that saw different corruptions share only what all of them saw."""
    every = [run.by_kind for run in runs]
    shared = [kind for kind in every[0] if len({len(by_kind.get(kind, [])) for by_kind in every}) == 1]
    return {kind: [sum(at) / len(runs) for at in zip(*(by_kind[kind] for by_kind in every))] for kind in shared}


def _errors(accuracies: ByKind) -> ByKind:
    return {kind: [1 - accuracy for accuracy in at] for kind, at in accuracies.items()}


def _cells(group: Group, runs: list[Tested], reference: Reference | None) -> tuple[str, ...]:
    own = _mean_of(runs)
    kinds = [[100 * accuracy for accuracy in own.get(kind, [])] for kind in CORRUPTION_NAMES]
    error = mean_corruption_error(_errors(own), _errors(reference[1])) if reference else None
    clean = mean([100 * run.clean for run in runs])
    corrupt = spread([100 * overall(run.by_kind) for run in runs]) + flag(group)
    return (
        *(*group.row, title(group.dataset), clean, corrupt),
        *(HOLE if error is None else f"{error:.1f}", ", ".join(reference[0].row) if reference else HOLE),
        *map(mean, kinds),
    )


def overall(accuracies: ByKind) -> float:
    """Every kind weighs the same, however many strengths it has."""
    return sum(sum(at) / len(at) for at in accuracies.values()) / len(accuracies)


def _references(tested: Sequence[tuple[Group, list[Tested]]]) -> References:
    """The groups of the reference as it is, without changes of the variant."""
    found: dict[tuple[str, tuple[str, ...]], list[Reference]] = {}
    for group, runs in tested:
        recipe, changes = _split_overrides(group)
        if group.variant == REFERENCE and not changes:
            found.setdefault((group.dataset, recipe), []).append((group, _mean_of(runs)))
    return found


def reference_of(group: Group, references: References) -> Reference | None:
    """Under the same recipe, changes of the recipe included; else under 'published'."""
    for recipe in (_split_overrides(group)[0], ("published",)):
        same = references.get((group.dataset, recipe), ())
        noted = [one for one in same if one[0].note == group.note]
        if len(noted or same) == 1:  # of two that differ in precision or the like, neither is the reference
            return (noted or same)[0]
    return None


def _split_overrides(group: Group) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The recipe with its changes, and the changes of the variant."""
    own = tuple(text for text in group.overrides if text.startswith("variant."))
    return (group.recipe_name, *(text for text in group.overrides if text not in own)), own


# --- accuracy against strength ---------------------------------------------------------------------------------------


def robustness_data(groups: Sequence[Group], dataset: str) -> dict[str, Any]:
    """Means over kinds and seeds; strength 0 is the clean test set."""
    lines = []
    for group in (group for group in groups if group.dataset == dataset):
        if runs := tested_runs(group):
            clean = sum(run.clean for run in runs) / len(runs)
            means = [clean, *(sum(at) / len(at) for at in zip(*_mean_of(runs).values()))]
            lines.append({"row": list(group.row), "n": len(runs), "accuracy": [100 * mean for mean in means]})
    return {"title": title(dataset), "lines": lines}


def draw_robustness(data: dict[str, Any], looks: dict[tuple[str, str], Style]) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    labels = [shortened(", ".join(line["row"]), 40) for line in data["lines"]]
    columns = legend_columns(labels, COLUMN_IN)
    figure = Figure(figsize=(COLUMN_IN, 2.5 + LEGEND_LINE_IN * -(-len(labels) // columns)))
    axes = figure.subplots()
    used = [looks[tuple(line["row"])] for line in data["lines"]]
    for line, look in zip(data["lines"], used):
        axes.plot(range(len(line["accuracy"])), line["accuracy"], color=look.color, **look.lines)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="strength of corruption (0: none), mean over kinds", ylabel="test accuracy (%)")
    axes.set_title(data["title"])
    handles = [Line2D([], [], color=look.color, **look.lines) for look in used]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.8)
    return figure
