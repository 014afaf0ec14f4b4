"""One part of raw documents -> the normalised part, and what deduplication must know of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.corpus.clean import Normalisation, cleaned, normalised
from feldspar.corpus.duplicates.exact import content_hash
from feldspar.corpus.duplicates.shingles import shingle_count, shingle_hashes
from feldspar.corpus.duplicates.sketch import SKETCH_VALUES, sketches
from feldspar.corpus.duplicates.sketch_files import SKETCHES_NAME
from feldspar.corpus.parts import part_documents, write_part

BATCH_CHARACTERS = 1 << 17
"""Texts hashed together: large enough to hide numpy's overhead, small enough for the cache."""
NUMBERS_NAME = "numbers.npz"


@dataclass(frozen=True)
class PrepareUnit:
    """A part to prepare. ``sketch`` off: no near pass."""

    part: Path
    normalise: Normalisation
    short: int
    sketch: bool


@dataclass(frozen=True)
class Features:
    """Columns of integers over documents in order of key; all else lies in files.

    ``sources`` holds ranks of sources, ``characters`` counts cleaned code points, ``sizes`` UTF-8
    bytes of the kept text; ``quality`` (f64) is NaN where it is not known; ``identities`` are
    64-bit hashes of the ids; ``hashes`` (documents, 2) u64 identify the cleaned text.
    """

    sources: np.ndarray
    characters: np.ndarray
    sizes: np.ndarray
    quality: np.ndarray
    identities: np.ndarray
    hashes: np.ndarray


def prepare(unit: PrepareUnit, folder: Path) -> dict[str, Any]:
    """Normalise, clean, hash and sketch one part into ``folder``.

    The counts hold the number of documents and the names of their sources as they appear.
    """
    documents = [
        replace(document, text=normalised(document.text, unit.normalise))
        for document in part_documents(unit.part)
    ]
    texts = [cleaned(document.text) for document in documents]
    characters = np.fromiter(map(len, texts), np.int64, len(texts))
    values = np.zeros((len(texts), SKETCH_VALUES), np.uint32)
    if unit.sketch:
        wanted = [
            index
            for index, size in enumerate(characters.tolist())
            if size >= unit.short and shingle_count(size)
        ]
        for batch in _batches(wanted, characters):
            values[batch] = sketches(*shingle_hashes([texts[index] for index in batch]))
        np.save(folder / SKETCHES_NAME, values)
    write_part(documents, folder)
    names = list(dict.fromkeys(document.source for document in documents))
    rank = {name: number for number, name in enumerate(names)}
    ids = b"".join(content_hash(document.id) for document in documents)
    np.savez(
        folder / NUMBERS_NAME,
        sources=np.array([rank[document.source] for document in documents], np.int32),
        characters=characters,
        sizes=np.array([len(document.text.encode("utf-8")) for document in documents], np.int64),
        quality=np.array([document.quality for document in documents], np.float64),
        identities=np.frombuffer(ids, "<u8").reshape(-1, 2)[:, 0],
        hashes=np.frombuffer(b"".join(map(content_hash, texts)), "<u8").reshape(-1, 2),
    )
    return {"documents": len(documents), "sources": names}


def _batches(indices: Sequence[int], characters: np.ndarray) -> Iterator[list[int]]:
    batch: list[int] = []
    size = 0
    for index in indices:
        if batch and size + characters[index] > BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += int(characters[index])
    if batch:
        yield batch


def load_features(folders: Sequence[Path], ranks: Sequence[np.ndarray]) -> Features:
    """The numbers of all parts, one after the other; ``ranks[i]`` maps part i's sources."""
    pieces = [np.load(folder / NUMBERS_NAME) for folder in folders]
    joined = {
        name: np.concatenate([piece[name] for piece in pieces])
        for name in ("characters", "sizes", "quality", "identities", "hashes")
    }
    sources = [rank[piece["sources"]] for rank, piece in zip(ranks, pieces, strict=True)]
    return Features(sources=np.concatenate(sources), **joined)
