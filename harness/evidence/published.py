"""Owns the numbers that others printed, as data: who, which model, on what, after how many passes.
Refuses to compare: reproduced.py does.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    source: str
    variant: str
    dataset: str
    accuracy: float | None  # in percent; None: the source prints none for this model
    passes: int  # over the training images
    note: str = ""


_LEE = "100 'epochs' of three passes each"

PUBLISHED_NUMBERS = (
    Published("S1", "vanilla", "c10", 90.92, 200),
    Published("S1", "vanilla", "c100", 66.54, 200),
    Published("S1", "vanilla", "svhn", 97.31, 200),
    Published("S4", "vanilla", "c10", 89.87, 200, "on its dev set, best epoch"),
    Published("S2", "compact", "c10", 77.25, 100, "recipe partly assumed"),
    Published("S2", "compact", "c100", 47.21, 100, "recipe partly assumed"),
    Published("S0", "patch2", "c10", None, 200, "the 96.80 beside it is patch2-conv's"),
    Published("S0n", "patch2-conv", "c10", 96.80, 200),
    Published("S3", "vit-224", "c10", 80.2, 5, "recipe partly assumed"),
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
