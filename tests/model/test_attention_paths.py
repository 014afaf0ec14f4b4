"""Every attention path against a float64 reference (oracle B3), values and gradients."""

import pytest
import torch

from feldspar.model import attention_paths
from feldspar.model.attention_paths import attend, augmented_alibi, biased_alibi, masked_attention
from feldspar.model.positions import alibi_slopes
from feldspar.model.visible_keys import VisibleKeys
from tests.model.naive_decoder import naive_attention
from tests.rounding import assert_within_rounding


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def triple(n_heads, n_kv_heads, n_queries, n_keys, head_dim=16, dtype=torch.float32, batch=1):
    return (
        draw(batch, n_heads, n_queries, head_dim, dtype=dtype, seed=1),
        draw(batch, n_kv_heads, n_keys, head_dim, dtype=dtype, seed=2),
        draw(batch, n_kv_heads, n_keys, head_dim, dtype=dtype, seed=3),
    )


def slopes_of(n_heads):
    return torch.tensor(alibi_slopes(n_heads))


def exact_alibi(query, key, value, scale, slopes):
    """The whole bias in float64."""
    query, key, value = (part.double() for part in (query, key, value))
    share = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(share, 1), value.repeat_interleave(share, 1)
    n_queries, n_keys = query.shape[2], key.shape[2]
    distance = torch.arange(n_keys - n_queries, n_keys)[:, None] - torch.arange(n_keys)
    scores = query @ key.transpose(2, 3) * scale - slopes.double()[:, None, None] * distance
    return scores.masked_fill(distance < 0, float("-inf")).softmax(-1) @ value


@pytest.mark.parametrize("n_heads,n_kv_heads", [(8, 8), (12, 12), (12, 4), (8, 1)])
@pytest.mark.parametrize("path", [augmented_alibi, biased_alibi])
def test_alibi_paths_equal_the_reference_at_2048(path, n_heads, n_kv_heads):
    query, key, value = triple(n_heads, n_kv_heads, 2048 if n_heads == 8 else 1037, 2048)
    key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
    expected = exact_alibi(query, key, value, 0.25, slopes_of(n_heads))
    out = path(query, key, value, 0.25, slopes_of(n_heads))
    assert_within_rounding(out, expected, query.shape[2] + 16)


@pytest.mark.parametrize("length", [1, 7, 40, 531])
@pytest.mark.parametrize("n_heads,n_kv_heads", [(8, 8), (12, 4)])
def test_alibi_gradients_equal_the_reference(n_heads, n_kv_heads, length):
    inputs = [part.requires_grad_() for part in triple(n_heads, n_kv_heads, length, length)]
    weights = draw(1, n_heads, length, 16, seed=4)
    out = attend(*inputs, 0.25, slopes_of(n_heads))
    gradients = torch.autograd.grad((out * weights).sum(), inputs)
    exact = exact_alibi(*inputs, 0.25, slopes_of(n_heads))
    expected = torch.autograd.grad((exact * weights.double()).sum(), inputs)
    terms = 2 * (16 + n_heads // n_kv_heads * length)
    # One token alone has no gradient of its scores: the other gradients set the scale.
    scale = max(float(gradient.abs().max()) for gradient in expected)
    assert_within_rounding(gradients, expected, terms, scale=scale)


@pytest.mark.parametrize("path", [augmented_alibi, biased_alibi])
def test_alibi_in_bfloat16_stays_within_two_units_of_the_last_place(path):
    inputs = triple(8, 8, 600, 600, dtype=torch.bfloat16)
    exact = exact_alibi(*inputs, 0.25, slopes_of(8))
    out = path(*inputs, 0.25, slopes_of(8))
    # The kernel rounds the probabilities, so the unit is that of the largest entry of each row.
    ulp = 2.0 ** (exact.abs().amax(-1, keepdim=True).log2().floor() - 7)
    assert out.dtype == torch.bfloat16
    assert ((out.double() - exact.bfloat16().double()).abs() / ulp).max() <= 2


@pytest.mark.parametrize("n_queries", [1, 3, 7])
@pytest.mark.parametrize("with_slopes", [False, True])
@pytest.mark.parametrize("n_kv_heads", [6, 2])
def test_fewer_queries_than_keys_end_where_the_keys_end(n_queries, with_slopes, n_kv_heads):
    inputs = triple(6, n_kv_heads, n_queries, 13)
    slopes = alibi_slopes(6) if with_slopes else None
    out = attend(*inputs, 0.3, slopes_of(6) if with_slopes else None)
    expected = naive_attention(*inputs, 0.3, slopes)
    assert_within_rounding(out, expected, 13 + 16)


@pytest.mark.parametrize("with_slopes", [False, True])
def test_chunks_of_rows_change_nothing(monkeypatch, with_slopes):
    """Documents that cross chunk borders, more than one chunk, a last chunk that is not full."""
    monkeypatch.setattr(attention_paths, "ATTENTION_CHUNK_ROWS", 5)
    inputs = triple(4, 2, 17, 17, batch=2)
    ids = torch.tensor([[0] * 3 + [1] * 9 + [2] * 5, [0] * 17])
    slopes = alibi_slopes(4) if with_slopes else None
    for documents in (None, ids):
        expected = naive_attention(*inputs, 0.3, slopes, documents)
        if with_slopes:
            outs = [
                path(*inputs, 0.3, slopes_of(4), VisibleKeys(documents))
                for path in (augmented_alibi, biased_alibi)
            ]
        else:
            outs = [masked_attention(*inputs, 0.3, VisibleKeys(documents))]
        for out in outs:
            assert_within_rounding(out, expected, 17 + 16)
