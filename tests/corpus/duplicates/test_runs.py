"""Runs, ranges, sketches by key and edges in files against plain arrays."""

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.corpus.duplicates.edges import EdgeFile, Edges, merge_edges
from feldspar.corpus.duplicates.runs import ranges, sorted_rows
from feldspar.corpus.duplicates.sketch import SKETCH_VALUES, agreement
from feldspar.corpus.duplicates.sketch_files import SKETCHES_NAME, SketchFiles
from tests.corpus.conftest import empty_parts

ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 99)), max_size=60)


@settings(max_examples=40, deadline=None)
@given(runs=st.lists(ROWS, min_size=1, max_size=4), size=st.integers(1, 20))
@pytest.mark.parametrize("leading", [1, 2])
def test_ranges_hold_every_row_once_and_cut_no_key(
    runs: list[list], size: int, leading: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for number, rows in enumerate(runs):
        path = folder / f"{number}.npy"
        np.save(path, sorted_rows(np.array(rows, np.uint64).reshape(-1, 3).T))
        paths.append(path)
    parts = [part.read().T.tolist() for part in ranges(paths, size, leading)]
    assert [tuple(row) for part in parts for row in part] == sorted(chain(*runs))
    keys = [{tuple(row[:leading]) for row in part} for part in parts]
    assert sum(map(len, keys)) == len(set().union(*keys))


def test_ranges_have_about_the_wished_size(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    paths = [tmp_path / f"{number}.npy" for number in range(5)]
    for path in paths:
        keys = generator.integers(0, 2**64, (1, 20_000), dtype=np.uint64)
        np.save(path, sorted_rows(keys))
    sizes = [part.read().shape[1] for part in ranges(paths, 3000, 1)]
    assert sum(sizes) == 100_000
    assert max(sizes) < 1.2 * 3000  # a sixteenth, and what sampling adds


@settings(max_examples=30, deadline=None)
@given(keys=st.lists(st.integers(0, 29), max_size=40))
def test_sketches_by_key(keys: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("sketches")
    values = np.random.default_rng(0).integers(0, 3, (30, SKETCH_VALUES)).astype(np.uint32)
    starts = (0, 11, 12, 30)
    parts = empty_parts(folder, [end - start for start, end in pairwise(starts)])
    for number, (start, end) in enumerate(pairwise(starts)):
        np.save(parts.path(number, SKETCHES_NAME), values[start:end])
    files = SketchFiles(parts, 0, 3)
    wanted = np.array(keys, np.int64)
    assert np.array_equal(files.take(np.sort(wanted)), values[np.sort(wanted)])
    pairs = np.stack([wanted, wanted[::-1]], axis=1)
    assert np.array_equal(files.agreements(pairs), agreement(values[wanted], values[wanted[::-1]]))
    assert [(group.first, group.last) for group in files.groups(12)] == [(0, 2), (2, 3)]
    own = [(start, sketches.tolist()) for group in files.groups(12) for start, sketches in group]
    assert own == [(start, values[start:end].tolist()) for start, end in pairwise(starts)]


@settings(max_examples=30, deadline=None)
@given(
    edges=st.dictionaries(
        st.tuples(st.integers(0, 20), st.integers(0, 20)).filter(lambda pair: pair[0] < pair[1]),
        st.tuples(st.integers(0, 9), st.just(10)),
    ),
    size=st.integers(1, 9),
)
def test_edges_are_merged_and_found_again(
    edges: dict, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("edges")
    rows = np.array([(*pair, *share) for pair, share in edges.items()], np.int64).reshape(-1, 4)
    unmeasured = rows.copy()
    unmeasured[:, 2:] = 0
    for name, part in (("a", rows), ("b", unmeasured)):
        np.save(folder / f"{name}.npy", sorted_rows(part.T))
    file = EdgeFile(folder, "edges")
    for block in merge_edges([folder / "b.npy", folder / "a.npy"], size):
        file.write(block)
    found = file.finish()
    expected = {pair: share[0] / share[1] for pair, share in sorted(edges.items())}
    assert [tuple(pair) for pair in found.pairs.tolist()] == list(expected)
    assert found.jaccard.tolist() == list(expected.values())
    asked = np.array([(high, low) for low in range(20) for high in range(low + 1, 21)])
    values = found.similarities(asked, 21)
    for (high, low), value in zip(asked.tolist(), values.tolist(), strict=True):
        assert value == expected[low, high] if (low, high) in expected else np.isnan(value)


def test_no_edges(tmp_path: Path) -> None:
    none = EdgeFile(tmp_path, "none").finish()
    assert isinstance(none, Edges) and len(none.pairs) == 0
    assert np.isnan(none.similarities(np.array([[0, 1]]), 2)).all()
