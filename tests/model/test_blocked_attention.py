"""The processor's training path against a float64 reference, values and gradients."""

import pytest
import torch

from feldspar.model.blocked_attention import KEPT_BYTES, blocked_attention, suits_blocks
from feldspar.model.positions import alibi_slopes
from tests.model.test_attention_paths import exact_alibi
from tests.rounding import assert_within_rounding


def draw(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator)


# Lengths around a block's 64 rows; groups of heads that do and do not divide all of them.
@pytest.mark.parametrize("n_sequences,n_heads,length", [(1, 1, 1), (3, 12, 65), (40, 5, 130)])
@pytest.mark.parametrize("with_slopes", [False, True])
def test_values_and_gradients_equal_the_reference(
    n_sequences: int, n_heads: int, length: int, with_slopes: bool
) -> None:
    shape = (n_sequences, n_heads, length, 8)
    inputs = [draw(*shape, seed=seed).requires_grad_() for seed in (1, 2, 3)]
    weights = draw(*shape, seed=4)
    slopes = torch.tensor(alibi_slopes(n_heads)) if with_slopes else torch.zeros(n_heads)
    out = blocked_attention(*inputs, 0.3, slopes if with_slopes else None)
    expected = exact_alibi(*inputs, 0.3, slopes)
    assert_within_rounding(out, expected, length + 8)
    ours = torch.autograd.grad((out * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights.double()).sum(), inputs)
    scale = max(float(gradient.abs().max()) for gradient in theirs)
    assert_within_rounding(ours, theirs, 2 * (length + 8), scale=scale)


def test_heads_may_be_views_of_one_projection() -> None:
    fused = draw(2, 70, 3 * 4 * 8, seed=5).requires_grad_()
    query, key, value = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in fused.split(32, -1))
    out = blocked_attention(query, key, value, 0.3)
    exact = exact_alibi(query, key, value, 0.3, torch.zeros(4))
    assert_within_rounding(out, exact, 70 + 8)


def test_where_it_does_not_suit() -> None:
    query = draw(2, 4, 16, 8, seed=1).requires_grad_()
    assert suits_blocks(query, query)
    assert not suits_blocks(query.detach(), query)
    assert not suits_blocks(query, query[:, :2])
    assert not suits_blocks(query[:, :, :1], query)
    assert not suits_blocks(query.double(), query.double())
    length = int((KEPT_BYTES // 2) ** 0.5) + 8
    long = torch.empty(1, 1, length, 1).requires_grad_()
    assert not suits_blocks(long, long)
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits_blocks(query, query)
