"""Read one source whose documents are transformed by fill-in-the-middle before they are packed.

A document is transformed when it is read, so no second copy of the source lies on the disk.
"""

from collections import OrderedDict
from functools import lru_cache
from threading import Lock

import numpy as np

from feldspar.tokens.sequences.infilled_documents import InfilledDocuments, InfilledSource
from feldspar.tokens.sequences.stream import Cursor, SourceStream, WindowsOfEpoch
from feldspar.tokens.shards.shard_folder import ShardSet

TOKENS_IN_MEMORY = 2**25
"""Transformed tokens that a stream keeps. Windows are shuffled in blocks, so the windows of a long
document are read close to each other, but not one after the other."""


class InfilledStream(SourceStream):
    """Windows of one source of ``shards``, whose documents are transformed before packing.

    The order of the documents is the same as without the transformation.
    """

    def __init__(self, of: InfilledSource, shards: ShardSet) -> None:
        self._documents = InfilledDocuments(of, shards)
        super().__init__(self._documents.source, of.part, of.seed)
        self._totals = lru_cache(maxsize=None)(lambda epoch: int(self.lengths_in(epoch).sum()))
        self._held: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._held_tokens = 0
        self._lock = Lock()
        self.tokens = self.tokens_in(0)

    def tokens_in(self, epoch: int) -> int:
        """Return the number of tokens of one epoch."""
        return self._totals(epoch)

    def lengths_in(self, epoch: int) -> np.ndarray:
        """Return the number of tokens of each document in one epoch, i64."""
        return self._documents.lengths(epoch).astype(np.int64)

    def windows_around(self, cursor: Cursor, length: int, number: int) -> WindowsOfEpoch:
        """Return the windows of the epoch that holds window ``number``, counted from ``cursor``.

        Raises UserError for an epoch that is shorter than one window.
        """
        first, count = 0, self.windows_left(cursor, length)
        while number >= first + count:
            if cursor.token == 0 and count == 0:
                raise self._too_short(length)
            first, cursor = first + count, Cursor(cursor.epoch + 1)
            count = self.windows_left(cursor, length)
        return WindowsOfEpoch(cursor, first, count)

    def document(self, epoch: int, index: int) -> np.ndarray:
        """Return the tokens of the document ``index`` in one epoch, with its end."""
        place = epoch, index
        with self._lock:
            if (held := self._held.get(place)) is not None:
                self._held.move_to_end(place)
                return held
        made = self._documents.document(epoch, index)
        with self._lock:
            if place not in self._held:
                self._held[place] = made
                self._held_tokens += len(made)
            while self._held_tokens > TOKENS_IN_MEMORY and len(self._held) > 1:
                _, oldest = self._held.popitem(last=False)
                self._held_tokens -= len(oldest)
        return made
