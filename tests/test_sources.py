"""True to the sources: what the published recipes and models do is what their own code does, to the number."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.config import LATER_FIELDS, plan_id, resolve, run_config_from_plain
from harness.data.augment.mixing import Mix
from harness.data.pipeline import Batch
from harness.datasets import DATASETS
from harness.evidence.cells import read_evidence
from harness.evidence.names import name_of
from harness.evidence.tables.results import published_table
from harness.recipes import PUBLISHED, RECIPES, Recipe, shortened
from harness.records.read import load_runs
from harness.studies import STUDIES
from harness.study import Row
from harness.training.optimiser import clip_gradients, learning_rate, parameter_groups
from harness.training.setup import batch_loss
from variants.catalog import build

SERIES = json.loads((Path(__file__).parent / "golden" / "learning-rates.json").read_text())["series"]
REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"


# --- learning rates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", sorted(set(PUBLISHED.values())))
def test_learning_rates_are_those_of_the_source_s_own_scheduler(source):
    """The rate of each epoch's first step; of Lee's, whose epoch is three passes, that of every third."""
    steps = 5005 if source == "s3-imagenet" else 391  # its warm-up is as long as so many steps, of ImageNet, say
    recipe, golden = RECIPES[source], SERIES[source]["values"]
    rates = [learning_rate(recipe, epoch * steps, steps) for epoch in range(recipe.epochs)]
    rates = rates[::3] if source == "lee" else rates
    golden = golden * len(rates) if len(golden) == 1 else golden
    assert len(rates) == len(golden)
    assert rates == pytest.approx(golden, rel=1e-6, abs=0)
    if source == "lee":
        assert learning_rate(recipe, 300 * steps - 1, steps) == pytest.approx(1e-6, rel=1e-5)


@pytest.mark.parametrize("epochs", [1, 10, 50, 400])
@pytest.mark.parametrize("source", SERIES)
def test_another_number_of_epochs_keeps_the_shape_of_the_curve(source, epochs):
    """At the same share of the training, the rate that the source has there."""
    recipe, short = RECIPES[source], shortened(RECIPES[source], epochs)
    steps = 391 * recipe.epochs // epochs if source == "lee" else 400  # Lee's rates follow steps: as many as there
    steps_there = 391 if source == "lee" else 400
    for step in range(0, epochs * steps, 97):
        there = step * recipe.epochs * steps_there // (epochs * steps)
        expected = learning_rate(recipe, there, steps_there)
        assert learning_rate(short, step, steps) == pytest.approx(expected, rel=0.01, abs=2e-4 * recipe.lr)


def test_s1_without_warm_up_starts_at_its_highest_rate():
    recipe = replace(RECIPES["s1"], warmup_epochs=0)
    rates = [learning_rate(recipe, epoch * 10, 10) for epoch in range(200)]
    assert rates[:2] == [1e-3, 1e-3] and rates[2] < 1e-3 and rates == sorted(rates, reverse=True)


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_share", [1.0, 0.5])
def test_smoothing_over_the_others(own_share):
    """Worked by hand: .7 on the true class and .15 on each other one; two images that share each other's label half and
    half have the mean of both losses."""
    logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]]), torch.tensor([0, 1])
    mix = Mix(torch.ones(2), torch.zeros(2, 4, dtype=torch.int64), torch.full((2,), own_share))
    batch = Batch(torch.zeros(2, 3, 4, 4), labels, None if own_share == 1 else mix)
    recipe = Recipe(label_smoothing=0.3, smoothing_over="others")
    loss, _ = batch_loss(lambda images: logits, batch, recipe)  # type: ignore[arg-type]
    targets = torch.tensor([[0.7, 0.15, 0.15], [0.15, 0.7, 0.15]])
    shared = own_share * targets + (1 - own_share) * targets.roll(1, 0)
    assert loss.item() == pytest.approx(-(shared * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-6)


def test_clipping_each_parameter_by_itself_or_all_together():
    """Norms 5 and 1 with a limit of 3: the first is scaled by 3/5. 6 and 8 with 5 for both together: half of each."""
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([1.0])
    clip_gradients(weights, RECIPES["s0-head"], torch.tensor(26.0).sqrt())
    torch.testing.assert_close(weights[0].grad, torch.tensor([1.8, 2.4]))
    torch.testing.assert_close(weights[1].grad, torch.tensor([1.0]))
    assert weights[2].grad is None
    together = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    together[0].grad, together[1].grad = torch.tensor([6.0]), torch.tensor([8.0])
    clip_gradients(together, Recipe(clip=5.0), torch.tensor(10.0))
    torch.testing.assert_close(torch.cat([p.grad for p in together if p.grad is not None]), torch.tensor([3.0, 4.0]))


def test_s0_decays_whatever_has_two_dimensions():
    """Positions and class token too; no bias, no norm."""
    model = build("patch2")
    decayed, rest = parameter_groups(model, RECIPES["s0-head"])
    names = {id(p): name for name, p in model.named_parameters()}
    assert {"position.table", "class_token", "head.weight"} <= {names[id(p)] for p in decayed["params"]}
    left = [names[id(p)] for p in rest["params"]]
    assert all(name.endswith("bias") or "norm" in name for name in left)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


# Of seed 0 in fp32. An id is made of every field of variant and recipe: whatever is changed in either shows.
RUN_IDS = {
    ("vanilla", "published", "c10"): "c10-vit-d384l7p4-e200-s0-515f772aea",
    ("compact", "published", "c10"): "c10-vit-d48l4p4-e100-s0-0d87d34c1a",
    ("compact-cls", "published", "c10"): "c10-vit-d48l4p4-e100-s0-621515ebfe",
    ("patch2", "published", "c10"): "c10-vit-d192l9p2-e200-s0-1b2668bb03",
    ("patch2-conv", "published", "c10"): "c10-vit-d256l8p2-e200-s0-f17763f6b0",
    ("vit-lite-7-4", "published", "c10"): "c10-vit-d256l7p4-e200-s0-6805c7f460",
    ("cvt-7-4", "published", "c10"): "c10-vit-d256l7p4-e200-s0-e8a8c8ac2a",
    ("cct-7-3x1", "published", "c10"): "c10-vit-d256l7p2-e200-s0-db5edfe945",
    ("small-p4", "published", "c10"): "c10-vit-d192l9p4-e300-s0-4795babf10",
    ("vit-224", "published", "c10"): "c10-vit-d384l6p16-e5-s0-4d0fc05641",
    ("vanilla", "published", "svhn"): "svhn-vit-d384l7p4-e200-s0-ee7a903b2c",
    ("small-p4", "published", "svhn"): "svhn-vit-d192l9p4-e300-s0-4c8b1dca1a",
    ("timm", "common", "c100"): "c100-timm-vit_tiny_patch16_224-e200-s0-716caf7c1c",
    ("compact", "quick", "digits"): "digits-vit-d48l4p4-e10-s0-6c9e22b187",
}


@pytest.mark.parametrize(("variant", "recipe", "dataset"), RUN_IDS)
def test_a_named_cell_is_the_one_that_it_always_was(variant, recipe, dataset):
    assert resolve(variant, DATASETS[dataset], recipe).run_id == RUN_IDS[variant, recipe, dataset]


# --- records ---------------------------------------------------------------------------------------------------------


def reference_configs() -> list[dict[str, Any]]:
    return [run.config for run in load_runs([REFERENCE])]


def test_later_fields_are_no_part_of_an_old_identity():
    """The defaults of fields that came later are the values that older records were made with."""
    for name, value in LATER_FIELDS.items():
        assert getattr(Recipe(), name, value) == value
    for config in reference_configs():
        again = run_config_from_plain(config)
        assert (again.run_id, again.plan_id) == (config["run_id"], plan_id(config))


def test_no_normed_record_meets_a_published_number_of_a_model_without():
    normed = {c["run_id"] for c in reference_configs() if c["variant"]["final_norm"] == "tokens"}
    assert normed, "the first reference runs were made with a final norm"
    evidence = read_evidence([REFERENCE])
    for row in published_table(evidence).rows:
        assert not normed & set(row[-1].split(", ")), row
    for group in evidence.cells:
        if {run.config["run_id"] for run in group.runs} & normed:
            assert "variant.final_norm=tokens" in group.recipe


@pytest.mark.parametrize("study", [name for name, study in STUDIES.items() if study.kind == "table"])
def test_a_run_is_called_what_its_row_is_called(study):
    """Rows of a table go by name: what `name_of` makes of their fields must be that name."""
    for row in STUDIES[study].rows:
        variant, recipe, overrides = name_of(row.resolve(DATASETS["c10"]).to_plain())
        assert (variant, ", ".join((recipe, *overrides))) == row.name


def test_a_stored_name_does_not_count():
    """A record whose names lie is called what its fields say; a change keeps the words in which it was given."""
    config = Row("compact", "published", ("recipe.lr=1e-3",)).resolve(DATASETS["c10"], epochs=50).to_plain()
    assert name_of({**config, "variant_name": "vanilla", "recipe_name": "common"}) == (
        *("compact", "published"),
        ("epochs=50", "recipe.lr=1e-3"),
    )
    assert name_of({**config, "overrides": []})[2] == ("epochs=50", "recipe.lr=0.001")


def test_of_recipes_that_are_equally_near_the_published_one_counts():
    """A batch of 64 with a warm-up of 5 is one field away from each of Compact Transformers' two recipes."""
    between = Row("cct-7-3x1", "published", ("recipe.warmup_epochs=5",)).resolve(DATASETS["c10"]).to_plain()
    for variant in ("cct-7-3x1", "cvt-7-4"):  # published with one of the two each
        own = Row(variant, "published").resolve(DATASETS["c10"]).to_plain()["variant"]
        assert name_of({**between, "variant": own})[:2] == (variant, "published")


def test_a_record_of_other_code_is_not_called_by_today_s_names_alone():
    config = Row("compact", "published").resolve(DATASETS["c10"]).to_plain()
    config["recipe"] = {**config["recipe"], "sharpness_aware": True}
    assert name_of(config) == ("compact", "published", ("other code's recipe.sharpness_aware",))


def test_a_rate_that_is_not_its_recipe_s_is_told():
    config = Row("vit-lite-7-4", "published").resolve(DATASETS["c10"]).to_plain()
    assert name_of(config)[2] == ()
    config["variant"] = {**config["variant"], "drop_path": 0.5}
    assert name_of(config)[2] == ("variant.drop_path=0.5",)


def test_names_of_runs_under_other_data_sets_and_budgets():
    for variant, recipe in (("vanilla", "published"), ("small-p4", "published"), ("timm", "common"), ("compact", "s1")):
        for dataset in ("c10", "c100", "svhn", "digits"):
            for epochs in (None, 7):
                if (variant, dataset) == ("timm", "digits"):
                    continue
                row = Row(variant, recipe)
                config = row.resolve(DATASETS[dataset], epochs=epochs).to_plain()
                assert name_of(config) == (variant, recipe, () if epochs is None else ("epochs=7",))
