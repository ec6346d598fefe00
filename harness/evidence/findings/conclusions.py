"""Owns what a study found as plain sentences, made of its numbers.
Refuses to say more than the corrected test and the interval do.
"""

from collections.abc import Sequence

from harness.evidence.cells.groups import count
from harness.evidence.findings.chosen import Choice, choices_of
from harness.evidence.findings.effects import NEITHER, NOT_RUN, UNDECIDED, Effect, effects_of
from harness.evidence.findings.gaps import Gap, gaps_of
from harness.evidence.findings.grids import Share, shared_seeds, shares_of
from harness.evidence.findings.instances import Instance
from harness.evidence.writing import difference, joined, p_value
from harness.statistics.power import MOST_SEEDS, WANTED


def conclusions(instance: Instance) -> list[str]:
    """One for each comparison and choice of the instance, and for a grid one on where its variance falls.

    A choice that is planned with one seed plans no test: what is undecided or not run is not told beside it.
    """
    chosen = choices_of(instance)
    untold = (UNDECIDED, NOT_RUN) if chosen and len(instance.study.seeds) == 1 else ()
    found = [_sentence(effect) for effect in effects_of(instance) if effect.verdict not in untold]
    twins = [line for line in instance.lines if line.same_as]
    found += [f"{line.label}: the same cell as {line.same_as} on this data set." for line in twins]
    shares = shares_of(instance) if instance.study.kind == "grid" else []
    found += [_of_gap(gap) for gap in gaps_of(instance)]
    found += [_of_choice(choice) for choice in chosen]
    return found + ([_of_variance(shares, len(shared_seeds(instance)))] if shares else [])


def headed(instance: Instance) -> list[str]:
    """The same below a line that says where they hold; for a terminal."""
    return [f"{instance.title}:", *(f"  {sentence}" for sentence in conclusions(instance))]


def _sentence(effect: Effect) -> str:
    d = effect.difference
    if effect.verdict == NOT_RUN:
        return f"{effect.label}: {NOT_RUN}."
    if d.mean is None:
        return f"{effect.label}: {UNDECIDED}, {_lacking(effect)}."
    points = f"{difference(d.mean, d.half)} points against {effect.against}{_averaged(effect)}"
    unpaired = f", {count(d.dropped, 'seed')} unpaired" if d.dropped else ""
    holm = "" if effect.holm_p is None else f", Holm p = {p_value(effect.holm_p)}"
    return f"{effect.label}: {points} (n = {d.n}{unpaired}{holm}): {effect.verdict}{_why(effect)}."


def _lacking(effect: Effect) -> str:
    if effect.line and not effect.line.scores:
        failed = len(effect.line.group.failed) if effect.line.group else 0
        return f"{count(failed, 'run')} failed and none done"
    return f"no seed is on both sides (against {effect.against})"


def _averaged(effect: Effect) -> str:
    return f", averaged over {effect.averaged_over}" if effect.averaged_over else ""


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
    whole, model, recipe = (difference(part.mean or 0.0, part.half) for part in (gap.whole, gap.model, gap.recipe))
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
