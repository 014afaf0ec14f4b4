"""The truth: every pair of documents of Jaccard similarity at least 0.8 over runs of 13 characters.

An exact join with a prefix filter (Chaudhuri et al. 2006; Bayardo et al. 2007), written for this
purpose: nothing here comes from feldspar, neither cleaning nor hashing nor comparison.
"""

import random
import re
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CHARACTERS = 13
NUMERATOR, DENOMINATOR = 4, 5
"""The threshold."""
CHECKED_PAIRS = 300
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BASE, _MIXER = 0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9


@dataclass(frozen=True)
class Truth:
    """Pairs (n, 2) of documents, sorted, with |A and B| and |A or B|; ``texts`` numbers the
    distinct cleaned texts, so that copies share a number."""

    pairs: np.ndarray
    intersections: np.ndarray
    unions: np.ndarray
    texts: np.ndarray

    @property
    def jaccard(self) -> np.ndarray:
        """The similarity of each pair."""
        return self.intersections / self.unions


def truth_of(texts: list[str]) -> Truth:
    """Join the texts with each other, and check a sample of the pairs with Python's own sets."""
    clean = [plainly_cleaned(text) for text in texts]
    numbers: dict[str, int] = {}
    owners = np.array([numbers.setdefault(text, len(numbers)) for text in clean])
    sets = [hashed_shingles(text) for text in numbers]
    rows = compared(sets, candidates(sets))
    _check(list(numbers), rows)
    return _of_documents(rows, owners, np.array([len(each) for each in sets]))


def stored_truth(path: Path, texts: list[str]) -> Truth:
    """The truth of a corpus, computed once and kept beside it."""
    stored = path.with_suffix(".truth.npz")
    if not stored.exists():
        truth = truth_of(texts)
        unfinished = stored.with_name(f"unfinished-{stored.name}")
        np.savez(unfinished, **truth.__dict__)
        unfinished.replace(stored)
    return Truth(**np.load(stored))


def plainly_cleaned(text: str) -> str:
    """SlimPajama's definition, word for word."""
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION).strip())


def hashed_shingles(text: str) -> np.ndarray:
    """The distinct shingles of a cleaned text as sorted 64-bit polynomial hashes."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    count = max(0, len(points) - CHARACTERS + 1)
    values = np.zeros(count, np.uint64)
    for offset in range(CHARACTERS):
        values = values * np.uint64(_BASE) + points[offset : offset + count]
    values ^= values >> np.uint64(31)
    values *= np.uint64(_MIXER)
    values.sort()
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if count else values


def candidates(sets: list[np.ndarray]) -> np.ndarray:
    """Pairs (n, 2) of sets that may reach the threshold; none that does is missing.

    Ordered by rarity, two sets of that similarity share an element among the first
    |A| - ceil(0.8 |A|) + 1 of A and likewise of B.
    """
    sizes = np.array([len(each) for each in sets])
    elements = np.concatenate(sets)
    order = np.argsort(elements, kind="stable")
    ordered = elements[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    repeats = np.diff(np.append(starts, len(ordered)))
    frequencies = np.empty(len(elements), np.int32)
    frequencies[order] = np.repeat(repeats, repeats)
    del order, ordered
    ends = np.cumsum(sizes)
    prefixes, owners = [], []
    for number, (own, end) in enumerate(zip(sets, ends, strict=True)):
        size = len(own)
        length = size - -(-NUMERATOR * size // DENOMINATOR) + 1 if size else 0
        rarity = frequencies[end - size : end]
        first = np.lexsort((own, rarity))[:length]
        shared = first[rarity[first] > 1]
        prefixes.append(own[shared])
        owners.append(np.full(len(shared), number))
    pairs = _pairs_sharing(np.concatenate(prefixes), np.concatenate(owners))
    low, high = np.sort(sizes[pairs], axis=1).T
    return pairs[low * DENOMINATOR >= high * NUMERATOR]


def _pairs_sharing(elements: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """All pairs of owners that have an element in common, smaller first, each once."""
    order = np.lexsort((owners, elements))
    elements, owners = elements[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], elements[1:] != elements[:-1]]))
    sizes = np.diff(np.append(starts, len(elements)))
    # Neighbouring shingles lie in the same documents: each set of owners is looked at once.
    weights = np.random.default_rng(0).integers(0, 2**63, owners.max() + 1).astype(np.uint64)
    keys = np.add.reduceat(weights[owners], starts)
    _, chosen = np.unique(keys, return_index=True)
    found = [np.empty(0, np.int64)]
    size = 0
    count = int(owners.max()) + 1
    for start, length in zip(starts[chosen], sizes[chosen], strict=True):
        if length > 1:
            group = owners[start : start + length]
            first, second = np.triu_indices(length, 1)
            found.append(group[first] * count + group[second])
            size += len(first)
            if size > 20_000_000:
                found, size = [np.unique(np.concatenate(found))], 0
    return np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1)


def compared(sets: list[np.ndarray], pairs: np.ndarray) -> np.ndarray:
    """Rows (a, b, intersection, union) of the pairs that reach the threshold."""
    rows = []
    for a, b in pairs.tolist():
        both = np.concatenate([sets[a], sets[b]])
        both.sort(kind="stable")
        shared = int(np.count_nonzero(both[1:] == both[:-1]))
        union = len(both) - shared
        if shared * DENOMINATOR >= union * NUMERATOR:
            rows.append((a, b, shared, union))
    return np.array(rows, np.int64).reshape(-1, 4)


def _check(texts: list[str], rows: np.ndarray) -> None:
    """Raise SystemExit unless sets of strings say the same of a sample of the pairs."""
    chosen = random.Random(0).sample(rows.tolist(), min(CHECKED_PAIRS, len(rows)))
    for a, b, shared, union in chosen:
        first, second = (
            {text[start : start + CHARACTERS] for start in range(len(text) - CHARACTERS + 1)}
            for text in (texts[a], texts[b])
        )
        if (len(first & second), len(first | second)) != (shared, union):
            raise SystemExit(f"the join is wrong about the texts {a} and {b}")


def _of_documents(rows: np.ndarray, owners: np.ndarray, sizes: np.ndarray) -> Truth:
    """Pairs of distinct texts -> pairs of documents; copies of one text make pairs too."""
    order = np.argsort(owners, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(owners))[:-1])
    found = [np.empty((0, 4), np.int64)]
    for text, own in enumerate(members):
        first, second = np.triu_indices(len(own), 1)
        size = np.full(len(first), sizes[text])
        if sizes[text]:
            found.append(np.stack([own[first], own[second], size, size], axis=1))
    for a, b, shared, union in rows.tolist():
        first, second = (side.ravel() for side in np.meshgrid(members[a], members[b]))
        values = np.full(len(first), shared), np.full(len(first), union)
        found.append(np.stack([first, second, *values], axis=1))
    all_rows = np.concatenate(found)
    all_rows[:, :2].sort(axis=1)
    all_rows = all_rows[np.lexsort((all_rows[:, 1], all_rows[:, 0]))]
    return Truth(all_rows[:, :2], all_rows[:, 2], all_rows[:, 3], owners)


@dataclass(frozen=True)
class Accuracy:
    """Shares of the true pairs that were found, and of the found pairs that are true.

    ``pairs`` counts those proposed, ``below_one`` those of similarity below 1 among them,
    ``components`` those whose ends have one label. None where a tool tells components only.
    """

    pairs: float | None
    below_one: float | None
    components: float
    precision: float | None


def accuracy(truth: Truth, found: np.ndarray | None, labels: np.ndarray) -> Accuracy:
    """How right the pairs (n, 2) and the label of each document are.

    Copies of one text count as found when they have one label; else a pair of documents is found
    when their texts are paired: some tools compare one of the copies only.
    """
    first, second = truth.pairs.T
    joined = labels[first] == labels[second]
    components = float(joined.mean())
    if found is None:
        return Accuracy(None, None, components, None)
    count = int(truth.texts.max()) + 1
    true_keys = _keys(truth.texts[truth.pairs], count)
    found_keys = _keys(truth.texts[found], count)
    found_keys = np.unique(found_keys[found_keys // count != found_keys % count])
    copies = true_keys // count == true_keys % count
    hit = np.where(copies, joined, np.isin(true_keys, found_keys))
    below_one = truth.intersections < truth.unions
    precision = float(np.isin(found_keys, true_keys).mean()) if len(found_keys) else 1.0
    return Accuracy(float(hit.mean()), float(hit[below_one].mean()), components, precision)


def _keys(pairs: np.ndarray, count: int) -> np.ndarray:
    return pairs.min(axis=1) * count + pairs.max(axis=1)
