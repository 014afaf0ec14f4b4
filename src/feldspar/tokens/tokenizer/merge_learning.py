"""Learn BPE merges over weighted sequences of ids, keeping the counts of pairs up to date.

The cost of a merge depends only on its own occurrences: positions are in flat arrays as a linked
list, each pair knows where it was seen, and a heap gives the next pair. After the merge that
created a pair its count only falls, so a heap entry that is too high is pushed back when it comes
up.
"""

import heapq
from array import array
from collections.abc import Callable, Iterator, Mapping

import numpy as np

MINIMUM_COUNT = 2
"""Pairs that occur less often are not merged."""
_SHIFT = 32
_LOW = 2**_SHIFT - 1
_NOTHING = -1


def learn_merges(
    sequences: Mapping[tuple[int, ...], int], result: Callable[[int, int], int | None]
) -> Iterator[tuple[int, int, int]]:
    """Merge the most frequent adjacent pair repeatedly; yield ``(left, right, new id)``.

    ``sequences`` maps runs of ids to how often they occur. ``result`` returns a new id for a pair,
    or None to refuse it. Equal counts are decided by the smaller pair of ids. Occurrences are
    merged from left to right; a run ``a a a`` counts as two pairs.
    """
    learner = _Learner(sequences)
    while (pair := learner.next_pair()) is not None:
        left, right = pair >> _SHIFT, pair & _LOW
        new = result(left, right)
        if new is None:
            learner.forget(pair)
        else:
            learner.merge(pair, new)
            yield left, right, new


class _Learner:
    """All sequences in a row, with a mark between them, and their pairs."""

    def __init__(self, sequences: Mapping[tuple[int, ...], int]) -> None:
        flat, weights = [_NOTHING], [0]
        for ids, weight in sequences.items():
            flat += ids
            flat.append(_NOTHING)
            weights += [weight] * (len(ids) + 1)
        size = len(flat)
        self._ids = array("q", flat)
        self._weights = array("q", weights)
        self._after = array("q", range(1, size + 1))
        self._before = array("q", range(-1, size - 1))
        self._counts: dict[int, int] = {}
        self._places: dict[int, array[int]] = {}
        self._count_pairs()
        self._heap = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._heap)

    def _count_pairs(self) -> None:
        ids = np.frombuffer(self._ids, np.int64)
        inside = np.flatnonzero((ids[:-1] >= 0) & (ids[1:] >= 0))
        if not inside.size:
            return
        keys = (ids[inside] << _SHIFT) | ids[inside + 1]
        order = np.argsort(keys, kind="stable")
        pairs, starts = np.unique(keys[order], return_index=True)
        places = inside[order]
        counts = np.add.reduceat(np.frombuffer(self._weights, np.int64)[places], starts)
        for pair, count, part in zip(
            pairs.tolist(), counts.tolist(), np.split(places, starts[1:]), strict=True
        ):
            if count >= MINIMUM_COUNT:
                self._counts[pair] = count
                self._places[pair] = array("q", part.tobytes())

    def next_pair(self) -> int | None:
        """Return the most frequent pair; None if no pair is frequent enough."""
        while self._heap:
            negative, pair = heapq.heappop(self._heap)
            count = self._counts[pair]
            if count == -negative:
                return pair
            if count >= MINIMUM_COUNT:
                heapq.heappush(self._heap, (-count, pair))
            else:
                self.forget(pair)
        return None

    def forget(self, pair: int) -> None:
        """Never return ``pair`` again."""
        del self._counts[pair], self._places[pair]

    def merge(self, pair: int, new: int) -> None:
        """Replace each occurrence of ``pair`` by ``new``."""
        left, right = pair >> _SHIFT, pair & _LOW
        ids, after, before, counts = self._ids, self._after, self._before, self._counts
        fresh: dict[int, int] = {}
        places: dict[int, array[int]] = {}

        def lower(gone: int, weight: int) -> None:
            if gone in fresh:
                fresh[gone] -= weight
            elif gone in counts:
                counts[gone] -= weight

        for first in self._places[pair]:
            second = after[first]
            if ids[first] != left or ids[second] != right:
                continue  # was merged after it was seen
            weight = self._weights[first]
            previous, following = before[first], after[second]
            ids[first], ids[second] = new, _NOTHING
            after[first], before[following] = following, first
            if (neighbour := ids[previous]) >= 0:
                lower(neighbour << _SHIFT | left, weight)
                made = neighbour << _SHIFT | new
                fresh[made] = fresh.get(made, 0) + weight
                places.setdefault(made, array("q")).append(previous)
            if (neighbour := ids[following]) >= 0:
                lower(right << _SHIFT | neighbour, weight)
                made = new << _SHIFT | neighbour
                fresh[made] = fresh.get(made, 0) + weight
                places.setdefault(made, array("q")).append(first)
        self.forget(pair)
        for made, count in fresh.items():
            if count >= MINIMUM_COUNT:
                self._counts[made], self._places[made] = count, places[made]
                heapq.heappush(self._heap, (-count, made))
