"""Layers that see a sliding window: every path of attention, the decoder, the cache, the checks."""

import pytest
import torch
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.model.attention_paths import attend, augmented_alibi, biased_alibi, masked_attention
from feldspar.model.blocked_attention import suits_blocks
from feldspar.model.context import KeyValueCache
from feldspar.model.generation import generate
from feldspar.model.positions import alibi_slopes
from feldspar.model.visible_keys import VisibleKeys
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import ModelSettings
from tests.model.conftest import SMALL
from tests.model.naive_decoder import naive_attention, naive_logits
from tests.model.test_attention_paths import slopes_of, triple
from tests.model.test_decoder import DOCUMENTS, POSITIONS
from tests.rounding import assert_within_rounding, terms_of

MIXED = {"n_layers": 3, "sliding_window": {"tokens": 4, "full_every": 2}}
EVERYWHERE = {"sliding_window": {"tokens": 3}}


@pytest.mark.parametrize("window", [1, 20, 64, 65, 149, 150, 200])
@pytest.mark.parametrize("with_slopes", [False, True])
@pytest.mark.parametrize("n_kv_heads", [3, 1])
def test_values_and_gradients_equal_the_reference(
    window: int, with_slopes: bool, n_kv_heads: int
) -> None:
    """Equal heads take blocks of 64 rows on a processor, grouped ones the fused kernel."""
    inputs = [part.requires_grad_() for part in triple(3, n_kv_heads, 150, 150, head_dim=8)]
    assert suits_blocks(*inputs[:2]) == (n_kv_heads == 3)
    out = attend(*inputs, 0.3, slopes_of(3) if with_slopes else None, VisibleKeys(None, window))
    slopes = alibi_slopes(3) if with_slopes else None
    expected = naive_attention(*inputs, 0.3, slopes, window=window)
    assert_within_rounding(out, expected, 150 + 8)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(4))
    found = torch.autograd.grad((out * weights).sum(), inputs)
    reference = torch.autograd.grad((expected * weights.double()).sum(), inputs)
    # A window of one key has no gradient of its scores: the other gradients set the scale.
    scale = max(float(gradient.abs().max()) for gradient in reference)
    assert_within_rounding(found, reference, 2 * (8 + 3 * 150), scale=scale)


@pytest.mark.parametrize("with_slopes", [False, True])
@pytest.mark.parametrize("window", [1, 3, 6, 17])
def test_chunks_of_rows_with_documents(
    monkeypatch: pytest.MonkeyPatch, with_slopes: bool, window: int
) -> None:
    monkeypatch.setattr("feldspar.model.attention_paths.ATTENTION_CHUNK_ROWS", 5)
    inputs = triple(4, 2, 17, 17, batch=2)
    ids = torch.tensor([[0] * 3 + [1] * 9 + [2] * 5, [0] * 17])
    for documents in (None, ids):
        visible = VisibleKeys(documents, window)
        if with_slopes:
            expected = naive_attention(*inputs, 0.3, alibi_slopes(4), documents, window=window)
            paths = (augmented_alibi, biased_alibi)
            outs = [path(*inputs, 0.3, slopes_of(4), visible) for path in paths]
        else:
            expected = naive_attention(*inputs, 0.3, None, documents, window=window)
            outs = [masked_attention(*inputs, 0.3, visible)]
        for out in outs:
            assert_within_rounding(out, expected, 17 + 16)


@pytest.mark.parametrize("n_queries", [1, 3, 7])
@pytest.mark.parametrize("with_slopes", [False, True])
def test_fewer_queries_than_keys(n_queries: int, with_slopes: bool) -> None:
    inputs = triple(6, 2, n_queries, 13)
    out = attend(*inputs, 0.3, slopes_of(6) if with_slopes else None, VisibleKeys(None, 4))
    slopes = alibi_slopes(6) if with_slopes else None
    assert_within_rounding(out, naive_attention(*inputs, 0.3, slopes, window=4), 13 + 16)


def test_keys_outside_the_window_are_not_read() -> None:
    """Keys of a chunk begin where its first query's window begins."""
    chunks = list(VisibleKeys(None, 10).chunks(200, 200, 64))
    assert [chunk.keys for chunk in chunks] == [
        slice(0, 64),
        slice(55, 128),
        slice(119, 192),
        slice(183, 200),
    ]


@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["whole", "documents"])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("window", [MIXED, EVERYWHERE], ids=["mixed", "everywhere"])
def test_loss_and_gradients_equal_the_naive_model(
    make_decoder, random_tokens, window, positions, kv_heads, documents
) -> None:
    changes = {"positions": POSITIONS[positions], "n_kv_heads": kv_heads} | window
    decoder = make_decoder(dtype=torch.float64, **changes)
    tokens, labels = random_tokens(2, 11), random_tokens(2, 11, seed=2)
    logits = decoder.logits(decoder(tokens, document_ids=documents))
    naive = naive_logits(decoder, tokens, documents)
    terms = terms_of(decoder, tokens)
    assert_within_rounding(logits, naive, terms)
    loss, _ = decoder.loss(tokens, labels, documents)
    expected = F.cross_entropy(naive.flatten(0, 1), labels.flatten(), reduction="sum")
    found = torch.autograd.grad(loss, list(decoder.parameters()))
    reference = torch.autograd.grad(expected, list(decoder.parameters()))
    assert_within_rounding(found, reference, terms)


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi", "none"])
def test_a_window_changes_the_logits_from_its_length_on(
    make_decoder, random_tokens, positions
) -> None:
    plain, tokens = make_decoder(n_layers=1, positions=positions), random_tokens(1, 9)
    windowed = make_decoder(n_layers=1, positions=positions, **EVERYWHERE)
    windowed.load_state_dict(plain.state_dict())
    difference = (windowed(tokens) - plain(tokens)).abs().amax(-1)[0]
    assert difference[:3].max() <= 1e-6 and difference[3:].min() > 1e-4


@pytest.mark.parametrize("positions", ["learned", "rotary", "alibi"])
def test_the_cache_gives_what_a_whole_pass_gives(make_decoder, random_tokens, positions) -> None:
    decoder = make_decoder(positions=positions, n_kv_heads=2, **MIXED).eval()
    tokens = random_tokens(2, 13)
    cache = KeyValueCache(decoder.settings, 2, 13)
    with torch.no_grad():
        pieces = [decoder(piece, cache=cache) for piece in tokens.split([6, 1, 1, 3, 2], dim=1)]
        whole = decoder(tokens)
    assert_within_rounding(torch.cat(pieces, dim=1), whole, terms_of(decoder, tokens))
    expected = generate(decoder, tokens[:, :6], 12, use_cache=False)
    assert torch.equal(generate(decoder, tokens[:, :6], 12), expected)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"tokens": 33}, "sliding_window.tokens: 33 are more than max_sequence_length, 32"),
        ({"tokens": 8, "full_every": 3}, "sliding_window.full_every: no layer of 2 is the 3th"),
        ({"tokens": 0}, "greater than or equal to 1"),
        ({"tokens": 8, "full_every": 1}, "greater than or equal to 2"),
        ({"full_every": 2}, "Field required"),
    ],
)
def test_windows_that_do_nothing_are_refused(window: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSettings.model_validate(SMALL | {"sliding_window": window})


def test_a_recipe_without_a_window_keeps_its_digest() -> None:
    plain = load_recipe("btlm/small")
    assert "sliding_window" not in plain.recipe.model_dump_json()
    again = load_recipe("btlm/small", ["model.sliding_window=null"])
    other = load_recipe("btlm/small", ["model.sliding_window={tokens: 16}"])
    assert plain.digest == again.digest != other.digest
    with pytest.raises(UserError, match=r"sliding_window\.tokens"):
        load_recipe("btlm/small", ["model.sliding_window.tokens=100000"])
