"""Tensors in the order of the requests, whoever reads them."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from feldspar.core.errors import InternalError, UserError
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader
from feldspar.tokens.sequences.sequence_loader import PrefetchingLoader
from feldspar.tokens.shards.shard_folder import ShardSet

HALF = {"prose": Fraction(1, 2), "code": Fraction(1, 2)}


@pytest.fixture(scope="module")
def reader(shards: ShardSet) -> SequenceReader:
    phases = [PhaseData("a", HALF, 16, 1000), PhaseData("b", HALF, 32, 50, "mask")]
    return SequenceReader(shards, phases, seed=3)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same(
    shards: ShardSet, reader: SequenceReader, workers: int
) -> None:
    expected = reader.read(0, 0, 1000).tokens
    fresh = SequenceReader(shards, reader.phases, seed=3)
    with PrefetchingLoader(fresh, workers=workers) as loader:
        rows = []
        for start in range(0, 1000, 20):
            loader.request(0, start, start + 20)
            if loader.waiting > 4:
                rows.append(loader.take())
        while loader.waiting:
            rows.append(loader.take())
    assert [row.start for row in rows] == list(range(0, 1000, 20))
    assert np.array_equal(torch.cat([row.inputs for row in rows]).numpy(), expected[:, :-1])
    assert np.array_equal(torch.cat([row.labels for row in rows]).numpy(), expected[:, 1:])


def test_shapes_and_types(reader: SequenceReader) -> None:
    with PrefetchingLoader(reader) as loader:
        loader.request(0, 0, 3)
        loader.request(1, 0, 5)
        plain, masked = loader.take(), loader.take()
    for tensor in (plain.inputs, plain.labels):
        assert tensor.shape == (3, 16)
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
    assert plain.document_ids is None and plain.positions is None
    assert masked.document_ids is not None and masked.positions is not None
    assert masked.document_ids.shape == masked.positions.shape == (5, 32)
    assert masked.document_ids.dtype == torch.int32


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_comes_with_its_own_request(reader: SequenceReader, workers: int) -> None:
    with PrefetchingLoader(reader, workers=workers) as loader:
        for start, stop in ((0, 2), (990, 1010), (2, 4)):
            loader.request(0, start, stop)
        assert loader.take().stop == 2
        with pytest.raises(UserError, match="outside phase"):
            loader.take()
        assert loader.take().start == 2


def test_taking_without_asking(reader: SequenceReader) -> None:
    with PrefetchingLoader(reader) as loader:
        loader.request(0, 0, 1)
        loader.clear()
        with pytest.raises(InternalError):
            loader.take()
