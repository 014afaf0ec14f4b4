"""Small chains of several kinds for the tests of this room."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from feldspar.reversible.block import ReversibleBlock
from feldspar.reversible.chain import ReversibleChain
from feldspar.reversible.steps import Part, Step

Memory = Literal["store", "recompute", "reversible"]
MODES: tuple[Memory, ...] = ("store", "recompute", "reversible")


class Branch(nn.Module):
    """Two convolutions around a batch norm, then channel dropout where ``dropout`` is not 0."""

    def __init__(
        self, width_in: int, width_out: int, stride: int = 1, scale: int = 1, dropout: float = 0
    ) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width_out)
        self.activation = nn.SiLU()
        self.project = nn.Conv2d(width_out, width_out, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.resize = nn.Upsample(scale_factor=scale) if scale > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(b, c_in, h, w) to (b, c_out, h / stride * scale, w / stride * scale)."""
        return self.resize(self.dropout(self.project(self.activation(self.norm(self.mix(x))))))


def silo_block(dropout: float = 0, bits: int | None = None) -> ReversibleBlock:
    """Two streams of 6 and 4 channels fused down and up, then halves of the first coupled."""
    first, second = Part(0), Part(1)
    left, right = Part(0, 0, 3), Part(0, 3)
    return ReversibleBlock(
        2,
        [
            Step("down", (first,), second),
            Step("up", (second,), first),
            Step("left", (left,), right),
            Step("right", (right,), left),
        ],
        {
            "down": Branch(6, 4, stride=2, dropout=dropout),
            "up": Branch(4, 6, scale=2, dropout=dropout),
            "left": Branch(3, 3, dropout=dropout),
            "right": Branch(3, 3),
        },
        bits,
    )


def expanding_block(dropout: float = 0, bits: int | None = None) -> ReversibleBlock:
    """One stream of 6 channels in; a second of 4 is created and read again."""
    return ReversibleBlock(
        1,
        [Step("create", (Part(0),), Part(1), creates=True), Step("up", (Part(1),), Part(0))],
        {"create": Branch(6, 4, stride=2, dropout=dropout), "up": Branch(4, 6, scale=2)},
        bits,
    )


def chain_of(
    depth: int, dtype: torch.dtype = torch.float64, dropout: float = 0, bits: int | None = None
) -> ReversibleChain:
    """An expanding block and ``depth`` silos, the same values each time."""
    torch.manual_seed(0)
    blocks = [expanding_block(dropout, bits)]
    blocks += [silo_block(dropout, bits) for _ in range(depth)]
    return ReversibleChain(blocks).to(dtype)


def image(dtype: torch.dtype = torch.float64) -> Tensor:
    """(3, 6, 8, 8)"""
    return torch.randn(3, 6, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


def weighted_sum(outputs: tuple[Tensor, ...]) -> Tensor:
    """A loss whose gradient differs from entry to entry and is not constant."""
    return torch.stack(
        [
            (output.float() if output.dtype == torch.bfloat16 else output).square().mul(0.5).sum()
            + output.flatten().cos().cumsum(0)[::7].sum() / output.numel()
            for output in outputs
        ]
    ).sum()


def gradients(module: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Gradients of all parameters after one backward pass, from none before."""
    module.zero_grad()
    loss().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def relative_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """L2 error of all gradients together."""
    assert ours.keys() == theirs.keys() and ours
    error = sum(float((ours[name] - theirs[name]).double().square().sum()) for name in ours)
    size = sum(float(value.double().square().sum()) for value in theirs.values())
    return (error / size) ** 0.5
