"""Cerebras-GPT's claims: the paper's own points, and made-up families that bear them out or not."""

from typing import Any

import pytest

from feldspar.papers.cerebras_gpt import widths
from feldspar.papers.cerebras_gpt.experiment import (
    CONVENTION,
    PAPER,
    PARAMETRIZATION,
    RATE,
    SIZE,
    family_trials,
    mup_points_claim,
    paper_trials,
    plan_of,
    projection_claim,
    rate_trials,
    scatter_claim,
    sizes,
    stages,
)
from feldspar.papers.cerebras_gpt.widths import WIDTH
from feldspar.papers.kit.claims import Claim, Verdict
from feldspar.papers.kit.paper import Results, Scale, values_of
from feldspar.plan.flops import training_flops
from tests.papers.conftest import finished, judged_by, stated

SCATTER = dict(zip(sizes(Scale.SMALL), (0.002, -0.003, 0.001, 0.002, -0.002, 0.001), strict=True))


def law(values: dict[str, Any], best: dict[str, float], gap: float = 0.0) -> float:
    """A loss on a power law of FLOPs, scattered, times a parabola in the rate."""
    if WIDTH in values:
        return law_of_width(values, gap)
    size, name = values[SIZE], values[PARAMETRIZATION]
    plan = plan_of(size, Scale.SMALL)
    flops = training_flops(plan.recipe.model, plan.shapes, plan.timeline)[CONVENTION]
    loss = 3.0 * (flops / 1e12) ** -0.04 * (1 + SCATTER[size])
    off = values[RATE] / best[size if name == "sp" else "mup"] - 1
    return loss * (1 + 0.01 * off**2) * (1 + (gap if name == "mup" else 0.0))


def law_of_width(values: dict[str, Any], gap: float) -> float:
    """The same law over widths; SP is best at the middle of the rates that are tried."""
    width = values[WIDTH]
    plan = widths.plan_of(width)
    best = widths.rates(width if values[PARAMETRIZATION] == "sp" else "w32")[1]
    loss = 3.0 * (plan.flops()[CONVENTION] / 1e12) ** -0.04 * (1 + 1e-4 * values["seed"])
    return (
        loss
        * (1 + 0.01 * (values[RATE] / best - 1) ** 2)
        * (1 + (gap if values[PARAMETRIZATION] == "mup" else 0.0))
    )


FALLING = dict.fromkeys(SCATTER, 2.0 ** (-6)) | {"373k": 2.0**-7, "mup": 2.0**-6}


def run(rule: Any, scale: Scale = Scale.SMALL) -> tuple[Results, dict[str, Claim]]:
    """All stages in order, each given what came before, and the claims."""
    results: dict[str, Any] = {}
    for stage in stages(scale):
        results[stage.name] = finished(stage.trials(results), rule)
    return results, {claim.name: claim for claim in judged_by(PAPER, results, scale).claims}


def test_the_papers_own_points() -> None:
    judges = (scatter_claim, projection_claim, mup_points_claim)
    scatter, projection, mup = (judge(stated(PAPER)) for judge in judges)
    assert scatter.ours.startswith("0.661%") and scatter.verdict is Verdict.REPRODUCED
    assert "1.5701 against 1.572 (-0.12 %)" in projection.ours and "+1.6" in projection.ours
    assert projection.verdict is Verdict.REPRODUCED
    assert mup.ours.startswith("-0.43 % (+- 0.22%)") and mup.verdict is Verdict.REPRODUCED


def test_a_family_on_a_law_bears_the_claims_out() -> None:
    results, found = run(lambda values: law(values, FALLING, gap=-0.01))
    assert found["law-predicts-the-largest"].verdict is Verdict.MECHANISM_SHOWN
    assert found["mup-below-the-law-of-sp"].verdict is Verdict.MECHANISM_SHOWN
    assert found["mup-below-the-law-of-sp"].ours.startswith("-1.0")
    assert found["rate-stays-mup"].borne_out and found["rate-falls-sp"].borne_out
    assert found["downstream"].verdict is Verdict.NEEDS_SCALE
    rates = {values_of(item.trial)[RATE] for item in results["family"]}
    assert rates == {2.0**-6}, "muP keeps the proxy's rate; the second seeds are of chosen rates"
    own = [values_of(item.trial) for item in results["widths"]]
    assert len(own) == 7 * 2 * 5 and {values["seed"] for values in own} == set(range(5))
    assert {values[RATE] for values in own if values[PARAMETRIZATION] == "mup"} == {2.0**-6}
    sp = {values[WIDTH]: values[RATE] for values in own if values[PARAMETRIZATION] == "sp"}
    assert (sp["w32"], sp["w64"], sp["w256"]) == (2.0**-6, 2.0**-7, 2.0**-9)


def test_a_family_off_its_law_is_told() -> None:
    def rule(values: dict[str, Any]) -> float:
        return law(values, FALLING) * (1.1 if values.get(SIZE) == "373k" else 1.0)

    _, found = run(rule)
    largest = found["law-predicts-the-largest"]
    assert largest.verdict is Verdict.NOT_BORNE_OUT and "(-9." in largest.ours
    assert "outside the prediction interval" in largest.ours
    assert "H100 hours" in largest.cost


def test_the_width_of_the_interval_does_not_decide() -> None:
    """It grows with noise, so that a noisier family would pass more easily."""

    def rule(values: dict[str, Any]) -> float:
        return law(values, FALLING) * (1.025 if values.get(SIZE) == "373k" else 1.0)

    _, found = run(rule)
    largest = found["law-predicts-the-largest"]
    assert "outside the prediction interval" in largest.ours and largest.borne_out
    assert "(-2." in largest.ours


def test_losses_that_do_not_fall_give_no_law_and_no_claim() -> None:
    _, found = run(lambda values: 2.0)
    for name in ("law-predicts-the-largest", "mup-below-the-law-of-sp"):
        assert found[name].borne_out is False and "do not fall" in found[name].ours


def test_a_mup_that_is_worse_or_only_as_good_is_not_claimed_better() -> None:
    for gap in (0.02, 0.0):
        _, found = run(lambda values, gap=gap: law(values, FALLING, gap=gap))
        assert found["mup-below-the-law-of-sp"].verdict is Verdict.NOT_BORNE_OUT


def test_a_mup_gain_that_the_sizes_do_not_agree_on_is_not_claimed() -> None:
    def rule(values: dict[str, Any]) -> float:
        uneven = -0.08 if values.get(WIDTH) == "w32" else 0.005
        return law(values, FALLING, gap=uneven)

    _, found = run(rule)
    claim = found["mup-below-the-law-of-sp"]
    assert claim.ours.startswith("-0.") and claim.verdict is Verdict.NOT_BORNE_OUT


def test_a_mup_rate_that_moves_is_told() -> None:
    def rule(values: dict[str, Any]) -> float:
        moved = FALLING | {"mup": 2.0**-8 if values.get(SIZE) == "125k" else 2.0**-5}
        return law(values, moved)

    _, found = run(rule)
    assert found["rate-stays-mup"].borne_out is False
    assert "-3 octaves at 124,736 (edge of the grid)" in found["rate-stays-mup"].ours


def test_no_run_is_planned_twice_and_the_dry_run_counts_the_same() -> None:
    results = {"rates": finished(rate_trials(Scale.SMALL), lambda values: law(values, FALLING))}
    planned, real = family_trials({}, Scale.SMALL), family_trials(results, Scale.SMALL)
    assert [values_of(t)[SIZE] for t in planned] == [values_of(t)[SIZE] for t in real]
    names = [trial.name for trial in (*rate_trials(Scale.SMALL), *real)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("scale", [Scale.SMALL, Scale.QUICK])
def test_the_family_can_carry_a_law(scale: Scale) -> None:
    plans = [plan_of(size, scale) for size in sizes(scale)]
    assert len(plans) >= 5
    per_parameter = 20 if scale is Scale.SMALL else 2
    for plan in plans:
        tokens = plan.timeline.length / plan.shapes.parameters
        assert tokens == pytest.approx(per_parameter, rel=0.02)


def test_the_papers_scale_has_its_twelve_models() -> None:
    assert len(paper_trials()) == 12
    results = {
        "family": finished(
            paper_trials(), lambda values: 3.0 - 0.1 * sizes(Scale.PAPER).index(values[SIZE])
        )
    }
    names = {claim.name for claim in judged_by(PAPER, results, Scale.PAPER).claims}
    assert "law-predicts-the-largest" in names and "rate-stays-mup" not in names
