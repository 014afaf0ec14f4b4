"""Products of 2:4 masks on CUDA devices, through torch's semi-structured tensors.

A 2:4 mask keeps exactly two of each four neighbouring inputs of a neuron. The sparse tensor cores
of Nvidia cards (compute capability 8.0 and newer) multiply such a matrix in its compressed form:
the kept values, and the positions of these values as metadata. Only the forward product runs
compressed. The transpose of a 2:4 matrix is in general no 2:4 matrix, so the gradient of the input
is a dense product with the masked weight. The gradient of the weight is a dense product that is
masked afterwards.
"""

import warnings
from enum import Enum
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.sparse import (
    SparseSemiStructuredTensorCUSPARSELT,
    SparseSemiStructuredTensorCUTLASS,
)

from feldspar.core.errors import UserError

GROUP, KEPT = 4, 2
"""Two of each four neighbouring inputs are kept."""


class Library(Enum):
    """A library of 2:4 kernels; the value is the multiple of (rows, columns) that it needs in half
    precision (torch 2.13, ``torch/sparse/semi_structured.py``).
    """

    CUTLASS = (32, 64)
    CUSPARSELT = (16, 16)


def choose_library(capability: tuple[int, int], has_cusparselt: bool) -> Library | None:
    """Return the library whose 2:4 kernels run on a card, or None if there is none.

    Torch's CUTLASS kernels run on compute capability 8.x only. cuSPARSELt runs on 8.x and 9.x.
    Torch tests no newer card.
    """
    if capability[0] == 8:
        return Library.CUTLASS
    if capability[0] == 9 and has_cusparselt:
        return Library.CUSPARSELT
    return None


def mask_refusal(mask: Tensor, dtype: torch.dtype, library: Library) -> str | None:
    """Return why a mask, bool (out, in), has no 2:4 product in ``dtype``, or None if it has one."""
    if dtype not in (torch.float16, torch.bfloat16):
        # Torch's kernel for float32 rounds to TensorFloat-32 and keeps one input of each two: most
        # 2:4 masks would lose weights there without an error.
        return f"2:4 products run in float16 and bfloat16, and the product is in {_name(dtype)}"
    n_out, n_in = mask.shape
    rows, columns = library.value
    if n_out % rows or n_in % columns:
        return (
            f"the kernel needs multiples of {rows} outputs and {columns} inputs, and the matrix "
            f"has {n_out} outputs and {n_in} inputs"
        )
    kept = mask.view(n_out, n_in // GROUP, GROUP).sum(-1)
    other = int((kept != KEPT).sum())
    if other:
        return (
            f"the mask does not keep two of each four neighbouring inputs in {other:,} of "
            f"{kept.numel():,} groups"
        )
    return None


def device_refusal(device: torch.device) -> str | None:
    """Return why a device has no 2:4 products, or None if it has them."""
    if device.type != "cuda" or torch.version.hip is not None:
        return f"2:4 products need a CUDA device from Nvidia, and the matrix is on {device}"
    if _library_of(device) is None:
        major, minor = torch.cuda.get_device_capability(device)
        return (
            "2:4 products need compute capability 8.x, or 9.x with cuSPARSELt, and "
            f"{torch.cuda.get_device_name(device)} has {major}.{minor}"
        )
    return None


def product_refusal(mask: Tensor, dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why a mask, bool (out, in), has no 2:4 product on a device, or None if it has one."""
    reason = device_refusal(device)
    library = _library_of(device) if reason is None else None
    return reason if library is None else mask_refusal(mask, dtype, library)


def make_product(mask: Tensor, dtype: torch.dtype, device: torch.device) -> "SemiStructuredProduct":
    """Return the 2:4 product for a mask, bool (out, in), in ``dtype`` on ``device``.

    Raises UserError with the reason if mask, precision or device do not allow it.
    """
    reason = product_refusal(mask, dtype, device)
    library = None if reason is not None else _library_of(device)
    if library is None:
        raise UserError(f"sparsity: no 2:4 product: {reason}", do="use the masked dense product")
    return SemiStructuredProduct(mask.to(device), dtype, library)


class SemiStructuredProduct:
    """The product ``x @ weight.T + bias`` of a weight whose zeros follow a 2:4 mask."""

    passes = 1

    def __init__(self, mask: Tensor, dtype: torch.dtype, library: Library) -> None:
        from torch.sparse._semi_structured_conversions import (
            sparse_semi_structured_from_dense_cutlass,
        )

        self.mask = mask
        self.library = library
        if library is Library.CUTLASS:
            # The mask never moves, so metadata and positions are computed once. Compressing the
            # weight is then one gather a step.
            self.metadata = sparse_semi_structured_from_dense_cutlass(mask.to(dtype))[1]
            n_out, n_in = mask.shape
            self.columns = mask.nonzero()[:, 1].view(n_out, n_in // GROUP * KEPT)
        with warnings.catch_warnings():
            # Torch warns at the first semi-structured tensor that its interface is a prototype.
            warnings.simplefilter("ignore", UserWarning)
            self.compress(mask.to(dtype))

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return (..., out) for ``x`` (..., in) and a masked ``weight`` (out, in).

        Under autocast all three are first cast to its precision, as ``F.linear`` does.
        """
        device_type = x.device.type
        if torch.is_autocast_enabled(device_type):
            dtype = torch.get_autocast_dtype(device_type)
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        with torch.autocast(device_type, enabled=False):
            return cast(Tensor, _Product.apply(x, weight, bias, self))

    def compress(self, weight: Tensor) -> Tensor:
        """Return the semi-structured tensor that holds the kept entries of ``weight``."""
        if self.library is Library.CUSPARSELT:
            return SparseSemiStructuredTensorCUSPARSELT.from_dense(weight.contiguous())
        return SparseSemiStructuredTensorCUTLASS(  # pyrefly: ignore  # torch types only __new__
            weight.shape,
            packed=weight.gather(1, self.columns),
            meta=self.metadata,
            packed_t=None,
            meta_t=None,
            compressed_swizzled_bitmask=None,
        )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, product: SemiStructuredProduct
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.mask = product.mask
        return F.linear(x, product.compress(weight), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = grad @ weight if wants_x else None
        grad_weight = None
        if wants_weight:
            # Multiply, do not fill: a gradient that is not finite must reach the guards.
            grad_weight = (rows.T @ x.reshape(-1, x.shape[-1])).mul_(ctx.mask)
        return grad_x, grad_weight, rows.sum(0) if wants_bias else None, None


def _library_of(device: torch.device) -> Library | None:
    return choose_library(
        torch.cuda.get_device_capability(device), torch.backends.cusparselt.is_available()
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
