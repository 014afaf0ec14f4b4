"""FLOPs of Sparse-IFT models against those of their dense models (2303.11525)."""

from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.plan.sizing import size_recipe, split_by_rule
from tests.plan.conftest import PlanText

GPT3_SMALL = (
    "{{n_layers: 12, d_model: 768, n_heads: 12, d_ff: 3072, vocab_size: 50257, "
    "max_sequence_length: 1024, sparse_iso_flop: {{type: {}, sparsity: {}}}}}"
)
PHASES = "phases: [{name: all, length: 1 steps, batch: {sequences: 1}}]\n"


@pytest.mark.parametrize(("sparsity", "blocks", "total"), [(0.5, 1.0109, 1.177), (0.75, 1, 1.404)])
def test_a_wide_model_costs_more_outside_its_blocks(
    plan_text: PlanText, sparsity: float, blocks: float, total: float
) -> None:
    plan = plan_text(PHASES, model=GPT3_SMALL.format("wide", sparsity))
    (phase,) = plan.summary()["phases"]
    compared = phase["sparse_iso_flop"]
    assert compared["blocks"]["ratio"] == pytest.approx(blocks, abs=5e-5)
    assert compared["total"]["ratio"] == pytest.approx(total, abs=5e-4)
    assert compared["blocks"]["dense"] == 24 * 12 * 768**2
    assert compared["total"]["dense"] == 24 * 12 * 768**2 + 4 * 12 * 1024 * 768 + 2 * 50257 * 768
    width = plan.shapes.d_model
    assert compared["blocks"]["flops"] == (1 - sparsity) * 24 * 12 * width**2
    assert phase["ledger"]["total"] == pytest.approx(3 * 1024 * compared["total"]["flops"])


def test_a_plan_prints_both_numbers(
    plan_text: PlanText, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_text(PHASES, model=GPT3_SMALL.format("wide", 0.5))
    assert run_with(["plan", str(tmp_path / "recipe.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "blocks 1.717e+08 against 1.699e+08 (1.011 times)" in printed
    assert "with attention scores and head 3.352e+08 against 2.848e+08 (1.177 times)" in printed


def test_a_plan_without_iso_flop_compares_nothing(plan_text: PlanText) -> None:
    (phase,) = plan_text(PHASES).summary()["phases"]
    assert "sparse_iso_flop" not in phase


def test_the_base_widths_are_compared_with_the_wide_ones(plan_text: PlanText) -> None:
    text = (
        "parametrization: {type: supar, base_d_model: 768, base_d_ff: 3072, learning_rate: 1}\n"
        + PHASES
    )
    plan = plan_text(text, model=GPT3_SMALL.format("wide", 0.75))
    entry = plan.table.entry("blocks.0.attention.query_key_value.weight")
    # Twice the width and a quarter of the entries: half as many terms as at the base.
    assert entry.learning_rate_multiplier == pytest.approx(2.0)
    assert entry.density == 0.25


def test_a_budget_sizes_dense_shapes_only(plan_text: PlanText) -> None:
    plan = plan_text(PHASES, model=GPT3_SMALL.format("wide", 0.5))
    with pytest.raises(
        UserError, match=r"model\.sparse_iso_flop: --budget sizes dense shapes only"
    ):
        size_recipe(plan, split_by_rule(1e18, 20))
