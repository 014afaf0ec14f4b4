"""Folded weights compute the same logits; unfolding undoes it; folding happens once."""

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.huggingface.folding import fold, is_plain, plain_multipliers, unfold
from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.parametrization.tables import ForwardMultipliers
from tests.huggingface.conftest import BTLM, CRYSTAL, GPT2, LLAMA, MUP

SHAPES = {"gpt2": GPT2, "llama_gqa": LLAMA | {"n_kv_heads": 2}, "btlm": BTLM, "crystal": CRYSTAL}


def logits_of(settings, state, forward, tokens, dtype):
    decoder = Decoder(settings).to(dtype).eval()
    decoder.load_state_dict(state)
    set_forward_multipliers(decoder, forward)
    with torch.no_grad():
        return decoder.logits(decoder(tokens))


@pytest.mark.parametrize("dtype,bound", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_folding_is_exact(make_decoder, tokens, shape, tied, dtype, bound):
    decoder = make_decoder(SHAPES[shape], MUP, dtype, tied_embeddings=tied)
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    folded = fold(decoder.state_dict(), decoder.settings, MUP)
    assert not folded.settings.tied_embeddings
    plain = plain_multipliers(folded.settings)
    logits = logits_of(folded.settings, folded.state, plain, tokens, dtype)
    assert (logits - expected).abs().max() <= bound * max(1.0, expected.abs().max().item())
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_head_stays_tied_when_its_multipliers_are_one(make_decoder):
    decoder = make_decoder(GPT2)
    forward = ForwardMultipliers(1.0, 0.5, 0.25, 1.0)
    folded = fold(decoder.state_dict(), decoder.settings, forward)
    assert folded.settings.tied_embeddings and "output.weight" not in folded.state


@pytest.mark.parametrize("tied", [True, False])
def test_unfolding_gives_the_weights_back_bit_for_bit_for_powers_of_two(make_decoder, tied):
    decoder = make_decoder(GPT2, tied_embeddings=tied)
    forward = ForwardMultipliers(4.0, 0.5, 0.125, 0.25)
    state = decoder.state_dict()
    folded = fold(state, decoder.settings, forward)
    again = unfold(folded.state, decoder.settings, forward)
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_a_head_that_is_no_multiple_cannot_be_tied(make_decoder):
    decoder = make_decoder(GPT2, tied_embeddings=False)
    tied = decoder.settings.model_copy(update={"tied_embeddings": True})
    with pytest.raises(UserError, match="no multiple of its embedding"):
        unfold(decoder.state_dict(), tied, MUP)


def test_folding_twice_or_nothing_is_refused(make_decoder):
    decoder = make_decoder(GPT2)
    plain = plain_multipliers(decoder.settings)
    assert is_plain(decoder.settings, plain) and not is_plain(decoder.settings, MUP)
    with pytest.raises(UserError, match="no multipliers to fold"):
        fold(decoder.state_dict(), decoder.settings, plain)
    with pytest.raises(UserError, match="finite and not 0"):
        fold(decoder.state_dict(), decoder.settings, ForwardMultipliers(1.0, 0.0, 1.0, 1.0))
