"""The recipes by name: where each comes from, the command that trains it, what its source says of cost and accuracy.

Accuracies are the sources' own, on the test set; RECIPES.md says what still deviates from them, and why. A recipe is
also found by its source's name: `--recipe vit-cifar` is `--recipe s1`.
"""

from dataclasses import replace

from harness.recipe import Recipe
from variants.fields import UsageError, near_matches

# One recipe of equal budget for every variant:
#   python -m harness.run --variant compact --dataset c10
# The values are those on which recent small-ViT work agrees (AdamW 1e-3 at batch 128, decay .05, smoothing .1,
# RandAugment 2 x 9); MixUp or CutMix change half of the images, because models of .1 M parameters share the recipe with
# models of 6 M. None of it was tuned here, on any variant.
COMMON = Recipe(
    clip=1.0,
    augment=("crop", "flip", "randaugment"),
    mix="either",
    mix_prob=0.5,
    mixup_alpha=0.8,
    mix_per_image=True,
    label_smoothing=0.1,
)

# A few seconds on the embedded digits, for trying things out:
#   python -m harness.run --variant compact --dataset digits --recipe quick
QUICK = Recipe(epochs=10, batch_size=32, warmup_epochs=1, label_smoothing=0.1)

# S1, omihub777/ViT-CIFAR, with its flags for AutoAugment and label smoothing:
#   python -m harness.run --variant vanilla --dataset c10 --recipe vit-cifar
# 90.92 % on CIFAR-10 (2 h 14 min on a V100), 66.54 % on CIFAR-100, 97.31 % on SVHN.
# Its scheduler has the first epoch at a rate of 0, and a cosine as long as the whole run.
S1 = Recipe(
    optimizer="adam",
    weight_decay=5e-5,
    decay="all",
    schedule_unit="epoch",
    warmup_epochs=5,
    cosine_over="cycle",
    late_epochs=1,
    augment=("crop", "flip", "autoaugment-pil"),
    label_smoothing=0.1,
    smoothing_over="others",
)

# S2, mc-ViT, which has the recipe of tintn/vision-transformer-from-scratch:
#   python -m harness.run --variant compact --dataset c10 --recipe mc-vit
# 77.25 % on CIFAR-10, 47.21 % on CIFAR-100; tintn prints 75.5 % for `compact-cls` on CIFAR-10.
S2 = Recipe(
    epochs=100,
    batch_size=256,
    lr=1e-2,
    lr_min=0.0,
    weight_decay=0.01,
    decay="all",
    schedule="constant",
    warmup_epochs=0,
    scaling="half",
    augment=("flip", "resized-crop"),
)

# S0, jordandeklerk/ViT-pytorch at HEAD, whose code does not run and has no published accuracy:
#   python -m harness.run --variant patch2 --dataset c10 --recipe jordandeklerk
# It scales its test images and not its training images, a defect: both are in [0, 1] here.
S0_HEAD = Recipe(
    lr_min=1e-6,
    beta2=0.99,
    weight_decay=0.1,
    decay="matrices",
    schedule_unit="epoch",
    cycles=4,
    warmup_epochs=10,
    warmup_shape="from-min",
    clip=3.0,
    clip_scope="each",
    scaling="unit",
    augment=("trivialaugment", "flip", "crop", "erase"),
    interpolation="bilinear",
    erase_prob=0.1,
    mix="cutmix",
    label_smoothing=0.1,
    drop_path=0.1,
)

# S0n, the same project's notebook:
#   python -m harness.run --variant patch2-conv --dataset c10 --recipe jordandeklerk-notebook
# 96.80 % on CIFAR-10, 6 h on an A100.
# It steps its scheduler an epoch late, so that the first epoch has the rate of a cycle's last.
S0N = Recipe(
    weight_decay=0.1,
    schedule_unit="epoch",
    cycles=4,
    warmup_epochs=10,
    warmup_shape="from-min",
    late_epochs=1,
    scaling="unit",
    augment=("trivialaugment", "flip", "crop", "erase"),
    interpolation="bilinear",
    erase_prob=0.1,
    mix="cutmix",
    cutmix_alpha=0.5,
    label_smoothing=0.1,
    head_dropout=0.3,
)

# Compact Transformers (arXiv:2104.05704), its example script:
#   python -m harness.run --variant cvt-7-4 --dataset c10 --recipe compact-transformers
# ViT-Lite-7/4 91.38 % on CIFAR-10 and 69.75 % on CIFAR-100, CVT-7/4 92.43 % and 73.01 %.
CCT = Recipe(
    lr=5e-4,
    lr_min=0.0,
    weight_decay=0.03,
    decay="all",
    schedule_unit="epoch",
    warmup_epochs=5,
    warmup_shape="harmonic",
    augment=("autoaugment-pil", "crop", "flip"),
    label_smoothing=0.1,
    attention_dropout=0.1,
    drop_path=0.1,
)

# The flags that its README gives beside CCT-7/3x1's 94.78 % on CIFAR-10 (77.05 % on CIFAR-100):
#   python -m harness.run --variant cct-7-3x1 --dataset c10 --recipe cct-7-3x1
CCT_7 = replace(CCT, batch_size=64, warmup_epochs=10)

# Lee et al. (arXiv:2112.13492), each of whose 100 "epochs" goes through the images three times:
#   python -m harness.run --variant small-p4 --dataset c10 --recipe lee
# 93.58 % on CIFAR-10, 73.81 % on CIFAR-100, 97.82 % on SVHN, which is mirrored too.
LEE = Recipe(
    epochs=300,
    lr_min=1e-6,
    decay="all",
    warmup_epochs=30,
    warmup_shape="from-min",
    augment=("flip-always", "crop", "autoaugment-pil", "erase-lee"),
    erase_prob=0.25,
    mix="either",
    mix_prob=0.5,
    label_smoothing=0.1,
    drop_path=0.1,
)

# S3, HarshTomar1234/vision_transformer-ViT-, the example of its README:
#   python -m harness.run --variant vit-224 --dataset c10 --recipe harshtomar1234
# 80.2 % on CIFAR-10.
S3 = Recipe(
    epochs=5,
    batch_size=64,
    optimizer="adam",
    lr=1e-4,
    lr_min=0.0,
    weight_decay=0.0,
    schedule="constant",
    warmup_epochs=0,
    scaling="half",
    augment=("flip",),
)

RECIPES = {
    "common": COMMON,
    "quick": QUICK,
    "s1": S1,
    "s2": S2,
    "s0-head": S0_HEAD,
    "s0n": S0N,
    "cct": CCT,
    "cct-7-3x1": CCT_7,
    "lee": LEE,
    "s3": S3,
}

# The sources' own names. Records, tables and run ids have the names above.
ALIASES = {
    "vit-cifar": "s1",
    "omihub777": "s1",
    "mc-vit": "s2",
    "tintn": "s2",
    "jordandeklerk": "s0-head",
    "jordandeklerk-notebook": "s0n",
    "compact-transformers": "cct",
    "harshtomar1234": "s3",
}

PUBLISHED = {
    "vanilla": "s1",
    "compact": "s2",
    "compact-cls": "s2",
    "patch2": "s0-head",
    "patch2-conv": "s0n",
    "vit-lite-7-4": "cct",
    "cvt-7-4": "cct",
    "cct-7-3x1": "cct-7-3x1",
    "small-p4": "lee",
    "vit-224": "s3",
}


def _with_aliases(name: str) -> str:
    aliases = [alias for alias, meant in ALIASES.items() if meant == name]
    return f"{name} ({', '.join(aliases)})" if aliases else name


RECIPE_HELP = f"published, {', '.join(map(_with_aliases, RECIPES))}"


def canonical(name: str) -> str:
    """The recipe's own name where `name` is its source's, in capitals or not; any other name as it is."""
    return ALIASES.get(name.lower(), name)


def recipe_of(name: str, variant_name: str) -> tuple[str, Recipe]:
    """The recipe's own name and the recipe; `published` is the one that the variant was published with."""
    name = canonical(name)
    if name == "published":
        if variant_name not in PUBLISHED:
            having = ", ".join(sorted(PUBLISHED))
            raise UsageError(
                f"no recipe was published for variant {variant_name!r}, only for {having}: use --recipe common"
            )
        name = PUBLISHED[variant_name]
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: {near_matches(name, [*RECIPES, *ALIASES, 'published'])}")
    return name, RECIPES[name]
