"""One part of raw documents -> the normalised part, and what deduplication must know of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feldspar.corpus.clean import Normalisation, cleaned, normalised
from feldspar.corpus.columns import read_documents
from feldspar.corpus.document import Document
from feldspar.corpus.duplicates.exact import content_hash
from feldspar.corpus.duplicates.shingles import shingle_count, shingle_hashes
from feldspar.corpus.duplicates.sketch import SKETCH_VALUES, sketches
from feldspar.corpus.parts import write_part

BATCH_CHARACTERS = 1 << 17
"""Texts hashed together: large enough to hide numpy's overhead, small enough for the cache."""


@dataclass(frozen=True)
class PrepareUnit:
    """A part to prepare; ``folder`` receives the normalised part. ``sketch`` off: no near pass."""

    part: Path
    folder: Path
    normalise: Normalisation
    short: int
    sketch: bool


@dataclass(frozen=True)
class Features:
    """Columns over documents in order of key.

    ``characters`` counts cleaned code points, ``sizes`` UTF-8 bytes of the kept text;
    ``quality`` (f64) is NaN where it is not known;
    ``hashes`` (documents, 2) u64 identify the cleaned text; ``sketches`` (documents, 128) u32 are
    zero for short documents and those without a shingle.
    """

    ids: list[str]
    sources: list[str]
    groups: list[str]
    origins: list[str]
    licences: list[str | None]
    characters: np.ndarray
    sizes: np.ndarray
    quality: np.ndarray
    hashes: np.ndarray
    sketches: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """The normalised part and its documents' features."""

    part: Path
    features: Features


def prepare(unit: PrepareUnit) -> Prepared:
    """Normalise, clean, hash and sketch one part; pure but for the file it writes."""
    documents = [
        replace(document, text=normalised(document.text, unit.normalise))
        for document in read_documents(unit.part)
    ]
    texts = [cleaned(document.text) for document in documents]
    characters = np.fromiter(map(len, texts), np.int64, len(texts))
    hashes = np.frombuffer(b"".join(map(content_hash, texts)), "<u8").reshape(-1, 2)
    values = np.zeros((len(texts), SKETCH_VALUES), np.uint32)
    if unit.sketch:
        wanted = [
            index
            for index, size in enumerate(characters.tolist())
            if size >= unit.short and shingle_count(size)
        ]
        for batch in _batches(wanted, characters):
            values[batch] = sketches(*shingle_hashes([texts[index] for index in batch]))
    part = unit.part
    if unit.normalise != "none":
        part = write_part(documents, unit.folder)
    return Prepared(part, _features(documents, characters, hashes, values))


def _features(
    documents: Sequence[Document],
    characters: np.ndarray,
    hashes: np.ndarray,
    values: np.ndarray,
) -> Features:
    return Features(
        ids=[document.id for document in documents],
        sources=[document.source for document in documents],
        groups=[document.group for document in documents],
        origins=[document.origin for document in documents],
        licences=[document.licence for document in documents],
        characters=characters,
        sizes=np.fromiter(
            (len(document.text.encode("utf-8")) for document in documents),
            np.int64,
            len(documents),
        ),
        quality=np.array([document.quality for document in documents], np.float64),
        hashes=hashes,
        sketches=values,
    )


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


def join_features(pieces: Sequence[Features]) -> Features:
    """Features of all parts, one after the other."""
    return Features(
        ids=[value for piece in pieces for value in piece.ids],
        sources=[value for piece in pieces for value in piece.sources],
        groups=[value for piece in pieces for value in piece.groups],
        origins=[value for piece in pieces for value in piece.origins],
        licences=[value for piece in pieces for value in piece.licences],
        characters=np.concatenate([piece.characters for piece in pieces]),
        sizes=np.concatenate([piece.sizes for piece in pieces]),
        quality=np.concatenate([piece.quality for piece in pieces]),
        hashes=np.concatenate([piece.hashes for piece in pieces]),
        sketches=np.concatenate([piece.sketches for piece in pieces]),
    )
