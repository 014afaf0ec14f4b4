"""LayerNorm: torch's values, and on a processor the same bits with any number of threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from feldspar.model.layers import LayerNorm


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Leave torch's number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def values(norm: nn.Module, x: Tensor, upstream: Tensor, threads: int) -> list[Tensor]:
    """Output, gradient of the input, gradients of gain and bias."""
    torch.set_num_threads(threads)
    norm.zero_grad()
    x = x.clone().requires_grad_()
    out = norm(x)
    out.backward(upstream)
    gradients = [parameter.grad for parameter in norm.parameters()]
    assert x.grad is not None and all(gradient is not None for gradient in gradients)
    return [out.detach(), x.grad, *(g.clone() for g in gradients if g is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_has_the_same_bits_with_any_number_of_threads(
    bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    norm = LayerNorm(96, bias=bias).to(dtype)
    x, upstream = torch.randn(2, 7, 301, 96, dtype=dtype)
    one = values(norm, x, upstream, 1)
    for threads in (2, 4):
        found = values(norm, x, upstream, threads)
        assert all(torch.equal(a, b) for a, b in zip(found, one, strict=True))


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_has_the_bits_of_torch_with_one_thread(bias: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = LayerNorm(96, bias=bias), nn.LayerNorm(96, bias=bias)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine.normal_())
    x, upstream = torch.randn(2, 7, 301, 96)
    for a, b in zip(values(ours, x, upstream, 2), values(theirs, x, upstream, 1), strict=True):
        assert torch.equal(a, b)


def test_a_frozen_norm_passes_its_gradient_on() -> None:
    norm = LayerNorm(8).requires_grad_(False)
    x = torch.randn(2, 3, 8, requires_grad=True)
    torch.set_num_threads(2)
    norm(x).square().sum().backward()
    assert x.grad is not None and norm.weight.grad is None
