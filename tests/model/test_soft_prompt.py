"""Learned vectors among tokens: positions, gradients, caches, and the plain model without them."""

import pytest
import torch
from torch.nn import functional as F

from feldspar.core.rows import Role
from feldspar.model.decoder import Decoder
from feldspar.model.generation import generate
from feldspar.model.layers import SOFT_PROMPT
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import apply, parameter_groups
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from tests.model.test_generation import POSITIONS

LENGTH = 3
PARAMETRIZATIONS = [
    {"type": "sp"},
    {"type": "mup", "base_d_model": 8, "base_d_ff": 16, "embedding_multiplier": 3.0},
    {"type": "supar", "base_d_model": 8, "base_d_ff": 16, "output_multiplier": 2.0},
    {"type": "completep", "base_d_model": 8, "base_d_ff": 16, "base_n_layers": 1},
]


def prompted(make_settings, **changes):
    """A decoder with a soft prompt, the plain one of the same weights, and the vectors' ids."""
    settings = make_settings(**changes)
    with_prompt, plain = Decoder(settings, LENGTH), Decoder(settings)
    torch.manual_seed(0)
    for parameter in with_prompt.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    own = dict(with_prompt.named_parameters())
    plain.load_state_dict({name: own[name] for name, _ in plain.named_parameters()})
    ids = settings.vocab_size + torch.arange(LENGTH)
    return with_prompt, plain, ids


def with_vectors(tokens, ids, place):
    """The ids of the vectors among the tokens (b, t), from ``place`` on."""
    vectors = ids.expand(len(tokens), -1)
    return torch.cat([tokens[:, :place], vectors, tokens[:, place:]], dim=1)


def test_the_vectors_are_the_last_row(make_settings):
    settings = make_settings(tied_embeddings=False)
    rows = model_shapes(settings, LENGTH).rows
    assert rows[:-1] == model_shapes(settings).rows
    assert (rows[-1].name, rows[-1].role) == (SOFT_PROMPT, Role.PROMPT)
    assert rows[-1].shape == (LENGTH, settings.d_model)


@pytest.mark.parametrize("values", PARAMETRIZATIONS, ids=lambda values: values["type"])
def test_the_table_treats_the_vectors_as_token_embeddings_without_decay(make_settings, values):
    settings = ParametrizationSettings.model_validate(values | {"learning_rate": 1e-2})
    model = make_settings()
    made = table(settings, model_shapes(model, LENGTH))
    prompt, token = made.entry(SOFT_PROMPT), made.entry("token_embedding.weight")
    assert (prompt.init_std, prompt.learning_rate_multiplier, prompt.epsilon_multiplier) == (
        token.init_std,
        token.learning_rate_multiplier,
        token.epsilon_multiplier,
    )
    assert (prompt.weight_decay_multiplier, prompt.density) == (0.0, 1.0)
    decoder = Decoder(model, LENGTH)
    apply(decoder, made, seed=1)
    undecayed = [g for g in parameter_groups(decoder, made) if not g.weight_decay_multiplier]
    assert sum(SOFT_PROMPT in group.names for group in undecayed) == 1
    # No other tensor begins otherwise because of it.
    plain = Decoder(model)
    apply(plain, table(settings, model_shapes(model)), seed=1)
    own = dict(decoder.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in plain.named_parameters())


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_vectors_equal_tokens_with_the_same_embeddings(make_settings, random_tokens, positions):
    """A vector that is a token's embedding does what the token does there: positions run on."""
    decoder, plain, ids = prompted(make_settings, positions=positions)
    tokens = random_tokens(2, 9)
    with torch.no_grad():
        decoder.soft_prompt.weight.copy_(decoder.token_embedding.weight[tokens[0, 4:7]])
        tokens[:, 4:7] = tokens[0, 4:7]
        replaced = torch.cat([tokens[:, :4], ids.expand(2, -1), tokens[:, 7:]], dim=1)
        assert torch.equal(decoder(replaced), plain(tokens))


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_a_naive_decoder_fed_with_embeddings_agrees(make_settings, random_tokens, positions):
    """Against the plain decoder whose table has the vectors as further rows."""
    decoder, plain, ids = prompted(make_settings, positions=positions)
    wide = Decoder(
        make_settings(positions=positions, vocab_size=plain.settings.vocab_size + LENGTH)
    )
    state = dict(plain.state_dict())
    rows = torch.cat([state["token_embedding.weight"], decoder.soft_prompt.weight.detach()])
    wide.load_state_dict(state | {"token_embedding.weight": rows})
    tokens = with_vectors(random_tokens(2, 8), ids, 5)
    torch.testing.assert_close(decoder(tokens), wide(tokens), rtol=0, atol=0)


@pytest.mark.parametrize("place", [0, 5])
def test_gradients_reach_the_vectors_and_only_they_move(make_settings, random_tokens, place):
    decoder, plain, ids = prompted(make_settings)
    tokens = random_tokens(2, 8)
    labels = tokens.roll(-1, 1)
    loss, _ = decoder.loss(with_vectors(tokens, ids, place), with_vectors(labels, ids * 0, place))
    loss.backward()
    gradient = decoder.soft_prompt.weight.grad
    assert gradient.shape == (LENGTH, decoder.settings.d_model)
    assert (gradient.abs().sum(1) > 0).all()
    # Without a vector in the sequences nothing differs from the plain model.
    decoder.zero_grad()
    for model in (decoder, plain):
        loss, _ = model.loss(tokens, labels)
        loss.backward()
    own = dict(decoder.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(own[name].grad, parameter.grad), name
    assert not decoder.soft_prompt.weight.grad.any()


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_generation_with_a_cache_equals_generation_without(make_settings, random_tokens, positions):
    decoder, _, ids = prompted(make_settings, positions=positions)
    for place in (0, 6):
        prompt = with_vectors(random_tokens(3, 6), ids, place)
        cached = generate(decoder, prompt, 12)
        assert torch.equal(cached, generate(decoder, prompt, 12, use_cache=False))
        assert cached[:, prompt.shape[1] :].max() < decoder.settings.vocab_size


def test_the_embedding_multiplier_reaches_the_vectors(make_settings, random_tokens):
    decoder, _, ids = prompted(make_settings, positions="none", n_layers=1)
    decoder.embedding_multiplier = 5.0
    tokens = with_vectors(random_tokens(1, 4), ids, 4)
    rows = torch.cat([decoder.token_embedding.weight, decoder.soft_prompt.weight])
    expected = F.embedding(tokens, rows) * 5.0
    torch.testing.assert_close(decoder._embed(tokens, None), expected)
