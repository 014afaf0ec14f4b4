"""The order in which a phase reads a source's windows: shuffled in blocks, computed, never stored.

Windows of one long document lie side by side in a source's stream. A batch cut from there would
hold little else, so the windows are permuted within blocks of up to ``BLOCK`` of them: by a Feistel
network over the next power of four, walked until it lands inside the block. A block ends where its
epoch or the phase's reading of the source ends, so every window is read exactly once an epoch and
the next phase finds what comes after untouched.
"""

from functools import lru_cache

from feldspar.core.streams import stream_seed

BLOCK = 8192
ROUNDS = 4
MASK = (1 << 64) - 1


class WindowOrder:
    """A permutation of the windows that one phase reads of one source.

    ``first`` windows are left in the epoch that the phase begins in, ``per_epoch`` are in each
    later one, ``total`` are read.
    """

    def __init__(
        self, seed: int, source: str, phase_index: int, first: int, per_epoch: int, total: int
    ) -> None:
        self._first, self._per_epoch, self._total = first, per_epoch, total
        self._key = lru_cache(maxsize=64)(
            lambda start: stream_seed(seed, "data.windows", source, phase_index, start)
        )

    def place(self, number: int) -> int:
        """Which window of the stream is read as ``number``."""
        start, size = self._epoch_of(number)
        block = start + (number - start) // BLOCK * BLOCK
        size = min(BLOCK, start + size - block)
        return block + permuted(number - block, size, self._key(block))

    def _epoch_of(self, number: int) -> tuple[int, int]:
        """Return the first window and the windows of the epoch that ``number`` lies in."""
        if number < self._first:
            return 0, min(self._first, self._total)
        epochs = (number - self._first) // self._per_epoch
        start = self._first + epochs * self._per_epoch
        return start, min(self._per_epoch, self._total - start)


def permuted(index: int, size: int, key: int) -> int:
    """Where a permutation of ``size`` numbers, chosen by ``key``, takes ``index``."""
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
