"""2:4 products: which matrices have one, and their algebra.

Torch's kernels run on cards only. The first tests run everything else on a processor: they register
a product for torch's operators that unpacks the compressed matrix with torch's own conversion, so
that metadata, kept values, dispatch and gradients are ours and torch's real ones. The tests at the
end need a card.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from feldspar.core.errors import UserError
from feldspar.sparsity.semi_structured import (
    Library,
    SemiStructuredProduct,
    choose_library,
    device_refusal,
    make_product,
    mask_refusal,
)
from tests.rounding import assert_within_rounding

HALF = [torch.float16, torch.bfloat16]


def draw(n_out: int, n_in: int, seed: int = 0) -> Tensor:
    """Keep two random inputs of each four."""
    order = torch.rand(n_out, n_in // 4, 4, generator=torch.Generator().manual_seed(seed)).argsort()
    return (order < 2).view(n_out, n_in)


def draw_weight(mask: Tensor, dtype: torch.dtype) -> Tensor:
    normal = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1)) / 8
    return normal.masked_fill(~mask, 0).to(dtype)


@pytest.fixture
def kernels_on_the_processor() -> Iterator[None]:
    def unpack(packed: Tensor, meta: Tensor, dense: Tensor) -> Tensor:
        return sparse_semi_structured_to_dense_cutlass(packed, meta) @ dense

    def unpack_and_add(bias: Tensor, packed: Tensor, meta: Tensor, dense: Tensor) -> Tensor:
        return unpack(packed, meta, dense) + bias.unsqueeze(-1)

    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_sparse_semi_structured_mm", unpack, "CPU")
        library.impl("_sparse_semi_structured_addmm", unpack_and_add, "CPU")
        yield


@pytest.mark.parametrize(
    ("capability", "has_cusparselt", "library"),
    [
        ((7, 5), True, None),
        ((8, 0), False, Library.CUTLASS),
        ((8, 9), True, Library.CUTLASS),
        ((9, 0), True, Library.CUSPARSELT),
        ((9, 0), False, None),
        ((12, 0), True, None),
    ],
)
def test_the_library_follows_from_the_card(capability, has_cusparselt, library):
    assert choose_library(capability, has_cusparselt) is library


def test_a_processor_is_refused():
    cpu = torch.device("cpu")
    assert "need a CUDA device from Nvidia, and the matrix is on cpu" in str(device_refusal(cpu))
    with pytest.raises(UserError, match="no 2:4 product: 2:4 products need a CUDA device"):
        make_product(draw(32, 64), torch.bfloat16, cpu)


@pytest.mark.parametrize("dtype", HALF)
def test_a_random_2_4_mask_qualifies(dtype):
    assert mask_refusal(draw(64, 128), dtype, Library.CUTLASS) is None
    assert mask_refusal(draw(48, 16), dtype, Library.CUSPARSELT) is None


def test_reasons_of_refusal():
    mask = draw(64, 128)
    reason = mask_refusal(mask, torch.float32, Library.CUTLASS)
    assert reason == "2:4 products run in float16 and bfloat16, and the product is in float32"
    reason = mask_refusal(draw(48, 128), torch.bfloat16, Library.CUTLASS)
    assert reason == (
        "the kernel needs multiples of 32 outputs and 64 inputs, "
        "and the matrix has 48 outputs and 128 inputs"
    )
    assert "has 64 outputs and 96 inputs" in str(
        mask_refusal(draw(64, 96), torch.bfloat16, Library.CUTLASS)
    )
    mask[0, :8] = True
    mask[5, 4:8] = False
    reason = mask_refusal(mask, torch.bfloat16, Library.CUTLASS)
    assert reason == (
        "the mask does not keep two of each four neighbouring inputs in 3 of 2,048 groups"
    )


@pytest.mark.parametrize("dtype", HALF)
def test_the_compressed_weight_is_that_of_torch(dtype):
    mask = draw(64, 128)
    weight = draw_weight(mask, dtype)
    assert int((weight != 0).sum()) == int(mask.sum())
    compressed = SemiStructuredProduct(mask, dtype, Library.CUTLASS).compress(weight)
    packed, metadata = sparse_semi_structured_from_dense_cutlass(weight)
    assert torch.equal(compressed.packed, packed)
    assert torch.equal(compressed.meta, metadata)


def test_a_kept_weight_may_be_zero():
    mask = draw(32, 64)
    weight = draw_weight(mask, torch.bfloat16)
    weight[:, ::3] = 0
    compressed = SemiStructuredProduct(mask, torch.bfloat16, Library.CUTLASS).compress(weight)
    assert torch.equal(compressed.to_dense(), weight)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(64,), (3, 64), (2, 5, 64)], ids=str)
def test_product_and_gradients_are_the_masked_dense_ones(kernels_on_the_processor, shape, has_bias):
    mask = draw(32, 64)
    agree(mask, torch.bfloat16, Library.CUTLASS, torch.device("cpu"), shape, has_bias)


def test_autocast_casts_all_three(kernels_on_the_processor):
    mask = draw(32, 64)
    product = SemiStructuredProduct(mask, torch.bfloat16, Library.CUTLASS)
    weight = draw_weight(mask, torch.float32).requires_grad_()
    bias = torch.ones(32, requires_grad=True)
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = product(x, weight, bias)
        expected = F.linear(x, weight, bias)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert_within_rounding(found, expected, 65)
    found.float().sum().backward()
    assert weight.grad is not None and bias.grad is not None
    assert weight.grad.dtype == bias.grad.dtype == torch.float32
    assert not weight.grad[~mask].any()


def test_a_gradient_that_is_not_finite_is_kept(kernels_on_the_processor):
    mask = draw(32, 64)
    product = SemiStructuredProduct(mask, torch.bfloat16, Library.CUTLASS)
    weight = draw_weight(mask, torch.bfloat16).requires_grad_()
    x = torch.full((4, 64), torch.inf, dtype=torch.bfloat16)
    (gradient,) = torch.autograd.grad(
        product(x, weight).sum(), weight, torch.tensor(1.0).bfloat16()
    )
    assert not gradient.isfinite().any()


def agree(
    mask: Tensor,
    dtype: torch.dtype,
    library: Library,
    device: torch.device,
    shape: tuple[int, ...],
    has_bias: bool,
) -> None:
    """Compare a 2:4 product and its gradients with those of the masked dense weight."""
    stream = torch.Generator().manual_seed(3)
    n_out = len(mask)
    values = [
        torch.randn(shape, generator=stream).to(device, dtype),
        draw_weight(mask, dtype).to(device),
        *([torch.randn(n_out, generator=stream).to(device, dtype)] if has_bias else []),
    ]
    gradient = torch.randn(*shape[:-1], n_out, generator=stream).to(device, dtype)
    ours = [value.clone().requires_grad_() for value in values]
    dense = [value.clone().requires_grad_() for value in values]
    found = SemiStructuredProduct(mask.to(device), dtype, library)(*ours)
    expected = F.linear(*dense)
    terms = max(mask.shape) + gradient[..., 0].numel() + 1
    assert_within_rounding(found, expected, terms)
    found.backward(gradient)
    expected.backward(gradient)
    kept = mask.to(device)
    for number, (one, other) in enumerate(zip(ours, dense, strict=True)):
        assert one.grad is not None and other.grad is not None
        wanted = other.grad * kept if number == 1 else other.grad
        assert_within_rounding(one.grad, wanted, terms)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(64, 512), (3, 100, 512)], ids=str)
def test_a_card_agrees_with_the_masked_dense_product(shape, has_bias, dtype):
    device = torch.device("cuda")
    reason = device_refusal(device)
    if reason is not None:
        pytest.skip(reason)
    mask = draw(1536, 512)
    agree(mask, dtype, make_product(mask, dtype, device).library, device, shape, has_bias)
