"""The timeline: walked step by step it is the run, and its rates are the papers'."""

from decimal import Decimal

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.summary import plan_recipe
from feldspar.plan.timeline import StepPlan, Timeline
from feldspar.recipe.amounts import Amount
from feldspar.recipe.load import load_recipe
from tests.plan.conftest import PlanText

TWO_PHASES = """\
parametrization: {learning_rate: 2.0}
optimizer: {weight_decay: 0.5}
schedule: {learning_rate: [{to: 1, over: 3 steps}, {to: 0, over: rest}]}
phases:
  - {name: short, length: 5 steps, context_length: 4, batch: {sequences: 6}}
  - name: long
    length: 300 tokens
    context_length: 8
    optimizer_state: keep
    weight_decay: [{from: 0.1, to: 0, over: rest}]
    batch:
      type: by_tokens
      levels: [{from: 0 tokens, sequences: 2}, {from: 100 tokens, sequences: 4}]
"""


def steps_of(timeline: Timeline) -> list[StepPlan]:
    """All steps, each asked for at the position where the one before ended."""
    steps = []
    tokens = 0
    while (step := timeline.next_step(tokens)) is not None:
        steps.append(step)
        tokens = step.position_after
    return steps


def test_walking_the_run(plan_text: PlanText) -> None:
    timeline = plan_text(TWO_PHASES).timeline
    steps = steps_of(timeline)
    assert len(steps) == timeline.steps == timeline.fewest_steps
    # 16 tokens a step until 112 >= 100 tokens, then 32: 112 + 5 * 32 = 272 <= 300.
    assert [step.sequences for step in steps] == [6] * 5 + [2] * 7 + [4] * 5
    assert steps[-1].position_after == timeline.length == 5 * 24 + 272
    assert [step.phase.name for step in steps] == ["short"] * 5 + ["long"] * 12
    firsts = [step.first_sequence for step in steps]
    assert firsts[:6] == [0, 6, 12, 18, 24, 0] and firsts[-1] == 7 * 2 + 4 * 4
    assert timeline.next_step(timeline.length) is None
    assert timeline.warmup_steps == 3


def test_rates_are_taken_where_a_step_ends(plan_text: PlanText) -> None:
    timeline = plan_text(TWO_PHASES).timeline
    steps = steps_of(timeline)
    assert [step.learning_rate for step in steps[:3]] == pytest.approx([2 / 3, 4 / 3, 2])
    assert steps[2].learning_rate == 2
    assert steps[-1].learning_rate == 0
    for step in steps[3:]:
        share = (step.position_after - 72) / (timeline.length - 72)
        assert step.learning_rate == pytest.approx(2 * (1 - share))
    assert {step.weight_decay for step in steps[:5]} == {0.5}
    for step in steps[5:]:
        assert step.weight_decay == pytest.approx(0.1 * (1 - (step.position_after - 120) / 272))


STAIRS = "{type: by_tokens, levels: [{from: 0 steps, sequences: 3}, {from: 2 steps, sequences: 6}]}"
LATER = """\
phases:
  - {name: a, length: 5 steps, context_length: 16, batch: %s}
  - {name: b, length: 5 steps, context_length: 48, batch: %s}
"""


@pytest.mark.parametrize(
    ("batches", "steps"),
    [
        (("{sequences: 6}", "{sequences: 6}"), (288, 96)),
        (("{sequences: 1}", "{sequences: 1}"), (48, 16)),
        (("{tokens: 100}", "{tokens: 200}"), (192, 96)),
        ((STAIRS, "{sequences: 1}"), (48, 96)),
    ],
)
def test_other_tokens_a_step_are_a_decision(
    plan_text: PlanText, batches: tuple[str, str], steps: tuple[int, int]
) -> None:
    after, before = steps
    text = LATER % batches
    message = rf"phases\.1\.batch: a step of this phase has {after} tokens, .* before {before}"
    with pytest.raises(UserError, match=message) as caught:
        plan_text(text)
    assert "phases.1.optimizer_state: keep (or fresh)" in str(caught.value)
    for said in ("keep", "fresh"):
        plan_text(text.replace("name: b,", f"name: b, optimizer_state: {said},"))


@pytest.mark.parametrize("batches", [("{sequences: 6}", "{sequences: 2}"), ("{tokens: 100}",) * 2])
def test_the_same_tokens_a_step_are_none(plan_text: PlanText, batches: tuple[str, str]) -> None:
    """96 tokens either way: 100 are rounded down to six sequences of 16 or two of 48."""
    plan_text(LATER % batches)


def test_the_same_tokens_rounded_down_to_other_sequences(plan_text: PlanText) -> None:
    first, second = plan_text(LATER % (("{tokens: 130}",) * 2)).timeline.phases
    assert [item.stretches[0].step_length for item in (first, second)] == [128, 96]


def test_phases(plan_text: PlanText) -> None:
    timeline = plan_text(TWO_PHASES).timeline
    short, long = timeline.phases
    assert (short.start_position, short.start_step, short.length, short.steps) == (0, 0, 120, 5)
    assert (long.start_position, long.start_step, long.length, long.steps) == (120, 5, 272, 12)
    assert (short.sequences, long.sequences) == (30, 34)
    assert timeline.phase_at(119) is short and timeline.phase_at(120) is long


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ("7 steps", 7),
        ("7.9 steps", 7),
        ("1000 tokens", 7),
        ("16 sequences", 8),
        ("2 tokens_per_parameter", 11),
        ("1.5 epochs", 10),
    ],
)
def test_lengths_round_down(plan_text: PlanText, length: str, steps: int) -> None:
    text = f"phases: [{{name: a, length: {length}, batch: {{sequences: 2}}}}]"
    planned = plan_text(text, {"x": 600, "y": 300})
    assert planned.shapes.parameters == 16 * 8 + 64 * 8 + 2 * 8 * 1 + (
        4 * 64 + 4 * 8 + 2 * 64 + 16 + 4 * 8
    )
    if length == "2 tokens_per_parameter":
        steps = 2 * planned.shapes.parameters // 128
    assert planned.timeline.steps == steps


def test_epochs_need_natural_sources_of_known_size(plan_text: PlanText) -> None:
    phase = "{name: a, length: 1 epochs, batch: {sequences: 2}%s}"
    with pytest.raises(UserError, match=r"phases\.0\.length: 1 epochs needs the size"):
        plan_text(f"phases: [{phase % ''}]")
    with pytest.raises(UserError, match="needs mixture: natural"):
        plan_text(f"phases: [{phase % ', mixture: {a: 1}'}]", {"a": 1000})


def test_a_share_of_the_run_and_of_the_phase(plan_text: PlanText) -> None:
    text = """\
schedule: {learning_rate: [{to: 1, over: 50% of run}, {to: 0, over: rest}]}
phases:
  - {name: a, length: 10 steps, batch: {sequences: 1}}
  - {name: b, length: 10 steps, batch: {sequences: 1}, optimizer_state: keep,
     learning_rate: [{to: 7, over: 50% of phase}, {to: 0, over: 25% of run}]}
"""
    rates = [step.learning_rate for step in steps_of(plan_text(text).timeline)]
    warming, decaying = [0.1 * n for n in range(1, 11)], [5.6, 4.2, 2.8, 1.4, 0]
    assert rates == pytest.approx([*warming, 1.4, 2.8, 4.2, 5.6, 7, *decaying])


@pytest.mark.parametrize(
    ("amount", "tokens"),
    [
        ("100 tokens", 100),
        ("2 steps", 48),
        ("3 sequences", 12),
        ("10% of run", 39),
        ("10% of phase", 12),
        ("0 steps", 1),
    ],
)
def test_intervals(plan_text: PlanText, amount: str, tokens: int) -> None:
    timeline = plan_text(TWO_PHASES).timeline
    phase = timeline.phases[0]
    assert timeline.interval(Amount.parse(amount), phase, "checkpoints.every") == tokens


@pytest.mark.parametrize("amount", ["rest", "1 epochs"])
def test_what_is_no_interval(plan_text: PlanText, amount: str) -> None:
    timeline = plan_text(TWO_PHASES).timeline
    with pytest.raises(UserError, match=r"checkpoints\.every: .* is not an interval"):
        timeline.interval(Amount.parse(amount), timeline.phases[0], "checkpoints.every")


CRYSTAL = """\
parametrization: {learning_rate: 1.2e-2}
phases:
  - name: language
    length: 79721 steps
    batch: {sequences: 2112}
    learning_rate:
      segments: [{to: 1.2e-2, over: 86 steps}, {to: 1.2408e-4, over: 294337 steps}]
      extends_beyond_phase: true
  - name: code
    length: 214387 steps
    batch: {sequences: 2112}
    optimizer_state: fresh
    learning_rate: [{to: 8.7825e-3, over: 86 steps}, {to: 1.3679e-4, over: 214301 steps}]
  - name: application
    length: 27728 steps
    batch: {sequences: 2112}
    optimizer_state: fresh
    learning_rate: [{to: 2e-3, over: 276 steps}, {to: 2e-4, over: 27452 steps}]
"""


CRYSTAL_RATES = [
    (0, 43, 0.006),
    (0, 86, 0.012),
    (0, 1000, 0.0119631219),
    (0, 40_000, 0.0103895485),
    (0, 79_721, 0.0087868841),
    (1, 86, 0.0087825),
    (1, 100_000, 0.0047515927),
    (1, 214_387, 0.00013679),
    (2, 138, 0.001),
    (2, 14_000, 0.0011001311),
    (2, 27_728, 0.0002),
]
"""Phase, step and learning rate, from the paper's lines."""


def test_crystal_tokens(plan_text: PlanText) -> None:
    # The model here reads 64 tokens at a time, Crystal 2048.
    tokens = [phase.length * 32 for phase in plan_text(CRYSTAL).timeline.phases]
    assert tokens == [344_823_300_096, 927_304_384_512, 119_934_025_728]


@pytest.mark.parametrize(("phase", "step", "rate"), CRYSTAL_RATES)
def test_crystal_rates(plan_text: PlanText, phase: int, step: int, rate: float) -> None:
    timeline = plan_text(CRYSTAL).timeline
    start = timeline.phases[phase].start_position
    planned = timeline.next_step(start + (step - 1) * 2112 * 64)
    assert planned is not None and planned.phase.index == phase
    assert planned.learning_rate == pytest.approx(rate, abs=5e-11)


def test_crystals_first_line_goes_on_through_its_second_phase(plan_text: PlanText) -> None:
    first = plan_text(CRYSTAL).timeline.phases[0].learning_rate
    assert first.at(79_807 * 2112 * 64) == pytest.approx(0.0087834, abs=5e-8)


def test_btlm_lays_one_line_over_two_context_lengths() -> None:
    timeline = plan_recipe(load_recipe("btlm/paper").recipe).timeline
    assert timeline.length == 627_714_293_760 and timeline.steps == 159_636
    assert timeline.warmup_steps == 95
    boundary = timeline.phases[1].start_position
    assert timeline.phases[1].start_step == 119_727
    assert boundary == 119_727 * 3_932_160
    last = timeline.next_step(boundary - 3_932_160)
    first = timeline.next_step(boundary)
    assert last is not None and first is not None
    assert last.learning_rate == pytest.approx(3.0778e-3, abs=5e-8)
    slope = (1.2e-2 - 1.014e-4) / 159_541
    assert last.learning_rate - first.learning_rate == pytest.approx(slope, rel=1e-6)
    assert (last.phase.context_length, first.phase.context_length) == (2048, 8192)
    end = timeline.next_step(timeline.length - 3_932_160)
    assert end is not None and end.learning_rate == pytest.approx(0.00845 * 1.2e-2)


def test_amounts_of_parameters_are_exact(plan_text: PlanText) -> None:
    text = "phases: [{name: a, length: 20 tokens_per_parameter, batch: {sequences: 1}}]"
    planned = plan_text(text)
    assert planned.timeline.steps == int(Decimal(20) * planned.shapes.parameters) // 64
