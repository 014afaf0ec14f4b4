"""Edges between documents, in files: written once in order, read in blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feldspar.corpus.duplicates.runs import ranges

BLOCK = 1 << 18
"""Edges that are looked at together."""


@dataclass(frozen=True)
class Edges:
    """Pairs (n, 2) of keys, smaller first and sorted; ``jaccard`` is NaN where unchecked."""

    pairs: np.ndarray
    jaccard: np.ndarray

    def blocks(self) -> Iterator["Edges"]:
        """Yield the edges, with one block in memory at a time."""
        for start in range(0, len(self.pairs), BLOCK):
            part = slice(start, start + BLOCK)
            yield Edges(np.array(self.pairs[part]), np.array(self.jaccard[part]))

    def similarities(self, pairs: np.ndarray, documents: int) -> np.ndarray:
        """Return the similarity of each of ``pairs`` (n, 2); NaN for those without an edge.

        ``documents`` is larger than all keys.
        """
        asked = pairs.min(axis=1) * documents + pairs.max(axis=1)
        order = np.argsort(asked, kind="stable")
        asked = asked[order]
        found = np.full(len(pairs), np.nan)
        if len(pairs) == 0:
            return found
        for block in self.blocks():
            own = block.pairs[:, 0] * documents + block.pairs[:, 1]
            first = np.searchsorted(own, asked)
            hit = own[np.minimum(first, len(own) - 1)] == asked
            found[order[hit]] = block.jaccard[first[hit]]
        return found


def no_edges() -> Edges:
    """Return edges that hold no pair."""
    return Edges(np.empty((0, 2), np.int64), np.empty(0))


def merge_edges(runs: Sequence[Path], at_once: int) -> Iterator[Edges]:
    """Merge runs of (low, high, intersection, union) to edges in order, each pair once.

    An empty union says that the pair was not measured.
    """
    for part in ranges(runs, at_once, leading=2):
        rows = part.read()
        last = np.ones(rows.shape[1], dtype=bool)
        last[:-1] = (rows[:2, 1:] != rows[:2, :-1]).any(axis=0)
        found = rows[:, last]  # a measured one comes after one that was not
        measured = found[3] > 0
        jaccard = np.full(found.shape[1], np.nan)
        jaccard[measured] = found[2, measured] / found[3, measured]
        yield Edges(np.ascontiguousarray(found[:2].T), jaccard)


class EdgeFile:
    """Two raw files that edges are appended to and then read from."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = folder / f"{name}.pairs", folder / f"{name}.jaccard"
        self._files = [path.open("wb") for path in self._paths]
        self._edges = 0

    def write(self, edges: Edges) -> None:
        """Append edges."""
        self._edges += len(edges.pairs)
        for file, values in zip(self._files, (edges.pairs, edges.jaccard), strict=True):
            file.write(np.ascontiguousarray(values).tobytes())

    def finish(self) -> Edges:
        """Return all edges, which stay in their files."""
        for file in self._files:
            file.close()
        if self._edges == 0:
            return no_edges()
        pairs, jaccard = self._paths
        return Edges(
            np.memmap(pairs, np.int64, mode="r", shape=(self._edges, 2)),
            np.memmap(jaccard, np.float64, mode="r", shape=(self._edges,)),
        )
