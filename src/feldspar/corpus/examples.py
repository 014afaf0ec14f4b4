"""Choose a few pairs of duplicates to show, with the text around their first difference."""

from dataclasses import dataclass

import numpy as np

from feldspar.corpus.outcome import Outcome, jaccard_or_none

EXAMPLES = 20
EXCERPT_CHARACTERS = 2000
"""The length of an excerpt."""
LEAD_CHARACTERS = 200
"""An excerpt begins so many characters before the first difference."""


@dataclass(frozen=True)
class Example:
    """Two documents that count as duplicates: their origins and an excerpt of each.

    Both excerpts begin at character ``excerpt_start`` of their texts; empty where none was kept.
    """

    jaccard: float | None
    id_a: str
    id_b: str
    origin_a: str
    origin_b: str
    excerpt_start: int = 0
    excerpt_a: str = ""
    excerpt_b: str = ""


def example_pairs(outcome: Outcome) -> list[Example]:
    """Choose pairs evenly over the edges that are not exact copies, or over all if all are."""
    edges = outcome.found.edges
    near = np.flatnonzero(edges.jaccard != 1.0)
    pool = near if len(near) else np.arange(len(edges.pairs))
    if not len(pool):
        return []
    chosen = pool[np.unique(np.linspace(0, len(pool) - 1, EXAMPLES).astype(int))]
    pairs = edges.pairs[chosen].tolist()
    keys = np.unique(edges.pairs[chosen])
    texts, ids, origins = (
        dict(zip(keys.tolist(), outcome.files.strings(column, keys), strict=True))
        for column in ("text", "id", "origin")
    )
    return [
        Example(
            jaccard_or_none(value),
            ids[a],
            ids[b],
            origins[a],
            origins[b],
            *excerpts(texts[a], texts[b]),
        )
        for (a, b), value in zip(pairs, edges.jaccard[chosen].tolist(), strict=True)
    ]


def excerpts(first: str, second: str) -> tuple[int, str, str]:
    """Return where both excerpts begin, and the excerpts; equal texts begin at 0."""
    start = max(0, _common_prefix(first, second) - LEAD_CHARACTERS)
    if first == second:
        start = 0
    end = start + EXCERPT_CHARACTERS
    return start, first[start:end], second[start:end]


def _common_prefix(first: str, second: str) -> int:
    """Count the characters that both begin with, by halving: slices compare at memory speed."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
