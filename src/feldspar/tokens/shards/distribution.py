"""Compare the token distributions of sources: KL divergence and cosine (2309.10818)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.core.errors import UserError
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

ALPHA = 1.0
"""Number added to each count. Without it, a token that one source lacks makes the divergence
infinite."""


@dataclass(frozen=True)
class Comparison:
    """Matrices over sources, [row][column], for one group of tokens.

    ``divergence`` is KL(row || column) in nats. It is None if a share of the column is 0 (alpha 0).
    """

    group: str
    tokens: int
    """Number of tokens of the vocabulary in the group."""
    divergence: list[list[float | None]]
    cosine: list[list[float | None]]


def token_counts(shards: ShardSet, split: str, source: str) -> np.ndarray:
    """Return how often each token of the vocabulary occurs, without the end-of-document token."""
    counts = np.zeros(shards.vocab_size, np.int64)
    for file in shards.read(split, source).files:
        for start in range(0, len(file), 1 << 24):
            block = file[start : start + (1 << 24)]
            counts += np.bincount(block, minlength=shards.vocab_size)
    counts[shards.end_of_document_id] = 0
    return counts


def divergence(first: np.ndarray, second: np.ndarray, alpha: float = ALPHA) -> float | None:
    """Return KL(first || second) in nats of two arrays of counts, after adding ``alpha`` to each
    count.

    Returns None if it is infinite: with alpha 0, if second lacks a token of first, or one is empty.
    """
    if first.sum() + alpha == 0 or second.sum() + alpha == 0 or len(first) == 0:
        return None
    p = (first + alpha) / (first + alpha).sum()
    q = (second + alpha) / (second + alpha).sum()
    held = p > 0
    if (q[held] == 0).any():
        return None
    return max(0.0, float((p[held] * np.log(p[held] / q[held])).sum()))


def cosine(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the cosine of two arrays of counts; None if one is empty."""
    # Use shares, because squares of large counts are not exact.
    if first.sum() == 0 or second.sum() == 0:
        return None
    p, q = first / first.sum(), second / second.sum()
    return float(p @ q / np.sqrt((p @ p) * (q @ q)))


def token_groups(decode: Callable[[list[int]], str], vocab_size: int) -> dict[str, np.ndarray]:
    """Return a mask over the vocabulary for each group, such as tokens that begin with a letter.

    A leading space is ignored. Tokens that are not whole characters belong only to ``all``.
    """
    texts = [decode([token]).removeprefix(" ") for token in range(vocab_size)]
    texts = ["" if "\ufffd" in text else text for text in texts]
    return {
        "all": np.ones(vocab_size, dtype=bool),
        "letter": np.array([text[:1].isalpha() for text in texts]),
        "upper case": np.array([text[:1].isupper() for text in texts]),
        "number": np.array([text.isdigit() for text in texts]),
        "no letter or digit": np.array(
            [bool(text) and not any(map(str.isalnum, text)) for text in texts]
        ),
    }


def compare_counts(
    counts: Sequence[np.ndarray], group: str, mask: np.ndarray, alpha: float = ALPHA
) -> Comparison:
    """Return the matrices of one group, from the counts within the mask."""
    chosen = [each[mask] for each in counts]
    return Comparison(
        group,
        int(mask.sum()),
        [[divergence(first, second, alpha) for second in chosen] for first in chosen],
        [[cosine(first, second) for second in chosen] for first in chosen],
    )


def unique_shares(counts: Sequence[np.ndarray]) -> list[tuple[int, float]]:
    """Return for each source the number of tokens that no other source has, and their share of its
    text."""
    present = np.stack([each > 0 for each in counts])
    alone = present.sum(axis=0) == 1
    return [
        (int((alone & own).sum()), float(each[alone & own].sum() / max(1, each.sum())))
        for own, each in zip(present, counts, strict=True)
    ]


def compare_sources(
    shards: ShardSet, split: str = "train", alpha: float = ALPHA
) -> tuple[list[str], list[Comparison], list[tuple[int, float]]]:
    """Return the sources of a split, their comparison in each group of tokens, and unique tokens.

    Raises UserError for a split with fewer than two sources.
    """
    names = shards.sources(split)
    if len(names) < 2:
        raise UserError(
            f"{shards.path} has fewer than two sources in its {split} split; there is "
            "nothing to compare",
            found=", ".join(names) or "none",
            allowed=shards.splits,
        )
    counts = [token_counts(shards, split, name) for name in names]
    tokenizer = TextTokenizer.load(shards.tokenizer, shards.end_of_document)
    groups = token_groups(tokenizer.decode, shards.vocab_size)
    compared = [compare_counts(counts, group, mask, alpha) for group, mask in groups.items()]
    return names, compared, unique_shares(counts)
