"""Cached decoding equals the full pass (oracle B6); sampling; the ends of generation."""

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.model.context import KeyValueCache
from feldspar.model.generation import generate
from tests.rounding import assert_within_rounding, terms_of

POSITIONS = [
    "learned",
    "none",
    "alibi",
    "rotary",
    {"type": "rotary", "fraction": 0.5, "interleaved": True},
]


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_chunked_prefill_and_decoding_equal_the_full_pass(
    make_decoder, random_tokens, positions, kv_heads
):
    decoder = make_decoder(
        positions=positions, n_kv_heads=kv_heads, max_sequence_length=64, n_layers=3
    )
    tokens = random_tokens(2, 52)
    cache = KeyValueCache(decoder.settings, 2, 52)
    with torch.no_grad():
        full = decoder(tokens)
        parts = [decoder(piece, cache=cache) for piece in tokens.split([1, 7, 40, 1, 1, 2], dim=1)]
    assert cache.length_tokens == 52
    assert_within_rounding(torch.cat(parts, dim=1), full, terms_of(decoder, tokens))


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_greedy_tokens_are_the_same_with_and_without_cache(make_decoder, random_tokens, positions):
    decoder, prompt = make_decoder(positions=positions), random_tokens(3, 5)
    cached = generate(decoder, prompt, 20)
    assert cached.shape == (3, 25) and torch.equal(cached[:, :5], prompt)
    assert torch.equal(cached, generate(decoder, prompt, 20, use_cache=False))


def test_sampling_repeats_with_its_generator_and_obeys_top_k(make_decoder, random_tokens):
    decoder, prompt = make_decoder(), random_tokens(2, 5)

    def sample(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        return generate(decoder, prompt, 12, generator=generator, **options)

    assert torch.equal(sample(3, temperature=1.0), sample(3, temperature=1.0))
    assert not torch.equal(sample(3, temperature=2.0), sample(4, temperature=2.0))
    assert torch.equal(sample(3, temperature=2.0, top_k=1), generate(decoder, prompt, 12))
    assert sample(3, temperature=9.0, n_real_vocab=7)[:, 5:].max() < 7


def test_a_finished_sequence_is_filled_and_generation_stops(make_decoder, random_tokens):
    decoder, prompt = make_decoder(), random_tokens(2, 5)
    plain = generate(decoder, prompt, 10)
    end = int(plain[0, 6])
    ended = generate(decoder, prompt, 10, end_of_document_id=end)
    place = 5 + plain[0, 5:].tolist().index(end)
    assert torch.equal(ended[0, : place + 1], plain[0, : place + 1])
    assert (ended[0, place:] == end).all()
    alone = generate(decoder, prompt[:1], 10, end_of_document_id=end)
    assert alone.shape[1] == place + 1


def test_the_training_mode_is_given_back(make_decoder, random_tokens):
    decoder = make_decoder(dropout=0.5)
    assert torch.equal(
        generate(decoder, random_tokens(1, 4), 6), generate(decoder, random_tokens(1, 4), 6)
    )
    assert decoder.training


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"max_new_tokens": 40}, "45 tokens exceed the learned table of 32"),
        ({"max_new_tokens": 1, "temperature": -1.0}, "must not be negative"),
        ({"max_new_tokens": 1, "top_k": 0}, "top_k at least 1"),
    ],
)
def test_bad_arguments_are_refused(make_decoder, random_tokens, arguments, message):
    with pytest.raises(UserError, match=message):
        generate(make_decoder(), random_tokens(1, 5), **arguments)
    with pytest.raises(UserError, match="at least one token"):
        generate(make_decoder(), random_tokens(1, 0), 1)


def test_a_full_cache_and_documents_with_a_cache_are_refused(make_decoder, random_tokens):
    decoder = make_decoder()
    cache = KeyValueCache(decoder.settings, 1, 4)
    with pytest.raises(UserError, match="the cache holds 4 tokens"):
        decoder(random_tokens(1, 5), cache=cache)
    with pytest.raises(UserError, match="cannot be combined with a cache"):
        decoder(random_tokens(1, 3), document_ids=torch.zeros(1, 3), cache=cache)
