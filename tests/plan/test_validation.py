"""The size of validations: 5 % of the training at most, unless the recipe says a number."""

import pytest

from feldspar.plan.summary import Plan, plan_recipe
from feldspar.plan.validation import LARGEST_SHARE, MOST_SEQUENCES
from feldspar.recipe.load import load_recipe
from feldspar.recipe.shipped import shipped_names
from tests.plan.conftest import PlanText

SHORT = """
phases:
  - {name: all, length: 40 steps, batch: {sequences: 4}, mixture: {prose: 0.5, code: 0.5}}
"""
SOURCES = {"prose": 10_000, "code": 10_000}


def forward_share(planned: Plan) -> float:
    """Validation's sequences a source times 2 sources, a third as dear as trained ones."""
    validation = planned.validation
    return validation.times * validation.sequences * 2 / 3 / planned.timeline.phases[0].sequences


def test_a_short_run_is_validated_on_fewer_sequences(plan_text: PlanText) -> None:
    """With 64 sequences of 2 sources, 10 validations would cost 2.7 times as much as 40 steps."""
    planned = plan_text(SHORT, SOURCES)
    assert planned.validation.times == 10
    # 10 x 2 x n / 3 is at most 5 % of 160.
    assert planned.validation.sequences == 1
    assert planned.validation.share == pytest.approx(forward_share(planned))
    assert planned.validation.share is not None and planned.validation.share <= LARGEST_SHARE
    assert planned.summary()["validation"]["sequences"] == 1


def test_a_recipe_that_says_a_number_gets_it(plan_text: PlanText) -> None:
    planned = plan_text(SHORT + "evaluation: {validation_sequences: 64}", SOURCES)
    assert planned.validation.sequences == 64
    assert planned.validation.share == pytest.approx(10 * 64 * 2 / 3 / 160)


def test_a_long_run_is_validated_on_the_usual_number(plan_text: PlanText) -> None:
    planned = plan_text(SHORT.replace("40 steps", "4000 steps"), SOURCES)
    assert planned.validation.sequences == MOST_SEQUENCES


def test_there_is_one_sequence_whatever_it_costs(plan_text: PlanText) -> None:
    planned = plan_text(SHORT.replace("40 steps", "2 steps"), SOURCES)
    assert planned.validation.sequences == 1 and planned.validation.times == 2
    assert planned.validation.share == pytest.approx(2 * 2 / 3 / 8)


def test_named_sources_and_each_phase_count(plan_text: PlanText) -> None:
    text = """
evaluation: {every: 10 steps, holdout: [prose]}
phases:
  - {name: short, length: 40 steps, context_length: 16, batch: {sequences: 4}, mixture: natural}
  - {name: long, length: 30 steps, context_length: 64, batch: {sequences: 4}, mixture: natural,
      evaluate_every: 30 steps, optimizer_state: keep}
"""
    validation = plan_text(text, SOURCES).validation
    assert validation.times == 5
    unknown = plan_text(text.replace(", holdout: [prose]", "")).validation
    assert unknown.share is None and unknown.sequences == validation.sequences


@pytest.mark.parametrize("name", shipped_names())
def test_no_shipped_language_recipe_is_cut_short(name: str) -> None:
    """Figures of docs/results were measured with the usual number."""
    loaded = load_recipe(name) if "revbifpn" not in name else None
    if loaded is None:
        return
    wanted = loaded.recipe.evaluation.validation_sequences
    expected = MOST_SEQUENCES if wanted == "auto" else wanted
    assert plan_recipe(loaded.recipe).validation.sequences == expected
