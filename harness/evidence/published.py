"""The numbers that others printed: their sources, our cell beside each under the same recipe and budget, and what still
deviates from each published recipe. Tables, the page and the paper's numbers read these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.evidence.cells import Cell, grouped
from harness.evidence.writing import HOLE
from harness.recipes import PUBLISHED
from harness.statistics.intervals import mean_interval

Tier = Literal["own", "reproduction"]  # of the source's own model, or of somebody else's that it trained again


@dataclass(frozen=True)
class Source:
    """`date` is the day on which its numbers were first printed: of the commit that wrote them into the README, or of
    the paper's first version."""

    key: str
    title: str
    date: str
    address: str
    tier: Tier = "own"


def _repository(key: str, date: str, name: str, title: str = "", tier: Tier = "own") -> Source:
    return Source(key, title or name, date, f"https://github.com/{name}", tier)


_VIT = "jordandeklerk/ViT-pytorch"
_MC_VIT = "francischen0724/Image-classification-by-CVT-based-on-Vit-from-scratch-draft"
_ESCAPING = "Hassani et al., Escaping the Big Data Paradigm with Compact Transformers"
_SMALL_SIZE = "Lee et al., Vision Transformer for Small-Size Datasets"

_SOURCES = (
    _repository("S0", "2024-01-11", _VIT),
    _repository("S0n", "2024-01-11", f"{_VIT}/tree/33edf8e/Notebook", f"{_VIT}, its notebook"),  # removed since
    _repository("S1", "2021-03-04", "omihub777/ViT-CIFAR"),
    _repository("S2", "2024-12-11", _MC_VIT, "francischen0724, mc-ViT"),
    _repository("S3", "2025-04-28", "HarshTomar1234/vision_transformer-ViT-"),
    _repository("S4", "2024-07-14", "KunhangL/KunViT", tier="reproduction"),  # of S1's model and recipe
    _repository("tintn", "2023-03-06", "tintn/vision-transformer-from-scratch"),
    Source("Compact Transformers", _ESCAPING, "2021-04-12", "https://arxiv.org/abs/2104.05704"),
    Source("Lee", _SMALL_SIZE, "2021-12-27", "https://arxiv.org/abs/2112.13492"),
)
SOURCES = {source.key: source for source in _SOURCES}


@dataclass(frozen=True)
class Published:
    source: str
    variant: str
    dataset: str
    accuracy: float | None  # in percent; None: the source prints none for this model
    epochs: int
    note: str = ""
    recipe: str = "published"  # and what is set by hand, as tables call the runs that are compared with it
    date: str = ""  # where it was printed later than the source's other numbers

    @property
    def printed(self) -> str:
        """The day on which it was; of a source that prints none, no day."""
        return "" if self.accuracy is None else self.date or SOURCES[self.source].date

    @property
    def recipe_name(self) -> str:
        """The recipe's own name."""
        name = self.recipe.split(", ")[0]
        return PUBLISHED[self.variant] if name == "published" else name


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
    Published("Compact Transformers", "cct-7-3x1", "c10", 94.78, 200, "examples recipe", date="2021-06-13"),
    Published("Compact Transformers", "cct-7-3x1", "c100", 77.05, 200, "examples recipe", date="2021-06-14"),
    Published("Lee", "small-p4", "c10", 93.58, 300, _LEE),
    Published("Lee", "small-p4", "c100", 73.81, 300, _LEE),
    Published("Lee", "small-p4", "svhn", 97.82, 300, _LEE),
)


@dataclass(frozen=True)
class Pair:
    """A published number and our cell of the same variant, recipe, data set and budget, if there is one."""

    published: Published
    cell: Cell | None

    @property
    def difference(self) -> float | None:
        """Rounded before it is judged, so that 100 x .7725 does not miss 77.25."""
        if self.cell is None or not self.cell.accuracies or self.published.accuracy is None:
            return None
        return round(mean_interval(self.cell.accuracies)[0] - self.published.accuracy, 6)

    @property
    def inside(self) -> bool | None:
        """Whether the published number lies in the interval of our mean; None where there is no interval."""
        half = mean_interval(self.cell.accuracies)[1] if self.cell and self.cell.accuracies else None
        return None if half is None or self.difference is None else abs(self.difference) <= round(half, 6)

    @property
    def verdict(self) -> str:
        if self.cell is None or not self.cell.accuracies:
            return "open"
        return HOLE if self.difference is None else "reached" if self.difference >= 0 else "missed"


def compared(cells: Sequence[Cell]) -> list[Pair]:
    """A shortened or altered run is never compared with a published number."""
    by_key = grouped(cells, lambda cell: (cell.variant, cell.recipe, cell.dataset))
    pairs = []
    for number in PUBLISHED_NUMBERS:
        candidates = by_key.get((number.variant, number.recipe, number.dataset), [])
        same = [cell for cell in candidates if cell.epochs == number.epochs]
        pairs += [Pair(number, cell) for cell in same or [None]]
    return pairs


# --- what deviates ---------------------------------------------------------------------------------------------------

RECIPES_PAGE, TABLE = Path("RECIPES.md"), "## Recipe by recipe\n"


def deviations(path: Path = RECIPES_PAGE) -> Mapping[str, str]:
    """By the recipe's own name, in plain text, from the last column of the page's table; empty where no page is."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    section = text.partition(TABLE)[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].split("`")[1]: row[-1].replace("`", "") for row in rows}
