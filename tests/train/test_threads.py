"""The choice of threads in a run: no bit of it, and the same after a kill, changes the run."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from feldspar.core.execution import available_cores
from feldspar.recipe.load import load_recipe
from feldspar.train.rehearsal import rehearse
from feldspar.train.run import train
from tests.train.conftest import losses_of

pytestmark = pytest.mark.several_cores
two_cores = pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
RMS = ("model.norm=rms", "model.bias=false", "runtime.threads=auto")
LAYER = ("runtime.threads=auto",)
NOISE = ("runtime.threads=auto", "noise_scale={}")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Torch takes both cores, whatever the tests are started with."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run(recipe: Path, out: Path, *overrides: str) -> Path:
    train(load_recipe(str(recipe), overrides), out)
    return out


def events_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


def choices_of(out: Path) -> list[dict[str, Any]]:
    return [event for event in events_of(out) if "home" in event]


@two_cores
@pytest.mark.parametrize("overrides", [RMS, LAYER, NOISE])
def test_a_continued_run_is_the_unbroken_one(
    recipe_file: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """The losses are the same, whatever number was chosen and however often it changed."""
    overrides = (*overrides, "checkpoints.keep.last=9")
    out = run(recipe_file, tmp_path / "run", *overrides)
    unbroken = losses_of(out)
    (choice,) = choices_of(out)
    assert choice["home"] in (1, 2) and set(choice["seconds"]) == {"1", "2"}
    assert torch.get_num_threads() == 2
    checkpoints = sorted((out / "checkpoints").iterdir())
    states = [json.loads((folder / "state.json").read_text()) for folder in checkpoints]
    assert [state["threads"] for state in states] == [choice["home"]] * 9
    for folder in checkpoints[4:]:
        shutil.rmtree(folder)
    run(recipe_file, out, *overrides)
    assert choices_of(out) == [choice]
    assert losses_of(out) == unbroken
    # So small an update is not divided among threads.
    fixed = f"runtime.threads={choice['home']}"
    assert losses_of(run(recipe_file, tmp_path / "fixed", *overrides, fixed)) == unbroken


@two_cores
def test_a_run_without_a_checkpoint_begins_again_with_its_number(
    recipe_file: Path, tmp_path: Path
) -> None:
    out = run(recipe_file, tmp_path / "run", *LAYER, "phases.1.length=2 steps")
    (choice,) = choices_of(out)
    shutil.rmtree(out / "checkpoints")
    run(recipe_file, out, *LAYER, "phases.1.length=2 steps")
    assert choices_of(out) == [choice]
    state = max(out.glob("checkpoints/*/state.json")).read_text()
    assert json.loads(state)["threads"] == choice["home"]


def test_a_rehearsal_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    x = torch.randn(8, 3)

    def passes() -> torch.Tensor:
        loss = model(x).square().sum()
        loss.backward()
        return loss

    passes()
    gradients = [parameter.grad for parameter in model.parameters()]
    values = [None if gradient is None else gradient.clone() for gradient in gradients]
    buffers = [buffer.clone() for buffer in model.buffers()]
    random_state = torch.get_rng_state()
    seconds, first = rehearse(model, passes)
    assert seconds > 0 and first is not None
    assert rehearse(model, passes)[1] == first
    assert torch.equal(torch.get_rng_state(), random_state)
    for parameter, gradient, value in zip(model.parameters(), gradients, values, strict=True):
        assert parameter.grad is gradient
        assert gradient is not None and value is not None and torch.equal(gradient, value)
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        assert torch.equal(buffer, before)


def test_a_rehearsal_without_a_gradient_has_no_digest() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    nn.init.zeros_(model[1].weight)  # so that nothing reaches the first map

    def passes() -> torch.Tensor:
        loss = model(torch.ones(2, 3)).sum()
        loss.backward()
        return loss

    assert rehearse(model, passes)[1] is None
