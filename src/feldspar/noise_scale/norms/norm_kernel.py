"""Backward pass of a norm on an accelerator, in Triton: one pass over the data, no atomics.

A plain fused backward pass gives each program rows of any example and adds the sums of the
programs. Here a program gets rows of one example only, so its sums are partial sums of that
example's gradients; memory traffic and operations stay the same. Without Triton, callers use torch.
"""

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

WIDEST = 16_384
"""Largest number of columns that one program holds in registers."""
PROGRAMS_PER_PROCESSOR = 2
"""Number of programs for each streaming multiprocessor: enough to hide the latency of loads."""


def kernel_runs_on(x: Tensor) -> bool:
    """Tell whether the kernel supports a layer's input (..., d)."""
    narrow = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return triton is not None and x.is_cuda and narrow and x.shape[-1] <= WIDEST


def programs_per_example(n_examples: int, n_positions: int, n_processors: int) -> int:
    """Return the number of programs that share the rows of an example."""
    wanted = -(-PROGRAMS_PER_PROCESSOR * n_processors // n_examples)
    return max(1, min(wanted, n_positions))


def norm_backward_on_accelerator(
    grad: Tensor, x: Tensor, gain: Tensor, mean: Tensor | None, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of the input (B, T, d), and of each example's gain and bias (B, d), float32.

    ``grad`` and ``x`` (B, T, d), ``gain`` (d,), ``mean`` (None: RMSNorm) and ``inverse`` (B, T, 1).
    """
    n_examples, n_positions, width = x.shape
    processors = (
        torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    )
    programs = programs_per_example(n_examples, n_positions, processors)
    grad, x = grad.contiguous(), x.contiguous()
    grad_x = torch.empty_like(x)
    partial = torch.empty((2, n_examples, programs, width), dtype=torch.float32, device=x.device)
    block = 1 << (width - 1).bit_length()
    _rows_of_an_example[(n_examples, programs)](
        grad,
        x,
        gain.contiguous(),
        inverse if mean is None else mean.contiguous(),
        inverse.contiguous(),
        grad_x,
        partial[0],
        partial[1],
        n_positions,
        width,
        programs,
        HAS_MEAN=mean is not None,
        BLOCK=block,
        num_warps=min(max(block // 256, 1), 16),
    )
    gains, biases = partial.sum(2)
    return grad_x, gains, biases


if triton is not None:

    @triton.jit
    def _rows_of_an_example(
        grad: Any,
        x: Any,
        gain: Any,
        mean: Any,
        inverse: Any,
        grad_x: Any,
        gains: Any,
        biases: Any,
        n_positions: Any,
        width: Any,
        programs: Any,
        HAS_MEAN: tl.constexpr,  # noqa: N803
        BLOCK: tl.constexpr,  # noqa: N803
    ) -> None:
        """Process rows p, p + programs, ... of one example."""
        example = tl.program_id(0).to(tl.int64)
        program = tl.program_id(1)
        columns = tl.arange(0, BLOCK)
        inside = columns < width
        weight = tl.load(gain + columns, mask=inside, other=0.0).to(tl.float32)
        gain_sum = tl.zeros((BLOCK,), dtype=tl.float32)
        bias_sum = tl.zeros((BLOCK,), dtype=tl.float32)
        for position in range(program, n_positions, programs):
            row = example * n_positions + position
            place = row * width + columns
            upstream = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
            normal = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
            scale = tl.load(inverse + row).to(tl.float32)
            if HAS_MEAN:
                normal = tl.where(inside, normal - tl.load(mean + row).to(tl.float32), 0.0)
            normal *= scale
            gain_sum += upstream * normal
            bias_sum += upstream
            upstream *= weight
            out = upstream - normal * (tl.sum(upstream * normal, axis=0) / width)
            if HAS_MEAN:
                out -= tl.sum(upstream, axis=0) / width
            tl.store(grad_x + place, (out * scale).to(grad_x.dtype.element_ty), mask=inside)
        place = (example * programs + program) * width + columns
        tl.store(gains + place, gain_sum, mask=inside)
        tl.store(biases + place, bias_sum, mask=inside)
