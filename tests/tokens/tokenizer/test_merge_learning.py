"""Learning merges against the definition: count all pairs afresh before each merge."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from feldspar.tokens.tokenizer.merge_learning import MINIMUM_COUNT, learn_merges

Sequences = Mapping[tuple[int, ...], int]
FIRST_NEW = 4


def brute_force(
    sequences: Sequences, result: Callable[[int, int], int | None]
) -> list[tuple[int, int, int]]:
    held = [(list(ids), weight) for ids, weight in sequences.items()]
    merges: list[tuple[int, int, int]] = []
    refused: set[tuple[int, int]] = set()
    while True:
        counts: Counter[tuple[int, int]] = Counter()
        for ids, weight in held:
            for pair in itertools.pairwise(ids):
                counts[pair] += weight
        open_pairs = [p for p, n in counts.items() if n >= MINIMUM_COUNT and p not in refused]
        if not open_pairs:
            return merges
        left, right = min(open_pairs, key=lambda pair: (-counts[pair], pair))
        new = result(left, right)
        if new is None:
            refused.add((left, right))
            continue
        merges.append((left, right, new))
        held = [(merged(ids, left, right, new), weight) for ids, weight in held]


def merged(ids: list[int], left: int, right: int, new: int) -> list[int]:
    out, place = [], 0
    while place < len(ids):
        if ids[place : place + 2] == [left, right]:
            out.append(new)
            place += 2
        else:
            out.append(ids[place])
            place += 1
    return out


class Namer:
    """Ids in order; pairs of a given remainder are refused."""

    def __init__(self, refuse: int) -> None:
        self.next = FIRST_NEW
        self.refuse = refuse

    def __call__(self, left: int, right: int) -> int | None:
        if (3 * left + right) % 7 == self.refuse:
            return None
        self.next += 1
        return self.next - 1


@given(
    st.dictionaries(
        st.lists(st.integers(0, FIRST_NEW - 1), min_size=1, max_size=12).map(tuple),
        st.integers(1, 4),
        max_size=8,
    ),
    st.integers(-1, 6),
)
def test_the_same_merges_as_counting_afresh(sequences: Sequences, refuse: int) -> None:
    found = list(learn_merges(sequences, Namer(refuse)))
    assert found == brute_force(sequences, Namer(refuse))


def test_a_run_is_merged_from_the_left() -> None:
    found = list(learn_merges({(0, 0, 0, 0, 0): 2}, Namer(-1)))
    assert found == [(0, 0, 4), (4, 0, 5), (4, 5, 6)]


def test_nothing_to_merge() -> None:
    assert list(learn_merges({}, Namer(-1))) == []
    assert list(learn_merges({(1,): 9, (1, 2): 1}, Namer(-1))) == []
