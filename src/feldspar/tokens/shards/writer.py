"""Write the shard files of one source: documents in the order of a hash, cut at document ends.

Tokens arrive in the order of the documents and go to a temporary spool file; the shards are then
gathered from it. So memory holds 16 bytes for each document and no text. Neighbours in the input
(files of one project, posts of one thread) are separated.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from feldspar.tokens.tokenizer.document_encoding import EncodedUnit, SourceCounts

TOKENS_SUFFIX = ".tokens"
ENDS_SUFFIX = ".ends.npy"


def write_source(
    folder: Path, units: Iterable[EncodedUnit], dtype: np.dtype, shard_tokens: int
) -> SourceCounts:
    """Write ``00000.tokens``, ``00000.ends.npy`` and so on into ``folder``; nothing if there is no
    document."""
    folder.mkdir(parents=True)
    spool = folder / "spool"
    lengths, keys = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    text_bytes = words = empty = 0
    with spool.open("wb") as file:
        for unit in units:
            file.write(unit.tokens)
            lengths.append(unit.lengths)
            keys.append(unit.keys)
            text_bytes += unit.text_bytes
            words += unit.words
            empty += unit.empty_documents
    all_lengths = np.concatenate(lengths)
    order = np.argsort(np.concatenate(keys), kind="stable")
    if order.size:
        _gather(folder, spool, dtype, all_lengths, order, shard_tokens)
    spool.unlink()
    return SourceCounts(len(order), int(all_lengths.sum()), text_bytes, words, empty)


def _gather(
    folder: Path,
    spool: Path,
    dtype: np.dtype,
    lengths: np.ndarray,
    order: np.ndarray,
    shard_tokens: int,
) -> None:
    tokens = np.asarray(np.memmap(spool, dtype, mode="r"))
    starts = np.cumsum(lengths) - lengths
    ends = np.cumsum(lengths[order])
    first = number = done = 0
    while first < len(order):
        last = min(int(np.searchsorted(ends, done + shard_tokens)) + 1, len(order))
        name = f"{number:05d}"
        with (folder / (name + TOKENS_SUFFIX)).open("wb", buffering=2**20) as file:
            for document in order[first:last].tolist():
                start = starts[document]
                file.write(tokens[start : start + lengths[document]].data)
        np.save(folder / (name + ENDS_SUFFIX), (ends[first:last] - done).astype("<u8"))
        done = int(ends[last - 1])
        first, number = last, number + 1
