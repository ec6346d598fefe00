"""The numbers that others printed, as data: who, which model, on what, after how many passes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    source: str
    variant: str
    dataset: str
    accuracy: float | None  # in percent; None: the source prints none for this model
    passes: int  # over the training images
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
