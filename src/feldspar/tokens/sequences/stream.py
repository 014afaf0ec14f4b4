"""Read one source as an endless stream of tokens, epoch after epoch.

In each epoch the documents are ordered by a hash of (seed, source, epoch, document), and windows
are cut from the stream one after the other. The place of a window is computed from its number, not
searched for, so resuming costs the same everywhere.
"""

from collections.abc import Iterator
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


@dataclass(frozen=True)
class WindowsOfEpoch:
    """The windows of one epoch, or the rest of one, numbered from a cursor."""

    begin: Cursor
    """Beginning of the first window."""
    first: int
    """Number of the first window."""
    count: int


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
        return max(0, (self.tokens_in(cursor.epoch) - cursor.token - 1) // length)

    def windows_around(self, cursor: Cursor, length: int, number: int) -> WindowsOfEpoch:
        """Return the windows of the epoch that holds window ``number``, counted from ``cursor``.

        Raises UserError if the source is shorter than one window.
        """
        left = self.windows_left(cursor, length)
        if number < left:
            return WindowsOfEpoch(cursor, 0, left)
        an_epoch = self.windows_left(Cursor(), length)
        if an_epoch == 0:
            raise self._too_short(length)
        epochs = (number - left) // an_epoch
        begin = Cursor(cursor.epoch + 1 + epochs)
        return WindowsOfEpoch(begin, left + epochs * an_epoch, an_epoch)

    def locate(self, cursor: Cursor, length: int, number: int) -> Cursor:
        """Return the beginning of window ``number``, counted from ``cursor``.

        Raises UserError if the source is shorter than one window.
        """
        epoch = self.windows_around(cursor, length, number)
        return Cursor(epoch.begin.epoch, epoch.begin.token + (number - epoch.first) * length)

    def cursor_after(self, cursor: Cursor, length: int, windows: int) -> Cursor:
        """Return the position after ``windows`` windows from ``cursor``."""
        if windows == 0:
            return cursor
        last = self.locate(cursor, length, windows - 1)
        return Cursor(last.epoch, last.token + length)

    def at_document(self, cursor: Cursor, of: "SourceStream | None" = None) -> Cursor:
        """Return the first start of a document at or after ``cursor``.

        ``cursor`` is a position in the stream ``of`` (default: this one), which has the same
        documents in the same order, but may have other lengths of documents.
        """
        if cursor.token == 0:
            return cursor
        document = int(np.searchsorted((of or self)._epoch(cursor.epoch).ends, cursor.token))
        return Cursor(cursor.epoch, int(self._epoch(cursor.epoch).ends[document]))

    def copy_window(self, cursor: Cursor, into: np.ndarray) -> None:
        """Copy the tokens from ``cursor`` on into ``into``; they must not cross the epoch's end."""
        done = 0
        for document, first, count in self.parts(cursor, len(into)):
            tokens = self.document(cursor.epoch, document)
            into[done : done + count] = tokens[first : first + count]
            done += count

    def parts(self, cursor: Cursor, tokens: int) -> Iterator[tuple[int, int, int]]:
        """Yield the documents that hold ``tokens`` tokens from ``cursor`` on, in order.

        For each: its index, its first token that is read, and how many are read.
        """
        epoch = self._epoch(cursor.epoch)
        place = int(np.searchsorted(epoch.ends, cursor.token, side="right"))
        start = int(epoch.ends[place - 1]) if place else 0
        at, stop = cursor.token, cursor.token + tokens
        while at < stop:
            end = int(epoch.ends[place])
            count = min(end, stop) - at
            yield int(epoch.order[place]), at - start, count
            at, start, place = at + count, end, place + 1

    def tokens_in(self, epoch: int) -> int:
        """Return the number of tokens of one epoch."""
        return self.tokens

    def lengths_in(self, epoch: int) -> np.ndarray:
        """Return the number of tokens of each document in one epoch, i64."""
        return self._source.lengths

    def document(self, epoch: int, index: int) -> np.ndarray:
        """Return the tokens of the document ``index`` in one epoch, with its end."""
        return self._source.document(index)

    def _make_epoch(self, number: int) -> Epoch:
        lengths = self.lengths_in(number)
        key = stream_seed(self._seed, "data.order", self.name, number)
        keys = hash_integers(np.arange(len(lengths), dtype=np.int64), key)
        order = np.argsort(keys, kind="stable")
        return Epoch(order, np.cumsum(lengths[order]))

    def _too_short(self, length: int) -> UserError:
        return UserError(
            f"source {self.name!r} has {self.tokens:,} tokens, fewer than one window of "
            f"{length:,} and its last label",
            do="use a shorter context_length, or give the source probability 0",
        )
