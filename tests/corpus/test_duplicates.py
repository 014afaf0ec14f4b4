"""Exact pass, components, candidates and survivors against brute force."""

from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.corpus.duplicates import candidates
from feldspar.corpus.duplicates.candidates import (
    ALL_PAIRS_LIMIT,
    BandUnit,
    CandidateUnit,
    least_agreement,
    write_band_records,
    write_candidates,
)
from feldspar.corpus.duplicates.components import component_labels
from feldspar.corpus.duplicates.exact import exact_edges
from feldspar.corpus.duplicates.runs import Range
from feldspar.corpus.duplicates.sketch_files import SKETCHES_NAME, SketchFiles
from feldspar.corpus.duplicates.survivors import preference, representatives, survivors
from feldspar.corpus.duplicates.verify import TextFiles, at_least, intersection_size, write_places
from feldspar.recipe.sections.corpus import PRESETS
from tests.corpus.conftest import empty_parts, prose

EDGES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


@given(EDGES, st.randoms())
def test_components_are_labelled_by_their_smallest(edges: list, random) -> None:
    graph = networkx.Graph(edges)
    graph.add_nodes_from(range(20))
    expected = [0] * 20
    for component in networkx.connected_components(graph):
        for node in component:
            expected[node] = min(component)
    random.shuffle(edges)
    array = np.array(edges, np.int64).reshape(-1, 2)
    assert component_labels(20, array).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=20))
def test_exact_edges_join_equal_texts_also_within_each_source(documents: list) -> None:
    hashes = np.array([[text, 0] for text, _ in documents], np.uint64)
    sources = np.array([source for _, source in documents])
    edges, stand_ins = exact_edges(hashes, sources, np.arange(len(documents)))
    labels = component_labels(len(documents), edges)
    local = component_labels(len(documents), edges[sources[edges[:, 0]] == sources[edges[:, 1]]])
    for i, (text, source) in enumerate(documents):
        for j, (other_text, other_source) in enumerate(documents):
            assert (labels[i] == labels[j]) == (text == other_text)
            if source == other_source:
                assert (local[i] == local[j]) == (text == other_text)
    assert len(stand_ins) == len(set(documents))


def candidates_of(
    folder: Path, texts: list[str], sketch: np.ndarray
) -> tuple[dict[str, int], list[np.ndarray]]:
    """The counts and the files of candidate pairs of texts with these sketches."""
    parts = empty_parts(folder, [len(texts)])
    encoded = [text.encode() for text in texts]
    parts.path(0).write_bytes(b"".join(encoded))
    sizes = np.array([len(text) for text in encoded])
    write_places(folder / "places.npy", np.cumsum(sizes) - sizes, sizes, sizes)
    np.save(parts.path(0, SKETCHES_NAME), sketch)
    np.save(folder / "members.npy", np.ones(len(texts), bool))
    files = SketchFiles(parts, 0, 1)
    banding = PRESETS["verified"]
    write_band_records(BandUnit(files, folder / "members.npy", banding), folder)
    everything = Range((folder / "records.npy",), None, None)
    kept = TextFiles(parts, folder / "places.npy")
    unit = CandidateUnit(everything, files, kept, banding, 0.8, 10_000)
    counts = write_candidates(unit, folder)
    return counts, [np.load(path) for path in sorted(folder.glob("pairs-*.npy"))]


def test_a_giant_group_stays_connected_through_stars(tmp_path: Path) -> None:
    size = 3 * ALL_PAIRS_LIMIT
    values = np.repeat(np.arange(3, dtype=np.uint32), ALL_PAIRS_LIMIT)
    sketch = np.tile(values[:, None], (1, 128))
    sketch[:, :6] = 7  # one band in which all of them meet
    texts = [f"{prose(value)} {number:03}" for number, value in enumerate(values.tolist())]
    counts, spilled = candidates_of(tmp_path, texts, sketch)
    assert counts["giant_groups"] == 1 and counts["unpaired"] == 0
    assert len(spilled) > 1
    labels = component_labels(size, np.concatenate(spilled))
    assert labels.tolist() == (values * ALL_PAIRS_LIMIT).tolist()


def look_alikes() -> tuple[list[str], np.ndarray, set[tuple[int, int]]]:
    """Texts of pairs of duplicates, all of one sketch, and the pairs."""
    half = ALL_PAIRS_LIMIT
    texts = [prose(number % half, words=20) for number in range(2 * half)]
    sketch = np.full((2 * half, 128), 7, np.uint32)
    return texts, sketch, {(number, number + half) for number in range(half)}


def test_a_giant_group_of_look_alikes_keeps_its_duplicates(tmp_path: Path) -> None:
    texts, sketch, duplicates = look_alikes()
    counts, found = candidates_of(tmp_path, texts, sketch)
    assert counts["giant_groups"] > 0 and counts["unpaired"] == 0
    assert duplicates <= set(map(tuple, np.concatenate(found).tolist()))


def test_what_the_stars_of_a_giant_group_leave_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, sketch, _ = look_alikes()
    monkeypatch.setattr(candidates, "ALL_PAIRS_OF_UNLIKE", ALL_PAIRS_LIMIT)
    monkeypatch.setattr(candidates, "STAR_PAIRS", len(texts))  # enough for one star
    counts, _ = candidates_of(tmp_path, texts, sketch)
    assert counts["unpaired"] == counts["giant_groups"] * (len(texts) - 2)


def test_the_filter_is_4_5_sigma_below_the_threshold() -> None:
    assert least_agreement(0.8) == 82
    assert least_agreement(1.0) == 128


@given(st.sets(st.integers(0, 50)), st.sets(st.integers(0, 50)))
def test_intersection(first: set, second: set) -> None:
    arrays = [np.array(sorted(each), np.uint64) for each in (first, second)]
    assert intersection_size(*arrays) == len(first & second)


def test_the_threshold_itself_counts() -> None:
    assert at_least(np.array([8, 79]), np.array([10, 100]), 0.8).tolist() == [True, False]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=6, max_size=6))
def test_survivors(documents: list) -> None:
    sources = np.array([source for source, _ in documents])
    lengths = np.array([length for _, length in documents])
    labels = np.array([0, 0, 0, 3, 3, 5])
    quality = np.array([[np.nan, 1.0, 2.0, 2.5][length] for _, length in documents])
    keys = {
        "first": lambda key: key,
        "longest": lambda key: (-lengths[key], key),
        "source_priority": lambda key: ({2: 0, 0: 1}.get(sources[key], 2), -lengths[key], key),
        "highest": lambda key: (-np.nan_to_num(quality[key], nan=-1.0), key),
    }
    for keep, rank in keys.items():
        kept = survivors(labels, preference(keep, sources, lengths, [2, 0], quality))
        expected = [min([0, 1, 2], key=rank)] * 3 + [min([3, 4], key=rank)] * 2 + [5]
        assert kept.tolist() == expected


@given(EDGES, st.randoms())
def test_representatives_are_like_all_they_stand_for(edges: list, random) -> None:
    alike = {frozenset(edge) for edge in edges}
    order = list(range(20))
    random.shuffle(order)
    labels = component_labels(20, np.array(edges, np.int64).reshape(-1, 2))

    def similar(pairs: np.ndarray) -> np.ndarray:
        return np.array([frozenset(pair) in alike for pair in pairs.tolist()], bool)

    keepers = representatives(labels, np.array(order), similar).tolist()
    rank = {key: place for place, key in enumerate(order)}
    kept: list[int] = []
    for key in order:  # greedily, the most preferred first
        standing = [other for other in kept if frozenset((key, other)) in alike]
        expected = min(standing, key=rank.__getitem__) if standing else key
        if not standing:
            kept.append(key)
        assert keepers[key] == expected
