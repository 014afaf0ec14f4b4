"""ALiBi slopes (oracle B1), rotary angles (oracle 8.4 of Crystal), positions inside documents."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.model.positions import (
    alibi_slopes,
    document_lengths,
    document_positions,
    rotary_frequencies,
    rotary_tables,
    rotate,
)
from feldspar.recipe.sections.model import RotaryPositions
from tests.model.naive_decoder import naive_rotation, naive_slope


def test_published_slopes():
    assert alibi_slopes(1) == [2**-8]
    assert alibi_slopes(2) == [2**-4, 2**-8]
    assert alibi_slopes(3) == [2**-4, 2**-8, 2**-2]
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(12)[:8] == alibi_slopes(8)
    assert alibi_slopes(12)[8:] == pytest.approx([2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    assert sum(alibi_slopes(8)) == 0.99609375
    assert alibi_slopes(12)[-1] == pytest.approx(0.08838834764, abs=1e-11)
    assert alibi_slopes(16)[0] == pytest.approx(0.70710678, abs=1e-8)
    assert alibi_slopes(20)[-1] == pytest.approx(0.29730178, abs=1e-8)
    assert alibi_slopes(71)[-1] == pytest.approx(0.56939432, abs=1e-8)


@pytest.mark.parametrize("n_heads", [*range(1, 21), 32, 40, 71, 112])
def test_slopes_follow_the_recursive_rule(n_heads):
    expected = [naive_slope(head, n_heads) for head in range(n_heads)]
    assert alibi_slopes(n_heads) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_heads", [0, -1, 2.5])
def test_slopes_need_a_whole_number_of_heads(n_heads):
    with pytest.raises(ValueError, match="whole number of heads"):
        alibi_slopes(n_heads)


def test_slopes_with_another_exponent():
    assert alibi_slopes(4, max_exponent=4.0) == [0.5, 0.25, 0.125, 0.0625]


def test_crystal_rotates_32_of_128_dimensions_in_neighbouring_pairs():
    rotary = RotaryPositions(fraction=0.25, interleaved=True)
    frequencies = rotary_frequencies(rotary, 128, torch.float64)
    cosine, sine = rotary_tables(torch.tensor([3]), frequencies)
    assert cosine.shape == (1, 1, 16)
    x = torch.randn(1, 1, 2, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = rotate(x, cosine, sine, interleaved=True)
    angle = 3 * 10000 ** (-2 * 5 / 32)
    first, second = x[0, 0, 1, 10], x[0, 0, 1, 11]
    expected = first * math.cos(angle) - second * math.sin(angle)
    torch.testing.assert_close(out[0, 0, 1, 10], expected)
    assert torch.equal(out[..., 32:], x[..., 32:])


@settings(deadline=None, max_examples=30)
@given(
    interleaved=st.booleans(),
    half=st.integers(1, 8),
    position=st.integers(0, 3000),
    seed=st.integers(0, 99),
)
def test_rotation_equals_the_written_out_one_and_is_undone_backwards(
    interleaved, half, position, seed
):
    rotary = RotaryPositions(fraction=2 * half / 16, interleaved=interleaved)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 1, 1, 16, dtype=torch.float64, generator=generator, requires_grad=True)
    frequencies = rotary_frequencies(rotary, 16, torch.float64)
    tables = rotary_tables(torch.tensor([position]), frequencies)
    out = rotate(x, *tables, interleaved)
    expected = naive_rotation(x.detach()[0, 0, 0], position, rotary)
    torch.testing.assert_close(out[0, 0, 0], expected, atol=1e-9, rtol=0)
    # The transpose of a rotation is its inverse: feeding the output back as the gradient undoes it.
    (gradient,) = torch.autograd.grad(out, x, out.detach())
    torch.testing.assert_close(gradient, x.detach(), atol=1e-12, rtol=0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_positions_restart_with_each_document(lengths):
    ids = torch.repeat_interleave(torch.arange(len(lengths)) % 2, torch.tensor(lengths))[None]
    expected = [place for length in lengths for place in range(length)]
    assert document_positions(ids)[0].tolist() == expected
    assert document_lengths(ids)[0].tolist() == [n for n in lengths for _ in range(n)]
