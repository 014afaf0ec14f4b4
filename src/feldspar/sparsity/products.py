"""Sparse products of masked matrices, and their time against the masked dense product.

A masked dense product multiplies all entries, zeros too. It is the reference of every sparse
product, and is used wherever no sparse one exists or is faster.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.sparsity.kernels.compiled import compiled
from feldspar.sparsity.kernels.linear import SparseLinear
from feldspar.sparsity.semi_structured import make_product, product_refusal


class Product(Protocol):
    """A product that skips entries of the weight outside a mask."""

    passes: int
    """Products of a training step that skip them: of forward pass, gradient of the input, and
    gradient of the weight."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map x (..., in), a weight (out, in) and a bias to (..., out), with gradients."""
        ...


ROUNDS, MOST_TOKENS = 3, 2048
"""Timings of each product, of which the fastest counts, and tokens of a timing at most."""


def sparse_product(mask: Tensor, dtype: torch.dtype, device: torch.device) -> Product | None:
    """Return the sparse product for a bool mask (out, in) in the precision ``dtype``, if one
    exists.
    """
    if device.type == "cuda":
        refused = product_refusal(mask, dtype, device)
        return None if refused else make_product(mask, dtype, device)
    if device.type != "cpu" or dtype != torch.float32:
        return None
    kernels = compiled()
    if kernels is None or min(mask.shape) < kernels.registers.lanes:
        return None
    return SparseLinear(mask, kernels)


@dataclass(frozen=True)
class Speed:
    """Seconds of forward and backward pass of a matrix for a number of tokens."""

    tokens: int
    dense: float
    sparse: float

    @property
    def ratio(self) -> float:
        """Return how many times as fast the sparse product is."""
        return self.dense / self.sparse


def measure(
    product: Product, mask: Tensor, tokens: int, dtype: torch.dtype, device: torch.device
) -> Speed:
    """Time a sparse product against the dense one, in turn, on random values."""
    tokens = min(tokens, MOST_TOKENS)
    draw = torch.Generator().manual_seed(0)
    n_out, n_in = mask.shape
    shapes = ((tokens, n_in), (n_out, n_in), (tokens, n_out))
    x, weight, grad = (
        torch.randn(shape, generator=draw).to(device=device, dtype=dtype) for shape in shapes
    )
    weight = weight.masked_fill_(~mask.to(device), 0).requires_grad_()
    x.requires_grad_()

    def seconds(multiply: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> float:
        began = now(device)
        multiply(x, weight, None).backward(grad)
        ended = now(device)
        x.grad = weight.grad = None
        return ended - began

    for multiply in (F.linear, product):
        seconds(multiply)
    times = [(seconds(F.linear), seconds(product)) for _ in range(ROUNDS)]
    return Speed(tokens, *map(min, zip(*times, strict=True)))


def now(device: torch.device) -> float:
    """Return seconds of a clock, when all work of a device is done.

    With one thread of a processor only its own time counts, so that other jobs do not matter.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.thread_time()
    return time.perf_counter()
