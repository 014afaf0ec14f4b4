"""A steered phase walked at any pace: the same sequences, the same tokens, the same rates."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.plan.summary import Plan, plan_recipe
from feldspar.plan.timeline import Pace, StepPlan, Timeline
from feldspar.recipe.load import load_recipe
from tests.plan.conftest import MODEL, PlanText

STEERED = """\
parametrization: {learning_rate: 1.0}
schedule: {learning_rate: [{to: 1, over: 10% of run}, {to: 0, over: rest}]}
noise_scale: {}
phases:
  - name: steered
    length: 5001 tokens
    context_length: 4
    batch: {type: noise_scale, minimum: 6 sequences, maximum: 48 sequences, quantum: 3 sequences}
  - {name: fixed, length: 100 tokens, context_length: 5, batch: {sequences: 4},
     optimizer_state: keep}
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("steered") / "recipe.yaml"
    path.write_text(f"schema_version: 1\nname: test\nmodel: {MODEL}\n{STEERED}")
    return plan_recipe(load_recipe(str(path)).recipe)


def walk(timeline: Timeline, batches: list[int], quantum: int) -> list[StepPlan]:
    """All steps, the paces of ``batches`` in turn."""
    steps: list[StepPlan] = []
    tokens = 0
    while True:
        pace = Pace(batches[len(steps) % len(batches)], quantum)
        step = timeline.next_step(tokens, pace)
        if step is None:
            return steps
        steps.append(step)
        tokens = step.position_after


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=20))
def test_any_paces_read_each_sequence_once(planned: Plan, quanta: list[int]) -> None:
    timeline = planned.timeline
    steps = walk(timeline, [3 * quantum for quantum in quanta], 3)
    steered = [step for step in steps if step.phase.index == 0]
    reads = [(step.first_sequence, step.first_sequence + step.sequences) for step in steered]
    assert reads[0][0] == 0
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(reads))
    # 5001 tokens are 1250 sequences, 416 quanta of 3 of them.
    assert reads[-1][1] == 1248 and steered[-1].position_after == timeline.phases[0].length == 4992
    assert all(step.sequences % 3 == 0 for step in steered)
    assert timeline.phases[0].fewest_steps <= len(steered) <= timeline.phases[0].steps
    for step in steps:
        assert step.learning_rate == step.phase.learning_rate.at(step.position_after)
    assert len(steps) - len(steered) == 5 and steps[-1].position_after == timeline.length == 5092


def test_another_quantum_leaves_less_than_itself_out(planned: Plan) -> None:
    steps = [s for s in walk(planned.timeline, [20, 40], 20) if s.phase.index == 0]
    assert sum(step.sequences for step in steps) == 1240
    assert all(step.sequences % 20 == 0 for step in steps)
    assert steps[-1].position_after == planned.timeline.phases[0].length


def test_the_plan_gives_the_bounds(planned: Plan) -> None:
    [steered, fixed] = planned.summary()["phases"]
    assert (steered["fewest_steps"], steered["steps"]) == (26, 208)
    assert (steered["sequences"], steered["mean_sequences"]) == ([6, 48], None)
    assert fixed["fewest_steps"] == fixed["steps"] == 5


def test_only_the_first_phase_warms_up(plan_text: PlanText) -> None:
    timeline = plan_text(STEERED).timeline
    assert timeline.phases[0].warmup_length == 509
    assert timeline.phases[1].warmup_length == 0
