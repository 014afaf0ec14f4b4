"""Hashing and sketching against plain references, and the oracles of estimation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.core.streams import hash_integers
from feldspar.corpus.duplicates.candidates import band_keys
from feldspar.corpus.duplicates.shingles import (
    WORD_KEY,
    distinct_hashes,
    shingle_hashes,
)
from feldspar.corpus.duplicates.sketch import ROUND_KEY, SKETCH_VALUES, agreement, sketches
from feldspar.corpus.packed import PackedTexts
from feldspar.recipe.sections.corpus import PRESETS

MASK = (1 << 64) - 1


def packed(texts: list[str]) -> tuple[PackedTexts, np.ndarray]:
    data = (text.encode("utf-8", "surrogatepass") for text in texts)
    return PackedTexts.of(data), np.array([len(text) for text in texts], np.int64)


def reference_hash(shingle: str) -> int:
    window = 0
    for character in shingle:
        window = ((window << 1) | (window >> 63)) & MASK
        window ^= int(hash_integers(np.array([ord(character)]), WORD_KEY)[0])
    return int(hash_integers(np.array([window], np.uint64), 0)[0])


def reference_sketch(hashes: list[int]) -> list[int]:
    buckets: list[int | None] = [None] * SKETCH_VALUES
    for step in range(2 * SKETCH_VALUES):
        key = (step * ROUND_KEY) & MASK
        values = hash_integers(np.array(hashes, np.uint64), key).tolist() if step else hashes
        filled = [bucket is not None for bucket in buckets]
        for value in values:
            place = value >> 57 if step < SKETCH_VALUES else step - SKETCH_VALUES
            old = buckets[place]
            if not filled[place] and (old is None or value < old):
                buckets[place] = value
        if None not in buckets:
            break
    return [0 if bucket is None else bucket & 0xFFFFFFFF for bucket in buckets]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=4))
def test_shingles_equal_a_loop(texts: list[str]) -> None:
    hashes, counts = shingle_hashes(*packed(texts))
    expected = [[reference_hash(t[i : i + 13]) for i in range(len(t) - 12)] for t in texts]
    assert counts.tolist() == [len(each) for each in expected]
    assert hashes.tolist() == [value for each in expected for value in each]


def test_ascii_and_other_documents_agree_on_a_shared_shingle() -> None:
    other, ascii_only = distinct_hashes(
        *packed(["a shared beginning \u4e2d", "a shared beginning "])
    )
    assert set(other) >= set(ascii_only)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=0, max_size=4), st.integers(0, 2**32))
def test_sketches_equal_a_loop_whatever_the_batch(sizes: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    sets = [generator.integers(0, 2**64, size, dtype=np.uint64) for size in sizes]
    joined = np.concatenate([np.empty(0, np.uint64), *sets])
    together = sketches(joined, np.array(sizes, np.int64))
    assert together.tolist() == [reference_sketch(each.tolist()) for each in sets]


def pairs_of_sets(similarity: float, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sketches of pairs of sets of disjoint integers with exactly the given similarity."""
    union = 200
    shared = round(similarity * union)
    own = (union - shared) // 2
    values = np.arange(pairs * union, dtype=np.uint64).reshape(pairs, union)
    hashes = hash_integers(values, seed)
    first = hashes[:, : shared + own]
    second = np.concatenate([hashes[:, :shared], hashes[:, shared + own :]], axis=1)
    counts = np.full(pairs, shared + own)
    return sketches(first.reshape(-1), counts), sketches(second.reshape(-1), counts)


@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.8, 0.9])
def test_agreement_is_unbiased_and_bands_follow_the_s_curve(similarity: float) -> None:
    pairs = 2000
    first, second = pairs_of_sets(similarity, pairs, seed=17)
    mean = agreement(first, second).mean() / SKETCH_VALUES
    # 4 sigma of the mean of independent MinHash values; fast similarity sketching varies less
    assert abs(mean - similarity) < 4 * np.sqrt(
        similarity * (1 - similarity) / SKETCH_VALUES / pairs
    )
    for banding in PRESETS.values():
        met = (band_keys(first, banding) == band_keys(second, banding)).any(axis=0)
        expected = 1 - (1 - similarity**banding.rows) ** banding.bands
        assert abs(met.mean() - expected) <= 4 * np.sqrt(expected * (1 - expected) / pairs) + 1e-9
