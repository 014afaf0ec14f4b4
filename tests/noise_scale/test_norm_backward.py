"""Every way through a norm's backward pass against the formula, the Triton kernel's tiling too."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.noise_scale.norms import norm_backward as ways
from feldspar.noise_scale.norms.norm_kernel import programs_per_example
from tests.rounding import assert_within_rounding

SHAPES = [(3, 7, 5), (2, 33, 64), (5, 1, 100), (1, 4, 3)]


def problem(shape, has_mean, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    gain = torch.randn(shape[-1], generator=generator, dtype=torch.float64)
    mean = x.mean(-1, keepdim=True) if has_mean else None
    centred = x if mean is None else x - mean
    inverse = centred.square().mean(-1, keepdim=True).add(1e-5).rsqrt()
    return [None if item is None else item.to(dtype) for item in (grad, x, gain, mean, inverse)]


@pytest.mark.parametrize("has_mean", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_formula_is_autograds(shape, has_mean):
    grad, x, gain, _, _ = problem(shape, has_mean)
    x, gain = x.requires_grad_(), gain.requires_grad_()
    wide = (x.shape[-1],)
    out = (
        torch.nn.functional.layer_norm(x, wide, gain, eps=1e-5)
        if has_mean
        else torch.nn.functional.rms_norm(x, wide, gain, eps=1e-5)
    )
    expected = torch.autograd.grad(out, [x, gain], grad)
    found = ways.closed_form(
        *(item if item is None else item.detach() for item in problem(shape, has_mean))
    )
    torch.testing.assert_close(found.x, expected[0])
    torch.testing.assert_close(found.gains.sum(0), expected[1])
    torch.testing.assert_close(found.biases, grad.sum(1))


@pytest.mark.parametrize("has_mean", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("entries", [1, 10**9])
def test_pieces_and_torchs_kernel_agree_with_the_formula(shape, has_mean, entries, monkeypatch):
    monkeypatch.setattr(ways, "NATIVE_ENTRIES", entries)
    monkeypatch.setattr(ways, "PIECE_ENTRIES", entries)
    arguments = problem(shape, has_mean)
    for one, other in zip(
        ways.norm_backward(*arguments), ways.closed_form(*arguments), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_upstream_gradients_need_not_be_contiguous():
    grad, *rest = problem((2, 8, 8), True)
    for entries in (1, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ways, "NATIVE_ENTRIES", entries)
            one = ways.norm_backward(grad.mT, *rest)
        for ours, theirs in zip(one, ways.closed_form(grad.mT, *rest), strict=True):
            torch.testing.assert_close(ours, theirs)


def tiled(grad, x, gain, mean, inverse, n_processors):
    """The kernel's arithmetic: program p of an example takes rows p, p + P, ... of it alone."""
    n_examples, n_positions, width = x.shape
    programs = programs_per_example(n_examples, n_positions, n_processors)
    grad_x = torch.full_like(x, torch.nan)
    partial = x.new_zeros(2, n_examples, programs, width)
    for example in range(n_examples):
        for program in range(programs):
            for row in range(program, n_positions, programs):
                upstream, scale = grad[example, row], inverse[example, row]
                normal = x[example, row] - (0 if mean is None else mean[example, row])
                normal = normal * scale
                partial[0, example, program] += upstream * normal
                partial[1, example, program] += upstream
                upstream = upstream * gain
                out = upstream - normal * ((upstream * normal).sum() / width)
                if mean is not None:
                    out = out - upstream.sum() / width
                grad_x[example, row] = out * scale
    return grad_x, *partial.sum(2)


@settings(max_examples=30)
@given(
    n_examples=st.integers(1, 4),
    n_positions=st.integers(1, 9),
    width=st.integers(1, 5),
    n_processors=st.integers(1, 12),
    has_mean=st.booleans(),
)
def test_tiling_covers_every_row_once(n_examples, n_positions, width, n_processors, has_mean):
    arguments = problem((n_examples, n_positions, width), has_mean)
    for one, other in zip(
        tiled(*arguments, n_processors), ways.closed_form(*arguments), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_programs_fill_the_processors_and_never_exceed_the_rows():
    assert programs_per_example(8, 2048, 132) == 33
    assert programs_per_example(512, 2048, 132) == 1
    assert programs_per_example(1, 3, 132) == 3


INTERPRETED = """
import torch
from feldspar.noise_scale.norms import norm_kernel
from feldspar.noise_scale.norms.norm_backward import closed_form
from tests.noise_scale.test_norm_backward import SHAPES, problem
from tests.rounding import assert_within_rounding

for programs in (1, 7):
    norm_kernel.PROGRAMS_PER_PROCESSOR = programs
    for shape in SHAPES:
        for has_mean in (True, False):
            for dtype in (torch.float32, torch.bfloat16):
                grad, x, gain, mean, inverse = problem(shape, has_mean, torch.float32)
                arguments = grad.to(dtype), x.to(dtype), gain, mean, inverse
                ours = norm_kernel.norm_backward_on_accelerator(*arguments)
                terms = shape[1] + shape[2]
                assert_within_rounding(ours, closed_form(*arguments), terms)
print("equal")
"""


def test_the_kernel_in_tritons_interpreter():
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "equal", result.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("has_mean", [True, False])
@pytest.mark.parametrize("shape", [*SHAPES, (8, 512, 768), (3, 100, 5000)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_on_a_device(shape, has_mean, dtype):
    pytest.importorskip("triton")
    grad, x, gain, mean, inverse = problem(shape, has_mean, torch.float32)
    arguments = [
        None if item is None else item.cuda()
        for item in (grad.to(dtype), x.to(dtype), gain, mean, inverse)
    ]
    ours = ways.norm_backward(*arguments)
    again = ways.norm_backward(*arguments)
    assert all(map(torch.equal, ours, again))  # no atomics
    assert_within_rounding(ours, ways.closed_form(*arguments), shape[1] + shape[2])
