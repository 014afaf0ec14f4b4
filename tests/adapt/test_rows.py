"""New rows against the oracles of the method and against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.adapt.new_rows import (
    mean_covariance_rows,
    mean_rows,
    normal_matched_rows,
    random_rows,
    subword_mean,
)
from feldspar.adapt.projection import fit_affine, ridge_for
from feldspar.adapt.similarity import focus, similar_topk, sparsemax, topk_weights
from feldspar.core.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_mean_of_pieces_is_exact() -> None:
    rows = subword_mean([(0, 1)]).rows(torch.tensor([[1.0, 3.0], [3.0, 5.0]]))
    assert torch.equal(rows, torch.tensor([[2.0, 4.0]]))


@settings(max_examples=25)
@given(
    pieces=st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=32), min_size=0, max_size=12),
    seed=st.integers(0, 99),
)
def test_the_mean_of_pieces_is_that_of_a_loop(pieces: list[list[int]], seed: int) -> None:
    old = torch.randn(20, 5, generator=generator(seed))
    expected = [np.mean([old[i].double().numpy() for i in ids], axis=0) for ids in pieces]
    found = subword_mean(pieces).rows(old)
    assert found.shape == (len(pieces), 5) and found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.reshape(expected, (-1, 5)), atol=1e-6)


def test_half_precision_rows_are_averaged_in_single() -> None:
    old = torch.tensor([[1.0], [1.0078125], [1.0]], dtype=torch.bfloat16)
    assert subword_mean([(0, 1)]).rows(old).item() == 1.00390625, "bfloat16 has no such number"


def test_top_k_weights_are_those_of_the_specification() -> None:
    new, old = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    places, weights = topk_weights(new @ old.T, 2, 0.1)
    assert places.tolist() == [[0, 1]]
    assert weights[0].tolist() == pytest.approx([0.99995460, 0.00004540], abs=1e-7)
    rows = similar_topk(new, 7 * old, torch.tensor([2, 0, 1]), 2, 0.1).rows(torch.eye(3))
    assert rows[0].tolist() == pytest.approx([0.00004540, 0.0, 0.99995460], abs=1e-7)


def test_top_k_takes_what_there_is() -> None:
    vectors = torch.eye(2)
    assert similar_topk(vectors, vectors, torch.tensor([0, 1]), 5, 1.0).counts.tolist() == [2, 2]


def test_sparsemax_of_the_specification() -> None:
    assert sparsemax(torch.tensor([[0.9, 0.8, -0.2]]))[0].tolist() == pytest.approx(
        [0.55, 0.45, 0.0], abs=1e-6
    )


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30))
def test_sparsemax_is_the_nearest_distribution(scores: list[float]) -> None:
    values = np.array(scores, np.float64)
    # The threshold by bisection: the sum of what lies above it falls as it rises.
    low, high = values.min() - 1, values.max()
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(values - middle, 0).sum() > 1 else (low, middle)
    found = sparsemax(torch.tensor([scores], dtype=torch.float64))[0].numpy()
    np.testing.assert_allclose(found, np.maximum(values - low, 0), atol=1e-9)


def test_focus_mixes_the_rows_that_the_cosines_keep() -> None:
    old = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    weights = focus(torch.tensor([[2.0, 0.0]]), old, torch.tensor([0, 1, 2]))
    # Cosines 1, 0.6, -1: sparsemax keeps two.
    assert weights.ids.tolist() == [0, 1]
    assert weights.weights.tolist() == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize("shared", [9, 40])
def test_an_affine_image_is_recovered(shared: int) -> None:
    chance = generator(1)
    matrix, offset = torch.randn(8, 6, generator=chance), torch.randn(6, generator=chance)
    donor = torch.randn(shared + 5, 8, generator=chance)
    target = donor @ matrix + offset
    fitted = fit_affine(donor[:shared], target[:shared], ridge=0.0)
    error = (fitted.rows(donor[shared:]) - target[shared:]).norm() / target[shared:].norm()
    assert error < 1e-4


def test_the_ridge_is_that_of_the_normal_equations() -> None:
    chance = generator(2)
    donor, target = torch.randn(5, 8, generator=chance), torch.randn(5, 3, generator=chance)
    x = donor.double().numpy() - donor.double().mean(0).numpy()
    y = target.double().numpy() - target.double().mean(0).numpy()
    penalty = 0.01 * (x**2).sum() / 8
    expected = np.linalg.solve(x.T @ x + penalty * np.eye(8), x.T @ y)
    np.testing.assert_allclose(fit_affine(donor, target, 0.01).matrix.numpy(), expected, atol=1e-9)


def test_the_ridge_is_there_where_tokens_are_few() -> None:
    assert [ridge_for(n, 8, None) for n in (5, 15, 16)] == [1e-3, 1e-3, 0.0]
    assert ridge_for(9, 8, 0.0) == 0.0
    with pytest.raises(UserError, match="8 shared tokens do not determine a map"):
        ridge_for(8, 8, 0.0)


def test_draws_have_the_moments_that_they_claim() -> None:
    chance = generator(3)
    old = torch.randn(50, 3, generator=chance) @ torch.randn(3, 3, generator=chance) + 2
    mean, covariance = old.mean(0), torch.cov(old.T, correction=0)
    drawn = mean_covariance_rows(old, 200_000, 0.25, generator(4))
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), 0.25 * covariance, atol=0.03, rtol=0.02)
    drawn = normal_matched_rows(old, 200_000, generator(5))
    expected = torch.diag(covariance.diagonal())
    torch.testing.assert_close(torch.cov(drawn.T), expected, atol=0.05, rtol=0.02)
    drawn = random_rows(200_000, 3, 0.02, generator(6))
    torch.testing.assert_close(torch.cov(drawn.T), 4e-4 * torch.eye(3), atol=1e-5, rtol=0)
    assert torch.equal(mean_rows(old, 2), torch.stack([old.mean(0)] * 2))


def test_few_old_rows_have_a_covariance_too() -> None:
    old = torch.randn(2, 6, generator=generator(7))
    drawn = mean_covariance_rows(old, 50, 1.0, generator(8)) - old.mean(0)
    direction = (old[0] - old[1]) / (old[0] - old[1]).norm()
    torch.testing.assert_close(drawn, (drawn @ direction)[:, None] * direction, atol=1e-5, rtol=0)
