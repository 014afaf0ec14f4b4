"""One part of raw documents -> the normalised part, and what deduplication must know of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.corpus.clean import Normalisation, cleaned_texts, normalised
from feldspar.corpus.columns import arrow, text_characters
from feldspar.corpus.duplicates.exact import content_hash
from feldspar.corpus.duplicates.sketch import sketch_texts
from feldspar.corpus.duplicates.sketch_files import SKETCHES_NAME
from feldspar.corpus.packed import PackedTexts
from feldspar.corpus.parts import (
    PART_NAME,
    packed_column,
    part_table,
    same_file,
    text_begins,
    write_table,
)

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

    ``sources`` holds ranks of sources, ``characters`` counts cleaned code points; the kept text
    begins at byte ``begins`` of its part file and has ``sizes`` bytes of UTF-8; ``quality`` (f64)
    is NaN where it is not known; ``replaced`` of the ``read_characters`` code points of the text as
    it was read were no UTF-8 (u32); ``identities`` are 64-bit hashes of the ids; ``hashes``
    (documents, 2) u64 identify the cleaned text.
    """

    sources: np.ndarray
    characters: np.ndarray
    begins: np.ndarray
    sizes: np.ndarray
    quality: np.ndarray
    replaced: np.ndarray
    read_characters: np.ndarray
    identities: np.ndarray
    hashes: np.ndarray


def prepare(unit: PrepareUnit, folder: Path) -> dict[str, Any]:
    """Normalise, clean, hash and sketch one part into ``folder``.

    The counts hold the number of documents and the names of their sources as they appear.
    """
    table = part_table(unit.part)
    read_characters = text_characters(table.column("text"))
    read = [] if unit.normalise == "none" else table.column("text").to_pylist()
    kept = [normalised(text, unit.normalise) for text in read]
    if kept == read:
        same_file(unit.part, folder / PART_NAME)
    else:
        table = _with_texts(table, kept)
        write_table(table, folder / PART_NAME)
    texts = packed_column(table, "text")
    clean, characters = cleaned_texts(texts)
    if unit.sketch:
        values = sketch_texts(clean, characters, characters >= unit.short)
        np.save(folder / SKETCHES_NAME, values)
    sources = table.column("source").combine_chunks().dictionary_encode()
    np.savez(
        folder / NUMBERS_NAME,
        sources=sources.indices.to_numpy(),
        characters=characters,
        begins=text_begins(folder / PART_NAME),
        sizes=texts.sizes,
        quality=table.column("quality").to_numpy(),
        replaced=table.column("replaced").to_numpy(),
        read_characters=read_characters,
        identities=_hashes(packed_column(table, "id"))[:, 0],
        hashes=_hashes(clean),
    )
    return {"documents": len(texts), "sources": sources.dictionary.to_pylist()}


def _with_texts(table: Any, texts: Sequence[str]) -> Any:
    pyarrow, _ = arrow()
    place = table.schema.get_field_index("text")
    return table.set_column(place, "text", pyarrow.array(texts, pyarrow.large_string()))


def _hashes(texts: PackedTexts) -> np.ndarray:
    """The 128-bit hash of each text as two u64 (texts, 2)."""
    digests = b"".join(content_hash(texts.encoded(index)) for index in range(len(texts)))
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def load_features(folders: Sequence[Path], ranks: Sequence[np.ndarray]) -> Features:
    """The numbers of all parts, one after the other; ``ranks[i]`` maps part i's sources."""
    pieces = [np.load(folder / NUMBERS_NAME) for folder in folders]
    joined = {
        name: np.concatenate([piece[name] for piece in pieces])
        for name in (
            "characters",
            "begins",
            "sizes",
            "quality",
            "replaced",
            "read_characters",
            "identities",
            "hashes",
        )
    }
    sources = [rank[piece["sources"]] for rank, piece in zip(ranks, pieces, strict=True)]
    return Features(sources=np.concatenate(sources), **joined)
