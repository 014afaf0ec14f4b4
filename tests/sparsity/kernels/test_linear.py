"""Sparse products against dense products of the same masked weights, in float64."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.rounding import assert_within_rounding
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from feldspar.sparsity.kernels.compiled import Compiled, compile_products, compiled, this_processor
from feldspar.sparsity.kernels.layout import PANEL_VALUES, Layout
from feldspar.sparsity.kernels.linear import SparseLinear
from feldspar.sparsity.kernels.registers import Registers

pytest.importorskip("llvmlite")
KINDS = [Registers(16, 64), Registers(8, 32, sums=8), Registers(4, 16)]
"""AVX-512, AVX2 and NEON."""


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind.lanes}-lanes")
def kernels(request: pytest.FixtureRequest) -> Compiled:
    """Compile for every width of registers; the processor emulates those that it lacks."""
    return compile_products(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def drawn_mask(shape: tuple[int, int], sparsity: float, block: tuple[int, int] = (1, 1)) -> Tensor:
    draw = torch.Generator().manual_seed(shape[0] + 7 * shape[1])
    rows, columns = block
    kept = torch.rand(shape[0] // rows, shape[1] // columns, generator=draw) >= sparsity
    return kept.repeat_interleave(rows, 0).repeat_interleave(columns, 1)


def gradients(
    multiply: object, x: Tensor, weight: Tensor, bias: Tensor | None, grad: Tensor
) -> list[Tensor]:
    """Return the result and the gradients of what is multiplied."""
    given = [tensor.clone().requires_grad_() for tensor in (x, weight)]
    own_bias = None if bias is None else bias.clone().requires_grad_()
    out = multiply(*given, own_bias)  # pyrefly: ignore
    out.backward(grad)
    found = [out.detach(), *(tensor.grad for tensor in given)]
    return found if own_bias is None else [*found, own_bias.grad]


@pytest.mark.parametrize("block", [(1, 1), (4, 1), (4, 4), (2, 1), (1, 4)])
@pytest.mark.parametrize(
    ("tokens", "n_in", "n_out"),
    [(64, 32, 48), (100, 40, 56), (1, 20, 24), (130, 16, 16), (333, 44, 20)],
)
@pytest.mark.parametrize("has_bias", [True, False])
def test_results_and_gradients_are_those_of_the_masked_product(
    kernels: Compiled,
    block: tuple[int, int],
    tokens: int,
    n_in: int,
    n_out: int,
    has_bias: bool,
) -> None:
    mask = drawn_mask((n_out, n_in), 0.7, block)
    weight = torch.randn(n_out, n_in) * mask
    x, grad = torch.randn(tokens, n_in), torch.randn(tokens, n_out)
    bias = torch.randn(n_out) if has_bias else None
    found = gradients(SparseLinear(mask, kernels), x, weight, bias, grad)
    doubles = (None if t is None else t.double() for t in (x, weight, bias))
    expected = gradients(F.linear, *doubles, grad.double())  # pyrefly: ignore
    assert not found[2][~mask].any()
    expected[2][~mask] = 0
    for one, other in zip(found, expected, strict=True):
        assert_within_rounding(one, other, max(tokens, n_in, n_out), torch.float32)


@given(
    st.integers(1, 90),
    st.integers(16, 40),
    st.integers(16, 40),
    st.floats(0, 1),
    st.sampled_from([(1, 1), (4, 1)]),
)
def test_any_shape_and_density(
    tokens: int, n_in: int, n_out: int, sparsity: float, block: tuple[int, int]
) -> None:
    kernels = compiled()
    if kernels is None:
        pytest.skip("this processor has no fast vectors that torch uses")
    rows = block[0]
    n_out = n_out // rows * rows
    mask = drawn_mask((n_out, n_in), sparsity, block)
    weight = torch.randn(n_out, n_in) * mask
    x, grad = torch.randn(tokens, n_in), torch.randn(tokens, n_out)
    found = gradients(SparseLinear(mask, kernels), x, weight, None, grad)
    expected = gradients(F.linear, x.double(), weight.double(), None, grad.double())
    expected[2][~mask] = 0
    for one, other in zip(found, expected, strict=True):
        assert_within_rounding(one, other, max(tokens, n_in, n_out), torch.float32)


@pytest.mark.parametrize("block", [(1, 1), (4, 1)])
def test_the_number_of_threads_changes_no_bit(
    kernels: Compiled, threads: None, block: tuple[int, int]
) -> None:
    mask = drawn_mask((48, 40), 0.6, block)
    weight, x = torch.randn(48, 40) * mask, torch.randn(500, 40)
    bias, grad = torch.randn(48), torch.randn(500, 48)
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append(gradients(SparseLinear(mask, kernels), x, weight, bias, grad))
    for others in found[1:]:
        # The bias' gradient is torch's own sum.
        for one, other in zip(found[0][:3], others[:3], strict=True):
            assert torch.equal(one, other)


def test_recomputation_gives_the_same_bits(kernels: Compiled) -> None:
    mask = drawn_mask((32, 32), 0.5, (4, 1))
    weight, x, grad = torch.randn(32, 32) * mask, torch.randn(4, 20, 32), torch.randn(4, 20, 32)
    product = SparseLinear(mask, kernels)

    def again(*given: Tensor) -> Tensor:
        return checkpoint(product, *given, use_reentrant=False)

    stored = gradients(product, x, weight, None, grad)
    for one, other in zip(stored, gradients(again, x, weight, None, grad), strict=True):
        assert torch.equal(one, other)


def test_a_frozen_weight_gets_no_gradient(kernels: Compiled) -> None:
    mask = drawn_mask((32, 32), 0.5)
    weight, x = torch.randn(32, 32) * mask, torch.randn(20, 32, requires_grad=True)
    SparseLinear(mask, kernels)(x, weight, None).sum().backward()
    assert weight.grad is None
    assert x.grad is not None
    assert_within_rounding(x.grad, weight.sum(0).expand(20, -1), 32, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_multiplied_dense(kernels: Compiled, dtype: torch.dtype) -> None:
    mask = drawn_mask((32, 32), 0.5)
    weight, x = (torch.randn(32, 32) * mask).to(dtype), torch.randn(8, 32).to(dtype)
    assert torch.equal(SparseLinear(mask, kernels)(x, weight, None), F.linear(x, weight))


@pytest.mark.parametrize("n_in", [255, 256, 700])
def test_columns_beyond_the_cache_are_multiplied_panel_by_panel(
    kernels: Compiled, n_in: int
) -> None:
    mask = drawn_mask((20, n_in), 0.8)
    product = SparseLinear(mask, kernels)
    width = PANEL_VALUES // kernels.registers.tile
    assert product.layout.panels == -(-n_in // width)
    assert Layout.of(drawn_mask((20, n_in), 0.8, (4, 1)), kernels.registers.tile).panels == 1
    weight, x, grad = torch.randn(20, n_in) * mask, torch.randn(70, n_in), torch.randn(70, 20)
    found = gradients(product, x, weight, None, grad)
    expected = gradients(F.linear, x.double(), weight.double(), None, grad.double())
    expected[2][~mask] = 0
    for one, other in zip(found, expected, strict=True):
        assert_within_rounding(one, other, n_in, torch.float32)


def test_rows_are_grouped_where_blocks_allow_it() -> None:
    tile = 16
    for block, rows in (((4, 1), 4), ((8, 2), 4), ((4, 4), 4), ((2, 1), 1), ((1, 4), 1)):
        layout = Layout.of(drawn_mask((16, 16), 0.5, block), tile)
        assert layout.rows == rows
    mask = drawn_mask((12, 20), 0.5, (4, 1))
    layout = Layout.of(mask, tile)
    assert torch.equal(layout.positions.sort().values, mask.flatten().nonzero().flatten())
    for group in range(layout.groups):
        own = layout.columns[layout.begins[group] : layout.begins[group + 1]] // tile
        assert torch.equal(own.long(), mask[4 * group].nonzero().flatten())


def test_this_processor_is_compiled_for_once() -> None:
    registers = this_processor()
    assert compiled() is compiled()
    assert (compiled() is None) == (registers is None)
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert registers is not None
        assert registers.lanes == 16
