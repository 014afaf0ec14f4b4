"""Reversible blocks in a row, with a choice of the tensors that are kept for the backward pass.

``store`` keeps every activation, ``recompute`` each block's input, ``reversible`` the last block's
outputs. Parameters, names and (apart from rounding; see ``fixed_point_bits``) gradients are the
same.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from feldspar.core.errors import NonFiniteError, UserError
from feldspar.reversible.block import ReversibleBlock, in_block
from feldspar.reversible.engine import run_reversibly
from feldspar.reversible.fixed_point import round_to_grid
from feldspar.reversible.recompute import recomputed
from feldspar.reversible.replay import call_purely

ActivationMemory = Literal["store", "recompute", "reversible"]
Streams = tuple[Tensor, ...]
Context = tuple[Tensor | None, ...]


class ReversibleChain(nn.Module):
    """Blocks in a row; each takes the streams that the one before returns.

    ``memory`` may be changed between steps. With ``anchor_every`` = n, the exact outputs of every
    n-th block are kept too, so that rounding errors of rebuilt streams do not add up further.
    """

    def __init__(
        self,
        blocks: Sequence[ReversibleBlock],
        memory: ActivationMemory = "reversible",
        anchor_every: int | None = None,
    ) -> None:
        super().__init__()
        if not blocks:
            raise UserError("a reversible chain needs at least one block")
        for number, (before, after) in enumerate(pairwise(blocks), start=1):
            if before.n_outputs != after.n_inputs:
                raise UserError(
                    f"block {number} takes {after.n_inputs} streams, but block "
                    f"{number - 1} returns {before.n_outputs}"
                )
        if len({block.fixed_point_bits for block in blocks}) > 1:
            raise UserError("the blocks of a chain have different fixed_point_bits")
        if anchor_every is not None and anchor_every < 1:
            raise UserError(
                "anchor_every must be a positive number of blocks",
                found=anchor_every,
                allowed="1 or more",
            )
        self.blocks = nn.ModuleList(blocks)
        self.memory = memory
        self.anchor_every = anchor_every
        self._n_inputs = blocks[0].n_inputs
        self._fixed_point_bits = blocks[0].fixed_point_bits

    @property
    def memory(self) -> ActivationMemory:
        """The name of what is kept for the backward pass: store, recompute or reversible."""
        return self._memory

    @memory.setter
    def memory(self, memory: ActivationMemory) -> None:
        """Choose what the next step keeps; raises UserError for a name that there is not."""
        if memory not in get_args(ActivationMemory):
            raise UserError(
                f"memory is not known: {memory!r}",
                allowed=get_args(ActivationMemory),
                do="set fixed_point_bits where reversible must rebuild without rounding",
            )
        self._memory: ActivationMemory = memory

    def forward(self, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Return the outputs of the streams, then the context tensors, which each block gets.

        Without gradients nothing is kept. Raises RunError if values exceed the range of exact sums.
        """
        streams, context = self.split(tensors)
        if self.memory == "reversible" and torch.is_grad_enabled():
            return run_reversibly(self.in_order, streams, context, self.anchor_every)
        for number, block in enumerate(self.in_order):
            with in_block(number):
                if self.memory == "recompute":
                    streams = recomputed(block, *streams, *context)
                else:
                    streams = block(*streams, *context)
        return streams

    def inverse(self, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Return the inputs of these outputs, then the context; see ``ReversibleBlock.inverse``."""
        n_outputs = self.in_order[-1].n_outputs
        streams, context = cast(Streams, tensors[:n_outputs]), tensors[n_outputs:]
        for block in reversed(self.in_order):
            streams = block.inverse(*streams, *context)
        return streams

    def split(self, tensors: Sequence[Tensor | None]) -> tuple[Streams, Context]:
        """Return the streams as they enter the first block, on the grid if there is one, and the
        context."""
        streams = cast(Streams, tuple(tensors[: self._n_inputs]))
        context = tuple(tensors[self._n_inputs :])
        if self._fixed_point_bits is not None:
            streams = tuple(round_to_grid(stream, self._fixed_point_bits) for stream in streams)
        return streams, context

    @property
    def in_order(self) -> list[ReversibleBlock]:
        """Blocks from first to last."""
        return list(cast(Iterable[ReversibleBlock], self.blocks))


def reconstruction_errors(chain: ReversibleChain, *tensors: Tensor | None) -> list[float]:
    """Return the relative L2 error of each block's inputs, as a backward pass rebuilds them.

    The first block comes first. All inputs are kept for the comparison, so use a small batch.
    Buffers do not change. For functions see ``ReversibleBlock.inverse``. Raises NonFiniteError with
    the first block that returns NaN or infinity.
    """
    with torch.no_grad():
        streams, context = chain.split(tensors)
        _require_finite(streams, "the streams that enter the chain are not finite")
        entering = []
        for number, block in enumerate(chain.in_order):
            entering.append(streams)
            streams = call_purely(block, *streams, *context)
            _require_finite(streams, f"block {number} returns streams that are not finite")
        errors = []
        for block, true in zip(reversed(chain.in_order), reversed(entering), strict=True):
            streams = block.inverse(*streams, *context)
            errors.append(_relative_error(streams, true))
    return errors[::-1]


def _require_finite(streams: Streams, what: str) -> None:
    for number, stream in enumerate(streams):
        if not stream.isfinite().all():
            raise NonFiniteError(what, where=f"stream {number}")


def _relative_error(rebuilt: tuple[Tensor, ...], true: tuple[Tensor, ...]) -> float:
    pairs = list(zip(rebuilt, true, strict=True))
    error = sum(float((ours - theirs).double().square().sum()) for ours, theirs in pairs)
    size = sum(float(theirs.double().square().sum()) for _, theirs in pairs)
    return (error / size) ** 0.5 if size else error**0.5
