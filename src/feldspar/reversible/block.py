"""A reversible block of steps over streams: forward, inverse, and a backward pass that rebuilds."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from feldspar.core.errors import FeldsparError, UserError
from feldspar.reversible.fixed_point import require_exact, round_to_grid
from feldspar.reversible.replay import (
    Replay,
    call_purely,
    gradients_of,
    is_recomputing,
    leaf_of,
)
from feldspar.reversible.steps import Step, stream_count_after


@dataclass
class Unwound:
    """Results of a backward pass through a block."""

    inputs: list[Tensor]
    input_gradients: list[Tensor]
    context_gradients: list[Tensor | None]
    parameter_gradients: dict[int, Tensor | None]
    """Gradients by ``id`` of the parameter."""


class ReversibleBlock(nn.Module):
    """Map ``n_inputs`` streams to ``n_outputs`` by ``steps`` over the named ``functions``.

    A function maps its sources (and the context, if its step says so) to one tensor of its target's
    shape. A narrower type is cast to that of the first stream. Apart from parameters, buffers and
    the default random generators it must have no state. With ``fixed_point_bits`` all
    additions are on the grid of multiples of 2^-bits, which makes the inverse exact.
    """

    def __init__(
        self,
        n_inputs: int,
        steps: Sequence[Step],
        functions: Mapping[str, nn.Module],
        fixed_point_bits: int | None = None,
    ) -> None:
        super().__init__()
        missing = {step.function for step in steps} ^ set(functions)
        if missing:
            raise UserError(
                "functions and steps of a reversible block do not match",
                found=", ".join(sorted(missing)),
            )
        self.n_inputs = n_inputs
        self.steps = tuple(steps)
        self.n_outputs = stream_count_after(self.steps, n_inputs)
        self.functions = nn.ModuleDict(functions)
        self.fixed_point_bits = fixed_point_bits

    def forward(self, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Return the outputs of ``n_inputs`` streams, with an ordinary graph.

        Context tensors, or None in their places, follow the streams.
        """
        streams, context = self.split(tensors, self.n_inputs)
        for step in self.steps:
            inputs = self._inputs(step, streams, context)
            self._add(step, streams, self.functions[step.function](*inputs))
        return tuple(streams)

    def inverse(self, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Return the inputs of ``n_outputs`` streams, then the context; builds no graph, changes no
        buffer.

        Correct for functions that draw no random numbers and read no buffer that they write in
        their current mode.
        """
        streams, context = self.split(tensors, self.n_outputs)
        for step in reversed(self.steps):
            if step.creates:
                streams.pop()
                continue
            output = call_purely(
                self.functions[step.function], *self._inputs(step, streams, context)
            )
            self._subtract(step, streams, output)
        return tuple(streams)

    def record(
        self, streams: Sequence[Tensor], context: Sequence[Tensor | None]
    ) -> tuple[tuple[Tensor, ...], list[Replay]]:
        """Return the outputs without a graph, and the data that ``unwind`` needs to call each
        function again."""
        values, replays = list(streams), []
        for step in self.steps:
            replay = Replay(self.functions[step.function], values[0].device)
            output = replay.first(*self._inputs(step, values, context))
            with torch.no_grad():
                self._add(step, values, output)
            replays.append(replay)
        return tuple(values), replays

    def unwind(
        self,
        outputs: Sequence[Tensor],
        gradients: Sequence[Tensor],
        context: Sequence[Tensor | None],
        replays: Sequence[Replay],
    ) -> Unwound:
        """Return inputs and gradients from outputs and their gradients, one function at a time."""
        values, grads = list(outputs), list(gradients)
        unwound = Unwound(values, grads, [None] * len(context), {})
        for step, replay in zip(reversed(self.steps), reversed(replays), strict=True):
            sources = [part.read(values).detach().requires_grad_() for part in step.sources]
            extras = [leaf_of(tensor) for tensor in context] * step.reads_context
            output, leaves = replay.again(*sources, *extras)
            with torch.enable_grad():
                addend = self._addend(step, values[0], output)
            found = gradients_of(
                [addend], [step.target.read(grads)], [*sources, *extras, *leaves.values()]
            )
            if step.creates:
                values.pop()
                grads.pop()
            else:
                self._subtract(step, values, output)
            n_sources, n_inputs = len(sources), len(sources) + len(extras)
            for part, gradient in zip(step.sources, found[:n_sources], strict=True):
                if gradient is not None:
                    grads[part.stream] = part.plus(grads, gradient)
            if extras:
                pairs = zip(unwound.context_gradients, found[n_sources:n_inputs], strict=True)
                unwound.context_gradients = [_sum(*pair) for pair in pairs]
            for key, gradient in zip(leaves, found[n_inputs:], strict=True):
                unwound.parameter_gradients[key] = _sum(
                    unwound.parameter_gradients.get(key), gradient
                )
        return unwound

    def split(
        self, tensors: Sequence[Tensor | None], n_streams: int
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return streams and context; raises UserError if there are too few streams."""
        if len(tensors) < n_streams:
            raise UserError(
                f"a reversible block of {n_streams} streams got only {len(tensors)} tensors"
            )
        return cast(list[Tensor], list(tensors[:n_streams])), list(tensors[n_streams:])

    def _inputs(
        self, step: Step, streams: Sequence[Tensor], context: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        sources = (part.read(streams) for part in step.sources)
        return [*sources, *(context if step.reads_context else ())]

    def _add(self, step: Step, streams: list[Tensor], output: Tensor) -> None:
        addend = self._addend(step, streams[0], output)
        if step.creates:
            streams.append(addend)
            return
        expected = step.target.read(streams).shape
        if addend.shape != expected:
            raise UserError(
                "a function returned a tensor of another shape than its target stream",
                where=self._place(step),
                found=tuple(addend.shape),
                allowed=str(tuple(expected)),
            )
        streams[step.target.stream] = step.target.plus(streams, addend)
        if self.fixed_point_bits is not None and not is_recomputing():
            require_exact(step.target.read(streams), self.fixed_point_bits, self._place(step))

    def _subtract(self, step: Step, streams: list[Tensor], output: Tensor) -> None:
        with torch.no_grad():
            addend = self._addend(step, streams[0], output.detach())
            streams[step.target.stream] = step.target.plus(streams, addend, sign=-1)

    def _place(self, step: Step) -> str:
        return f"step {self.steps.index(step)} ({step.function})"

    def _addend(self, step: Step, stream: Tensor, output: Tensor) -> Tensor:
        """Return the output as it is added: in the streams' type, on the grid."""
        if not isinstance(output, Tensor):
            raise UserError(
                "a function of a reversible block must return one tensor",
                where=self._place(step),
                found=type(output).__name__,
            )
        output = output.to(stream.dtype)
        bits = self.fixed_point_bits
        return output if bits is None else round_to_grid(output, bits)


@contextmanager
def in_block(number: int) -> Generator[None]:
    """Add the number of a chain's block to the place that an error names."""
    try:
        yield
    except FeldsparError as error:
        error.where = f"block {number}" + (f", {error.where}" if error.where else "")
        raise


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
