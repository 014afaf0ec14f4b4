"""The presets on thousands of long documents, against an exact join and against the S-curve."""

import json
import random
import string
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from benchmarks.contenders.all_pairs import (
    Truth,
    accuracy,
    hashed_shingles,
    plainly_cleaned,
    truth_of,
)
from pyarrow import parquet

from feldspar.corpus.files import deduplicate_files
from feldspar.recipe.sections.corpus import DeduplicateSettings
from tests.made_text import document_of_its_own, documents, edited

DOCUMENTS, COPIES = 10_000, 2_000
PAIRS = 6_000
BANDS, ROWS = 9, 13
UNLIKELY = 3.4e-6
"""One tail beyond 4.5 deviations of a normal distribution."""
ROUNDED = 0.51e-6
"""Edges give six decimals; the halves between two of them fall to either side in binary."""

pytestmark = pytest.mark.slow


def shingle_set(text: str) -> set[str]:
    clean = plainly_cleaned(text)
    return {clean[start : start + 13] for start in range(len(clean) - 12)}


def similarity(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


def deduplicated(folder: Path, texts: Iterable[str], short: int = 200, **given: str) -> Path:
    """The folder of the command on the texts, whose ids are their places."""
    path = folder / "in.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            record = {"id": str(number), "source": "made", "text": text}
            file.write(json.dumps(record) + "\n")
    settings = DeduplicateSettings.model_validate(given)
    deduplicate_files([path], folder / "out", settings, short=short, workers=2)
    return folder / "out"


def edges(out: Path) -> tuple[np.ndarray, np.ndarray]:
    table = parquet.read_table(out / "edges.parquet").to_pydict()
    pairs = np.array([table["id_a"], table["id_b"]]).astype(np.int64).T
    return pairs.reshape(-1, 2), np.array(table["jaccard"], np.float64)


def labels(out: Path, documents: int) -> np.ndarray:
    table = parquet.read_table(out / "duplicates.parquet").to_pydict()
    found = np.arange(documents)
    found[np.array(table["id"], dtype=np.int64)] = np.array(table["kept_id"], dtype=np.int64)
    return found


@pytest.fixture(scope="module")
def texts() -> list[str]:
    made = documents(DOCUMENTS, 400)
    generator = random.Random(1)
    copies = [
        edited(text, generator, generator.choice((0.0, 0.002, 0.005, 0.01, 0.02, 0.04)))
        for text in generator.sample(made, COPIES)
    ]
    return made + copies


@pytest.fixture(scope="module")
def truth(texts: list[str]) -> Truth:
    return truth_of(texts)


def test_the_truth_is_what_plain_sets_say(texts: list[str], truth: Truth) -> None:
    some = np.unique(truth.pairs[:: len(truth.pairs) // 150].ravel()).tolist()
    sets = {number: shingle_set(texts[number]) for number in some}
    expected = [
        (a, b)
        for place, a in enumerate(some)
        for b in some[place + 1 :]
        if 5 * len(sets[a] & sets[b]) >= 4 * len(sets[a] | sets[b])
    ]
    known = {tuple(pair) for pair in truth.pairs.tolist() if {*pair} <= set(some)}
    assert known == set(expected) and len(expected) >= 150


def test_the_default_finds_what_an_exact_join_finds(
    texts: list[str], truth: Truth, tmp_path: Path
) -> None:
    out = deduplicated(tmp_path, texts, memory="64MB")
    pairs, jaccard = edges(out)
    right = accuracy(truth, pairs, labels(out, len(texts)))
    assert right.components >= 0.995
    assert right.pairs is not None and right.pairs >= 0.995
    assert right.precision == 1.0
    exact = {
        tuple(pair): value
        for pair, value in zip(truth.pairs.tolist(), truth.jaccard.tolist(), strict=True)
    }
    expected = np.array([exact[tuple(pair)] for pair in pairs.tolist()])
    assert np.abs(expected - jaccard).max() <= ROUNDED
    assert (truth.intersections < truth.unions).sum() > 500


def curve(similarities: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """The chance that a pair meets in a band (SlimPajama's S-curve)."""
    return 1 - (1 - similarities**rows) ** bands


def tails(met: int, chances: np.ndarray) -> float:
    """The smaller tail of ``met`` among independent events of these ``chances``, exactly."""
    distribution = np.ones(1)
    for chance in chances.tolist():
        distribution = np.convolve(distribution, (1 - chance, chance))
    return float(min(distribution[: met + 1].sum(), distribution[met:].sum()))


def test_slimpajama_finds_the_share_that_the_curve_says(tmp_path: Path) -> None:
    """Each pair is a text and one edited copy, in words of its own: pairs are independent.

    The bound is the exact distribution of a sum of such events, which holds for bins where nearly
    all pairs meet too. Of the curves nearby, ours is the likeliest: one band or row more or less is
    seen.
    """
    generator = random.Random(2)
    texts = [document_of_its_own(number, 1000) for number in range(PAIRS)]
    copies = [edited(text, generator, generator.uniform(0.01, 0.06)) for text in texts]
    values = np.array(
        [
            similarity(shingle_set(text), shingle_set(copy))
            for text, copy in zip(texts, copies, strict=True)
        ]
    )
    out = deduplicated(tmp_path, texts + copies, preset="slimpajama")
    pairs, _ = edges(out)
    met = np.zeros(PAIRS, bool)
    met[pairs[pairs[:, 1] - pairs[:, 0] == PAIRS, 0]] = True
    expected = curve(values, BANDS, ROWS)
    bins = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
    for low, high in (*pairwise(bins), (bins[0], bins[-1])):
        inside = (values >= low) & (values < high)
        assert inside.sum() >= 50
        assert tails(int(met[inside].sum()), expected[inside]) > UNLIKELY, (low, high)
    near = [(BANDS + bands, ROWS + rows) for bands in (-1, 0, 1) for rows in (-1, 0, 1)]
    chances = {shape: curve(values, *shape) for shape in near}
    likelihoods = {
        shape: float(np.log(np.where(met, chance, 1 - chance)).sum())
        for shape, chance in chances.items()
    }
    assert max(near, key=lambda shape: likelihoods[shape]) == (BANDS, ROWS)


def test_odd_documents(tmp_path: Path) -> None:
    generator = random.Random(3)
    huge = " ".join(generator.choices(documents(5000, 400), k=4000))[:3_000_000]
    arabic = "".join(chr(generator.randrange(0x621, 0x64A)) for _ in range(3000))
    chinese = "".join(chr(generator.randrange(0x4E00, 0x9FFF)) for _ in range(3000))
    special = "\u0130\u03a3\u00df\U0001f600e\u0301\u2028 " * 5
    mixed = "".join(generator.choices(string.ascii_letters + special, k=3000))
    odd = [
        *("", "", "a", "a", "b", "\u4e00", "short text", "short text.", "SHORT  text!"),
        *(arabic, arabic[:2900], arabic[::-1]),
        *(chinese, chinese[:1500] + "\u4e00" + chinese[1500:], chinese[::-1]),
        *(mixed, mixed.lower(), mixed[::-1]),
        *(huge, huge[:2_700_000], huge[1_500_000:]),
    ]
    out = deduplicated(tmp_path, odd, short=0, memory="1GB")
    kept = labels(out, len(odd)).tolist()
    assert kept[:9] == [0, 0, 2, 2, 4, 5, 6, 6, 6]
    assert kept[9:] == [9, 9, 11, 12, 12, 14, 15, 15, 17, 18, 18, 20]
    pairs, jaccard = edges(out)
    for (a, b), value in zip(pairs.tolist(), jaccard.tolist(), strict=True):
        first, second = (hashed_shingles(plainly_cleaned(odd[key])) for key in (a, b))
        if len(first):
            both, union = np.intersect1d(first, second), np.union1d(first, second)
            assert abs(value - len(both) / len(union)) <= ROUNDED


def test_a_corpus_of_one_text(tmp_path: Path) -> None:
    [text] = documents(1, 400)
    out = deduplicated(tmp_path, [text] * 20_000, memory="64MB")
    assert set(labels(out, 20_000)) == {0}
    assert parquet.read_table(out / "kept").column("text").to_pylist() == [text]
