"""The keys that the queries of causal attention see, and queries in chunks of rows.

Shapes: b sequences, t positions. Keys end where queries end: with s keys and i queries, query 0
stands at position s - i.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Chunk(NamedTuple):
    """Consecutive queries, and the keys that at least one of them sees."""

    rows: slice
    """Indices of the queries."""
    keys: slice
    """Indices of the keys. The last key has the position of the last query."""

    @property
    def past(self) -> int:
        """Return the position of a query less its index."""
        return self.keys.stop - self.rows.stop


@dataclass(frozen=True)
class VisibleKeys:
    """The rule by which a query sees the keys up to its own position.

    ``document_ids`` (b, t) hide keys of other documents; they need as many queries as keys. A
    ``window`` hides all but the query's own key and the ``window`` - 1 keys before it.
    """

    document_ids: Tensor | None = None
    window: int | None = None

    @property
    def all_before(self) -> bool:
        """Tell whether every query sees all keys up to its own position."""
        return self.document_ids is None and self.window is None

    def chunks(self, n_queries: int, n_keys: int, n_rows: int) -> Iterator[Chunk]:
        """Yield the queries in chunks of ``n_rows``; the last chunk may be smaller."""
        past = n_keys - n_queries
        for begin in range(0, n_queries, n_rows):
            end = min(begin + n_rows, n_queries)
            first = 0 if self.window is None else max(past + begin - self.window + 1, 0)
            yield Chunk(slice(begin, end), slice(first, past + end))

    def mask(self, chunk: Chunk, device: torch.device) -> Tensor:
        """Return true where a query sees a key: (rows, keys), or (b, 1, rows, keys)."""
        rows, keys = chunk.rows, chunk.keys
        positions = torch.arange(chunk.past + rows.start, chunk.past + rows.stop, device=device)
        places = torch.arange(keys.start, keys.stop, device=device)
        seen = positions[:, None] >= places
        if self.window is not None:
            seen &= places > positions[:, None] - self.window
        if self.document_ids is None:
            return seen
        same = self.document_ids[:, rows, None] == self.document_ids[:, None, keys]
        return (seen & same).unsqueeze(1)

    def hide(self, scores: Tensor, chunk: Chunk) -> None:
        """Set the scores (heads, rows, keys) of hidden keys to minus infinity, in place.

        ``document_ids`` are not used.
        """
        if self.window is not None:
            scores.masked_fill_(~self.mask(chunk, scores.device), float("-inf"))
            return
        n_rows = scores.shape[1]  # only the keys of the chunk's own queries can be ahead
        ahead = scores.new_full((n_rows, n_rows), float("-inf")).triu_(1)
        scores[:, :, -n_rows:].add_(ahead)
