"""GELU against torch's own, values and gradients, across pieces."""

import pytest
import torch
from torch.nn import functional as F

from feldspar.model import activation
from feldspar.model.activation import gelu


@pytest.mark.parametrize(
    "dtype,bound", [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 0.0)]
)
@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 7, 11)])
def test_values_and_gradients_are_those_of_torch(monkeypatch, dtype, bound, shape):
    monkeypatch.setattr(activation, "PIECE_ENTRIES", 50)
    generator = torch.Generator().manual_seed(0)
    x = (4 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_()
    weights = torch.randn(shape, generator=generator).to(dtype)
    expected = F.gelu(x, approximate="tanh")
    (slope,) = torch.autograd.grad(expected, x, weights)
    out = gelu(x)
    (ours,) = torch.autograd.grad(out, x, weights)
    torch.testing.assert_close(out, expected, atol=bound, rtol=bound)
    torch.testing.assert_close(ours, slope, atol=bound, rtol=bound)


def test_the_ends_are_finite():
    x = torch.tensor([-1e12, -1e4, -30.0, 0.0, 30.0, 1e12], requires_grad=True)
    out = gelu(x)
    out.sum().backward()
    assert out.tolist() == [0.0, 0.0, 0.0, 0.0, 30.0, x[-1].item()]
    assert x.grad.tolist() == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_transposed_input():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).t()
    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"), atol=1e-6, rtol=0)
