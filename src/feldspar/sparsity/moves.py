"""Move the mask of one matrix: drop small weights, and grow as many other entries.

Where a mask consists of blocks, whole blocks are dropped and grown. The score of a block is the sum
of its absolute weights or gradients. Equal scores are taken by position, the first entry first, so
that a move is a function of its inputs on every device.
"""

from dataclasses import dataclass
from math import floor

import torch
from torch import Tensor

from feldspar.core.streams import numpy_stream

Block = tuple[int, int]


@dataclass(frozen=True)
class Move:
    """A mask after a move. Weights and moments of changed entries must become zero."""

    mask: Tensor
    """Bool, True where an entry is kept."""
    changed: Tensor
    """Bool, True where an entry was dropped or grown, or both."""
    dropped: int
    """Number of dropped entries."""
    grown: int
    """Number of grown entries."""


def drop_and_grow(
    mask: Tensor,
    weight: Tensor,
    growth_scores: Tensor,
    fraction: float,
    block: Block = (1, 1),
    allow_regrow: bool = True,
) -> Move:
    """Drop floor(fraction x kept blocks) of the smallest weights and grow as many blocks.

    ``mask`` and ``weight`` have the shape (rows, columns), ``growth_scores`` has a score for each
    block. The entries with the highest scores grow; an entry that was just dropped may grow again
    unless ``allow_regrow`` is False. The number of kept blocks never changes (1911.11134).
    """
    kept = _blocks_of(mask, block)
    count = floor(fraction * int(kept.sum()))
    if not allow_regrow:
        count = min(count, int((~kept).sum()))
    dropped = _highest(-block_sums(weight, block), count, among=kept)
    remaining = kept & ~dropped
    grown = _highest(growth_scores, count, among=~remaining if allow_regrow else ~kept)
    return _move(remaining | grown, dropped, grown, block)


def prune(mask: Tensor, weight: Tensor, kept_blocks: int, block: Block = (1, 1)) -> Move:
    """Drop the smallest weights, so that ``kept_blocks`` blocks are left (1710.01878).

    A mask that keeps no more than that stays as it is.
    """
    kept = _blocks_of(mask, block)
    count = max(int(kept.sum()) - kept_blocks, 0)
    dropped = _highest(-block_sums(weight, block), count, among=kept)
    return _move(kept & ~dropped, dropped, torch.zeros_like(dropped), block)


def block_sums(values: Tensor, block: Block) -> Tensor:
    """Return the sum of absolute values of each block, in float64; of single entries their
    absolute values."""
    if block == (1, 1):
        return values.detach().abs()
    rows, columns = block
    shape = (values.shape[0] // rows, rows, values.shape[1] // columns, columns)
    return values.detach().abs().double().reshape(shape).sum((1, 3))


def random_scores(shape: tuple[int, int], block: Block, seed: int, *stream: str | int) -> Tensor:
    """Return a random score for each block of a matrix (1707.04780).

    They depend only on the seed and the names of the ``stream``.
    """
    chance = numpy_stream(seed, "sparsity.growth", *stream)
    return torch.from_numpy(chance.random((shape[0] // block[0], shape[1] // block[1])))


def _move(kept: Tensor, dropped: Tensor, grown: Tensor, block: Block) -> Move:
    size = block[0] * block[1]
    return Move(
        mask=_entries_of(kept, block),
        changed=_entries_of(dropped | grown, block),
        dropped=int(dropped.sum()) * size,
        grown=int(grown.sum()) * size,
    )


def _highest(scores: Tensor, count: int, among: Tensor) -> Tensor:
    """Return a bool tensor that is True at the ``count`` highest scores of the True places of
    ``among``, ties by position."""
    chosen = torch.zeros_like(among, memory_format=torch.contiguous_format)
    if count:
        places = among.flatten().nonzero().flatten()
        values = scores.flatten()[places]
        lowest = values.kthvalue(len(values) - count + 1).values
        taken = values > lowest
        ties = (values == lowest).nonzero().flatten()
        taken[ties[: count - int(taken.sum())]] = True
        chosen.view(-1)[places[taken]] = True
    return chosen


def _blocks_of(mask: Tensor, block: Block) -> Tensor:
    """Return a bool for each block of a mask that consists of whole blocks."""
    return mask[:: block[0], :: block[1]]


def _entries_of(blocks: Tensor, block: Block) -> Tensor:
    return blocks.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
