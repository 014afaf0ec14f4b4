"""GELU against torch's own, values and gradients, across pieces."""

import pytest
import torch
from torch.nn import functional as F

from feldspar.model import nonlinearities
from feldspar.model.nonlinearities import gelu
from tests.rounding import assert_within_rounding

OPERATIONS = 10
"""Products and sums behind one value or slope."""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 7, 11)])
def test_values_and_gradients_are_those_of_torch(monkeypatch, dtype, shape):
    monkeypatch.setattr(nonlinearities, "PIECE_ENTRIES", 50)
    generator = torch.Generator().manual_seed(0)
    x = (4 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    weights = torch.randn(shape, generator=generator).to(dtype)
    expected = F.gelu(x, approximate="tanh")
    (slope,) = torch.autograd.grad(expected, x, weights)
    out = gelu(x)
    (ours,) = torch.autograd.grad(out, x, weights)
    if dtype == torch.bfloat16:  # torch's own function
        assert torch.equal(out, expected) and torch.equal(ours, slope)
    scale = max((4.0, *x.detach().abs().flatten().tolist()))
    assert_within_rounding((out, ours), (expected, slope), OPERATIONS, scale=scale)


def test_the_ends_are_finite():
    x = torch.tensor([-1e12, -1e4, -30.0, 0.0, 30.0, 1e12], requires_grad=True)
    out = gelu(x)
    out.sum().backward()
    assert out.tolist() == [0.0, 0.0, 0.0, 0.0, 30.0, x[-1].item()]
    assert x.grad.tolist() == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_transposed_input():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).t()
    assert_within_rounding(gelu(x), F.gelu(x, approximate="tanh"), OPERATIONS)
