"""The tables of what stands beside accuracy: calibration, the bias of choosing the best epoch, the budget that a target
accuracy takes, and accuracy on corrupted images.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from harness.datasets import CORRUPTION_NAMES, CORRUPTION_STRENGTHS, title
from harness.evidence.captions import different_data, flag, made_with
from harness.evidence.cells import Cell, Evidence, changed_fields_of, count, grouped, in_order
from harness.evidence.quality import LADDER, LOW_LADDER, Quality, Reached, Robustness, mean_corruption_error
from harness.evidence.tables.results import cell_columns, gains, last_and_best
from harness.evidence.writing import (
    HOLE,
    Columns,
    Table,
    half_width,
    mean,
    mean_difference,
    mean_minutes,
    scaled,
    sentences,
    signed,
    spread,
)
from harness.statistics.images import CALIBRATION_BINS
from harness.statistics.intervals import LEVEL, mean_interval
from harness.study import Study


def quality_tables(evidence: Evidence, study: Study) -> list[Table]:
    cells = in_order(evidence.cells, study)
    tables = (calibration_table, selection_table, targets_table, robustness_table)
    return [table(cells, evidence.source) for table in tables]


# --- calibration -----------------------------------------------------------------------------------------------------

Predicted = tuple[Cell, Quality]


def calibration_table(cells: Sequence[Cell], source: str) -> Table:
    known: list[Predicted] = [(cell, quality) for cell in cells if (quality := cell.quality)]
    shown = [cell for cell, _ in known]
    columns: Columns[Predicted] = {
        **cell_columns(lambda pair: pair[0]),
        "NLL": lambda pair: mean(pair[0].measured("test_nll"), ".3f"),
        "calibration error (%)": lambda pair: spread(pair[1].calibration_errors).rpartition(" (")[0] + flag(pair[0]),
        "confidence - accuracy (points)": lambda pair: mean_difference(pair[1].overconfidence),
        "worst class (%)": lambda pair: _class(np.nanargmin, pair[1].class_accuracy_K),
        "best class (%)": lambda pair: _class(np.nanargmax, pair[1].class_accuracy_K),
        "n": lambda pair: str(pair[1].n),
    }
    caption = sentences(
        f"Calibration. The error of a run is |accuracy - confidence| in {CALIBRATION_BINS} bins of equal width, "
        f"weighted by their share of the images; mean ± half-width of the {LEVEL:.0%} t-interval. Confidence above "
        "accuracy (+) is over-confidence. Classes by their number, with their accuracy. Means over n runs with "
        "predictions; NLL over all runs.",
        _left_out(cells, shown, "predictions"),
        made_with(shown, "n"),
        source,
        different_data(shown),
    )
    return Table.of("calibration", columns, known, caption)


def _class(choose: Callable, accuracy_K: np.ndarray) -> str:
    """The worst or the best class that has images; of equals, the first."""
    if np.isnan(accuracy_K).all():
        return HOLE
    label = int(choose(accuracy_K))
    return f"{accuracy_K[label]:.2f} (class {label})"


def _left_out(cells: Sequence[Cell], shown: Sequence[Cell], what: str) -> str:
    without = sum(1 for cell in cells if cell.runs) - len(shown)
    return f"Without {what}, and left out: {count(without, 'cell')}." if without else ""


# --- the bias of selection -------------------------------------------------------------------------------------------


def selection_table(cells: Sequence[Cell], source: str) -> Table:
    shown = [cell for cell in cells if last_and_best(cell)]
    columns: Columns[Cell] = {
        **cell_columns(lambda cell: cell),
        "runs": lambda cell: str(len(last_and_best(cell))),
        "last epoch (%)": lambda cell: mean([last for last, _ in last_and_best(cell)]),
        "best test epoch (%)": lambda cell: mean([best for _, best in last_and_best(cell)]),
        "best - last (points)": lambda cell: mean_difference(gains(cell)),
        "± (points)": lambda cell: half_width(gains(cell)),
        "largest (points)": lambda cell: signed(max(gains(cell))),
    }
    caption = sentences(
        "What is gained by reporting the best test epoch, as most papers do: the test set has then chosen the epoch "
        "that it judges. Every other table here gives the last planned epoch. Means over the runs, ± half-width of "
        f"the {LEVEL:.0%} t-interval.",
        _overall([gain for cell in shown for gain in gains(cell)]),
        made_with(shown, "n"),
        source,
    )
    return Table.of("selection-bias", columns, shown, caption)


def _overall(gains: list[float]) -> str:
    if not gains:
        return ""
    average = mean_interval(gains)[0]
    return f"Over all {count(len(gains), 'run')}: {signed(average)} points on average, {signed(max(gains))} at most."


# --- the budget that a target takes ----------------------------------------------------------------------------------

MOST_TARGETS = 4  # of one data set


def targets_table(cells: Sequence[Cell], source: str) -> Table:
    cells = [cell for cell in cells if cell.curves.n]
    on = grouped(cells, lambda cell: cell.dataset)
    reached = {
        name: {target for cell in of for run in cell.curves.reached for target in run} for name, of in on.items()
    }
    columns: dict[str, Callable[[Cell], str]] = {**cell_columns(lambda cell: cell)}
    for target in sorted({target for found in reached.values() for target in chosen(found)}):
        columns[f"{target}% (M)"] = partial(_images, target)
        columns[f"{target}% (min)"] = partial(_minutes, target)
    columns["device"] = lambda cell: cell.timed_device or HOLE
    caption = sentences(
        "Millions of images seen (M), and minutes of training (min), until the test accuracy first reaches a target: "
        "means over the seeds that reach it, with their number where not all do. The test accuracy is taken after each "
        "epoch, so that a target counts as reached at the end of one; it is monitored, and nothing is chosen by it. "
        "Minutes where all seeds of a cell ran alone on one device. "
        f"Targets: up to {MOST_TARGETS} for each data set, evenly from those that at least one run on it reaches.",
        *(f"No run on {title(name)} reaches {min(LOW_LADDER)}%." for name, found in reached.items() if not found),
        made_with(cells),
        source,
    )
    return Table.of("targets", columns, cells, caption)


def chosen(reached: set[int]) -> list[int]:
    """Evenly from the ladder, from the lowest to the highest reached; low ones only where there is nothing else."""
    steps = [t for t in LADDER if t in reached] or [t for t in LOW_LADDER if t in reached]
    if len(steps) <= MOST_TARGETS:
        return steps
    return [steps[round(i * (len(steps) - 1) / (MOST_TARGETS - 1))] for i in range(MOST_TARGETS)]


def _arrivals(target: int, cell: Cell) -> list[Reached]:
    return [run[target] for run in cell.curves.reached if target in run]


def _images(target: int, cell: Cell) -> str:
    arrivals, runs = _arrivals(target, cell), len(cell.curves.reached)
    images = [arrival.images for arrival in arrivals if arrival.images is not None]
    some = "" if len(arrivals) == runs else f" ({len(arrivals)} of {runs})"
    return scaled(mean_interval(images)[0] if images else None, 1e6) + some


def _minutes(target: int, cell: Cell) -> str:
    seconds = [arrival.seconds for arrival in _arrivals(target, cell) if arrival.seconds is not None]
    return mean_minutes([value / 60 for value in seconds]) if cell.timed_device else HOLE


# --- corrupted images ------------------------------------------------------------------------------------------------

REFERENCE = "vanilla"
BY_KIND = {f"{kind} (%)": kind for kind in CORRUPTION_NAMES}

Tested = tuple[Cell, Robustness]
References = Mapping[tuple[str, tuple[str, ...]], Sequence[Tested]]  # by data set and recipe


def robustness_table(cells: Sequence[Cell], source: str) -> Table:
    tested: list[Tested] = [(cell, found) for cell in cells if (found := cell.robustness)]
    shown = [cell for cell, _ in tested]
    unchanged = [pair for pair in tested if pair[0].variant == REFERENCE and not changed_fields_of(pair[0].overrides)]
    references = grouped(unchanged, lambda pair: (pair[0].dataset, _recipe(pair[0])))

    def error(pair: Tested) -> str:
        reference = _reference_of(pair[0], references)
        found = mean_corruption_error(pair[1].by_kind, reference[1].by_kind) if reference else None
        return HOLE if found is None else f"{found:.1f}"

    columns: Columns[Tested] = {
        **cell_columns(lambda pair: pair[0]),
        "clean (%)": lambda pair: mean([100 * of for of in pair[1].clean]),
        "corrupted (%)": lambda pair: spread([100 * of for of in pair[1].corrupted]) + flag(pair[0]),
        "mean corruption error (%)": error,
        "against": lambda pair: ", ".join(of[0].row) if (of := _reference_of(pair[0], references)) else HOLE,
        **{
            head: lambda pair, kind=kind: mean([100 * of for of in pair[1].by_kind.get(kind, [])])
            for head, kind in BY_KIND.items()
        },
    }
    caption = sentences(
        f"Test accuracy on corrupted images: {len(CORRUPTION_NAMES)} kinds at {CORRUPTION_STRENGTHS} strengths, the "
        "same corrupted images for every model. "
        f"Corrupted: mean over kinds and strengths, ± half-width of the {LEVEL:.0%} t-interval (number of runs). Mean "
        "corruption error: of each kind, the sum of errors over the strengths in percent of the reference's sum, "
        f"averaged over kinds; lower is better. The reference is {REFERENCE} on the same data set under the row's own "
        f"recipe, else under 'published' (column against), so that its own row has 100; {HOLE} where there is none.",
        _left_out(cells, shown, "a test on corrupted images"),
        made_with(shown, "n"),
        source,
        different_data(shown),
    )
    return Table.of("robustness", columns, tested, caption, too_wide_for_print=tuple(BY_KIND))


def _recipe(cell: Cell) -> tuple[str, ...]:
    """With its changes, and without those of the variant."""
    return (cell.recipe_name, *(text for text in cell.overrides if not text.startswith("variant.")))


def _reference_of(cell: Cell, references: References) -> Tested | None:
    """Under the same recipe, changes of the recipe included; else under 'published'."""
    for recipe in (_recipe(cell), ("published",)):
        same = references.get((cell.dataset, recipe), ())
        noted = [pair for pair in same if pair[0].note == cell.note]
        if len(noted or same) == 1:  # of two that differ in precision or the like, neither is the reference
            return (noted or same)[0]
    return None
