"""Published laws: the paper's numbers, and what a law refuses."""

import math

import numpy as np
import pytest

from feldspar.core.errors import UserError
from feldspar.plan.flops import training_flops
from feldspar.plan.laws.law import (
    CEREBRAS_GPT_MUP_POINTS,
    CEREBRAS_GPT_POINTS,
    COMPUTE_LAWS,
    PARAMETRIC_LAWS,
    Basis,
    compute_law,
    parametric_law,
)
from feldspar.plan.laws.law_basis import planned_flops, recipe_basis
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe

LAW = compute_law("cerebras-gpt")
PAPER = LAW.basis


def test_the_law_of_cerebras_gpt_at_its_own_sizes() -> None:
    losses = [LAW.loss(point.flops, PAPER) for point in CEREBRAS_GPT_POINTS]
    published = [2.6030, 2.3685, 2.1680, 1.9915, 1.8491, 1.6871, 1.5796]
    assert losses == pytest.approx(published, abs=5e-5)
    ratios = [loss / point.loss for loss, point in zip(losses, CEREBRAS_GPT_POINTS, strict=True)]
    assert 100 * np.std(ratios) == pytest.approx(0.661, abs=5e-4)
    assert LAW.relative_std == pytest.approx(np.std(ratios), abs=1e-4)


def test_mup_lies_below_the_law() -> None:
    errors = [
        100 * (point.loss / LAW.loss(point.flops, PAPER) - 1) for point in CEREBRAS_GPT_MUP_POINTS
    ]
    assert errors == pytest.approx([-0.58, -0.40, -0.60, -0.38, -0.17], abs=5e-3)
    assert np.mean(errors) == pytest.approx(-0.426, abs=5e-4)


def test_flops_of_another_convention_mislead_and_are_refused() -> None:
    sizes = ("111M", "256M", "590M", "1.3B", "2.7B", "6.7B", "13B")
    errors = []
    for size, point in zip(sizes, CEREBRAS_GPT_POINTS, strict=True):
        plan = plan_recipe(load_recipe("cerebras-gpt/paper", [f"choose.size={size}"]).recipe)
        flops = training_flops(plan.recipe.model, plan.shapes, plan.timeline)["6P"]
        errors.append(100 * (LAW.curve.loss(flops) / point.loss - 1))
        with pytest.raises(UserError, match="holds for another FLOPs convention") as caught:
            LAW.loss(flops, Basis("6P", PAPER.data_set, PAPER.tokenizer))
        assert caught.value.found == "6P"
    assert errors == pytest.approx([3.2, 3.8, 1.6, 1.4, 2.3, -0.1, 1.2], abs=0.05)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Basis("cerebras-gpt", "C4", "gpt2"), "data set"),
        (Basis("cerebras-gpt", "the Pile, test", "llama"), "tokenizer"),
        (Basis("cerebras-gpt", "the Pile, test", "gpt2", "bits per byte"), "loss unit"),
        (Basis("detailed", "C4", "gpt2"), "FLOPs convention and data set"),
    ],
)
def test_a_law_refuses_any_other_basis(other: Basis, named: str) -> None:
    for ask in (LAW.loss, LAW.interval):
        with pytest.raises(UserError, match=f"holds for another {named}\n"):
            ask(1e20, other)


def test_the_interval_of_a_law_is_the_scatter_of_its_runs() -> None:
    low, high = LAW.interval(1e21, PAPER)
    loss = LAW.loss(1e21, PAPER)
    assert math.log(high / loss) == pytest.approx(1.96 * 0.0066, rel=1e-3)
    assert low * high == pytest.approx(loss**2)
    assert LAW.extrapolation(2.3e23) == pytest.approx(10)
    inside = [
        low <= point.loss <= high
        for point in CEREBRAS_GPT_POINTS
        for low, high in [LAW.interval(point.flops, PAPER)]
    ]
    assert all(inside)


@pytest.mark.parametrize("flops", [0.0, -1e18, math.nan, math.inf])
def test_a_law_has_no_value_without_flops(flops: float) -> None:
    with pytest.raises(UserError, match=r"^flops: "):
        LAW.loss(flops, PAPER)
    with pytest.raises(UserError, match=r"^flops: "):
        parametric_law("chinchilla").optimum(flops)


@pytest.mark.parametrize(
    ("name", "parameters", "tokens", "loss"),
    [
        ("chinchilla-refit", 2.7785e9, 5.9985e10, 2.3055),
        ("chinchilla", 1.8242e9, 50.1 * 1.8242e9, None),
    ],
)
def test_the_optimum_of_a_parametric_law(
    name: str, parameters: float, tokens: float, loss: float | None
) -> None:
    law = parametric_law(name)
    best = law.optimum(1e21)
    assert best.parameters == pytest.approx(parameters, rel=5e-5)
    assert best.tokens == pytest.approx(tokens, rel=5e-4)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e21)
    if loss is not None:
        assert best.loss == pytest.approx(loss, abs=5e-5)
    for factor in (0.98, 1.02):
        moved = law.loss(best.parameters * factor, best.tokens / factor)
        assert moved > best.loss


def test_constants_from_memory_are_marked() -> None:
    assert all(not law.verified for law in PARAMETRIC_LAWS.values())
    assert all("from memory" in law.source for law in PARAMETRIC_LAWS.values())
    with pytest.raises(UserError, match="must be positive"):
        parametric_law("chinchilla").loss(0, 1e9)


def test_unknown_laws_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'cerebras-gpt'"):
        compute_law("cerebras_gpt")
    with pytest.raises(UserError, match="did you mean 'chinchilla'"):
        parametric_law("chinchila")
    assert {*COMPUTE_LAWS} == {"cerebras-gpt"}


def test_the_basis_of_a_recipe_is_what_its_loss_depends_on() -> None:
    def basis(*overrides: str, metric: str = "validation/loss", shards: str = "1f") -> Basis:
        recipe = load_recipe("quickstart", list(overrides)).recipe
        return recipe_basis(recipe, "6P", metric, shards=shards, tokenizer="2e")

    assert basis("model.d_model=192", "seed=5", "phases.0.length=8 steps") == basis()
    others = [
        basis("evaluation.holdout=[shakespeare]"),
        basis("phases.0.context_length=64"),
        basis("phases.0.mixture={shakespeare: 1.0}"),
        basis(shards="3d"),
        basis(metric="validation/bits_per_byte"),
    ]
    assert len({basis(), *others}) == 6
    assert others[-1].loss_unit == "bits per byte"


def test_flops_of_an_unknown_convention_are_refused() -> None:
    plan = plan_recipe(load_recipe("quickstart", ["model.vocab_size=4096"]).recipe)
    assert planned_flops(plan, "6P") == 6 * plan.shapes.parameters * plan.timeline.length
    with pytest.raises(UserError, match="not counted by '6N'"):
        planned_flops(plan, "6N")
