"""What the coordinate check measures: text, what a forward pass shows, training as it is."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import apply
from feldspar.parametrization.coordinates import Measure
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.sparsity.masks import Masks
from feldspar.study.coordinate_runs import draw_batches, measure_run, observe, static_sparsity
from tests.study.coordinates import a_run

FEED_FORWARD_10 = Measure("feed_forward_output", "size", 10)


def test_the_batches_are_text_and_the_same_each_time() -> None:
    batches = draw_batches()
    assert batches.shape == (11, 8, 65) and batches.dtype == np.uint8
    assert (batches == draw_batches()).all()
    assert len({batch.tobytes() for batch in batches}) == 11
    assert (batches == ord(" ")).mean() > 0.05


@pytest.mark.parametrize(
    "positions", ["learned", "alibi", {"type": "rotary", "fraction": 0.5}], ids=str
)
def test_observed_activations_are_those_of_the_forward_pass(positions: Any) -> None:
    settings = ModelSettings(
        n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48, vocab_size=50,
        max_sequence_length=16, positions=positions, feed_forward="swiglu",
    )  # fmt: skip
    model = Decoder(settings)
    rules = ParametrizationSettings(
        type="completep", base_d_model=16, base_d_ff=24, base_n_layers=1, init_std=0.5,
        learning_rate=1e-2, embedding_multiplier=3.0,
    )  # fmt: skip
    apply(model, table(rules, model_shapes(settings)), seed=1)
    tokens = torch.arange(24).view(2, 12) % 50
    seen = observe(model, tokens)
    assert [len(seen[name]) for name in seen] == [2, 2, 2, 1, 1]
    # The stream is what went in and both branches of both blocks; each divided by the depth, 2.
    embedded = model.token_embedding(tokens)
    if model.position_embedding is not None:
        embedded = embedded + model.position_embedding.weight[:12]
    branches = sum(seen["attention_output"]) + sum(seen["feed_forward_output"])
    torch.testing.assert_close(seen["residual_stream"][0], 3 * embedded + branches / 2)
    hidden = model.final_norm(seen["residual_stream"][0])
    torch.testing.assert_close(
        seen["logits"][0], hidden @ model.token_embedding.weight.T * model.output_multiplier
    )
    if model.position_embedding is not None:
        x = model.blocks[0].attention_norm(3 * embedded)
        fused = F.linear(x, *model.blocks[0].attention.query_key_value.parameters())
        query = fused[..., :32].view(2, 12, 4, 8)
        key = fused[..., 32:48].view(2, 12, 2, 8)[:, :, [0, 0, 1, 1]]
        scores = torch.einsum("bihd,bjhd->bhij", query, key) / 8
        visible = torch.arange(12)[:, None] >= torch.arange(12)
        torch.testing.assert_close(seen["attention_logits"][0], scores[..., visible])
    assert not any(module._forward_hooks for module in model.modules())
    assert not model.final_norm._forward_pre_hooks


def test_a_run_trains_as_plain_adamw_does_and_masked_entries_stay_zero() -> None:
    run, batches = a_run("supar", "density", 1 / 4), draw_batches()
    model = Decoder(run.model)
    apply(model, run.table, run.seed)
    masks = Masks.draw(static_sparsity(1 / 4), model_shapes(run.model).rows, run.seed).tensors
    assert len(masks) == 8
    groups = []
    for name, parameter in model.named_parameters():
        if name in masks:
            parameter.data[~masks[name]] = 0.0
            parameter.register_hook(lambda grad, name=name: grad * masks[name])
        rate = 1e-2 * run.table.entry(name).learning_rate_multiplier
        groups.append({"params": [parameter], "lr": rate})
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0)
    tokens = torch.from_numpy(batches).long()
    before = observe(model, tokens[0, :, :-1])
    for batch in tokens[1:]:
        adamw.zero_grad()
        logits = model.logits(model(batch[:, :-1]))
        F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        adamw.step()
    after = observe(model, tokens[0, :, :-1])
    assert all((dict(model.named_parameters())[name][~masks[name]] == 0).all() for name in masks)
    measured = measure_run(run, batches)
    size = np.mean([float(x.abs().mean()) for x in after["feed_forward_output"]])
    assert measured[FEED_FORWARD_10] == pytest.approx(size, rel=1e-3)
    (now,), (then,) = after["residual_stream"], before["residual_stream"]
    change = float((now - then).abs().mean())
    assert measured[Measure("residual_stream", "change", 10)] == pytest.approx(change, rel=1e-3)


def test_without_a_rate_nothing_changes() -> None:
    measured = measure_run(a_run("mup", "width", 64, learning_rate=1e-30), draw_batches())
    assert all(value == 0.0 for measure, value in measured.items() if measure.kind == "change")
    assert len({measured[Measure("logits", "size", step)] for step in (0, 1, 5, 10)}) == 1
    assert len(measured) == 5 * (4 + 3)
