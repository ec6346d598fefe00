"""The numbers that others printed, and the table that sets ours beside them: each under the same recipe and budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.datasets import title
from harness.evidence.cells.groups import Evidence, Group
from harness.evidence.tables.captions import different_data, flag, made_with
from harness.evidence.writing import HOLE, Columns, Table, sentences, signed, spread, whole
from harness.statistics.intervals import mean_interval


@dataclass(frozen=True)
class Published:
    source: str
    variant: str
    dataset: str
    accuracy: float | None  # in percent; None: the source prints none for this model
    epochs: int
    note: str = ""
    recipe: str = "published"  # and what is set by hand, as tables call the runs that are compared with it


_LEE = "100 'epochs' of three passes each"
_S3 = "S3's comparison, here timm's model under S3's recipe"

PUBLISHED_NUMBERS = (
    Published("S1", "vanilla", "c10", 90.92, 200),
    Published("S1", "vanilla", "c100", 66.54, 200),
    Published("S1", "vanilla", "svhn", 97.31, 200),
    Published("S4", "vanilla", "c10", 89.87, 200, "on its dev set, best epoch"),
    Published("S2", "compact", "c10", 77.25, 100),
    Published("S2", "compact", "c100", 47.21, 100),
    Published("tintn", "compact-cls", "c10", 75.5, 100, "the code that S2 builds on"),
    Published("S0", "patch2", "c10", None, 200, "the 96.80 beside it is patch2-conv's"),
    Published("S0n", "patch2-conv", "c10", 96.80, 200),
    Published("S3", "vit-224", "c10", 80.2, 5),
    Published("S3", "timm:resnet18", "c10", 79.3, 5, _S3, "s3, variant.resize=224"),
    Published("S3", "timm:resnet50", "c10", 83.7, 5, _S3, "s3, variant.resize=224"),
    Published(
        *("S3", "timm:vit_base_patch16_224", "c10", 98.1, 5, f"{_S3}, pretrained"),
        "s3, variant.pretrained=true, variant.resize=224",
    ),
    Published("Compact Transformers", "vit-lite-7-4", "c10", 91.38, 200, "best of 4"),
    Published("Compact Transformers", "vit-lite-7-4", "c100", 69.75, 200, "best of 4"),
    Published("Compact Transformers", "cvt-7-4", "c10", 92.43, 200),
    Published("Compact Transformers", "cvt-7-4", "c100", 73.01, 200),
    Published("Compact Transformers", "cct-7-3x1", "c10", 94.78, 200, "examples recipe"),
    Published("Compact Transformers", "cct-7-3x1", "c100", 77.05, 200, "examples recipe"),
    Published("Lee", "small-p4", "c10", 93.58, 300, _LEE),
    Published("Lee", "small-p4", "c100", 73.81, 300, _LEE),
    Published("Lee", "small-p4", "svhn", 97.82, 300, _LEE),
)


@dataclass(frozen=True)
class Pair:
    """A published number and our cell of the same variant, recipe, data set and budget, if there is one."""

    published: Published
    group: Group | None

    @property
    def difference(self) -> float | None:
        """Rounded before it is judged, so that 100 x .7725 does not miss 77.25."""
        if self.group is None or not self.group.accuracies or self.published.accuracy is None:
            return None
        return round(mean_interval(self.group.accuracies)[0] - self.published.accuracy, 6)

    @property
    def verdict(self) -> str:
        if self.group is None or not self.group.accuracies:
            return "open"
        return HOLE if self.difference is None else "reached" if self.difference >= 0 else "missed"


def compared(groups: Sequence[Group], numbers: Sequence[Published] = PUBLISHED_NUMBERS) -> list[Pair]:
    """A shortened or altered run is never compared with a published number."""
    by_key: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        by_key.setdefault((group.variant, group.recipe, group.dataset), []).append(group)
    pairs = []
    for number in numbers:
        candidates = by_key.get((number.variant, number.recipe, number.dataset), [])
        same = [group for group in candidates if group.passes == number.epochs]
        pairs += [Pair(number, group) for group in same or [None]]
    return pairs


def published_table(evidence: Evidence) -> Table:
    pairs = compared(evidence.groups)
    columns: Columns[Pair] = {
        "source": lambda pair: pair.published.source,
        "variant": _variant,
        "data set": lambda pair: title(pair.published.dataset),
        "published (%)": lambda pair: f"{pair.published.accuracy:.2f}" if pair.published.accuracy else "none published",
        "ours (%)": _ours,
        "difference": lambda pair: HOLE if pair.difference is None else signed(pair.difference),
        "epochs, published / ours": lambda pair: f"{pair.published.epochs} / {whole(pair.group and pair.group.passes)}",
        "verdict": lambda pair: pair.verdict,
        "note": lambda pair: pair.published.note or HOLE,
        "run ids": _run_ids,
    }
    ours = [pair.group for pair in pairs if pair.group]
    caption = sentences(
        "Published accuracy and ours under the published recipe and budget: mean ± half-width of the 95% t-interval "
        "(number of seeds). Reached: our mean is at least the published number; missed: it is not; open: no finished "
        "run. Most sources give their best test epoch, we give the last. S1 trained in fp16, the others in fp32; "
        "RECIPES.md lists what else deviates.",
        made_with(ours, "n", "epochs"),
        evidence.source,
        different_data(ours),
    )
    return Table.of("published", columns, pairs, caption, too_wide_for_print=("run ids",))


def _variant(pair: Pair) -> str:
    note = pair.group.note if pair.group else ""
    return f"{pair.published.variant} [{note}]" if note else pair.published.variant


def _ours(pair: Pair) -> str:
    return spread(pair.group.accuracies, len(pair.group.failed)) + flag(pair.group) if pair.group else HOLE


def _run_ids(pair: Pair) -> str:
    runs = pair.group.runs if pair.group else ()
    return ", ".join(run.config.get("run_id") or run.folder.name for run in runs) or HOLE
