"""Runs of reversible models: three ways of keeping activations, resumed, on two processes."""

import shutil
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.recipe.root import Recipe
from feldspar.train.load import load_run
from feldspar.train.run import train
from tests.train.conftest import Command, losses_of, metrics_of
from tests.train.test_distributed import torchrun

RESIDUE = 2e-5
"""Relative difference of losses after some steps: rounding of float32, grown by training."""
SHORT = ("phases.0.length=4 steps", "phases.1.length=2 steps", "checkpoints.every=2 steps")
STATIC = "phases.0.sparsity={type: static, sparsity: 0.5}"
LORA = "phases.1.lora={rank: 4, alpha: 8, targets: [hidden]}"
ALIBI = "model.positions={type: alibi}"
SWIGLU = "model.feed_forward=swiglu"
BFLOAT16 = "runtime.precision=bfloat16"


def run(recipe: Path, out: Path, *overrides: str) -> list[float]:
    train(load_recipe(str(recipe), [*SHORT, *overrides]), out)
    return losses_of(out)


def recipe_of(path: Path, *overrides: str) -> Recipe:
    return load_recipe(str(path), list(overrides)).recipe


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("revnet", (ALIBI,)),
        ("reformer", ("model.positions=rotary", SWIGLU)),
        ("reformer", ("model.dropout=0.1",)),
        ("revnet", (STATIC, "runtime.masked_products=sparse")),
        ("revnet", (LORA, "phases.1.optimizer_state=fresh")),
        ("reformer", ("runtime.micro_batch_sequences=2", "noise_scale={coverage: all}")),
    ],
    ids=["alibi", "rotary", "dropout", "sparse", "lora", "noise"],
)
def test_the_way_of_keeping_activations_changes_only_rounding(
    recipe_file: Path, tmp_path: Path, kind: str, changes: tuple[str, ...]
) -> None:
    """Documents are masked in the second phase of each run."""
    found = {
        memory: run(
            recipe_file,
            tmp_path / memory,
            f"model.reversible={kind}",
            f"runtime.activation_memory={memory}",
            *changes,
        )
        for memory in ("store", "recompute", "reversible")
    }
    assert found["recompute"] == pytest.approx(found["store"], rel=RESIDUE)
    assert found["reversible"] == pytest.approx(found["store"], rel=RESIDUE)
    noise = [
        [record.get("noise_scale/total/noise") for record in metrics_of(tmp_path / memory)]
        for memory in ("store", "reversible")
    ]
    if noise[0][0] is not None:  # each sequence counted once, though blocks run twice
        assert noise[1] == pytest.approx(noise[0], rel=1e-3)


def test_true_is_revnet_which_rebuilds_unless_the_recipe_says_otherwise(recipe_file: Path) -> None:
    model = recipe_of(recipe_file, "model.reversible=true").model
    assert model == recipe_of(recipe_file, "model.reversible=revnet").model
    assert model.reversible is not None and model.reversible.type == "revnet"
    assert recipe_of(recipe_file, "model.reversible=false") == recipe_of(recipe_file)
    for changes, memory in (((), "reversible"), (("runtime.activation_memory=store",), "store")):
        recipe = recipe_of(recipe_file, "model.reversible=true", *changes)
        assert recipe.runtime.activation_memory == memory
        assert Recipe.model_validate_json(recipe.model_dump_json(by_alias=True)) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("runtime.activation_memory=reversible",), "needs a reversible model"),
        (("model.reversible=true", "runtime.distribution=fsdp"), "set distribution: ddp"),
        (("model.reversible=reformer", "model.branches=parallel"), "set reversible: revnet"),
        (("model.reversible=momentum",), "model.reversible"),
    ],
)
def test_what_does_not_fit_is_refused(
    recipe_file: Path, changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        recipe_of(recipe_file, *changes)


@pytest.mark.parametrize("kind", ["revnet", "reformer"])
def test_the_plan_counts_the_plain_decoders_parameters(recipe_file: Path, kind: str) -> None:
    plain = plan_recipe(recipe_of(recipe_file))
    reversible = plan_recipe(recipe_of(recipe_file, f"model.reversible={kind}"))
    assert reversible.shapes == plain.shapes and reversible.table == plain.table


def test_rounded_sums_give_the_same_bits_in_bfloat16(recipe_file: Path, tmp_path: Path) -> None:
    grid = "model.reversible={type: revnet, fixed_point_bits: 14}"
    stored, rebuilt = (
        run(recipe_file, tmp_path / memory, grid, f"runtime.activation_memory={memory}", BFLOAT16)
        for memory in ("store", "reversible")
    )
    assert stored == rebuilt


def test_bfloat16_without_rounded_sums_is_warned_of(recipe_file: Path) -> None:
    def drifts(*changes: str) -> bool:
        recipe = recipe_of(recipe_file, "model.reversible=true", *changes)
        return any("fixed_point_bits" in line for line in plan_recipe(recipe).summary()["warnings"])

    assert drifts(BFLOAT16)
    assert not drifts()
    assert not drifts(BFLOAT16, "runtime.activation_memory=store")
    assert not drifts(BFLOAT16, "model.reversible={fixed_point_bits: 14}")


def test_a_resumed_run_has_the_same_bits(recipe_file: Path, tmp_path: Path) -> None:
    changes = ("model.reversible=true", "model.dropout=0.1")
    whole = run(recipe_file, tmp_path / "whole", *changes)
    weights = load_run(tmp_path / "whole").decoder.state_dict()
    out = tmp_path / "part"
    run(recipe_file, out, *changes)
    for newest in sorted((out / "checkpoints").iterdir())[1:]:
        shutil.rmtree(newest)
    assert run(recipe_file, out, *changes) == whole
    again = load_run(out).decoder.state_dict()
    assert all(bool((value == again[name]).all()) for name, value in weights.items())


@pytest.mark.parametrize(
    "kinds", [("false", "revnet"), ("reformer", "revnet"), ("revnet", "false")]
)
def test_weights_of_another_wiring_are_refused(
    recipe_file: Path, tmp_path: Path, kinds: tuple[str, str]
) -> None:
    first = tmp_path / "first"
    run(recipe_file, first, f"model.reversible={kinds[0]}")
    start = f"start_from={{type: run, path: {first}}}"
    with pytest.raises(UserError, match="compute another function") as error:
        run(recipe_file, tmp_path / "next", start, f"model.reversible={kinds[1]}")
    assert f"{kinds[0]} there, {kinds[1]} in the recipe" in str(error.value.found)
    run(recipe_file, tmp_path / "same", start, f"model.reversible={kinds[0]}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["revnet", "reformer"])
def test_two_processes_reach_the_loss_of_one(
    recipe_file: Path, tmp_path: Path, feldspar: Command, kind: str
) -> None:
    changes = [*SHORT, f"model.reversible={kind}"]
    one = feldspar("train", recipe_file, *changes, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    result = torchrun(recipe_file, tmp_path / "two", *changes, "runtime.distribution=ddp")
    assert result.returncode == 0, result.stderr
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), rel=1e-5)
