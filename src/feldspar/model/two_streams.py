"""Blocks of a decoder as reversible steps over two residual streams.

RevNet (1707.04585): x1 += F(x2); x2 += G(x1) with whole layers as F and G. Reformer (2001.04451):
x1 += attention(x2); x2 += feed_forward(x1). Both streams begin as the embeddings and end as their
mean. Tables of positions, masks and caches are shared by all steps and kept once.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from feldspar.model.context import SequenceContext
from feldspar.recipe.sections.block_parts import ReversibleSettings
from feldspar.reversible.block import ReversibleBlock
from feldspar.reversible.chain import ActivationMemory, ReversibleChain
from feldspar.reversible.steps import Part, Step

FIRST, SECOND = Part(0), Part(1)


class AddedBranch(nn.Module):
    """Calls a decoder's block, or one of its two parts, for what it adds to a stream."""

    def __init__(self, block: nn.Module, part: str, context: SequenceContext) -> None:
        super().__init__()
        self.block = block
        self.part = part
        self.context = context

    def forward(self, x_btd: Tensor) -> Tensor:
        """Map the stream that is read (b, t, d) to the addend of the other."""
        return self.block(_apart(x_btd), self.context, self.part)


def through_two_streams(
    blocks: Iterable[nn.Module],
    x_btd: Tensor,
    context: SequenceContext,
    settings: ReversibleSettings,
    memory: ActivationMemory,
) -> Tensor:
    """Return the mean of the two streams after all blocks; ``x_btd`` (b, t, d) begins both.

    The chain lives for one pass: it holds no weights of its own, and the blocks keep their names.
    """
    chain = ReversibleChain(
        [_reversible(block, layer, context, settings) for layer, block in enumerate(blocks)],
        memory,
    )
    first, second = chain(x_btd, _apart(x_btd))
    return torch.add(first, second).mul_(0.5)


def _apart(x_btd: Tensor) -> Tensor:
    """Return a view, at which gradients are summed before they reach the stream.

    So they are summed in the same order whether a branch is stored or computed again.
    """
    return x_btd.view_as(x_btd)


def _reversible(
    block: nn.Module, layer: int, context: SequenceContext, settings: ReversibleSettings
) -> ReversibleBlock:
    """Return one layer as steps: of its two parts, or of the whole layer, in turns of streams."""
    steps: Sequence[Step]
    if settings.type == "reformer":
        parts = ("attention", "feed_forward")
        steps = (Step(parts[0], (SECOND,), FIRST), Step(parts[1], (FIRST,), SECOND))
    else:
        parts = ("layer",)
        read, written = (FIRST, SECOND) if layer % 2 else (SECOND, FIRST)
        steps = (Step(parts[0], (read,), written),)
    functions = {part: AddedBranch(block, part, context) for part in parts}
    return ReversibleBlock(2, steps, functions, settings.fixed_point_bits)
