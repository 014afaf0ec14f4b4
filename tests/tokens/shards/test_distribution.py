"""Comparison of sources by their tokens: identities, the specification's figures, the command."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from feldspar.tokens.shards.distribution import (
    compare_counts,
    cosine,
    divergence,
    token_groups,
    unique_shares,
)

counts = st.lists(st.integers(0, 10**12), min_size=4, max_size=4).map(np.array)


def test_the_specifications_figures() -> None:
    first, second = np.array([3, 1]), np.array([1, 3])
    assert divergence(first, second, 0) == pytest.approx(0.549306, abs=1e-6)
    assert cosine(first, second) == pytest.approx(0.6)
    smoothed = 4 / 6 * math.log(2) + 2 / 6 * math.log(0.5)
    assert divergence(first, second, 1) == pytest.approx(smoothed)


def test_a_token_that_only_one_has() -> None:
    first, second = np.array([1, 1]), np.array([2, 0])
    assert divergence(first, second, 0) is None
    assert divergence(second, first, 0) == pytest.approx(math.log(2))
    assert divergence(np.array([0, 0]), first, 0) is None
    assert cosine(np.array([0, 0]), first) is None


@given(counts, counts, st.sampled_from([0.5, 1.0, 3.0]))
def test_identities(first: np.ndarray, second: np.ndarray, alpha: float) -> None:
    assert divergence(first, first, alpha) == 0
    found = divergence(first, second, alpha)
    assert found is not None and found >= 0
    if first.any() and second.any():
        assert cosine(first, first) == pytest.approx(1)
        assert cosine(first, second) == cosine(second, first)
        assert -1e-9 <= (cosine(first, second) or 0) <= 1 + 1e-9
        assert cosine(first, second) == pytest.approx(cosine(7 * first, second))


def test_groups_and_unique_tokens() -> None:
    words = ["the", "The", "42", "...", "x1", "(", "\u00c9t\u00e9"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="the"))
    groups = {
        name: [word for word, held in zip(words, mask, strict=True) if held]
        for name, mask in token_groups(tokenizer.decode, len(words)).items()
    }
    assert groups == {
        "all": words,
        "letter": ["the", "The", "x1", "\u00c9t\u00e9"],
        "upper case": ["The", "\u00c9t\u00e9"],
        "number": ["42"],
        "no letter or digit": ["...", "("],
    }
    first, second = np.array([3, 1, 0, 0]), np.array([4, 0, 2, 2])
    assert unique_shares([first, second]) == [(1, 0.25), (2, 0.5)]
    only = compare_counts([first, second], "g", np.array([True, False, False, False]), 1)
    assert only.tokens == 1 and only.divergence == [[0, 0], [0, 0]]
