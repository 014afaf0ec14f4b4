"""The ramp of 2411.00999, digit by digit, against the loop that the authors' code runs."""

import json
import math

import pytest

from feldspar.cli.main import run_with
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe

CONTEXT = 2048
MICRO_BATCH = 8
END_TOKENS = 2_219_950_080


def authors_batches() -> list[int]:
    """Sequences of each step: whole micro-batches, gathered along a line over tokens."""
    batches, tokens = [], 0
    while tokens < END_TOKENS:
        micro_batches = math.ceil(2 + 13 * tokens / END_TOKENS)
        batches.append(MICRO_BATCH * micro_batches)
        tokens += batches[-1] * CONTEXT
    return batches


def test_the_ramp_is_the_authors_loop(capsys: pytest.CaptureFixture[str]) -> None:
    expected = authors_batches()
    assert run_with(["plan", "gns/paper", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    [phase] = planned["phases"]
    assert planned["steps"] == len(expected) == 18_953
    assert planned["tokens"] == CONTEXT * sum(expected) == 2_220_179_456
    assert phase["mean_sequences"] == pytest.approx(57.198, abs=5e-4)
    timeline = plan_recipe(load_recipe("gns/paper").recipe).timeline
    tokens, steps = 0, []
    while (step := timeline.next_step(tokens)) is not None:
        steps.append(step)
        tokens = step.position_after
    assert [step.sequences for step in steps] == expected
    assert [step.sequences for step in steps[:3]] == [16, 24, 24]
    assert steps[-1].sequences == 120


def test_the_rate_counts_tokens_so_that_ramp_and_baseline_share_it() -> None:
    rates = []
    for batch in ("ramp", "constant"):
        planned = plan_recipe(load_recipe("gns/paper", [f"choose.batch={batch}"]).recipe)
        [phase] = planned.timeline.phases
        assert phase.learning_rate.at(374_784_000) == pytest.approx(1.17e-3)
        assert phase.learning_rate.at(END_TOKENS) == pytest.approx(1.17e-4)
        rates.append([phase.learning_rate.at(tokens) for tokens in range(0, END_TOKENS, 10**8)])
        if batch == "constant":
            assert (planned.timeline.steps, planned.timeline.length) == (9033, END_TOKENS)
    assert rates[0] == pytest.approx(rates[1])


def test_the_model_is_cerebras_gpts_with_a_padded_vocabulary() -> None:
    planned = plan_recipe(load_recipe("gns/paper").recipe)
    assert planned.shapes.parameters == 111_050_496 + 47 * 768
    entry = planned.table.entry("blocks.0.attention.output.weight")
    assert entry.init_std == pytest.approx(0.02 / math.sqrt(20), abs=5e-8)


def test_every_small_batch_reads_the_same_tokens_within_a_step() -> None:
    recipe = load_recipe("gns/small").recipe
    totals = {}
    for name in recipe.choices["batch"]:
        own = load_recipe("gns/small", [f"choose.batch={name}"]).recipe
        totals[name] = plan_recipe(own).timeline.length
    largest = max(totals.values())
    assert all(largest - tokens < 64 * own.model.max_sequence_length for tokens in totals.values())
