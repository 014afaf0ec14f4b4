"""The cost of generating text, against files and caches that are really written."""

from dataclasses import replace

import pytest

from feldspar.core.rows import ParameterRow, Role
from feldspar.model.rows import model_shapes
from feldspar.plan.inference import plan_inference, stored_bytes
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe


def test_btlm_by_hand() -> None:
    cost = plan_recipe(load_recipe("btlm/paper").recipe).inference()
    d, layers, context = 2560, 32, 8192
    assert cost.context_length == context
    assert cost.cache_bytes_per_token == 2 * 2 * d * layers
    assert cost.cache_bytes == context * cost.cache_bytes_per_token
    matrices = layers * (4 * d * d + 3 * d * 6826)
    assert cost.first_token_flops == 2 * (matrices + 50257 * d)
    assert cost.last_token_flops - cost.first_token_flops == 4 * layers * d * context


def test_grouped_queries_and_windows_shrink_the_cache() -> None:
    recipe = load_recipe("quickstart").recipe
    rows = model_shapes(recipe.model).rows
    whole = plan_inference(recipe.model, rows, 256)
    grouped = recipe.model.model_copy(update={"n_kv_heads": 1})
    one = plan_inference(grouped, model_shapes(grouped).rows, 256)
    assert whole.cache_bytes == recipe.model.n_heads * one.cache_bytes
    assert whole.first_token_flops > one.first_token_flops


def test_masked_entries_cost_no_flops_but_bytes() -> None:
    sparse = "phases.0.sparsity={type: static, sparsity: 0.75}"
    dense, masked = (
        plan_recipe(load_recipe("quickstart", overrides).recipe).inference()
        for overrides in ([], [sparse])
    )
    assert masked.first_token_flops < dense.first_token_flops
    assert masked.weights_bytes == dense.weights_bytes


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_have_the_bytes_of_gguf(bits: int) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    entries, size = GGML_QUANT_SIZES[GGMLQuantizationType[f"Q{bits}_0"]]
    row = ParameterRow("matrix", Role.HIDDEN, (3, 2 * entries), in_block=True)
    assert stored_bytes(row, bits) == 3 * 2 * size
    assert stored_bytes(replace(row, shape=(3, entries + 1)), bits) == 2 * 3 * (entries + 1)
    assert stored_bytes(replace(row, shape=(entries,)), bits) == 4 * entries
