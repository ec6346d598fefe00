"""What tables, the paper, the README and the terminal say in sentences: what a study found, no more than the corrected
test and the interval do, and what the runs of a table were made with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from harness.evidence.cells import Cell, count
from harness.evidence.effects import NEITHER, NOT_RUN, UNDECIDED, Best, Choice, Effect, Gap, Share
from harness.evidence.findings import Finding
from harness.evidence.quality import finite
from harness.evidence.writing import DAGGER, difference, joined, p_value
from harness.statistics.intervals import ALPHA
from harness.statistics.paired import MOST_SEEDS, WANTED

Part = Literal["device", "precision", "n", "epochs", "images"]

MOST_NAMED = 4  # different budgets; of more, the lowest and the highest are named
RULE = (
    "Bold: the best mean of its column, where paired t-tests by seed tell it from every other row "
    f"(p ≤ {ALPHA:.2g} after Holm's adjustment for these comparisons)."
)


def best_sentence(columns: Mapping[str, Best]) -> str:
    """The rule, and the columns where there is no test to apply it to."""
    undecided = [name for name, best in columns.items() if best.undecided]
    why = "some rows share fewer than two seeds with the best, or differ from it by the same on every seed"
    return f"{RULE} Undecided for {joined(undecided)}: {why}." if undecided else RULE


# --- what was found --------------------------------------------------------------------------------------------------


def conclusions(finding: Finding) -> list[str]:
    """One for each comparison, gap and choice of the study, and for a grid one on where its variance falls.

    A choice that is planned with one seed plans no test: what is undecided or not run is left out beside it.
    """
    left_out = (UNDECIDED, NOT_RUN) if finding.choices and len(finding.study.seeds) == 1 else ()
    twins = [line for line in finding.lines if line.same_as]
    return [
        *(effect_sentence(effect) for effect in finding.effects if effect.verdict not in left_out),
        *(f"{line.label}: the same cell as {line.same_as} on this data set." for line in twins),
        *map(_of_gap, finding.gaps),
        *map(_of_choice, finding.choices),
        *([_of_variance(finding.shares, len(finding.shared_seeds))] if finding.shares else []),
    ]


def headed(finding: Finding) -> list[str]:
    """The same below a line that says where they hold; for a terminal."""
    return [f"{finding.title}:", *(f"  {sentence}" for sentence in conclusions(finding))]


def effect_sentence(effect: Effect) -> str:
    d = effect.difference
    if effect.verdict == NOT_RUN:
        return f"{effect.label}: {NOT_RUN}."
    if d.mean is None:
        return f"{effect.label}: {UNDECIDED}, {_lacking(effect)}."
    averaged = f", averaged over {effect.averaged_over}" if effect.averaged_over else ""
    points = f"{difference(d.mean, d.half)} points against {effect.against}{averaged}"
    unpaired = f", {count(d.dropped, 'seed')} unpaired" if d.dropped else ""
    holm = "" if effect.holm_p is None else f", Holm p = {p_value(effect.holm_p)}"
    return f"{effect.label}: {points} (n = {d.n}{unpaired}{holm}): {effect.verdict}{_why(effect)}."


def _lacking(effect: Effect) -> str:
    if effect.line and not effect.line.scores:
        return f"{count(len(effect.line.tried), 'run')} failed and none done"
    return f"no seed is on both sides (against {effect.against})"


def _why(effect: Effect) -> str:
    """Why nothing was decided, or what it would take."""
    d = effect.difference
    if d.n == 1:
        return ", one pair says nothing of the spread"
    if effect.holm_p is None:
        flipped = "" if d.sign_flip_p is None else f"; sign-flip p = {p_value(d.sign_flip_p)}"
        return f", every pair differs by the same, which leaves the test no spread{flipped}"
    if effect.verdict != NEITHER or not d.mean:
        return ""
    seeds = f"more than {MOST_SEEDS:,}" if effect.beyond_reach else f"{effect.seeds_to_resolve:,}"
    return f"; {100 * WANTED:.0f} % power would need {seeds} seeds"


def _of_gap(gap: Gap) -> str:
    whole, model, recipe = (difference(part.mean, part.half) for part in (gap.whole, gap.model, gap.recipe))
    return (
        f"From {gap.first} to {gap.second}: {whole} points (n = {gap.whole.n}), of which the model {model} and the "
        f"recipe, its budget included, {recipe}."
    )


def _of_choice(choice: Choice) -> str:
    failed = f", {choice.failed} of which failed" if choice.failed else ""
    ahead = f", {choice.lead:.2f} points ahead of {choice.next.label}" if choice.next else ""
    config = choice.best.config
    return (
        f"Chosen for {choice.variant} among {choice.cells} cells (n = {choice.seeds}){failed}: {choice.best.label}, "
        f"with {choice.mean:.2f}% on the validation images{ahead}. As a recipe: "
        f"{', '.join((config.recipe_name, *config.overrides))}."
    )


def _of_variance(shares: Sequence[Share], seeds: int) -> str:
    told = joined(f"{share.source} {100 * share.found:.0f}% ({100 * share.by_chance:.0f}%)" for share in shares)
    return f"The variance over {count(seeds, 'seed')} a cell falls on {told}; in brackets what noise alone would give."


# --- what runs were made with ----------------------------------------------------------------------------------------


def made_with(cells: Sequence[Cell], *in_columns: Part) -> str:
    """One sentence on the finished runs of these cells, without what the table's columns say already."""
    cells = [cell for cell in cells if cell.runs]
    if not cells:
        return ""
    runs = [run for cell in cells for run in cell.runs]
    parts: dict[str, str] = {
        "device": f"on {_names(name for cell in cells for name in cell.devices)}",
        "precision": f"in {_names(cell.setting('precision') for cell in cells)}",
        "torch": f"with torch {_names(run.env.get('torch') for run in runs)}",
        "n": f"n = {_numbers([len(cell.runs) for cell in cells])}",
        "epochs": f"{_numbers([cell.epochs for cell in cells])} epochs",
        "images": f"{_numbers([finite(run.result.get('images_seen')) for run in runs])} images seen",
    }
    return f"Trained {', '.join(text for name, text in parts.items() if name not in in_columns)}."


def flag(cell: Cell) -> str:
    return f" {DAGGER}" if len(cell.data_digests) > 1 else ""


def different_data(cells: Sequence[Cell]) -> str:
    """What the dagger means, where a table has one."""
    return f"{DAGGER} The runs of this cell did not all see the same data." if any(map(flag, cells)) else ""


def _names(values: Iterable[Any]) -> str:
    return " and ".join(sorted({"unknown" if value is None else str(value) for value in values}))


def _numbers(values: Sequence[float | None]) -> str:
    known = sorted({value for value in values if value is not None})
    texts = [f"{value:,.0f}" for value in known]
    unknown = ["unknown"] if None in values else []
    if len(texts) > MOST_NAMED:
        texts = [f"{texts[0]} to {texts[-1]}"]
    return " or ".join([*texts, *unknown])
