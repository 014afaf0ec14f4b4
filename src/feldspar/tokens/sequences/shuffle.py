"""Compute the order in which a phase reads the windows of a source: shuffled in blocks.

Windows of one long document are neighbours in a source's stream, and a batch of neighbours would
hold little else. So windows are permuted within blocks of up to ``BLOCK`` of them. The permutation
is a Feistel network over the next power of four, repeated until the result lies in the block; no
order is stored. A block ends where its epoch ends, or where the phase stops reading the source. So
each window is read exactly once in an epoch, and the next phase continues with windows that were
not read.
"""

from collections.abc import Callable
from functools import lru_cache

from feldspar.core.streams import stream_seed

BLOCK = 8192
ROUNDS = 4
MASK = (1 << 64) - 1


class WindowOrder:
    """A permutation of the windows that one phase reads from one source.

    ``epoch_of`` gives the first window, and the number of windows, of the epoch that holds a
    window. ``total`` windows are read.
    """

    def __init__(
        self,
        seed: int,
        source: str,
        phase_index: int,
        epoch_of: Callable[[int], tuple[int, int]],
        total: int,
    ) -> None:
        self._epoch_of, self._total = epoch_of, total
        self._key = lru_cache(maxsize=64)(
            lambda start: stream_seed(seed, "data.windows", source, phase_index, start)
        )

    def place(self, number: int) -> int:
        """Return the window of the stream that is read as ``number``."""
        start, count = self._epoch_of(number)
        stop = min(start + count, self._total)
        block = start + (number - start) // BLOCK * BLOCK
        return block + permuted(number - block, min(BLOCK, stop - block), self._key(block))


def permuted(index: int, size: int, key: int) -> int:
    """Return the image of ``index`` under a permutation of ``size`` numbers that ``key``
    chooses."""
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        index = _feistel(index, half_bits, key)
        if index < size:
            return index


def _feistel(index: int, half_bits: int, key: int) -> int:
    mask = (1 << half_bits) - 1
    left, right = index >> half_bits, index & mask
    for turn in range(ROUNDS):
        mixed = (right + key + turn * 0x9E3779B97F4A7C15) & MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        left, right = right, left ^ ((mixed >> 40) & mask)
    return left << half_bits | right
