"""Outer products: the specification's numbers, three ways against each other and autograd."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feldspar.noise_scale.products import choose_method, outer_products
from tests.rounding import rounding

METHODS = ["loop", "batched", "ghost"]


def indexed(shape, factors, modulus, shift, dtype=torch.float64):
    """The specification's index formula: ((sum of factor x index) mod modulus) - shift."""
    grids = torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij")
    total = sum(factor * grid for factor, grid in zip(factors, grids, strict=True))
    return (total % modulus - shift).to(dtype)


A = indexed((3, 4, 3), (3, 5, 7), 11, 5)
G = indexed((3, 4, 2), (2, 3, 5), 7, 3)


@pytest.mark.parametrize("method", METHODS)
def test_the_golden_linear_layer(method):
    products = outer_products(G, A, method)
    assert products.norms.tolist() == [2139, 671, 1579]
    assert products.total.square().sum() == 10579
    assert G.sum(1).square().sum(1).tolist() == [5, 1, 1]


def test_the_wrong_formulas_give_other_numbers():
    dropped_positions = (A.square().sum(2) * G.square().sum(2)).sum(1)
    of_sums = A.sum(1).square().sum(1) * G.sum(1).square().sum(1)
    assert dropped_positions.tolist() == [1179, 831, 931]
    assert of_sums.tolist() == [185, 37, 21]


@given(
    n_examples=st.integers(1, 4),
    n_positions=st.integers(1, 6),
    n_rows=st.integers(1, 5),
    n_columns=st.integers(1, 5),
    seed=st.integers(0, 1000),
    masked=st.booleans(),
    picks=st.booleans(),
)
def test_all_ways_agree(n_examples, n_positions, n_rows, n_columns, seed, masked, picks):
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    left = torch.randn(n_examples, n_positions, n_rows, **draw)
    right = torch.randn(n_examples, n_positions, n_columns, **draw)
    mask = torch.rand(n_rows, n_columns, **draw) > 0.5 if masked else None
    rows = torch.randint(n_rows, (n_examples, 7), generator=generator) if picks else None
    each = torch.einsum("btp,btq->bpq", left, right)
    wanted = (each if mask is None else each * mask).square().sum((1, 2))
    for method in [*METHODS, None]:
        products = outer_products(left, right, method, mask, rows)
        torch.testing.assert_close(products.norms, wanted)
        torch.testing.assert_close(products.total, each.sum(0))
        if rows is not None:
            picked = torch.stack([one[row] for one, row in zip(each, rows, strict=True)])
            torch.testing.assert_close(products.rows, picked)


@pytest.mark.parametrize(("width", "inner", "positions"), [(768, 768, 20), (768, 3072, 25)])
def test_ghost_norms_win_below_the_crossover(width, inner, positions):
    assert choose_method(8, positions - 1, width, inner, False) == "ghost"
    assert choose_method(8, positions, width, inner, False) == "loop"


def test_the_choice_minds_memory_and_small_matrices():
    assert choose_method(8, 512, 64, 256, False) == "batched"
    assert choose_method(8, 512, 768, 768, True) == "batched"
    assert choose_method(512, 512, 768, 768, True) == "loop"
    assert choose_method(8, 1, 4096, 4096, True) == "ghost"


def test_low_precision_is_squared_and_summed_in_float32():
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(4, 32, 24, generator=generator).bfloat16()
    right = torch.randn(4, 32, 16, generator=generator).bfloat16()
    exact = torch.einsum("btp,btq->bpq", left.double(), right.double())
    for method in METHODS:
        products = outer_products(left, right, method)
        assert products.norms.dtype == products.total.dtype == torch.float32
        # Each entry is rounded to 8 bits, and the mean of 384 squares is as much more exact.
        wanted = exact.square().sum((1, 2)).float()
        relative = rounding(1, torch.bfloat16) / math.sqrt(24 * 16)
        torch.testing.assert_close(products.norms, wanted, rtol=relative, atol=0)
