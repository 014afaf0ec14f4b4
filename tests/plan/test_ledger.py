"""The sparse ledger against the figures of SPDF and MediSwift (2303.10464, 2403.00952)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe

RECIPE = """\
schema_version: 1
name: ledger
model: {{n_layers: {n_layers}, d_model: {d_model}, n_heads: 16, d_ff: {d_ff}, vocab_size: {vocab},
  max_sequence_length: {context}}}
parametrization: {{learning_rate: 1}}
phases:
  - {{name: sparse, length: {steps} steps, batch: {{sequences: {sequences}}},
      sparsity: {{type: static, sparsity: {sparsity}}}}}
"""
DENSE = "  - {{name: dense, length: {} steps, batch: {{sequences: {}}}, sparsity: dense, {}}}\n"

PlanOf = Callable[..., Plan]


@pytest.fixture
def plan_of(tmp_path: Path) -> PlanOf:
    """A plan of a GPT with d_ff = 4 d_model, one step of one sequence unless said otherwise."""

    def plan(n_layers: int, d_model: int, vocab: int, sparsity: float, **changes: int) -> Plan:
        values = {"context": 2048, "steps": 1, "sequences": 1} | changes
        text = RECIPE.format(
            n_layers=n_layers,
            d_model=d_model,
            d_ff=4 * d_model,
            vocab=vocab,
            sparsity=sparsity,
            **values,
        )
        if "dense_steps" in values:
            text += DENSE.format(
                values["dense_steps"], values["sequences"], "optimizer_state: fresh"
            )
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return plan_recipe(load_recipe(str(path)).recipe)

    return plan


def ledger(plan: Plan) -> float:
    """Training FLOPs a token."""
    summary = plan.summary()
    return summary["flops"]["ledger"] / summary["tokens"]


# Name: layers, width, vocabulary, tokens; forward FLOPs a token; FLOPs dense, 50 %, 75 %; ratios.
GOLDEN = {
    "gpt3-small": (12, 768, 50257, 2.5e9, 3.225615e8, (2.4192e18, 1.7822e18, 1.4637e18), 1.653),
    "gpt3-xl": (24, 2048, 50257, 26e9, 3.024425e9, (2.3591e20, 1.4168e20, 9.4574e19), 2.494),
    "med": (24, 1024, 42384, 104.8576e9, 8.921088e8, (2.8063e20, 1.8564e20, 1.3814e20), 2.032),
    "large": (18, 1536, 42384, 104.8576e9, 1.375912e9, (4.3282e20, 2.7252e20, 1.9236e20), 2.250),
    "xl": (24, 2048, 42384, 104.8576e9, 2.992177e9, (9.4126e20, 5.6127e20, 3.7127e20), 2.535),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_papers_ledgers(plan_of: PlanOf, name: str) -> None:
    n_layers, d_model, vocab, tokens, forward, expected, ratio = GOLDEN[name]
    dense, half, quarter = (
        ledger(plan_of(n_layers, d_model, vocab, sparsity)) for sparsity in (0, 0.5, 0.75)
    )
    assert dense == pytest.approx(3 * forward, rel=5e-7)
    found = [f"{flops * tokens:.4e}" for flops in (dense, half, quarter)]
    assert found == [f"{flops:.4e}" for flops in expected]
    assert dense / quarter == pytest.approx(ratio, abs=5e-4)


def test_two_phases_add_up_each_with_its_own_density(plan_of: PlanOf) -> None:
    changes = {"sequences": 1040, "steps": 62_523, "dense_steps": 9379}
    plan = plan_of(32, 4096, 50257, 0.9, **changes)
    sparse, dense = (phase["ledger"]["total"] for phase in plan.summary()["phases"])
    assert f"{sparse:.4e}" == "1.1082e+21"
    assert f"{dense:.3e}" == "8.612e+20"
    assert plan.summary()["flops"]["ledger"] == sparse + dense
    assert f"{sparse + dense:.3e}" == "1.969e+21"
    whole = ledger(plan_of(32, 4096, 50257, 0)) * 62_523 * 1040 * 2048
    assert f"{whole:.4e}" == "5.7411e+21"
    assert 1 - (sparse + dense) / whole == pytest.approx(0.657, abs=5e-4)


def test_the_terms_of_a_phase(plan_of: PlanOf) -> None:
    plan = plan_of(24, 2048, 42384, 0.75, steps=3, context=8192)
    (phase,) = plan.summary()["phases"]
    terms, training = phase["ledger"], 3 * 3 * 8192
    assert terms["matrices"] == training * 0.25 * 24 * 24 * 2048**2
    assert terms["attention"] == training * 4 * 24 * 8192 * 2048
    assert terms["head"] == training * 2 * 42384 * 2048
    assert terms["total"] == terms["matrices"] + terms["attention"] + terms["head"]
    assert terms["total_causal"] == terms["total"] - terms["attention"] / 2
    # Attention is not sparse: the longer the context, the smaller the gain (2.535 at 2048).
    dense = plan_of(24, 2048, 42384, 0, steps=3, context=8192).summary()["flops"]["ledger"]
    assert dense / terms["total"] == pytest.approx(1.759, abs=5e-4)


def test_other_conventions_count_what_is_executed(plan_of: PlanOf) -> None:
    sparse, dense = (plan_of(2, 64, 100, sparsity).summary() for sparsity in (0.75, 0))
    for convention in ("6P", "6P+attention", "detailed"):
        assert sparse["flops"][convention] == dense["flops"][convention]
    assert sparse["flops"]["ledger"] < dense["flops"]["ledger"]


def test_active_parameters_are_counted_to_the_entry(plan_of: PlanOf) -> None:
    # floor(0.3 n + 0.5) of 3 d^2, d^2, 4 d^2 and 4 d^2 with d = 48, in two blocks.
    summary = plan_of(2, 48, 100, 0.3).summary()
    zeros = 2 * sum(int(0.3 * entries + 0.5) for entries in (6912, 2304, 9216, 9216))
    assert summary["parameters"]["active"] == summary["parameters"]["total"] - zeros
    assert summary["phases"][0]["active_parameters"] == summary["parameters"]["active"]
    assert "active" not in plan_of(2, 48, 100, 0).summary()["parameters"]


def test_what_a_plan_warns_of(plan_of: PlanOf) -> None:
    (line,) = plan_of(2, 64, 100, 0.9).summary()["warnings"]
    assert line.startswith("phases.0.sparsity: a neuron of blocks.0.attention.query_key_value")
    assert plan_of(2, 64, 100, 0.875).summary()["warnings"] == []


def test_masks_of_a_run_are_not_known_to_a_plan(plan_of: PlanOf, tmp_path: Path) -> None:
    plan_of(2, 64, 100, 0)
    overrides = ["start_from={type: run, path: nowhere}", "phases.0.sparsity=null"]
    plan = plan_recipe(load_recipe(str(tmp_path / "recipe.yaml"), overrides).recipe)
    assert "counts as if it had none" in plan.summary()["warnings"][0]
