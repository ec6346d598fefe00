"""The studies by name, as data: what each asks, its rows, and its small form on embedded data.

Unless a study says otherwise its base is `small-p4` (2.7 M parameters, patches of 4 pixels) under the common recipe on
CIFAR-10: plain, and cheap enough for five seeds. `--dataset`, `--variants` and `--recipes` put it elsewhere. The label
of a row is what the tables call it; a setting is what `harness.run --set` takes.
"""

from collections.abc import Mapping
from typing import Any

from harness.study import SEEDS, Row, Study, changes, grid

BASE = Row("small-p4", "common")

# Small forms of studies that change a base: at most 6 runs of the smallest variant, 45 steps an epoch. They show that
# everything works, nothing else.
QUICK_BASE = Row("compact", "quick", ("recipe.epochs=3",))
QUICK_QUESTION = "Does the whole way work?"


def quick_changes(base: str, settings: Mapping[str, str], seeds: int = 1, also: str = "") -> Study:
    """`also` is what the small base has besides."""
    row = QUICK_BASE.but(also, label=base)
    return changes(QUICK_QUESTION, row, settings, datasets=("digits",), seeds=SEEDS[:seeds])


def quick_grid(factors: Mapping[str, Mapping[str, str]], also: str = "", holdout: float = 0.0) -> Study:
    row = QUICK_BASE.but(also)
    return grid(QUICK_QUESTION, row, factors, datasets=("digits",), seeds=SEEDS[:1], holdout=holdout)


def quick_table(*variants: str, settings: tuple[str, ...] = ("recipe.epochs=1",), seeds: int = 1) -> Study:
    rows = tuple(Row(variant, "quick", settings) for variant in variants)
    return Study(QUICK_QUESTION, rows, datasets=("digits",), seeds=SEEDS[:seeds])


WITH_A_RECIPE = (  # cheapest first
    *("compact", "compact-cls", "small-p4", "vit-lite-7-4", "cvt-7-4", "vanilla", "patch2", "cct-7-3x1", "patch2-conv"),
    "vit-224",
)
BESIDE_S3 = (  # what S3 compares its model with, here as timm has it
    *(Row(f"timm:resnet{layers}", "s3", ("variant.resize=224",)) for layers in (18, 50)),
    Row("timm:vit_base_patch16_224", "s3", ("variant.pretrained=true", "variant.resize=224")),
)
QUICK = quick_table("compact", "timm", "vanilla", "patch2", settings=(), seeds=2)

ONE_GELU = {"one GELU": "variant.mlp_out_activation=false"}
SCHEDULES = {
    "constant": "recipe.schedule=constant",
    "by epoch": "recipe.schedule_unit=epoch",
    "no warm-up": "recipe.warmup_epochs=0",
}
# L2 and decoupled decay need sizes a thousand times apart, so neither is judged only at the other's: the full grid of
# three fields is the smallest study that separates the optimiser from the size of the decay and from where it acts.
OPTIMIZERS = {
    "optimizer": {"adamw": "", "adam": "recipe.optimizer=adam"},
    "decay": {"0.05": "recipe.weight_decay=0.05", "5e-5": "recipe.weight_decay=5e-5"},
    "on": {"weights": "", "all": "recipe.decay=all"},
}
LOCALITY = {
    "tokens": {"plain": "", "shifted": "variant.tokenizer=shifted"},
    "attention": {"plain": "", "local": "variant.attention_scale=learned variant.mask_diagonal=true"},
}


def alike(question: str, base: Row, settings: Mapping[str, str], seeds: int = 1) -> Study:
    """Changes of a base, and the same changes in the small form, which has so many seeds."""
    small = quick_changes(base.label, settings, seeds, also=" ".join(base.settings))
    return changes(question, base, settings, quick=small)


def each(label: str, change: str, *values: Any) -> dict[str, str]:
    """A row or level for each value, which stands in both texts."""
    return {label.format(value): change.format(value) for value in values}


def families(*names: str) -> dict[str, str]:
    return each("{}", "variant={}", *names)


def rates(*values: str) -> dict[str, str]:
    return each("{}", "recipe.lr={}", *values)


def widths(*values: int) -> dict[str, str]:
    """As many hidden units of the MLP for each of the model's as the base has."""
    return {str(width): f"variant.width={width} variant.mlp_width={2 * width}" for width in values}


STUDIES = {
    "main": Study(
        "What do the four families reach, under their own recipe and under a common one?",
        (  # cheapest first
            Row("compact", "published"),
            Row("compact", "common"),
            Row("vanilla", "published"),
            Row("timm", "common"),
            Row("vanilla", "common"),
            Row("patch2", "published"),
            Row("patch2", "common"),
            Row("patch2-conv", "published"),
        ),
        datasets=("c10", "c100", "svhn"),
        quick=quick_table(*(row.variant for row in QUICK.rows)),
    ),
    "quick": QUICK,
    "recipe-vs-architecture": grid(
        "How much of a published accuracy is the recipe's, and how much the architecture's?",
        BASE,
        {
            "variant": families("compact", "vanilla", "timm", "patch2"),
            "recipe": each("{}", "recipe={}", "common", "s1", "s2", "s0-head"),
        },
        quick=quick_grid(
            {
                "variant": families("compact", "compact-cls"),
                "recipe": each("{}", "recipe={}", "common", "s1", "s2"),
            },
            also="recipe.warmup_epochs=1",
        ),
    ),
    "published": Study(
        "Are the published numbers reached, each under the recipe that it was published with?",
        (*(Row(name, "published") for name in WITH_A_RECIPE), *BESIDE_S3),
        datasets=("c10", "c100", "svhn"),
        quick=quick_table("compact", "compact-cls", "vit-lite-7-4"),
    ),
    "neighbours": Study(
        "Where do published small ViTs and a ResNet stand under the common recipe?",
        tuple(
            Row(name, "common")  # cheapest first
            for name in ("small-p4", "vit-lite-7-4", "cvt-7-4", "timm", "cct-7-3x1", "resnet18")
        ),
        datasets=("c10", "c100"),
        quick=quick_table("small-p4", "cvt-7-4", "resnet18"),
    ),
    "pooling": alike(
        "Does pooling over the sequence beat a class token, and does either beat the mean?",
        Row("compact", "published", label="pool=seq"),
        each("pool={}", "variant.pool={}", "cls", "mean"),
        seeds=2,
    ),
    "pooling-normed": alike(
        "Does the pooling matter as much where a norm follows the last block, as in most ViTs?",
        Row("compact", "published", ("variant.final_norm=tokens",), label="pool=seq"),
        each("pool={}", "variant.pool={}", "cls", "mean"),
        seeds=2,
    ),
    "final-norm": alike(
        "Does a pre-norm body want one more norm at its end, before the pooling or after it?",
        Row("compact", "published", label="norm=none"),
        each("norm={}", "variant.final_norm={}", "tokens", "pooled"),
        seeds=2,
    ),
    "patch-size": alike(
        "What do smaller patches gain for what they cost?",
        BASE.but(label="patch=4"),
        each("patch={}", "variant.patch={}", "8", "2"),
        seeds=2,
    ),
    "position": alike(
        "Must positions be learned, and must there be any?",
        BASE.but(label="position=learned"),
        each("position={}", "variant.position={}", "sincos", "none") | {"+relative bias": "variant.relative_bias=true"},
    ),
    "tokenizer": alike(
        "What do convolutions or shifted patches give a tokenizer?",
        BASE.but(label="tokens=linear"),
        each("tokens={}", "variant.tokenizer={}", "conv-stem", "cct-conv", "shifted"),
    ),
    "attention": alike(
        "Does how attention is computed or scaled matter?",
        BASE.but(label="fused, scale=head"),
        {
            "merged": "variant.attention=merged",  # computes the same up to rounding, as per-head does: they cost time
            "per-head": "variant.attention=per-head",
            **each("scale={}", "variant.attention_scale={}", "width", "learned"),
        },
    ),
    "mlp-quirk": changes(
        "Does the second GELU of S1's MLP help?",
        Row("vanilla", "published", label="two GELUs"),
        ONE_GELU,
        quick=quick_changes("two GELUs", ONE_GELU, 3, also="variant.mlp_out_activation=true"),
    ),
    "augmentation": changes(
        "What does each augmentation add to crops and flips, and what do those add to nothing?",
        BASE.but("recipe.augment=crop,flip recipe.mix=none", label="crop+flip"),
        {
            "none": "recipe.augment=none",
            "+autoaugment": "recipe.augment=crop,flip,autoaugment",
            "+randaugment": "recipe.augment=crop,flip,randaugment",
            "+erasing": "recipe.augment=crop,flip,erase",
            "+mixup": "recipe.mix=mixup",
            "+cutmix": "recipe.mix=cutmix",
        },
        quick=quick_changes(
            "crop",
            {
                "none": "recipe.augment=none",
                "+randaugment": "recipe.augment=crop,randaugment",
                "+erasing": "recipe.augment=crop,erase",
                "+mixup": "recipe.mix=mixup",
                "+cutmix": "recipe.mix=cutmix",
            },
            also="recipe.augment=crop recipe.crop_padding=1",
        ),
    ),
    "label-smoothing": alike(
        "How much label smoothing, if any?",
        BASE.but(label="smoothing=0.1"),
        each("smoothing={}", "recipe.label_smoothing={}", "0", "0.05", "0.2"),
    ),
    "drop-path": alike(
        "Does dropping residual branches regularise so small a model?",
        BASE.but(label="drop path=0"),
        # The variant's field: the recipe's would be two fields, its own and the variant's, which it sets.
        each("drop path={}", "variant.drop_path={}", "0.05", "0.1", "0.2"),
    ),
    "optimizer": grid(
        "Adam with L2 or AdamW, how much decay, and on everything or on weights alone?",
        BASE,
        OPTIMIZERS,
        quick=quick_grid({name: OPTIMIZERS[name] for name in ("optimizer", "decay")}),
    ),
    "schedule": changes(
        "What of the learning rate's schedule matters: its fall, its steps, its warm-up, its restarts?",
        BASE.but(label="cosine"),
        {**SCHEDULES, "4 cycles": "recipe.cycles=4"},
        quick=quick_changes("cosine", {**SCHEDULES, "2 cycles": "recipe.cycles=2"}, also="recipe.epochs=4"),
    ),
    "budget": changes(
        "What do more epochs still gain?",
        BASE.but(label="200 epochs"),
        each("{} epochs", "recipe.epochs={}", 50, 100, 400, 800),
        quick=quick_changes(
            "2 epochs",
            {"1 epoch": "recipe.epochs=1", "4 epochs": "recipe.epochs=4"},
            2,
            also="recipe.epochs=2 recipe.warmup_epochs=0.5",
        ),
    ),
    "data-fraction": changes(
        "How does accuracy grow with the training images, at the same number of steps?",
        BASE.but(label="100 %"),
        {f"{percent} %": f"recipe.train_share={percent / 100}" for percent in (1, 5, 10, 25, 50)},
        quick=quick_changes("100 %", {"1 %": "recipe.train_share=0.01", "10 %": "recipe.train_share=0.1"}, seeds=2),
    ),
    "width-depth": grid(
        "Wider or deeper?",
        BASE,
        {"width": widths(96, 192, 384), "depth": each("{}", "variant.depth={}", 6, 9, 12)},
        quick=quick_grid({"width": widths(24, 48), "depth": each("{}", "variant.depth={}", 2, 4)}),
    ),
    "locality": grid(
        "Do shifted patches and locality attention (Lee et al.) help, apart and together?",
        Row("small-p4", "published"),
        LOCALITY,
        quick=quick_grid(LOCALITY, also="recipe.epochs=2"),  # the study of tokenizers has runs of three epochs
    ),
    "lr-sensitivity": grid(
        "Does one learning rate do justice to every family? Judged on images held out of training, never on test.",
        BASE,
        {"variant": families("compact", "vanilla", "timm", "patch2"), "lr": rates("3e-4", "1e-3", "3e-3", "1e-2")},
        seeds=SEEDS[:3],
        holdout=0.1,
        quick=quick_grid(
            {"variant": families("compact", "compact-cls"), "lr": rates("3e-4", "1e-3", "1e-2")}, holdout=0.1
        ),
    ),
    "tuning": grid(
        "Which recipe for one model? The same trials for each; chosen on images held out of training, never on test.",
        BASE,
        {
            "regularisation": {  # light suits a model of 0.1 M parameters, heavy one of 6 M
                "light": "recipe.augment=crop,flip recipe.mix=none",
                "the recipe's": "",
                "heavy": "recipe.augment=crop,flip,trivialaugment,erase recipe.mix=either recipe.mix_prob=1 "
                "recipe.weight_decay=0.1 recipe.drop_path=0.1",
            },
            "lr": rates("5e-4", "1e-3", "2e-3", "5e-3"),
        },
        seeds=SEEDS[:1],
        holdout=0.1,
        quick=quick_grid(
            {
                "regularisation": {"the recipe's": "", "crop": "recipe.augment=crop recipe.crop_padding=1"},
                "lr": rates("5e-4", "1e-3", "5e-3"),
            },
            holdout=0.1,
        ),
    ),
}
