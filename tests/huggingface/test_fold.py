"""Folded weights compute the same logits; unfolding undoes it; folding happens once."""

import json
from dataclasses import astuple

import pytest
import torch
from transformers import GPT2LMHeadModel

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_model
from feldspar.huggingface.multipliers import (
    WithMultipliers,
    plain_multipliers,
    same_multipliers,
    settings_under,
)
from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import apply, set_forward_multipliers
from feldspar.parametrization.tables import ForwardMultipliers, table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from tests.huggingface.conftest import BTLM, CRYSTAL, GPT2, LLAMA
from tests.model.conftest import SMALL
from tests.model.test_variants import VARIANTS
from tests.rounding import assert_within_rounding, terms_of

SHAPES = {
    "gpt2": GPT2,
    "gpt2_gqa": GPT2 | {"n_kv_heads": 1, "head_dim": 6},
    "llama_gqa": LLAMA | {"n_kv_heads": 2},
    "btlm": BTLM,
    "crystal": CRYSTAL,
}
MUP = ForwardMultipliers(embedding=3.1, residual=0.7, attention=0.21, output=0.37)
SPARSE_OVER_DEPTH = ParametrizationSettings(
    type="supar",
    base_d_model=8,
    base_d_ff=12.0,
    base_n_layers=1,
    depth_exponent=1.0,
    init_std=0.1,
    learning_rate=1.0,
    embedding_multiplier=9.17,
    output_multiplier=1.095,
    attention_multiplier=2.0,
)


def fold(state, settings, forward):
    """Return the plain model's weights and its settings."""
    plain = plain_multipliers(settings)
    settings = settings_under(settings, forward, plain)
    return dict(WithMultipliers(state, settings, forward, plain)), settings


def unfold(state, settings, forward):
    """Return the weights under ``forward`` of a plain model."""
    return dict(WithMultipliers(state, settings, plain_multipliers(settings), forward))


def logits_of(settings, state, forward, tokens, dtype):
    decoder = Decoder(settings).to(dtype).eval()
    decoder.load_state_dict(state)
    set_forward_multipliers(decoder, forward)
    with torch.no_grad():
        return decoder.logits(decoder(tokens))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_folding_is_exact(make_decoder, tokens, shape, tied, dtype):
    decoder = make_decoder(SHAPES[shape], MUP, dtype, tied_embeddings=tied)
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    folded, settings = fold(decoder.state_dict(), decoder.settings, MUP)
    assert not settings.tied_embeddings
    logits = logits_of(settings, folded, plain_multipliers(settings), tokens, dtype)
    assert_within_rounding(logits, expected, terms_of(decoder, tokens))
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_folding_is_exact_for_the_shapes_of_open_models(make_decoder, tokens, changes, tied):
    changes = changes | {"tied_embeddings": tied, "max_sequence_length": 32, "vocab_size": 48}
    decoder = make_decoder(SMALL | changes, MUP, torch.float64)
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
    bound = terms_of(decoder, tokens)
    plain = plain_multipliers(decoder.settings)
    folded, settings = fold(decoder.state_dict(), decoder.settings, MUP)
    logits = logits_of(settings, folded, plain, tokens, torch.float64)
    assert_within_rounding(logits, expected, bound)
    again = unfold(folded, settings, MUP)
    logits = logits_of(settings, again, MUP, tokens, torch.float64)
    assert_within_rounding(logits, expected, bound)


def test_an_embedding_with_a_norm_stays_tied(make_decoder):
    """The multiplier of embeddings goes into the norm, so the table stays that of the head."""
    decoder = make_decoder(GPT2 | {"embedding_norm": True})
    forward = ForwardMultipliers(3.0, 1.0, 0.5, 1.0)
    folded, settings = fold(decoder.state_dict(), decoder.settings, forward)
    assert settings.tied_embeddings and "output.weight" not in folded
    assert torch.equal(folded["embedding_norm.bias"], 3 * decoder.embedding_norm.bias)


def test_a_head_stays_tied_when_its_multipliers_are_one(make_decoder):
    decoder = make_decoder(GPT2)
    forward = ForwardMultipliers(1.0, 0.5, 0.25, 1.0)
    folded, settings = fold(decoder.state_dict(), decoder.settings, forward)
    assert settings.tied_embeddings and "output.weight" not in folded


@pytest.mark.parametrize("tied", [True, False])
def test_unfolding_gives_the_weights_back_bit_for_bit_for_powers_of_two(make_decoder, tied):
    decoder = make_decoder(GPT2, tied_embeddings=tied)
    forward = ForwardMultipliers(4.0, 0.5, 0.125, 0.25)
    state = decoder.state_dict()
    folded, _ = fold(state, decoder.settings, forward)
    again = unfold(folded, decoder.settings, forward)
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_a_head_that_is_no_multiple_cannot_be_tied(make_decoder):
    decoder = make_decoder(GPT2, tied_embeddings=False)
    tied = decoder.settings.model_copy(update={"tied_embeddings": True})
    with pytest.raises(UserError, match="not proportional to the embedding"):
        unfold(decoder.state_dict(), tied, MUP)


def test_which_tensors_change_and_by_what(make_decoder):
    """Keys alone of the fused projection, with their bias; both matrices that end a branch."""
    shape = SHAPES["gpt2_gqa"]
    decoder = make_decoder(shape, MUP)
    state = decoder.state_dict()
    folded, _ = fold(state, decoder.settings, MUP)
    queries, keys = 4 * 6, 1 * 6
    for name, tensor in folded.items():
        before = state.get(name, state["token_embedding.weight"])
        if name in ("token_embedding.weight", "position_embedding.weight"):
            expected = before * MUP.embedding
        elif name == "output.weight":
            expected = before * MUP.output
        elif "attention.output." in name or "feed_forward.output." in name:
            expected = before * MUP.residual
        elif "query_key_value" in name:
            expected = before.clone()
            expected[queries : queries + keys] *= MUP.attention * 6**0.5
        else:
            expected = before
        assert torch.equal(tensor, expected), name


@pytest.mark.parametrize("dtype,bits", [(torch.float32, 24), (torch.float64, 53)])
def test_a_round_trip_ends_within_one_unit_in_the_last_place(make_decoder, dtype, bits):
    decoder = make_decoder(GPT2, MUP, dtype)
    state = decoder.state_dict()
    again = unfold(fold(state, decoder.settings, MUP)[0], decoder.settings, MUP)
    for name, tensor in again.items():
        last_place = torch.ldexp(torch.ones_like(tensor), state[name].frexp().exponent - bits)
        assert ((tensor - state[name]).abs() <= last_place).all(), name


def test_zeros_stay_zeros(make_decoder):
    decoder = make_decoder(BTLM, MUP)
    state = decoder.state_dict()
    generator = torch.Generator().manual_seed(2)
    kept = {
        name: torch.rand(tensor.shape, generator=generator) < 0.5 for name, tensor in state.items()
    }
    sparse = {name: tensor * kept[name] for name, tensor in state.items()}
    folded, _ = fold(sparse, decoder.settings, MUP)
    for name in state:
        assert torch.equal(folded[name] != 0, kept[name]), name
    again = unfold(folded, decoder.settings, MUP)
    assert all(torch.equal(again[name] != 0, kept[name]) for name in state)


def test_half_precision_is_folded_in_single(make_decoder):
    decoder = make_decoder(GPT2, MUP, torch.bfloat16)
    state = decoder.state_dict()
    folded, _ = fold(state, decoder.settings, MUP)
    assert folded["position_embedding.weight"].dtype == torch.float32
    assert torch.equal(
        folded["position_embedding.weight"],
        state["position_embedding.weight"].float() * MUP.embedding,
    )


def test_equal_multipliers_leave_every_bit(make_decoder):
    decoder = make_decoder(GPT2)
    state = decoder.state_dict()
    assert not same_multipliers(plain_multipliers(decoder.settings), MUP)
    kept = WithMultipliers(state, decoder.settings, MUP, MUP)
    assert list(kept) == list(state)
    assert all(kept[name].data_ptr() == state[name].data_ptr() for name in state)


def test_from_one_parametrization_to_another(make_decoder, tokens):
    """The ratio of the multipliers counts; no plain model stands between."""
    other = ForwardMultipliers(embedding=0.4, residual=1.3, attention=0.5, output=2.0)
    decoder = make_decoder(SHAPES["gpt2_gqa"], MUP, tied_embeddings=False)
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
    changed = WithMultipliers(decoder.state_dict(), decoder.settings, MUP, other)
    logits = logits_of(decoder.settings, dict(changed), other, tokens, torch.float32)
    assert_within_rounding(logits, expected, terms_of(decoder, tokens))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("change", [fold, unfold])
def test_multipliers_that_cannot_be_undone_are_refused(make_decoder, change, value):
    decoder = make_decoder(GPT2)
    forward = ForwardMultipliers(1.0, value, 1.0, 1.0)
    with pytest.raises(UserError, match="the residual multiplier must be finite and not 0"):
        change(decoder.state_dict(), decoder.settings, forward)


def test_a_sparse_model_over_width_and_depth_in_transformers_own_class(tmp_path, tokens):
    """What training leaves, through the folder, in the stock class: float64, eager attention."""
    settings = ModelSettings.model_validate(GPT2 | {"d_model": 32, "d_ff": 48, "n_layers": 4})
    found = table(SPARSE_OVER_DEPTH, model_shapes(settings))
    assert all(value != 1 for value in astuple(found.forward))
    decoder = Decoder(settings).double().eval()
    apply(decoder, found)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise)
            if name.startswith("blocks.") and parameter.dim() == 2:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) < 0.5)
        expected = decoder.logits(decoder(tokens))
    state = dict(decoder.named_parameters())
    description = ModelDescription(settings, SPARSE_OVER_DEPTH)
    export_model(state, description, None, tmp_path / "out", dtype=torch.float64)
    model = GPT2LMHeadModel.from_pretrained(
        tmp_path / "out", attn_implementation="eager", dtype=torch.float64
    ).eval()
    with torch.no_grad():
        logits = model(tokens).logits
    assert_within_rounding(logits, expected, terms_of(decoder, tokens))
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
    # The class stores its matrices transposed.
    inner = model.transformer.h[3].mlp.c_proj.weight.T
    assert torch.equal(inner != 0, state["blocks.3.feed_forward.output.weight"] != 0)
    record = json.loads((tmp_path / "out" / "config.json").read_text())
    assert record["parametrization"] == "sp" and not record["tie_word_embeddings"]
    assert record["folded_from"]["multipliers"]["residual"] == found.forward.residual == 1 / 4
