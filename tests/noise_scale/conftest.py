"""References: each example's gradient by torch.func, or by a backward pass of its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from feldspar.noise_scale.control.statistics import StepStatistics
from feldspar.noise_scale.tracker import instrument
from tests.rounding import assert_within_rounding

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Relative, of squared norms: what the issue asks for."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def vmapped_norms(model: nn.Module, upstream: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
    """(B,) squared norms of each example's gradient of (output * upstream).sum(), in float64."""
    parameters = {name: value.detach().double() for name, value in model.named_parameters()}

    def loss(values: dict[str, Tensor], weight: Tensor, *one: Tensor) -> Tensor:
        output = functional_call(model, values, tuple(item[None] for item in one))
        return (output * weight[None]).sum()

    wide = [item.double() if item.is_floating_point() else item for item in inputs]
    axes = (None, 0, *[0] * len(wide))
    gradients = vmap(grad(loss), in_dims=axes)(parameters, upstream.double(), *wide)
    return {
        name: value.reshape(len(value), -1).square().sum(1) for name, value in gradients.items()
    }


def looped_norms(
    model: nn.Module, loss: Callable[[int], Tensor], n_examples: int
) -> dict[str, Tensor]:
    """The same of ``loss(i)``, example i's part of the loss, one backward pass each."""
    parameters = dict(model.named_parameters())
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for example in range(n_examples):
        gradients = torch.autograd.grad(loss(example), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            square = torch.zeros(()) if gradient is None else gradient.double().square().sum()
            rows[name].append(square.double())
    return {name: torch.stack(values) for name, values in rows.items()}


def measure(
    model: nn.Module,
    losses: list[Callable[[], Tensor]],
    num_examples: int,
    check_gradients: bool = True,
    **options: Any,
) -> StepStatistics:
    """One instrumented step of micro-batches; the gradients must be those of the plain model."""
    model.zero_grad()
    for loss in losses:
        loss().backward()
    plain = {name: value.grad for name, value in model.named_parameters()}
    model.zero_grad()
    tracker = instrument(model, **{"coverage": "all", "per_example": True} | options)
    for loss in losses:
        with tracker.microbatch():
            loss().backward()
    stats = tracker.finish(num_examples)
    tracker.remove()
    terms = sum(value.numel() for value in model.parameters())
    for name, value in model.named_parameters() if check_gradients else ():
        if value.grad is None:
            assert plain[name] is None
        else:
            assert_within_rounding(value.grad, plain[name], terms)
    return stats


def assert_norms(
    stats: StepStatistics, expected: dict[str, Tensor], dtype: torch.dtype = torch.float64
) -> None:
    """Every measured parameter's norms, and m1 with them."""
    for name, moments in stats.parameters.items():
        wanted = expected[name].double()
        floor = float(max(value.max() for value in expected.values())) * 1e-12
        torch.testing.assert_close(
            stats.per_example[name].double(), wanted, rtol=TOLERANCES[dtype], atol=floor
        )
        assert moments.m1 == pytest.approx(
            float(len(wanted) * wanted.sum()), rel=TOLERANCES[dtype], abs=len(wanted) ** 2 * floor
        )
