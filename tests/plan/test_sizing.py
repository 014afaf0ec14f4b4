"""What a budget buys: the papers' rule, legal shapes, and overrides that make it so."""

import math
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.plan.laws.law import ParametricLaw, law_named, parametric_law
from feldspar.plan.sizing import (
    WARMUP_TOKENS,
    Sizing,
    size_recipe,
    sizing_warnings,
    split_by_law,
    split_by_rule,
)
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe
from tests.plan.conftest import PlanText

RECIPES = ["cerebras-gpt/paper", "btlm/paper", "quickstart", "cerebras-gpt/small", "btlm/small"]


def plan(name: str, *overrides: str) -> Plan:
    return plan_recipe(load_recipe(name, list(overrides)).recipe)


def size(name: str, budget: float, *overrides: str, ratio: float = 20) -> tuple[Sizing, Plan]:
    """The sizing of a recipe, and the plan of the recipe under its overrides."""
    sizing = size_recipe(plan(name, *overrides), split_by_rule(budget, ratio))
    return sizing, plan(name, *overrides, *sizing.overrides)


def test_the_rule_of_tokens_per_parameter() -> None:
    split = split_by_rule(1e18, 20)
    assert f"{split.parameters:.4g}" == "9.129e+07" and f"{split.tokens:.4g}" == "1.826e+09"
    assert split.tokens / split.parameters == pytest.approx(20)
    assert 6 * split.parameters * split.tokens == pytest.approx(1e18)


def test_the_optimum_of_a_law() -> None:
    law = parametric_law("chinchilla-refit")
    split = split_by_law(1e21, law)
    optimum = law.optimum(1e21)
    assert (split.parameters, split.tokens) == pytest.approx((optimum.parameters, optimum.tokens))
    bigger = split_by_law(1e23, law)
    assert bigger.parameters / split.parameters == pytest.approx(100**split.exponent)


def test_a_cerebras_gpt_of_1e18_flops() -> None:
    sizing, sized = size("cerebras-gpt/paper", 1e18, "choose.parametrization=mup")
    record = sizing.record(sized)
    shape = record["shape"]
    assert shape["d_model"] == 64 * shape["n_heads"] and shape["head_dim"] == 64
    assert shape["d_ff"] == 4 * shape["d_model"]
    assert record["parameters"] == pytest.approx(9.129e7, rel=0.02)
    assert record["tokens_per_parameter"] == pytest.approx(20, rel=0.04)
    assert 60 <= record["aspect"] <= 100
    assert 0.999e18 < record["flops"] <= 1e18
    step = record["batch_tokens"]
    assert record["warmup_steps"] == 375_000_000 // step
    assert record["steps"] == int(1e18 / (6 * record["parameters"])) // step
    assert step % (8 * 2048) == 0 and step == pytest.approx(120 * 2048, rel=0.2)
    assert set(record["hidden_learning_rate_multipliers"].values()) == {256 / shape["d_model"]}
    assert record["ideal"]["parameters"] == split_by_rule(1e18, 20).parameters


@pytest.mark.parametrize("name", RECIPES)
@given(digits=st.floats(15.5, 24), ratio=st.sampled_from([5.0, 20.0, 237.2]))
@example(digits=16.0, ratio=20.0)
@settings(max_examples=5, deadline=None)
def test_overrides_keep_the_kind_and_spend_the_budget(
    name: str, digits: float, ratio: float
) -> None:
    budget, before = 10.0**digits, plan(name)
    sizing, sized = size(name, budget, ratio=ratio)
    old, new = before.recipe.model, sized.recipe.model
    assert new.head_width == old.head_width and new.d_model == new.n_heads * new.head_width
    assert (new.vocab_size, new.max_sequence_length) == (old.vocab_size, old.max_sequence_length)
    assert abs(new.d_ff - old.d_ff * new.d_model / old.d_model) <= math.gcd(old.d_ff, 64) / 2
    flops = 6.0 * sized.shapes.parameters * sized.timeline.length
    lost = sum(phase.stretches[0].step_length for phase in sized.timeline.phases)
    assert budget * (1 - 1e-12) - 6 * sized.shapes.parameters * (lost + 2) <= flops <= budget
    assert sized.timeline.warmup_steps > 0
    assert 2 * sized.timeline.warmup_steps < sized.timeline.steps
    phases = zip(before.timeline.phases, sized.timeline.phases, strict=True)
    for earlier, later in phases:
        share = earlier.length / before.timeline.length
        assert later.length / sized.timeline.length == pytest.approx(share, rel=0.05)
        assert later.context_length == earlier.context_length
    assert size_recipe(before, sizing.split) == sizing, "a pure function"


@pytest.mark.parametrize("budget", [1e19, 1e21, 1e23])
def test_large_shapes_are_near_the_ideal(budget: float) -> None:
    sizing, sized = size("cerebras-gpt/paper", budget)
    record = sizing.record(sized)
    assert record["parameters"] == pytest.approx(record["ideal"]["parameters"], rel=0.02)
    assert record["aspect"] == pytest.approx(80, rel=0.3)


def test_the_batch_grows_with_the_root_of_the_size() -> None:
    steps = [
        sized.timeline.phases[0].stretches[0].step_length
        for _, sized in (size("cerebras-gpt/paper", budget) for budget in (1e19, 1e21))
    ]
    assert steps[1] / steps[0] == pytest.approx(math.sqrt(10), rel=0.05)


def test_a_short_run_warms_up_for_a_tenth() -> None:
    _, sized = size("cerebras-gpt/small", 1e14)
    assert sized.timeline.length < 4 * WARMUP_TOKENS
    assert sized.timeline.warmup_steps == pytest.approx(sized.timeline.steps / 10, rel=0.02)


def test_phases_keep_their_shares_and_equal_steps() -> None:
    _, sized = size("btlm/paper", 1e19)
    short, long = sized.timeline.phases
    assert (short.context_length, long.context_length) == (2048, 8192)
    assert short.stretches[0].step_length == long.stretches[0].step_length
    assert short.length / sized.timeline.length == pytest.approx(0.75, abs=0.002)
    end = sized.timeline.next_step(sized.timeline.length - long.stretches[0].step_length)
    assert end is not None and end.learning_rate == pytest.approx(0.00845 * 1.2e-2)


def test_key_heads_own_head_widths_and_staircases() -> None:
    overrides = [
        "choose.size=13B",
        "model.n_kv_heads=10",
        "model.head_dim=64",
        "model.feed_forward=swiglu",
    ]
    before = plan("cerebras-gpt/paper", *overrides)
    assert before.recipe.model.n_heads * 64 * 2 == before.recipe.model.d_model
    _, sized = size("cerebras-gpt/paper", 1e20, *overrides)
    model = sized.recipe.model
    assert model.n_heads == 4 * model.kv_heads and model.head_width == 64
    assert model.d_model == 2 * 64 * model.n_heads
    assert len(sized.timeline.phases[0].stretches) == 1, "one batch in place of the stairs"


SCHEDULES = """\
parametrization: {learning_rate: 0.5}
schedule:
  learning_rate: 1.0
  weight_decay: [{from: 1, to: 0.5, over: 100 steps}, {shape: hold, over: rest}]
phases:
  - name: first
    length: 200 steps
    batch: {tokens: 256}
    learning_rate:
      - {to: 1e-5, over: 20 steps}
      - {shape: inverse_sqrt, over: 80 steps}
      - {to: 1e-6, over: rest, shape: cosine}
  - name: second
    length: 100 steps
    batch: {sequences: 4}
    optimizer_state: fresh
    learning_rate: [{to: 2e-5, over: 10 steps}, {to: 2e-5, over: 40 steps, shape: hold},
      {to: 0, over: rest}]
"""


def test_schedules_keep_their_curves(plan_text: PlanText, tmp_path: Path) -> None:
    before = plan_text(SCHEDULES)
    sizing = size_recipe(before, split_by_rule(1e12, 20))
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), list(sizing.overrides)).recipe
    sized = plan_recipe(recipe)
    first, second = sized.timeline.phases
    warmup = sized.timeline.warmup_steps * first.stretches[0].step_length
    assert warmup == pytest.approx(first.length / 10, rel=0.02)
    assert first.learning_rate.at(warmup) == 1e-5
    knee = warmup + (first.length - warmup) * 80 // 180
    assert first.learning_rate.at(knee) == pytest.approx(1e-5 * math.sqrt(warmup / knee), rel=1e-3)
    assert first.learning_rate.at(first.length) == pytest.approx(1e-6)
    for share in (0.05, 0.1, 0.3, 0.5, 0.75, 1.0):
        old, new = before.timeline.phases[1], second
        expected = old.learning_rate.at(old.start_position + round(share * old.length))
        found = new.learning_rate.at(new.start_position + round(share * new.length))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-9)
    for share in (0.1, 0.3, 0.9):
        decays = [
            item.timeline.phases[0].weight_decay.at(round(share * item.timeline.length))
            for item in (before, sized)
        ]
        assert decays[1] == pytest.approx(decays[0], rel=1e-2)


def test_what_belongs_to_one_depth_is_dropped() -> None:
    sizing, sized = size("cerebras-gpt/paper", 1e19)
    assert "parametrization.block_output_init_std=null" in sizing.overrides
    output = sized.table.entry("blocks.0.attention.output.weight").init_std
    assert output == pytest.approx(0.02 / math.sqrt(2 * sized.shapes.n_layers))
    assert not any("parametrization" in item for item in size("quickstart", 1e17)[0].overrides)


@pytest.mark.parametrize("name", RECIPES)
def test_the_least_budget_is_named_and_enough(name: str) -> None:
    with pytest.raises(UserError, match="too few for the smallest legal shape") as caught:
        size(name, 1e6)
    model = plan(name).recipe.model
    assert f"one layer of d_model {model.head_width}" in caught.value.what
    least = float((caught.value.allowed or "").removeprefix("at least ").split()[0])
    _, sized = size(name, least)
    assert sized.recipe.model.n_heads == sized.recipe.model.n_layers == 1
    with pytest.raises(UserError, match="too few"):
        size(name, 0.99 * least)


def test_the_least_budget_of_a_law_too() -> None:
    law = parametric_law("chinchilla")
    before = plan("quickstart")
    with pytest.raises(UserError, match="too few") as caught:
        size_recipe(before, split_by_law(1e9, law))
    least = float((caught.value.allowed or "").removeprefix("at least ").split()[0])
    assert size_recipe(before, split_by_law(least, law)).overrides[0] == "model.n_layers=1"


@pytest.mark.parametrize("budget", [0.0, -1e18, float("nan"), float("inf")])
def test_a_budget_is_above_0(budget: float) -> None:
    for split in (split_by_rule, split_by_law):
        second = 20.0 if split is split_by_rule else parametric_law("chinchilla")
        with pytest.raises(UserError, match="--budget: must be above 0"):
            split(budget, second)  # type: ignore[operator]


@pytest.mark.parametrize("ratio", [0.0, -20.0, float("nan"), float("inf")])
def test_a_ratio_is_above_0(ratio: float) -> None:
    with pytest.raises(UserError, match="--tokens-per-parameter: must be above 0"):
        split_by_rule(1e18, ratio)


def test_a_schedule_beyond_its_phase_cannot_be_scaled(plan_text: PlanText) -> None:
    text = """\
phases:
  - name: a
    length: 100 steps
    batch: {sequences: 4}
    learning_rate: {segments: [{to: 1, over: 300 steps}], extends_beyond_phase: true}
"""
    with pytest.raises(UserError, match=r"phases\.0\.learning_rate: this schedule extends"):
        size_recipe(plan_text(text), split_by_rule(1e12, 20))


def test_what_a_size_leaves_in_doubt() -> None:
    plain, mup = (
        plan("cerebras-gpt/paper"),
        plan("cerebras-gpt/paper", "choose.parametrization=mup"),
    )
    [warning] = sizing_warnings(plain, None)
    assert warning.startswith("sizing: sp does not carry the learning rate 0.0006")
    assert sizing_warnings(mup, None) == []
    law = law_named("chinchilla-refit")
    assert isinstance(law, ParametricLaw)
    [warning] = sizing_warnings(mup, law)
    assert "unverified constants" in warning and "MassiveText" in warning
