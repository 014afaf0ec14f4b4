"""Kernels give the bits of the numpy forms: on every code point, on odd texts and on real ones."""

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.core.streams import hash_integers
from feldspar.corpus.clean import cleaned, cleaned_texts
from feldspar.corpus.duplicates.sketch import SKETCH_VALUES, sketch_texts
from feldspar.corpus.kernels.hashing import mixed
from feldspar.corpus.kernels.selection import compiled
from feldspar.corpus.packed import PackedTexts

ODD = " \t\n\x00\x1c\x1d\x1e\x1f\x7f\x80\x85\xa0\xff\u0130\u03a3\u2028\u3000\u1e9e\u212a\u023a.,!_Z"
ASTRAL = "\U0001f600\U00010400\U0001e921\U0010ffff"
TEXT = st.text(st.characters() | st.sampled_from(ODD + ASTRAL), max_size=60)


@pytest.fixture(autouse=True)
def numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are on, whatever the environment says."""
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    if not compiled():
        pytest.skip("numba is not installed, or off")


def both(function: Callable[[], Any]) -> Iterator[Any]:
    """What ``function`` gives with kernels, and without."""
    yield function()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        assert not compiled()
        yield function()


def packed(texts: list[str]) -> PackedTexts:
    return PackedTexts.of(text.encode("utf-8", "surrogatepass") for text in texts)


def check(texts: list[str]) -> None:
    """Cleaning and sketching of all texts, and of every other one."""
    given = packed(texts)
    (clean, characters), (expected, expected_characters) = both(lambda: cleaned_texts(given))
    assert [clean.text(index) for index in range(len(texts))] == [cleaned(each) for each in texts]
    assert np.array_equal(clean.data, expected.data)
    assert np.array_equal(clean.starts, expected.starts)
    assert np.array_equal(characters, expected_characters)
    for step in (1, 2):
        wanted = np.arange(len(texts)) % step == 0
        one, other = both(lambda wanted=wanted: sketch_texts(clean, characters, wanted))
        assert one.dtype == other.dtype == np.uint32
        assert one.shape == (len(texts), SKETCH_VALUES)
        assert np.array_equal(one, other)


def test_every_code_point_is_cleaned_alike() -> None:
    points = [chr(point) for point in range(sys.maxunicode + 1) if point not in (0x130, 0x3A3)]
    texts = [
        "".join(f"a{point} .{point}" for point in points[start : start + 256])
        for start in range(0, len(points), 256)
    ]
    clean, characters = cleaned_texts(packed(texts))
    expected = [cleaned(text) for text in texts]
    assert [clean.text(index) for index in range(len(texts))] == expected
    assert characters.tolist() == [len(text) for text in expected]


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, max_size=20))
def test_texts_of_any_characters(texts: list[str]) -> None:
    check(texts)


def test_thousands_of_random_texts() -> None:
    generator = random.Random(8)
    alphabets = ("ab .", "abcdefgh \n.", ODD, ODD + ASTRAL, "\u03b1\u03b2\u03a3 ", "\u4e2d\u6587 a")
    check(
        [
            "".join(generator.choices(alphabets[number % 6], k=generator.randrange(400)))
            for number in range(4000)
        ]
    )


@pytest.mark.parametrize("letter", ["a", "\xe9", "\u4e2d", "\U0001f600"])
def test_lengths_around_a_shingle_and_repeats(letter: str) -> None:
    check(["", letter, *(letter * size for size in (11, 12, 13, 14, 25, 26, 4107, 4108, 4109))])
    check([" ", letter + " ", " " * 40, "." * 40, f"{letter}. " * 30])


def test_long_texts() -> None:
    generator = np.random.default_rng(2)
    letters = generator.integers(97, 107, 2_000_000, np.uint8).tobytes().decode("ascii")
    check(["a" * 10_000_000, "ab" * 500_000, letters, letters[:1_000_000] + "\u4e2d\u03a3"])


def test_real_documents(long_texts: list[str]) -> None:
    check(long_texts)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_integers_are_mixed_alike(value: int, key: int) -> None:
    expected = hash_integers(np.array([value], np.uint64), key)[0]
    assert np.uint64(mixed(np.uint64(value), np.uint64(key))) == expected
