"""Quick shapes against the shapes of results that are really computed, forward and backward."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.plan.quick_shapes import QuickShapes

IMAGES, KERNEL, VECTOR = (2, 4, 9, 12), (6, 2, 3, 3), (4,)
MATRIX = (3, 5)


def batch_norm(training: bool) -> Callable[..., Tensor]:
    """Return batch norm of images with weight and bias."""

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, variance = x.new_empty(4), x.new_empty(4)
        return F.batch_norm(x, mean, variance, weight, bias, training=training)

    return run


CASES: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "convolution": (lambda x, w: F.conv2d(x, w, None, 2, 1, groups=2), (IMAGES, KERNEL)),
    "convolution with bias": (F.conv2d, (IMAGES, (6, 4, 3, 2), (6,))),
    "batch norm in training": (batch_norm(True), (IMAGES, VECTOR, VECTOR)),
    "batch norm afterwards": (batch_norm(False), (IMAGES, VECTOR, VECTOR)),
    "hardswish": (F.hardswish, (IMAGES,)),
    "hardsigmoid": (F.hardsigmoid, (IMAGES,)),
    "interpolation": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (IMAGES,)),
    "mean of dimensions": (lambda x: x.mean((2, 3), keepdim=True), (IMAGES,)),
    "mean without them": (lambda x: x.mean((-1, 1)), (IMAGES,)),
    "mean of all": (lambda x: x.mean(), (IMAGES,)),
    "sum of all": (lambda x: x.sum(), (MATRIX,)),
    "joined": (lambda a, b: torch.cat((a, b), dim=1), (MATRIX, (3, 2))),
    "product": (torch.mm, (MATRIX, (5, 2))),
    "linear": (F.linear, (MATRIX, (7, 5), (7,))),
    "log softmax": (lambda x: -F.log_softmax(x, dim=-1), (MATRIX,)),
    "broadcast": (lambda a, b: (a * b + a) / 3 - b, (IMAGES, (2, 4, 1, 1))),
    "dropout": (lambda x: F.dropout(x, 0.5, True), (MATRIX,)),
}


@pytest.mark.parametrize("name", CASES)
def test_shapes_are_those_of_computed_results(name: str) -> None:
    run, shapes = CASES[name]

    def results(device: str) -> list[tuple[torch.Size, torch.dtype]]:
        inputs = [torch.ones(shape, device=device, requires_grad=True) for shape in shapes]
        with QuickShapes():
            output = run(*inputs)
            gradients = torch.autograd.grad(output.sum(), inputs)
        return [(tensor.shape, tensor.dtype) for tensor in (output, *gradients)]

    assert results("meta") == results("cpu")


def test_tensors_with_values_are_computed() -> None:
    x = torch.tensor([[1.0, 2.0]])
    with QuickShapes():
        assert torch.equal(x * x, torch.tensor([[1.0, 4.0]]))
        assert torch.equal(torch.cat((x, x)), torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
