"""BTLM's claims on made-up curves, ladders and records: each of them can fail."""

import math
from typing import Any

import numpy as np
import pytest

from feldspar.model.rows import model_shapes
from feldspar.papers.btlm.contexts import (
    ARMS,
    BANDS,
    BEYOND,
    CONTEXTS,
    LONG_TOKENS,
    MEASURED_TOKENS,
    SHORT,
    TWO_PHASE,
    WITHIN,
    band_name,
    beyond_training_claim,
    binned,
    context_trials,
    long_context_claim,
    recall_table,
    switch_claim,
)
from feldspar.papers.btlm.experiment import PAPER, stages
from feldspar.papers.btlm.inference import LLAMA_7B, inference_claims
from feldspar.papers.btlm.ladder import ARMS as LADDER
from feldspar.papers.btlm.ladder import (
    BITS,
    FEED_FORWARD,
    LADDER_RECIPE,
    LADDER_STAGE,
    RATES,
    RATES_STAGE,
    SEEDS,
    TUNING_SEED,
    ladder_claims,
    ladder_section,
    ladder_trials,
    rate_trials,
)
from feldspar.papers.btlm.phase_switch import Switch, switch_of
from feldspar.papers.kit.claims import UNRECORDED, Verdict
from feldspar.papers.kit.experiment import Again
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import Scale, by_name, values_of
from feldspar.papers.kit.tuned_rates import RATE, scores_by_rate
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import ModelSettings
from tests.papers.conftest import finished, stated

CLAIMS = stated(PAPER)
NOISE = 0.005


def recalled(two_phase: float, within: float = 0.97) -> dict[str, dict[str, list[float]]]:
    """Shares of three seeds: the short context alone recalls a tenth beyond its length."""
    found = {}
    for name, beyond in ((TWO_PHASE, two_phase), (SHORT, 0.1)):
        bands = dict.fromkeys((BEYOND, *map(band_name, BANDS)), beyond)
        shares = {WITHIN: within} | bands
        found[name] = {key: [own, own + 0.001, own + 0.002] for key, own in shares.items()}
    return found


def test_a_second_phase_that_helps_is_recognised() -> None:
    gained = long_context_claim(recalled(0.6), CLAIMS)
    assert gained.verdict is Verdict.MECHANISM_SHOWN
    assert "60.1% after two phases, 10.1% after the short context alone: 50.00% more" in gained.ours
    rows = {row[0]: row[1:] for row in recall_table(recalled(0.6)).rows}
    assert rows["128, then 512"] == ["60.1%"] * len(BANDS)


@pytest.mark.parametrize(
    ("recall", "reading"),
    [
        (recalled(0.14), "ALiBi carries"),
        (recalled(0.05), "ALiBi carries"),
        (recalled(0.6, within=0.9), "not learnt to recall"),
    ],
    ids=["too little", "less", "a model that does not recall"],
)
def test_a_second_phase_that_does_not_help_is_not_claimed(
    recall: dict[str, dict[str, list[float]]], reading: str
) -> None:
    found = long_context_claim(recall, CLAIMS)
    assert found.verdict is Verdict.NOT_BORNE_OUT and reading in found.reason


@pytest.mark.parametrize(("beyond", "held"), [(2.01, True), (2.2, False)])
def test_loss_beyond_the_second_context_may_rise_a_little(beyond: float, held: bool) -> None:
    curve = np.full(MEASURED_TOKENS, 2.0)
    curve[LONG_TOKENS:] = beyond
    curves = {name: [binned(curve + 0.001 * seed).tolist() for seed in range(3)] for name in ARMS}
    found = beyond_training_claim(curves, CLAIMS)
    assert found.borne_out is held and f"{beyond + 0.001:.4f}" in found.ours


def test_a_gain_has_to_exceed_the_noise() -> None:
    assert Gain.of([1.98, 1.98], [2.0, 2.0]).exceeds(NOISE)
    assert not Gain.of([1.995, 1.995], [2.0, 2.0]).exceeds(NOISE), "less than half a percent"
    assert not Gain.of([1.9, 2.06, 1.94], [2.0, 2.0, 2.0]).exceeds(NOISE), "the seeds do not agree"
    three = Gain.of([1.94, 1.96, 1.98], [2.0, 2.0, 2.0])
    assert three.mean > 2 * 0.00577 and not three.exceeds(NOISE), (
        "two errors of three seeds are too few"
    )
    assert not Gain.of([2.1], [2.0]).exceeds(NOISE)
    assert not Gain.of([float("inf")], [2.0]).exceeds(NOISE)
    assert str(Gain.of([float("inf")], [2.0])) == "a run diverged"
    assert str(Gain.of([1.9], [2.0])) == "5.00% (one seed)"
    two = Gain.of([1.9, 1.8], [2.0, 2.0])
    assert two.mean == pytest.approx(0.075) and two.half_width == pytest.approx(12.7062 * 0.025)


def test_a_noisier_experiment_does_not_pass_more_easily() -> None:
    for spread in (0.0, 0.001, 0.002, 0.01, 0.1):
        own = Gain((-0.004 - spread, -0.004, -0.004 + spread))
        assert own.is_at_least(-0.005) == (spread == 0.0) and not own.exceeds(NOISE)


def ladder_figures(**bits: list[float]) -> dict[str, Any]:
    """Bits of two seeds, 2.0 and 2.01 where an arm has no own, of rates and of no model."""
    rates = [[RATES[0], 2.1], [RATES[1], 2.0], [RATES[2], 2.3]]
    return {
        LADDER_STAGE: {
            BITS: {name: bits.get(name, [2.0, 2.01]) for name in LADDER},
            "rates": {"gelu": rates, "swiglu": rates},
            "baselines": {"trigram": 2.5, "xz": 2.4},
        }
    }


def test_the_ladder_judges_each_change_by_itself() -> None:
    figures = ladder_figures(alibi=[1.9, 1.91], decay=[2.2, 2.21], all=[1.8, 1.81])
    found = {claim.name: claim for claim in ladder_claims(figures, CLAIMS)}
    verdicts = {name: claim.borne_out for name, claim in found.items()}
    assert verdicts == {
        "change-swiglu": False,
        "change-alibi": True,
        "change-decay": False,
        "change-all": True,
    }
    assert found["change-decay"].ours.startswith("9.98% higher")
    assert "2.2050 against 2.0050 bits per byte (a true difference of" in found["change-decay"].ours
    assert found["change-decay"].reason == "The loss is not lower at all at this size."
    assert found["change-all"].ours.endswith(
        "5.25% lower (+- 0.18% over 2 seeds) than with alibi alone"
    )


def test_the_ladder_shows_arms_baselines_and_the_chosen_rates() -> None:
    arms, rates = ladder_section(ladder_figures(alibi=[1.9, 1.91])).tables
    rows = {row[0]: row[1:] for row in arms.rows}
    assert rows["base"] == ["2.0050", "0.35%", ""] and rows["alibi"][2].startswith("4.99%")
    assert rows["trigram"] == ["2.5000", "", ""]
    assert rates.rows == [[name, "2.1000", "2.0000 *", "2.3000"] for name in ("gelu", "swiglu")]


def test_an_earlier_ladders_record_gives_no_verdict_on_its_changes() -> None:
    found = ladder_claims({"ladder": {"base": [2.5], "all": [2.2]}}, CLAIMS)
    assert {claim.ours for claim in found} == {UNRECORDED}
    assert {claim.verdict for claim in found} == {Verdict.NO_VERDICT}


def records(jump: float = 0.0, tokens_after: int = 8) -> list[dict[str, Any]]:
    """Thirty steps on a falling line, the last ten in another phase."""
    found, tokens = [], 0
    for step in range(1, 31):
        late = step > 20
        tokens += tokens_after if late else 8
        found.append(
            {
                "step": step,
                "tokens": tokens,
                "phase": "long" if late else "short",
                "learning_rate": 1.0 - 0.01 * step + (jump if late else 0.0),
                "train/loss": 2.0 - 0.01 * step,
                "gradient_norm": 0.5,
            }
        )
    return found


def test_a_switch_on_one_line_is_continuous() -> None:
    switch = switch_of(records(), updates=30)
    assert switch.is_continuous(1e-6) and switch.step == 20
    assert switch.learning_rates == pytest.approx((0.8, 0.79))
    assert switch.losses == pytest.approx((1.895, 1.745))
    assert switch_claim([switch], CLAIMS).verdict is Verdict.MECHANISM_SHOWN
    at_scale = stated(PAPER, at_paper_scale=True)
    assert switch_claim([switch], at_scale).verdict is Verdict.REPRODUCED


@pytest.mark.parametrize(
    "switch",
    [
        switch_of(records(jump=0.01), updates=30),
        switch_of(records(tokens_after=16), updates=30),
        switch_of(records(), updates=10),
    ],
    ids=["a jump of the rate", "other tokens a step", "an optimizer that started anew"],
)
def test_a_break_at_the_switch_is_found(switch: Switch) -> None:
    good = switch_of(records(), updates=30)
    found = switch_claim([good, switch], CLAIMS)
    assert found.verdict is Verdict.NOT_BORNE_OUT and found.borne_out is False


def test_every_arm_has_the_same_tokens_and_nearly_the_same_parameters() -> None:
    plans = [
        plan_recipe(load_recipe(LADDER_RECIPE, list(trial.overrides)).recipe)
        for trial in ladder_trials({}, Scale.SMALL)[:: len(SEEDS[Scale.SMALL])]
    ]
    assert len({plan.timeline.length for plan in plans}) == 1
    assert all(70 < plan.timeline.length / plan.shapes.parameters < 76 for plan in plans)
    base, swiglu, _, decay, _ = (plan.shapes.parameters for plan in plans)
    assert swiglu == pytest.approx(base, rel=2e-3) and decay == base


def test_both_contexts_have_the_same_tokens() -> None:
    two, short = (
        plan_recipe(load_recipe(CONTEXTS, list(trial.overrides)).recipe).timeline
        for trial in context_trials(Scale.SMALL)[::5]
    )
    assert two.length == short.length and two.steps == short.steps
    assert [phase.steps / two.steps for phase in two.phases] == [0.75, 0.25]


def test_each_feed_forward_layer_has_the_rate_that_its_own_runs_found_best() -> None:
    best = {"gelu": RATES[0], "swiglu": RATES[2]}
    tuning = finished(
        rate_trials(Scale.SMALL),
        lambda values: abs(math.log2(values[RATE] / best[values[FEED_FORWARD]])),
    )
    assert {values_of(run.trial)["seed"] for run in tuning} == {TUNING_SEED}
    assert TUNING_SEED not in SEEDS[Scale.SMALL]
    assert {name: len(own) for name, own in scores_by_rate(tuning, FEED_FORWARD).items()} == {
        "gelu": 3,
        "swiglu": 3,
    }
    for trial in ladder_trials({RATES_STAGE: tuning}, Scale.SMALL):
        values = values_of(trial)
        assert values[RATE] == best[values[FEED_FORWARD]]


def test_the_ladder_runs_apart_from_the_contexts_with_the_rates_it_needs() -> None:
    runs = Again((LADDER_STAGE,), {}).runs(PAPER, Scale.SMALL)
    assert [stage.name for stage in runs] == [RATES_STAGE, LADDER_STAGE]
    assert [stage.name for stage in Again(("contexts",), {}).runs(PAPER, Scale.SMALL)] == [
        "contexts"
    ]
    assert [stage.name for stage in stages(Scale.PAPER)] == ["contexts"]


def test_results_are_taken_apart_as_they_were_put_together() -> None:
    trials = ladder_trials({}, Scale.SMALL)
    results = finished(trials, lambda values: float(values["seed"]))
    arms = by_name(results, tuple(LADDER))
    assert {name: [run.score for run in runs] for name, runs in arms.items()} == {
        name: [1.0, 2.0, 3.0, 4.0, 5.0] for name in LADDER
    }
    for name, runs in arms.items():
        assert LADDER[name].items() <= values_of(runs[0].trial).items()


def test_generating_text_is_counted_on_shapes() -> None:
    memory, compute = inference_claims(CLAIMS)
    assert memory.borne_out and memory.verdict is Verdict.REPRODUCED
    assert compute.borne_out and compute.verdict is Verdict.REPRODUCED
    # By the models' parameters alone, 2 FLOPs each; BTLM's head is its token table.
    by_hand = (6_738_415_616 - 32_000 * 4096) / 2_646_255_744
    assert f"{by_hand:.2f} times" in compute.ours


def test_llama_7b_has_the_parameters_of_its_release() -> None:
    assert model_shapes(ModelSettings(**LLAMA_7B)).parameters == 6_738_415_616
