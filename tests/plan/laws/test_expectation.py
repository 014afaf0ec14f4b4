"""Expected loss: the law's own numbers on its own basis, refused on any other."""

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.laws.expectation import expectation_warnings, expected_loss
from feldspar.plan.laws.law import (
    CEREBRAS_GPT_POINTS,
    Basis,
    ComputeLaw,
    PowerLaw,
    compute_law,
    law_named,
)
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe

LAW = compute_law("cerebras-gpt")
ORACLE = (2.6030, 2.3685, 2.1680, 1.9915, 1.8491, 1.6871, 1.5796)
FLOPS = {"6P": 1.48e18, "detailed": 2.396e18}


def paper(*overrides: str) -> Recipe:
    return load_recipe("cerebras-gpt/paper", list(overrides)).recipe


@pytest.mark.parametrize(("point", "loss"), list(zip(CEREBRAS_GPT_POINTS, ORACLE, strict=True)))
def test_the_law_of_cerebras_gpt(point: tuple[float, float], loss: float) -> None:
    expected = expected_loss(paper(), FLOPS, LAW, point[0])
    assert expected["loss"] == pytest.approx(loss, abs=5e-5)
    low, high = expected["interval"]
    assert low < loss < high and high / low == pytest.approx(1.0262, abs=2e-4)
    assert low < point[1] < high, "the paper's own model lies inside"
    assert (expected["unit"], expected["data_set"]) == ("nats per token", "the Pile, test")
    assert expected["flops"] == point[0] and expected["convention"] == "cerebras-gpt"


def test_none_of_the_plans_conventions_is_the_papers() -> None:
    with pytest.raises(UserError, match="--law: cerebras-gpt uses its paper's own") as caught:
        expected_loss(paper(), FLOPS, LAW)
    assert "--law-flops" in (caught.value.do or "") and "1.48e+18 by 6P" in (
        caught.value.found or ""
    )


def test_another_data_set_or_tokenizer_is_refused() -> None:
    recipe = load_recipe("btlm/paper").recipe
    with pytest.raises(UserError, match="another data set") as caught:
        expected_loss(recipe, FLOPS, LAW, 2.6e18)
    assert caught.value.found == "slimpajama"
    with pytest.raises(UserError, match="another data set and tokenizer"):
        expected_loss(load_recipe("quickstart").recipe, FLOPS, LAW, 2.6e18)
    with pytest.raises(UserError, match="another data set and tokenizer"):
        expected_loss(load_recipe("cerebras-gpt/small").recipe, FLOPS, LAW, 2.6e18)
    other = paper("tokenizer={type: huggingface, path: other, vocab_size: 50257}")
    with pytest.raises(UserError, match="another tokenizer"):
        expected_loss(other, FLOPS, LAW, 2.6e18)


@pytest.mark.parametrize("flops", [0.0, -1.0, float("nan")])
def test_flops_are_above_0(flops: float) -> None:
    with pytest.raises(UserError, match="above 0"):
        expected_loss(paper(), FLOPS, LAW, flops)


def test_a_law_of_the_plans_own_convention_needs_nothing_stated() -> None:
    basis = Basis("6P", "the Pile, test", "gpt2")
    law = ComputeLaw("own", PowerLaw(0.1, 1e20), basis, 0.01, (1e17, 1e19), "a test")
    recipe = paper()
    flops = plan_recipe(recipe).summary()["flops"]
    expected = expected_loss(recipe, flops, law)
    assert expected["flops"] == flops["6P"]
    assert expected["loss"] == pytest.approx((flops["6P"] / 1e20) ** -0.1)
    with pytest.raises(UserError, match="--law-flops: own counts FLOPs by 6P"):
        expected_loss(recipe, flops, law, 1e18)


def test_far_from_the_fitted_runs() -> None:
    assert expectation_warnings(LAW, 2.6e18, 20.4) == []
    [far] = expectation_warnings(LAW, 1e24, 20)
    assert "43.5 times away" in far
    [near_nothing] = expectation_warnings(LAW, 1e16, 20)
    assert "260 times away" in near_nothing
    [ratio] = expectation_warnings(LAW, 1e20, 237.2)
    assert "fitted to runs of 20 tokens per parameter, and this one has 237" in ratio


def test_laws_by_name() -> None:
    assert law_named("cerebras-gpt") is LAW
    with pytest.raises(UserError, match="there is no law 'cerebras'; did you mean") as caught:
        law_named("cerebras")
    assert caught.value.allowed == "cerebras-gpt, chinchilla-refit, chinchilla"
