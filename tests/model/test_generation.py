"""Cached decoding equals the full pass (oracle B6); sampling; the ends of generation."""

import math

import pytest
import torch

from feldspar.core.errors import UserError
from feldspar.model.context import KeyValueCache
from feldspar.model.generation import Sampling, generate, new_cache, stream_tokens
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
        n_real = options.pop("n_real_vocab", None)
        sampling = Sampling(**options)
        return generate(
            decoder, prompt, 12, sampling=sampling, generator=generator, n_real_vocab=n_real
        )

    assert torch.equal(sample(3, temperature=1.0), sample(3, temperature=1.0))
    assert not torch.equal(sample(3, temperature=2.0), sample(4, temperature=2.0))
    greedy = generate(decoder, prompt, 12)
    assert torch.equal(sample(3, temperature=2.0, top_k=1), greedy)
    assert torch.equal(sample(3, temperature=2.0, top_p=1e-9), greedy)
    assert sample(3, temperature=9.0, n_real_vocab=7)[:, 5:].max() < 7


def kept_by_hand(row: list[float], sampling: Sampling) -> set[int]:
    """Return the tokens that may be drawn, by the definitions and in Python's floats."""
    scores = [score / sampling.temperature for score in row]
    order = sorted(range(len(row)), key=lambda token: (-scores[token], token))
    if sampling.top_k is not None:
        order = [token for token in order if scores[token] >= scores[order[sampling.top_k - 1]]]
    if sampling.top_p in (None, 1.0):
        return set(order)
    weights = [math.exp(scores[token] - scores[order[0]]) for token in order]
    kept: list[int] = []
    while sum(weights[: len(kept)]) < sampling.top_p * sum(weights):
        kept.append(order[len(kept)])
    return set(kept)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("top_k", [None, 1, 7])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.93, 1.0])
def test_tokens_are_left_out_as_defined_and_as_by_transformers(temperature, top_k, top_p):
    from transformers.generation import logits_process as theirs

    sampling = Sampling(temperature, top_k, top_p)
    logits = torch.randn(20, 40, generator=torch.Generator().manual_seed(5)) * 3
    found = sampling.truncated(logits)
    for row, kept in zip(logits.tolist(), found.isfinite(), strict=True):
        assert set(kept.nonzero().flatten().tolist()) == kept_by_hand(row, sampling)
    ids = torch.zeros(20, 1, dtype=torch.long)
    expected = theirs.TemperatureLogitsWarper(temperature)(ids, logits)
    if top_k is not None:
        expected = theirs.TopKLogitsWarper(top_k)(ids, expected)
    if top_p is not None and top_p < 1:
        expected = theirs.TopPLogitsWarper(top_p)(ids, expected)
    assert torch.equal(found, expected)


def test_top_p_keeps_the_token_that_crosses_the_limit():
    logits = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log()

    def kept(top_p):
        return Sampling(1.0, top_p=top_p).truncated(logits)[0].isfinite().tolist()

    assert kept(0.35) == [True, False, False, False]
    assert kept(0.6) == [True, False, True, False]
    assert kept(0.75) == [True, False, True, True]
    assert kept(0.95) == [True, True, True, True]


def test_draws_have_the_probabilities_that_are_left():
    logits = torch.tensor([0.4, 0.1, 0.3, 0.2]).log().expand(4000, 4)
    generator = torch.Generator().manual_seed(0)
    drawn = Sampling(1.0, top_p=0.6).choose(logits, generator)
    share = (drawn == 0).double().mean().item()
    assert set(drawn.tolist()) == {0, 2}
    assert abs(share - 4 / 7) < 4 * (4 / 7 * 3 / 7 / 4000) ** 0.5  # four standard errors


def test_a_cache_of_the_caller_continues_what_it_holds(make_decoder, random_tokens):
    decoder, prompt = make_decoder(), random_tokens(1, 9)
    expected = generate(decoder, prompt, 8)[0, 9:].tolist()
    cache = new_cache(decoder, 1, 17)
    first = [int(token) for token in stream_tokens(decoder, prompt[:, :4], 3, cache=cache)]
    assert len(first) == 3 and cache.length_tokens == 6, "the last token is not read yet"
    cache.rewind(4)
    new = stream_tokens(decoder, prompt[:, 4:], 8, cache=cache)
    assert [int(token) for token in new] == expected
    with pytest.raises(UserError, match="holds 16 tokens, fewer than 17"):
        cache.rewind(17)


def test_a_finished_sequence_is_filled_and_generation_stops(make_decoder, random_tokens):
    decoder, prompt = make_decoder(), random_tokens(2, 5)
    plain = generate(decoder, prompt, 10)
    end = int(plain[0, 6])
    ended = generate(decoder, prompt, 10, stop_ids=[end])
    place = 5 + plain[0, 5:].tolist().index(end)
    assert torch.equal(ended[0, : place + 1], plain[0, : place + 1])
    assert (ended[0, place:] == end).all()
    alone = generate(decoder, prompt[:1], 10, stop_ids=[end])
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
        ({"max_new_tokens": -1}, "max_new_tokens must not be negative"),
    ],
)
def test_bad_arguments_are_refused(make_decoder, random_tokens, arguments, message):
    with pytest.raises(UserError, match=message):
        generate(make_decoder(), random_tokens(1, 5), **arguments)
    with pytest.raises(UserError, match="at least one token"):
        generate(make_decoder(), random_tokens(1, 0), 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"temperature": -1.0}, "temperature must be a number from 0 on"),
        ({"temperature": float("nan")}, "temperature must be a number from 0 on"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
    ],
)
def test_bad_sampling_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Sampling(**arguments)


def test_a_full_cache_and_documents_with_a_cache_are_refused(make_decoder, random_tokens):
    decoder = make_decoder()
    cache = KeyValueCache(decoder.settings, 1, 4)
    with pytest.raises(UserError, match="the cache holds 4 tokens"):
        decoder(random_tokens(1, 5), cache=cache)
    with pytest.raises(UserError, match="cannot be combined with a cache"):
        decoder(random_tokens(1, 3), document_ids=torch.zeros(1, 3), cache=cache)
