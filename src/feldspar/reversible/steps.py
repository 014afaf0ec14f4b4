"""Steps of a reversible block: each adds a function of some streams to another stream.

``x[target] += f(x[sources])`` can be undone by ``x[target] -= f(x[sources])`` for any f that does
not read the target. Any sequence of such steps can be undone in reverse order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feldspar.core.errors import UserError


@dataclass(frozen=True)
class Part:
    """A stream, or its channels ``begin`` to ``end`` (along dimension 1)."""

    stream: int
    begin: int = 0
    end: int | None = None

    @property
    def is_whole(self) -> bool:
        """True if the part is the whole stream."""
        return self.begin == 0 and self.end is None

    def overlaps(self, other: "Part") -> bool:
        """Tell whether two parts share a channel."""
        if self.stream != other.stream:
            return False
        after = other.end is not None and self.begin >= other.end
        before = self.end is not None and other.begin >= self.end
        return not (after or before)

    def read(self, streams: Sequence[Tensor]) -> Tensor:
        """Return the part's values: a view of its stream."""
        stream = streams[self.stream]
        return stream if self.is_whole else stream[:, self.begin : self.end]

    def plus(self, streams: Sequence[Tensor], values: Tensor, sign: int = 1) -> Tensor:
        """Return the whole stream with ``sign * values`` added to the part, as a new tensor."""
        stream = streams[self.stream]
        if self.is_whole:
            return torch.add(stream, values, alpha=sign)
        added = torch.add(self.read(streams), values, alpha=sign)
        pieces = [added]
        if self.begin:
            pieces.insert(0, stream[:, : self.begin])
        if self.end is not None and self.end < stream.shape[1]:
            pieces.append(stream[:, self.end :])
        return torch.cat(pieces, dim=1)


@dataclass(frozen=True)
class Step:
    """``target += function(*sources)`` or, with ``creates``, a new last stream with these values.

    ``function`` is the name of one of the block's functions; two steps may share one. With
    ``reads_context`` the context tensors follow the sources.
    """

    function: str
    sources: tuple[Part, ...]
    target: Part
    creates: bool = False
    reads_context: bool = False


def stream_count_after(steps: Sequence[Step], n_inputs: int) -> int:
    """Return the number of streams after the steps; raises UserError if a step cannot be undone."""
    n_streams = n_inputs
    for number, step in enumerate(steps):
        where = f"step {number} ({step.function})"
        for source in step.sources:
            _require_stream(source, n_streams, where)
            if source.overlaps(step.target):
                raise UserError(
                    "a step that reads its own target cannot be inverted",
                    where=where,
                    found=f"{source} among the sources of {step.target}",
                )
        if not step.creates:
            _require_stream(step.target, n_streams, where)
            continue
        if step.target != Part(n_streams):
            raise UserError(
                "a step must create a whole stream, after the last one",
                where=where,
                found=step.target,
                allowed=str(Part(n_streams)),
            )
        n_streams += 1
    return n_streams


def _require_stream(part: Part, n_streams: int, where: str) -> None:
    if not 0 <= part.stream < n_streams:
        raise UserError(
            f"stream {part.stream} does not exist", where=where, allowed=f"0 to {n_streams - 1}"
        )
