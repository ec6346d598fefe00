"""Owns the table of accuracy on corrupted test images, with the mean corruption error.
Refuses a reference of another recipe without saying so.
"""

from collections.abc import Mapping, Sequence

from harness.augmentations import CORRUPTION_NAMES, CORRUPTION_STRENGTHS
from harness.datasets import title
from harness.evidence.cells import Cell, Evidence, count, in_order
from harness.evidence.quality import ByKind, Corrupted, errors_of, mean_accuracy, mean_by_kind, mean_corruption_error
from harness.evidence.tables.captions import different_data, flag, made_with, sentences
from harness.evidence.writing.table import HOLE, Table
from harness.evidence.writing.text import mean, spread
from harness.statistics.intervals import LEVEL
from harness.study import Study

REFERENCE = "vanilla"
BY_KIND = tuple(f"{kind} (%)" for kind in CORRUPTION_NAMES)
COLUMNS = (
    *("variant", "recipe", "data set", "clean (%)", "corrupted (%)", "mean corruption error (%)", "against"),
    *BY_KIND,
)

Reference = tuple[Cell, ByKind]
References = Mapping[tuple[str, tuple[str, ...]], Sequence[Reference]]  # by data set and recipe


def robustness_table(evidence: Evidence, study: Study) -> Table:
    groups = in_order(evidence.cells, study)
    tested = [(group, runs) for group in groups if (runs := group.corrupted)]
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


def _cells(group: Cell, runs: list[Corrupted], reference: Reference | None) -> tuple[str, ...]:
    own = mean_by_kind(runs)
    kinds = [[100 * accuracy for accuracy in own.get(kind, [])] for kind in CORRUPTION_NAMES]
    error = mean_corruption_error(errors_of(own), errors_of(reference[1])) if reference else None
    clean = mean([100 * run.clean for run in runs])
    corrupt = spread([100 * mean_accuracy(run.by_kind) for run in runs]) + flag(group)
    return (
        *(*group.row, title(group.dataset), clean, corrupt),
        *(HOLE if error is None else f"{error:.1f}", ", ".join(reference[0].row) if reference else HOLE),
        *map(mean, kinds),
    )


def _references(tested: Sequence[tuple[Cell, list[Corrupted]]]) -> References:
    """The groups of the reference as it is, without changes of the variant."""
    found: dict[tuple[str, tuple[str, ...]], list[Reference]] = {}
    for group, runs in tested:
        recipe, changes = _split_overrides(group)
        if group.variant == REFERENCE and not changes:
            found.setdefault((group.dataset, recipe), []).append((group, mean_by_kind(runs)))
    return found


def reference_of(group: Cell, references: References) -> Reference | None:
    """Under the same recipe, changes of the recipe included; else under 'published'."""
    for recipe in (_split_overrides(group)[0], ("published",)):
        same = references.get((group.dataset, recipe), ())
        noted = [one for one in same if one[0].note == group.note]
        if len(noted or same) == 1:  # of two that differ in precision or the like, neither is the reference
            return (noted or same)[0]
    return None


def _split_overrides(group: Cell) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The recipe with its changes, and the changes of the variant."""
    own = tuple(text for text in group.overrides if text.startswith("variant."))
    return (group.recipe_name, *(text for text in group.overrides if text not in own)), own
