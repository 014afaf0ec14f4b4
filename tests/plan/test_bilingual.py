"""Bilingual adaptation (2407.12869) as shipped: parameters, tokens and shares of its sizes."""

import json

import pytest
import torch

from feldspar.model.decoder import Decoder
from feldspar.plan.sources import data_record
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe

# Parameters with 32,000 and 64,000 rows; tokens of English, Arabic and code in billions.
SIZES = {
    "7B": (6_738_415_616, 7_000_559_616, (18, 19, 2)),
    "13B": (13_015_864_320, 13_343_544_320, (127, 140, 13)),
    "70B": (68_976_648_192, 69_500_936_192, (33, 334, 4)),
}


def planned(size: str, *overrides: str) -> Plan:
    return plan_recipe(load_recipe("bilingual/paper", [f"choose.size={size}", *overrides]).recipe)


@pytest.mark.parametrize("size", SIZES)
def test_parameters(size: str) -> None:
    before, after, _ = SIZES[size]
    plan = planned(size)
    assert plan.shapes.parameters == after
    assert planned(size, "model.vocab_size=32000", "tokenizer=null").shapes.parameters == before
    width = plan.recipe.model.d_model
    assert after - before == 2 * 32_000 * width
    assert plan.trainable_parameters(0) == 2 * 64_000 * width, "the first stage: both matrices"
    assert plan.trainable_parameters(1) == after
    with torch.device("meta"):
        built = Decoder(plan.recipe.model)
    assert sum(parameter.numel() for parameter in built.parameters()) == after


@pytest.mark.parametrize("size", SIZES)
def test_tokens_and_shares_of_the_card(size: str) -> None:
    plan = planned(size)
    english, arabic, code = SIZES[size][2]
    total = english + arabic + code
    # Down to whole steps of 4,194,304 tokens in each phase.
    assert plan.timeline.length == pytest.approx(total * 1e9, abs=2 * 4_194_304)
    assert plan.timeline.phases[0].length == pytest.approx(15e9, abs=4_194_304)
    read = data_record(plan.recipe, plan.timeline, plan.source_tokens)["sources"]
    for name, billions in (("english", english), ("arabic", arabic), ("code", code)):
        assert read[name]["read_tokens"] == pytest.approx(billions * 1e9, rel=1e-3)


def test_moments_of_the_first_stage_are_those_of_two_matrices() -> None:
    plan = planned("7B")
    new = planned("7B", "phases.0.trainable={parameters: [embedding, output], rows: new}")
    assert new.trainable_parameters(0) == 2 * 32_000 * 4096
    assert plan.trainable_parameters(0) == 2 * new.trainable_parameters(0)


def test_only_the_head_costs_more() -> None:
    plans = planned("7B", "model.vocab_size=32000", "tokenizer=null"), planned("7B")
    before, after = (p.summary()["flops"]["ledger"] / p.timeline.length for p in plans)
    assert after - before == pytest.approx(3 * 2 * 32_000 * 4096)


@pytest.mark.parametrize(
    ("rate", "ends"),
    [
        ("peak", (3e-4, 3e-5)),
        ("half", (1.5e-4, 1.5e-5)),
        ("tenth", (3e-5, 3e-6)),
        ("final", (3e-5, 3e-5)),
        ("peak-at-once", (3e-4, 3e-5)),
    ],
)
def test_rates_of_the_ablation(rate: str, ends: tuple[float, float]) -> None:
    plan = plan_recipe(load_recipe("bilingual/ablation", [f"choose.rate={rate}"]).recipe)
    for phase in plan.timeline.phases:
        middle = phase.start_position + phase.length // 100
        found = phase.learning_rate.at(middle), phase.learning_rate.at(phase.end_position)
        assert found == pytest.approx(ends, rel=0.01)


def test_the_ablation_varies_what_the_paper_does() -> None:
    recipe = load_recipe("bilingual/ablation").recipe
    assert recipe.study is not None
    for key, values in recipe.study.vary.items():
        assert isinstance(values, tuple)
        for value in values:
            override = f"{key}={json.dumps(value)}"
            plan_recipe(load_recipe("bilingual/ablation", [override]).recipe)
    growth = recipe.choices["growth"]
    rows = {
        name: load_recipe("bilingual/ablation", [f"choose.growth={name}"]).recipe.model.vocab_size
        for name in growth
    }
    assert rows == {"0%": 32_000, "25%": 40_000, "50%": 48_000, "100%": 64_000}
