"""Scaled positions through the whole decoder: every attention path, documents, a cache."""

from typing import Any

import pytest
import torch

from feldspar.model import attention_paths
from feldspar.model.blocked_attention import blocked_attention
from feldspar.model.context import KeyValueCache
from feldspar.model.decoder import Decoder
from feldspar.model.generation import generate
from feldspar.model.positions import alibi_slopes
from tests.model.naive_decoder import naive_attention, naive_logits
from tests.model.test_attention_paths import triple
from tests.model.test_position_scaling import scaling
from tests.rounding import assert_within_rounding, terms_of

LINEAR = scaling("linear", factor=2)
SEQUENCE = scaling("linear", train_length=8)
QUERY = scaling("linear", train_length=8, scope="query")
NTK = scaling("ntk", factor=3)
ROTARY = {"type": "rotary", "interleaved": True}
CASES = {
    "alibi linear": ("alibi", LINEAR),
    "alibi sequence": ("alibi", SEQUENCE),
    "alibi query": ("alibi", QUERY),
    "alibi ntk": ("alibi", NTK),
    "rotary linear": (ROTARY, LINEAR),
    "rotary sequence": ("rotary", SEQUENCE),
    "rotary ntk": (ROTARY, NTK),
    "rotary growing ntk": ("rotary", scaling("ntk", factor=2, train_length=8)),
    "rotary yarn": ("rotary", scaling("yarn", factor=4, train_length=8)),
    "rotary llama3": ("rotary", scaling("llama3", factor=4, train_length=8)),
}


def scaled(make_decoder: Any, case: str, **changes: Any) -> Decoder:
    positions, chosen = CASES[case]
    decoder = make_decoder(positions=positions, **changes)
    decoder.scale_positions(chosen)
    return decoder


@pytest.mark.parametrize(
    "case",
    [name for name in CASES if "ntk" not in name and "yarn" not in name and "llama3" not in name],
)
@pytest.mark.parametrize("with_documents", [False, True])
def test_logits_are_those_of_the_naive_decoder(
    make_decoder: Any, random_tokens: Any, case: str, with_documents: bool
) -> None:
    decoder = scaled(make_decoder, case, dtype=torch.float64)
    tokens = random_tokens(2, 21)
    ids = torch.tensor([[0] * 3 + [1] * 12 + [2] * 6, [0] * 21]) if with_documents else None
    expected = naive_logits(decoder, tokens, ids)
    found = decoder.logits(decoder(tokens, document_ids=ids))
    assert_within_rounding(found, expected, terms_of(decoder, tokens))


def test_rotary_ntk_is_another_base(make_decoder: Any, random_tokens: Any) -> None:
    base = 10000.0 * 3 ** (4 / 2)
    wide = make_decoder(positions={"type": "rotary", "base": base}, dtype=torch.float64)
    decoder = make_decoder(positions="rotary", dtype=torch.float64)
    decoder.scale_positions(NTK)
    tokens = random_tokens(2, 21)
    assert_within_rounding(decoder(tokens), wide(tokens), terms_of(decoder, tokens))


@pytest.mark.parametrize("n_queries", [17, 4])
def test_every_path_takes_slopes_of_each_query(
    monkeypatch: pytest.MonkeyPatch, n_queries: int
) -> None:
    monkeypatch.setattr(attention_paths, "ATTENTION_CHUNK_ROWS", 5)
    inputs = triple(4, 4, n_queries, 17, batch=2)
    factors = 1 + torch.arange(2.0 * n_queries).view(2, n_queries) / 5
    slopes = torch.tensor(alibi_slopes(4))[:, None] / factors[:, None]
    expected = naive_attention(*inputs, 0.3, alibi_slopes(4), divisors=factors)
    outs = [attention_paths.biased_alibi(*inputs, 0.3, slopes)]
    if n_queries == 17:
        outs += [
            path(*inputs, 0.3, slopes)
            for path in (attention_paths.augmented_alibi, blocked_attention)
        ]
    for out in outs:
        assert_within_rounding(out, expected, 17 + 16)


def test_blocked_gradients_with_slopes_of_each_query() -> None:
    """Several groups of heads and blocks of rows."""
    inputs = [part.requires_grad_() for part in triple(3, 3, 130, 130, head_dim=8, batch=9)]
    factors = 1 + torch.arange(9 * 130.0).view(9, 130) / 400
    slopes = torch.tensor(alibi_slopes(3))[:, None] / factors[:, None]
    weights = torch.randn(9, 3, 130, 8, generator=torch.Generator().manual_seed(4))
    found = torch.autograd.grad((blocked_attention(*inputs, 0.3, slopes) * weights).sum(), inputs)
    other = attention_paths.biased_alibi(*inputs, 0.3, slopes)
    expected = torch.autograd.grad((other * weights).sum(), inputs)
    assert_within_rounding(found, expected, 2 * (130 + 8))


@pytest.mark.parametrize("case", CASES)
def test_chunked_prefill_and_decoding_equal_the_full_pass(
    make_decoder: Any, random_tokens: Any, case: str
) -> None:
    """Oracle B6; a scaling that grows counts by the cache's room, from the first token on."""
    decoder = scaled(make_decoder, case, dtype=torch.float64, n_kv_heads=2, n_layers=3)
    tokens = random_tokens(2, 52)
    cache = KeyValueCache(decoder.settings, 2, 52, torch.float64)
    with torch.no_grad():
        full = decoder(tokens)
        parts = [decoder(piece, cache=cache) for piece in tokens.split([1, 7, 40, 1, 1, 2], dim=1)]
    assert_within_rounding(torch.cat(parts, dim=1), full, terms_of(decoder, tokens))


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_are_the_same_with_and_without_cache(
    make_decoder: Any, random_tokens: Any, case: str
) -> None:
    decoder, prompt = scaled(make_decoder, case), random_tokens(3, 5)
    cached = generate(decoder, prompt, 20)
    assert torch.equal(cached, generate(decoder, prompt, 20, use_cache=False))


def test_a_growing_length_changes_earlier_positions_a_query_of_its_own_does_not(
    make_decoder: Any, random_tokens: Any
) -> None:
    tokens = random_tokens(1, 24)
    for case, moves in (("alibi sequence", True), ("alibi query", False)):
        decoder = scaled(make_decoder, case, dtype=torch.float64)
        with torch.no_grad():
            difference = float((decoder(tokens)[:, :16] - decoder(tokens[:, :16])).abs().max())
        assert difference > 1e-3 if moves else difference < 1e-12


@pytest.mark.parametrize("case", [name for name in CASES if name != "alibi query"])
def test_only_distances_count(make_decoder: Any, random_tokens: Any, case: str) -> None:
    """Oracle B4: an offset of all positions, and another document before this one."""
    decoder = scaled(make_decoder, case, dtype=torch.float64)
    tokens = random_tokens(1, 20)
    with torch.no_grad():
        plain = decoder(tokens)
        moved = decoder(tokens, positions=torch.arange(20) + 11)
        ids = torch.tensor([[0] * 5 + [1] * 20])
        behind = decoder(torch.cat([tokens[:, :5], tokens], dim=1), document_ids=ids)[:, 5:]
    terms = terms_of(decoder, ids)
    assert_within_rounding(moved, plain, terms)
    assert_within_rounding(behind, plain, terms)
