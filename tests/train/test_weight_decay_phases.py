"""Progressive weight decay (2309.10818): at a boundary the decay changes, and nothing else."""

from pathlib import Path

import torch

from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.train.load import load_run
from feldspar.train.run import train
from tests.train.conftest import metrics_of

TWO_PHASES = (
    "phases.0.length=3 steps",
    "phases.0.weight_decay=0",
    "phases.1.length=1 steps",
    "phases.1.context_length=16",
    "phases.1.batch.sequences=8",
    "checkpoints.every=1 steps",
    "checkpoints.keep.last=4",
)


def test_the_first_update_differs_by_the_decay_alone(recipe_file: Path, tmp_path: Path) -> None:
    weights = {}
    for decay in ("0", "0.5"):
        overrides = [*TWO_PHASES, f"phases.1.weight_decay={decay}"]
        train(load_recipe(str(recipe_file), overrides), tmp_path / decay)
        weights[decay] = dict(load_run(tmp_path / decay).decoder.named_parameters())
    before = dict(load_run(tmp_path / "0", str(3 * 128)).decoder.named_parameters())
    changed, same = (metrics_of(tmp_path / decay)[3] for decay in ("0.5", "0"))
    for key in ("train/loss", "gradient_norm", "learning_rate", "phase"):
        assert changed[key] == same[key]
    rate = same["learning_rate"]
    assert rate > 0
    decayed = 0
    for entry in plan_recipe(load_recipe(str(recipe_file), list(TWO_PHASES)).recipe).table.tensors:
        name = entry.name
        factor = rate * entry.learning_rate_multiplier * 0.5 * entry.weight_decay_multiplier
        difference = weights["0.5"][name] - weights["0"][name]
        if factor == 0:
            assert not difference.any()
            continue
        decayed += 1
        assert difference.any()
        # Rounding of the weights themselves, which are below 1.
        torch.testing.assert_close(difference, -factor * before[name], rtol=0, atol=1.2e-7)
    assert decayed == sum(weights["0"][name].dim() >= 2 for name in before), "all matrices"
