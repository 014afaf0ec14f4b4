"""Find documents whose cleaned texts are equal, by a 128-bit hash."""

import hashlib

import numpy as np


def content_hash(text: bytes | memoryview) -> bytes:
    """Hash a cleaned text in UTF-8 to 16 bytes (BLAKE2b)."""
    return hashlib.blake2b(text, digest_size=16).digest()


def exact_edges(
    hashes: np.ndarray, sources: np.ndarray, members: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return edges (n, 2) between equal hashes, and one document for each hash and source.

    ``hashes`` (documents, 2) u64 and ``sources`` are indexed by document key; ``members`` are the
    keys to consider, ascending. Within a source each copy is joined to the source's first; the
    first of each source to the first of all, so that dropping edges between sources leaves every
    source's own copies joined. The firsts of each (hash, source) go on to the search for near
    duplicates.
    """
    order = members[np.lexsort((members, sources[members], hashes[members, 1], hashes[members, 0]))]
    new_text = np.ones(len(order), dtype=bool)
    new_text[1:] = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    new_source = new_text.copy()
    new_source[1:] |= sources[order[1:]] != sources[order[:-1]]
    positions = np.arange(len(order))
    first_of_text = order[np.maximum.accumulate(np.where(new_text, positions, 0))]
    first_of_source = order[np.maximum.accumulate(np.where(new_source, positions, 0))]
    copies, links = ~new_source, new_source & ~new_text
    edges = np.concatenate(
        [
            np.stack([first_of_source[copies], order[copies]], axis=1),
            np.stack([first_of_text[links], order[links]], axis=1),
        ]
    )
    return canonical_pairs(edges), np.sort(order[new_source])


def canonical_pairs(pairs: np.ndarray) -> np.ndarray:
    """Return pairs (n, 2) with the smaller key first, sorted, each once."""
    if len(pairs) == 0:
        return np.empty((0, 2), dtype=np.int64)
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    order = np.lexsort((high, low))
    pairs = np.stack([low[order], high[order]], axis=1)
    changed = np.ones(len(pairs), dtype=bool)
    changed[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[changed]
