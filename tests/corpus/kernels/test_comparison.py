"""Compiled comparison against plain sets, and whole runs with and without kernels."""

import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.corpus.document import Document
from feldspar.corpus.duplicates import verify as verification
from feldspar.corpus.duplicates.verify import (
    TextFiles,
    VerifyUnit,
    at_least,
    verify_pairs,
    write_places,
)
from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.kernels.comparison import cut_pairs
from feldspar.corpus.kernels.selection import compiled
from feldspar.corpus.parts import tables_of, text_begins, write_table
from feldspar.recipe.sections.corpus import DeduplicateSettings
from tests.corpus.conftest import empty_parts, prose
from tests.corpus.test_build import content


@pytest.fixture(params=["compiled", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to do the same."""
    if not compiled():
        pytest.skip("numba is not installed, or off")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", str(int(request.param == "numpy")))
    assert compiled() == (request.param == "compiled")
    return request.param


def text_files(texts: list[str], folder: Path) -> TextFiles:
    """Texts that are clean already, in two parts."""
    half = len(texts) // 2
    parts = [part for part in (texts[:half], texts[half:]) if part]
    files = empty_parts(folder, [len(part) for part in parts])
    for number, part in enumerate(parts):
        documents = [Document(str(index), "a", text, "g", "o") for index, text in enumerate(part)]
        (table,) = tables_of(documents)
        write_table(table, files.path(number))
    sizes = np.array([len(text.encode()) for text in texts], np.int64)
    characters = np.array([len(text) for text in texts], np.int64)
    begins = np.concatenate([text_begins(files.path(number)) for number in range(len(files))])
    write_places(folder / "places.npy", begins, sizes, characters)
    return TextFiles(files, folder / "places.npy")


def shingles(text: str) -> set[str]:
    return {text[start : start + 13] for start in range(len(text) - 12)}


TEXTS = st.lists(st.text("ab\xe9\u4e2d", max_size=40), min_size=2, max_size=8)


@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, seed=st.integers(0, 99), threshold=st.sampled_from([None, 0.3, 0.8, 1.0]))
@pytest.mark.parametrize("numba_off", ["0", "1"])
def test_pairs_equal_plain_sets(
    texts: list[str],
    seed: int,
    threshold: float | None,
    numba_off: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    files = text_files(texts, tmp_path_factory.mktemp("texts"))
    generator = random.Random(seed)
    every = [(low, high) for low in range(len(texts)) for high in range(low + 1, len(texts))]
    pairs = np.array(generator.sample(every, generator.randrange(1, len(every) + 1)), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", numba_off)
        patch.setattr(verification, "UNIT_CHARACTERS", 100)
        found = verify_pairs(VerifyUnit(files, pairs, threshold))
    assert np.array_equal(found[:, :2], pairs)
    for low, high, shared, union in found.tolist():
        one, other = shingles(texts[low]), shingles(texts[high])
        if threshold is None:
            assert (shared, union) == (len(one & other), len(one | other))
            continue
        right = len(one | other) > 0 and (
            Fraction(len(one & other), len(one | other)) >= Fraction(str(threshold))
        )
        passes = union > 0 and bool(at_least(np.array([shared]), np.array([union]), threshold)[0])
        assert passes == right
        assert not right or (shared, union) == (len(one & other), len(one | other))


def test_stretches_hold_as_much_as_they_may(way: str) -> None:
    chain = np.array([(number, number + 1) for number in range(7)])
    assert cut_pairs(chain, np.full(8, 100_000), 500_000).tolist() == [4, 7]


def test_documents_longer_than_a_unit(way: str, tmp_path: Path) -> None:
    long = " ".join(prose(number, 1000) for number in range(90))
    files = text_files([long, long[: len(long) // 2], "a" * 20], tmp_path)
    ((_, _, shared, union),) = verify_pairs(VerifyUnit(files, np.array([[0, 1]]))).tolist()
    assert (shared, union) == (len(shingles(long[: len(long) // 2])), len(shingles(long)))


def records(path: Path, long_texts: list[str]) -> Path:
    """Real texts, some edited, some in letters whose lower case needs Python."""
    texts = [*long_texts, *(text.replace("i", "\u0130") for text in long_texts[:40])]
    texts += [prose(number % 25, 80 + number // 25) for number in range(200)]
    with path.open("w") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"source": "ab"[number % 2], "text": text}) + "\n")
    return path


@pytest.mark.parametrize("given", [{}, {"cluster": "representative"}, {"preset": "slimpajama"}])
def test_a_whole_run_has_the_same_bytes(
    given: dict[str, str],
    long_texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not compiled():
        pytest.skip("numba is not installed, or off")
    path = records(tmp_path / "in.jsonl", long_texts)
    contents = []
    for numba_off in ("0", "1"):
        monkeypatch.setenv("NUMBA_DISABLE_JIT", numba_off)
        assert compiled() == (numba_off == "0")
        out = tmp_path / numba_off
        report = deduplicate_files([path], out, DeduplicateSettings.model_validate(given))
        assert report.dropped > 100
        contents.append(content(out))
    assert contents[0] == contents[1]
