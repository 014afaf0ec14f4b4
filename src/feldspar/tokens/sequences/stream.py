"""Read one source as an endless stream of tokens, epoch after epoch.

In each epoch the documents are ordered by a hash of (seed, source, epoch, document), and windows
are cut from the stream one after the other. The place of a window is computed from its number, not
searched for, so resuming costs the same everywhere.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import hash_integers, stream_seed
from feldspar.tokens.shards.shard_folder import SourceTokens

EPOCHS_IN_MEMORY = 2


@dataclass(frozen=True)
class Cursor:
    """A position in a source: an epoch, and a token within that epoch's stream."""

    epoch: int = 0
    token: int = 0


@dataclass(frozen=True)
class Epoch:
    """Order of documents in one epoch, and the end of each in the stream."""

    order: np.ndarray
    ends: np.ndarray


class SourceStream:
    """Windows of one source, numbered from any cursor.

    A window of length L has L+1 tokens, and the next one begins L tokens later: its first token is
    the last label of the window before. Tokens at the end of an epoch that do not fill L+1 are
    dropped.
    """

    def __init__(self, source: SourceTokens, name: str, seed: int) -> None:
        self.name = name
        self.tokens = source.tokens
        self._source = source
        self._seed = seed
        # Two epochs: a batch may cross their border.
        self._epoch = lru_cache(maxsize=EPOCHS_IN_MEMORY)(self._make_epoch)

    def windows_left(self, cursor: Cursor, length: int) -> int:
        """Return the number of whole windows between ``cursor`` and the end of its epoch."""
        return max(0, (self.tokens - cursor.token - 1) // length)

    def locate(self, cursor: Cursor, length: int, number: int) -> Cursor:
        """Return the beginning of window ``number``, counted from ``cursor``.

        Raises UserError if the source is shorter than one window.
        """
        left = self.windows_left(cursor, length)
        if number < left:
            return Cursor(cursor.epoch, cursor.token + number * length)
        an_epoch = self.windows_left(Cursor(), length)
        if an_epoch == 0:
            raise UserError(
                f"source {self.name!r} has {self.tokens:,} tokens, fewer than one window of "
                f"{length:,} and its last label",
                do="use a shorter context_length, or give the source probability 0",
            )
        epochs, window = divmod(number - left, an_epoch)
        return Cursor(cursor.epoch + 1 + epochs, window * length)

    def cursor_after(self, cursor: Cursor, length: int, windows: int) -> Cursor:
        """Return the position after ``windows`` windows from ``cursor``."""
        if windows == 0:
            return cursor
        last = self.locate(cursor, length, windows - 1)
        return Cursor(last.epoch, last.token + length)

    def at_document(self, cursor: Cursor) -> Cursor:
        """Return the first start of a document at or after ``cursor``."""
        if cursor.token == 0:
            return cursor
        ends = self._epoch(cursor.epoch).ends
        document = int(np.searchsorted(ends, cursor.token))
        return Cursor(cursor.epoch, int(ends[document]))

    def copy_window(self, cursor: Cursor, into: np.ndarray) -> None:
        """Copy the tokens from ``cursor`` on into ``into``; they must not cross the epoch's end."""
        epoch, source = self._epoch(cursor.epoch), self._source
        place = int(np.searchsorted(epoch.ends, cursor.token, side="right"))
        done = 0
        skip = cursor.token - (int(epoch.ends[place - 1]) if place else 0)
        while done < len(into):
            document = epoch.order[place]
            count = min(int(source.lengths[document]) - skip, len(into) - done)
            start = int(source.starts[document]) + skip
            into[done : done + count] = source.files[source.file_index[document]][
                start : start + count
            ]
            done += count
            place, skip = place + 1, 0

    def _make_epoch(self, number: int) -> Epoch:
        lengths = self._source.lengths
        key = stream_seed(self._seed, "data.order", self.name, number)
        keys = hash_integers(np.arange(len(lengths), dtype=np.int64), key)
        order = np.argsort(keys, kind="stable")
        return Epoch(order, np.cumsum(lengths[order]))
