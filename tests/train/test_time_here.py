"""The time of a planned training on the machine at hand: an estimate, or why it cannot run."""

import pytest
import torch

from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.train.time_here import time_here


def test_twice_the_tokens_take_about_twice_as_long() -> None:
    hours = []
    for tokens in ("1e6", "8e6"):
        overrides = [f"phases.0.length={tokens} tokens", "runtime.device=cpu"]
        estimate = time_here(plan_recipe(load_recipe("quickstart", overrides).recipe))
        assert estimate.hours is not None and "at the speed of a few steps" in estimate.basis
        hours.append(estimate.hours)
    # Steps are timed anew each time, and other work may slow them.
    assert 0 < hours[0] < hours[1]


def test_a_model_whose_steps_take_long_is_taken_to_reach_the_usual_share_of_the_peak() -> None:
    plan = plan_recipe(load_recipe("cerebras-gpt/paper", ["runtime.device=cpu"]).recipe)
    estimate = time_here(plan)
    assert estimate.hours is not None and "at 40% of the peak" in estimate.basis


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a CUDA device")
def test_a_recipe_for_a_device_that_is_missing_says_so() -> None:
    plan = plan_recipe(load_recipe("quickstart", ["runtime.device=cuda"]).recipe)
    estimate = time_here(plan)
    assert estimate.hours is None and "torch finds no CUDA device" in estimate.basis
