"""Custom autograd function of reversible blocks: only the last block keeps its outputs.

There is one function for each block, so that gradients come out block by block and communication
can overlap with them. The backward pass of a block rebuilds its inputs. They are the outputs of the
block before, which gets them through a tape that all blocks of one forward call share. Parameters
are inputs of the function, so autograd itself accumulates their gradients, ``torch.autograd.grad``
finds them, and hooks see them once. All state belongs to the call, so a module may run twice before
a backward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from feldspar.core.errors import InternalError
from feldspar.reversible.block import ReversibleBlock, in_block
from feldspar.reversible.replay import refuse_double_backward, trainable_parameters


@dataclass
class _Tape:
    """Rebuilt outputs of the block whose backward pass is next."""

    streams: Sequence[Tensor] | None = None

    def take(self) -> Sequence[Tensor]:
        """Return the streams and drop them from the tape."""
        streams, self.streams = self.streams, None
        if streams is None:
            raise InternalError("a reversible block was reached before the block after it")
        return streams


@dataclass(frozen=True)
class _Call:
    """One block within one forward call."""

    block: ReversibleBlock
    parameters: list[nn.Parameter]
    tape: _Tape
    keeps_outputs: bool
    hands_down: bool
    """True if the block before uses the inputs that this one rebuilds."""


def run_reversibly(
    blocks: Sequence[ReversibleBlock],
    streams: Sequence[Tensor],
    context: Sequence[Tensor | None],
    anchor_every: int | None,
) -> tuple[Tensor, ...]:
    """Run the blocks in a row; keep the outputs of the last and of each ``anchor_every``-th
    block."""
    tape, keeps = _Tape(), True
    for number, block in enumerate(blocks):
        kept_before, done = keeps, number + 1
        keeps = done == len(blocks) or (anchor_every is not None and done % anchor_every == 0)
        call = _Call(block, trainable_parameters(block), tape, keeps, not kept_before)
        with in_block(number):
            streams = _Block.apply(call, *streams, *context, *call.parameters)
    return cast(tuple[Tensor, ...], streams)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        n_others = len(tensors) - len(call.parameters)
        streams, context = call.block.split(tensors[:n_others], call.block.n_inputs)
        outputs, replays = call.block.record(streams, context)
        ctx.call, ctx.replays, ctx.n_context = call, replays, len(context)
        ctx.save_for_backward(*context, *(outputs if call.keeps_outputs else ()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        call: _Call = ctx.call
        saved = ctx.saved_tensors
        context, kept = saved[: ctx.n_context], saved[ctx.n_context :]
        outputs = kept if call.keeps_outputs else call.tape.take()
        unwound = call.block.unwind(
            [output.detach() for output in outputs], grads, context, ctx.replays
        )
        if call.hands_down:
            call.tape.streams = unwound.inputs
        of_parameters = [
            unwound.parameter_gradients.get(id(parameter)) for parameter in call.parameters
        ]
        return None, *unwound.input_gradients, *unwound.context_gradients, *of_parameters
