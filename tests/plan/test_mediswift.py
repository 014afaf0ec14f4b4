"""The recipe of MediSwift against the figures that its paper prints (2403.00952)."""

import pytest

from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe

SIZES = {
    # Parameters of the blocks' matrices; dense FLOPs of pre-training; ratios at 50 and 75 %.
    "med": (301_989_888, 2.8063e20, 1.512, 2.032),
    "large": (509_607_936, 4.3282e20, 1.588, 2.250),
    "xl": (1_207_959_552, 9.4126e20, 1.677, 2.535),
}


def plan(name: str = "mediswift/paper", **chosen: str) -> Plan:
    overrides = [f"choose.{key}={value}" for key, value in chosen.items()]
    return plan_recipe(load_recipe(name, overrides).recipe)


@pytest.mark.parametrize("size", SIZES)
def test_the_papers_sizes_tokens_and_ratios(size: str) -> None:
    matrices, flops, half, quarter = SIZES[size]
    plans = {s: plan(size=size, sparsity=s) for s in ("dense", "50%", "75%")}
    ledgers = {s: p.summary()["phases"][0]["ledger"]["total"] for s, p in plans.items()}
    assert f"{ledgers['dense']:.4e}" == f"{flops:.4e}"
    assert ledgers["dense"] / ledgers["50%"] == pytest.approx(half, abs=5e-4)
    assert ledgers["dense"] / ledgers["75%"] == pytest.approx(quarter, abs=5e-4)
    pretrain = plans["75%"].timeline.phases[0]
    assert (pretrain.length, pretrain.steps) == (104_857_600_000, 100_000)
    for sparsity, kept in (("dense", 1.0), ("50%", 0.5), ("75%", 0.25)):
        masked = plans[sparsity].active_parameters(0) - plans[sparsity].shapes.parameters
        assert masked == -matrices * (1 - kept)


def test_fine_tuning_is_dense_with_biogpts_set_up() -> None:
    planned = plan()
    recipe, phase = planned.recipe, planned.timeline.phases[1]
    assert planned.active_parameters(1) == planned.shapes.parameters
    assert recipe.optimizer_of(1).betas == (0.9, 0.98)
    assert (recipe.optimizer_of(1).clip_norm, recipe.optimizer_of(0).clip_norm) == ("none", 1.0)
    assert phase.learning_rate.at(phase.start_position + 100 * 32768) == pytest.approx(1e-5)
    assert phase.weight_decay.at(phase.end_position) == 0.01
    assert recipe.phases[1].soft_prompt_length == 9 and recipe.phases[1].loss.on == "target"
    assert phase.length / 160_768 == pytest.approx(100, abs=0.2)
    hoc = plan(task="hoc")
    assert hoc.timeline.phases[1].steps == 20_000
    assert hoc.recipe.soft_prompt_length == 1
    assert hoc.recipe.phases[1].pairs.template.labels.several  # pyrefly: ignore


def test_small_dense_has_the_weights_that_75_percent_leave() -> None:
    def kept(**chosen: str) -> int:
        planned = plan("mediswift/small", **chosen)
        matrices = [row for row in planned.shapes.rows if row.role == "hidden"]
        masked = planned.shapes.parameters - planned.active_parameters(0)
        return sum(row.count for row in matrices) - masked

    assert kept() == kept(size="small-dense") == kept(sparsity="dense") / 4
    masks = plan("mediswift/small", fine_tuning="masks-kept")
    assert masks.active_parameters(1) == masks.active_parameters(0)
    assert [entry.density for entry in masks.tables[1].tensors if entry.role == "hidden"] == [
        0.25
    ] * 12


def test_spdfs_ledgers() -> None:
    def ledger(**chosen: str) -> list[float]:
        phases = plan("spdf/paper", **chosen).summary()["phases"]
        return [phase["ledger"]["total"] / phase["tokens"] for phase in phases]

    for size, ratio in (("xl", 2.494), ("small", 1.653)):
        sparse, dense = (ledger(size=size, sparsity=s)[0] for s in ("75%", "dense"))
        assert dense / sparse == pytest.approx(ratio, abs=5e-4)
    small = plan("spdf/paper", size="small").timeline.phases[0]
    assert small.length == 2_505_048_064
    whole = plan("spdf/paper", size="6.7B")
    sparse, dense = (phase["ledger"]["total"] for phase in whole.summary()["phases"][:2])
    assert f"{sparse:.4e}" == "1.1082e+21" and f"{sparse + dense:.3e}" == "1.969e+21"
    assert [whole.active_parameters(i) == whole.shapes.parameters for i in range(3)] == [
        False,
        True,
        True,
    ]
