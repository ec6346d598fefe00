"""Owns the forms in which a study may have been run: as planned, small, or on another variant or recipe than planned.
Refuses forms that no record speaks for.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from harness.config import RunConfig
from harness.datasets import DATASETS
from harness.study import Row, Study
from variants.catalog import CATALOG
from variants.fields import UsageError

Pair = tuple[str, str]  # variant and recipe


@dataclass(frozen=True)
class Form:
    study: Study
    quick: bool = False
    moved_to: str = ""  # the variant or recipe that took the place of the planned one


def forms_of(study: Study, named: Collection[Study], seen: Iterable[Pair]) -> Iterator[Form]:
    """As planned first: what two forms have in common is the planned one's. A small form may have a name of its own."""
    yield Form(study)
    if study.quick and study.quick not in named:
        yield Form(study.quick, quick=True)
    yield from _moved(study, seen)


def _moved(study: Study, seen: Iterable[Pair]) -> Iterator[Form]:
    """What `harness.sweep --variants X --recipes Y` makes of a study whose rows all have one variant, or one recipe."""
    if study.kind == "table":
        return
    alone = [len({getattr(row, what) for row in study.rows}) == 1 for what in ("variant", "recipe")]
    own = [study.base.variant, study.base.name[1].split(", ")[0]]
    # a person's own file is not run to make a table
    known = (pair for pair in seen if pair[0] in CATALOG or pair[0].startswith("timm:"))
    for pair in sorted({tuple(word if one else "" for word, one in zip(pair, alone)) for pair in known}):
        if words := [word for word, planned in zip(pair, own) if word and word != planned]:
            variants, recipes = ([word] if word else None for word in pair)
            moved = study.narrowed(variants, recipes)
            if study.kind != "changes" or not _is_a_row_of(moved.base, study):
                yield Form(moved, moved_to=" ".join(words))


def _is_a_row_of(row: Row, study: Study) -> bool:
    """Such a row is no other base: compact-cls is the study of poolings' own change of compact."""
    base, *rows = (planned_on(one, study.datasets[0], None, study.holdout) for one in (row, *study.rows))
    return base is not None and any(one and one.plan_id == base.plan_id for one in rows)


@dataclass(frozen=True)
class Planned:
    """A row on one data set, with the identity by which its runs are found."""

    config: RunConfig
    plan_id: str


def planned_on(row: Row, dataset: str, epochs: int | None, holdout: float) -> Planned | None:
    """None for a row that cannot be run like this: more warm restarts than passes, say."""
    return _planned_on(replace(row, label="", levels=()), dataset, epochs, holdout)


@lru_cache(maxsize=50_000)  # many studies have the same base
def _planned_on(row: Row, dataset: str, epochs: int | None, holdout: float) -> Planned | None:
    try:
        config = row.resolve(DATASETS[dataset], epochs=epochs, holdout=holdout)
    except UsageError:
        return None
    return Planned(config, config.plan_id)
