"""The decoder against a naive float64 model: every position type, mask, norm and feed-forward."""

import pytest
import torch
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.core.progress import listening
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling
from tests.model.naive_decoder import naive_logits
from tests.rounding import assert_within_rounding, terms_of
from tests.train.conftest import Listener

POSITIONS = {
    "learned": {"type": "learned"},
    "none": {"type": "none"},
    "alibi": {"type": "alibi"},
    "rotary": {"type": "rotary"},
    "rotary_partial": {"type": "rotary", "fraction": 0.5},
    "rotary_interleaved": {"type": "rotary", "fraction": 0.5, "interleaved": True},
}
DOCUMENTS = torch.tensor([[0] * 4 + [1] * 5 + [7] * 2, [3] * 10 + [4]])


@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["whole", "documents"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("positions", POSITIONS)
def test_logits_equal_the_naive_model(make_decoder, random_tokens, positions, kv_heads, documents):
    decoder = make_decoder(dtype=torch.float64, positions=POSITIONS[positions], n_kv_heads=kv_heads)
    tokens = random_tokens(2, 11)
    logits = decoder.logits(decoder(tokens, document_ids=documents))
    expected = naive_logits(decoder, tokens, documents)
    assert_within_rounding(logits, expected, terms_of(decoder, tokens))


@pytest.mark.parametrize(
    "changes",
    [
        {"feed_forward": "swiglu"},
        {"norm": {"type": "rms", "epsilon": 1e-6}, "bias": False},
        {"bias": False},
        {"tied_embeddings": False},
        {"head_dim": 6, "n_kv_heads": 2},
        {"n_heads": 3, "d_model": 15, "positions": "alibi"},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_other_shapes_equal_the_naive_model(make_decoder, random_tokens, changes):
    decoder = make_decoder(dtype=torch.float64, **changes)
    tokens = random_tokens(1, 9)
    logits = decoder.logits(decoder(tokens))
    terms = terms_of(decoder, tokens)
    assert_within_rounding(logits, naive_logits(decoder, tokens), terms)


def test_forward_multipliers_act_where_they_are_declared(make_decoder, random_tokens):
    decoder = make_decoder(dtype=torch.float64)
    kinds = {"embedding": 3.0, "residual": 0.5, "attention": 0.2, "output": 0.25}
    for module in decoder.modules():
        for attribute, kind in getattr(module, "forward_multipliers", {}).items():
            setattr(module, attribute, kinds[kind])
    tokens = random_tokens(1, 9)
    logits = decoder.logits(decoder(tokens))
    terms = terms_of(decoder, tokens)
    assert_within_rounding(logits, naive_logits(decoder, tokens), terms)
    expected = F.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum")
    loss, _ = decoder.loss(tokens[:, :-1], tokens[:, 1:])
    assert_within_rounding(loss, expected, terms)


def test_loss_and_gradients_equal_plain_cross_entropy(make_decoder, random_tokens):
    decoder = make_decoder(dtype=torch.float64, positions="alibi", feed_forward="swiglu")
    tokens, labels = random_tokens(2, 10), random_tokens(2, 10, seed=2)
    labels[0, 3:6] = -100
    loss, valid = decoder.loss(tokens, labels)
    gradients = torch.autograd.grad(loss / valid, list(decoder.parameters()))
    logits = decoder.logits(decoder(tokens)).flatten(0, 1)
    plain = F.cross_entropy(logits, labels.flatten())
    expected = torch.autograd.grad(plain, list(decoder.parameters()))
    assert valid.item() == 17
    torch.testing.assert_close(loss / valid, plain)
    assert_within_rounding(gradients, expected, terms_of(decoder, tokens))


def test_token_losses_sum_to_the_loss(make_decoder, random_tokens):
    decoder = make_decoder()
    tokens, labels = random_tokens(2, 10), random_tokens(2, 10, seed=2)
    labels[1, 2] = -100
    losses = decoder.token_losses(tokens, labels)
    loss, _ = decoder.loss(tokens, labels)
    assert losses.shape == labels.shape and losses[1, 2] == 0 and not losses.requires_grad
    torch.testing.assert_close(losses.sum(), loss)


def test_recomputed_activations_give_the_same_gradients(make_decoder, random_tokens):
    tokens, gradients = random_tokens(2, 10), []
    for memory in ("store", "recompute"):
        decoder = make_decoder(positions="rotary")
        decoder.activation_memory = memory
        decoder.loss(tokens, tokens)[0].backward()
        gradients.append([parameter.grad for parameter in decoder.parameters()])
    assert all(map(torch.equal, *gradients))


def test_left_padding_changes_nothing(make_decoder, random_tokens):
    """B4: masked tokens on the left, or an offset on all positions, leave relative kinds alone."""
    decoder = make_decoder(dtype=torch.float64, positions="alibi")
    tokens = random_tokens(2, 9)
    last = decoder(tokens)[:, -1]
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), tokens], dim=1)
    ids = torch.tensor([[-1] * 5 + [0] * 9]).expand(2, -1)
    terms = terms_of(decoder, padded)
    assert_within_rounding(decoder(padded, document_ids=ids)[:, -1], last, terms)
    rotary = make_decoder(dtype=torch.float64, positions="rotary")
    shifted = rotary(tokens, positions=torch.arange(100, 109))
    assert_within_rounding(shifted, rotary(tokens), terms)


def test_dropout_acts_in_training_only(make_decoder, random_tokens):
    decoder, tokens = make_decoder(dropout=0.5), random_tokens(2, 10)
    assert not torch.equal(decoder(tokens), decoder(tokens))
    decoder.eval()
    assert torch.equal(decoder(tokens), decoder(tokens))


def test_positions_beyond_a_learned_table_are_refused(make_decoder, random_tokens):
    decoder = make_decoder(max_sequence_length=8)
    with pytest.raises(UserError, match="position 8 lies beyond the learned table of 8"):
        decoder(random_tokens(1, 9))
    with pytest.raises(UserError, match="position 20"):
        decoder(random_tokens(1, 1), positions=torch.tensor([20]))


def test_slopes_beyond_the_maximum_are_warned_of_once(make_decoder):
    tokens = torch.zeros(1, 24, dtype=torch.int64)
    listener = Listener()
    with listening(listener):
        decoder = make_decoder(positions="alibi", max_sequence_length=16)
        decoder(tokens[:, :16])
        decoder.scale_positions(LinearScaling(type="linear", factor=2))
        decoder(tokens)
        assert listener.lines == []
        decoder.scale_positions(NoScaling())
        decoder(tokens)
        decoder(tokens)
    assert (
        len(listener.lines) == 1 and "24 tokens are more than the model's 16" in listener.lines[0]
    )


def test_no_tokens_are_refused(make_decoder):
    with pytest.raises(UserError, match="at least one token"):
        make_decoder()(torch.zeros(1, 0, dtype=torch.int64))


def test_vocab_size_must_be_known(make_decoder):
    with pytest.raises(UserError, match="vocab_size is not set"):
        make_decoder(vocab_size=None)
