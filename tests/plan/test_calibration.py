"""Warning of a steered phase whose first step has no two micro-batches to calibrate from."""

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.memory import Machine
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from tests.plan.conftest import PlanText

STEERED = """\
parametrization: {{learning_rate: 1.0}}
schedule: {{learning_rate: 1}}
runtime: {{micro_batch_sequences: {size}}}
noise_scale: {{coverage: norm, calibrate: {calibrate}}}
phases:
  - name: steered
    length: 6000 tokens
    context_length: 4
    batch: {{type: noise_scale, minimum: 6 sequences, maximum: 48 sequences, quantum: 6 sequences}}
"""


@pytest.mark.parametrize(
    ("size", "calibrate", "devices", "warned"),
    [
        (6, "microbatch", 1, True),  # one micro-batch
        (16, "microbatch", 1, True),
        ("auto", "microbatch", 1, True),
        (4, "microbatch", 1, True),  # 4 and 2 are not equal
        (3, "microbatch", 1, False),
        (6, "microbatch", 2, False),  # the other process has the second one
        (2, "microbatch", 2, True),  # 2 and 1 on each
        (6, "none", 1, False),
    ],
)
def test_a_first_step_without_two_equal_micro_batches(
    size: int | str, calibrate: str, devices: int, warned: bool, plan_text: PlanText
) -> None:
    planned = plan_text(STEERED.format(size=size, calibrate=calibrate))
    told = planned.summary(Machine(devices=devices))["warnings"]
    about = [line for line in told if "noise_scale.calibrate" in line]
    assert len(about) == warned
    if warned:
        allowed = 3 // devices
        assert "the factor is 1.4" in about[0]
        assert about[0].endswith(f"runtime.micro_batch_sequences={allowed}")


def test_processes_are_compared_only_where_there_are_two(plan_text: PlanText) -> None:
    text = STEERED.replace("coverage: norm, calibrate: {calibrate}", "estimator: ranks")
    planned = plan_text(text.format(size=2))
    with pytest.raises(UserError, match=r"estimator: ranks .* this plan has one") as caught:
        planned.summary()
    assert "--devices 2" in str(caught.value.do)
    planned.summary(Machine(devices=2))


@pytest.mark.parametrize(("name", "warned"), [("gns/small", True), ("gns/paper", False)])
def test_the_closed_loops_that_are_shipped(name: str, warned: bool) -> None:
    told = plan_recipe(load_recipe(name, ["choose.batch=closed-loop"]).recipe).summary()["warnings"]
    assert [line.endswith("runtime.micro_batch_sequences=4") for line in told] == [True] * warned
