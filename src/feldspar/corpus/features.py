"""Prepare a part: normalise and filter its documents, and compute what deduplication needs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.streams import hash_integers
from feldspar.corpus.clean import Normalisation, cleaned_texts, normalised
from feldspar.corpus.columns import arrow, numbers_of, text_characters
from feldspar.corpus.duplicates.exact import content_hash
from feldspar.corpus.duplicates.sketch import sketch_texts
from feldspar.corpus.duplicates.sketch_files import SKETCHES_NAME
from feldspar.corpus.filtering import find_reasons
from feldspar.corpus.packed import PackedTexts
from feldspar.corpus.parts import (
    PART_NAME,
    packed_column,
    text_begins,
    write_table,
)
from feldspar.recipe.sections.corpus import Filter

NUMBERS_NAME = "numbers.npz"


@dataclass(frozen=True)
class Preparation:
    """Settings that parts are prepared by; ``sketch`` is off where no near pass follows."""

    normalise: Normalisation
    filters: tuple[Filter, ...]
    sketch: bool
    transliterations: tuple[tuple[str, str, str], ...] = ()
    """Source, characters to replace, characters in their place."""


@dataclass(frozen=True)
class Features:
    """Columns of numbers over documents in order of key; everything else lies in files.

    ``sources`` holds ranks of sources. ``characters`` counts cleaned code points. ``reasons`` holds
    places in ``reasons_of(filters)``; -1: no filter removes the document. The kept text begins at
    byte ``begins`` of its part file and has ``sizes`` bytes of UTF-8. ``quality`` (f64) is NaN
    where it is unknown. The text was read with ``read_characters`` code points, of which
    ``replaced`` (u32) were not UTF-8. ``identities`` are 64-bit hashes of the ids; ``hashes``
    (documents, 2) u64 identify the cleaned text.
    """

    sources: np.ndarray
    characters: np.ndarray
    reasons: np.ndarray
    begins: np.ndarray
    sizes: np.ndarray
    quality: np.ndarray
    replaced: np.ndarray
    read_characters: np.ndarray
    identities: np.ndarray
    hashes: np.ndarray


def prepare(table: Any, how: Preparation, ranks: dict[str, int], folder: Path) -> Features:
    """Normalise, transliterate, clean, filter, hash and sketch one part into ``folder``.

    A new source gets the next rank in ``ranks``.
    """
    read_characters = text_characters(table.column("text"))
    untouched = how.normalise == "none" and not how.transliterations
    read = [] if untouched else table.column("text").to_pylist()
    kept = [normalised(text, how.normalise) for text in read]
    for source, characters, others in how.transliterations:
        names, spelling = table.column("source").to_pylist(), str.maketrans(characters, others)
        kept = [
            text.translate(spelling) if name == source else text
            for name, text in zip(names, kept, strict=True)
        ]
    if kept != read:
        table = _with_texts(table, kept)
    write_table(table, folder / PART_NAME)
    texts = packed_column(table, "text")
    clean, characters = cleaned_texts(texts)
    sources = table.column("source").to_pylist()
    reasons = find_reasons(texts, characters, sources, how.filters)
    if how.sketch:
        values = sketch_texts(clean, characters, reasons < 0)
        np.save(folder / SKETCHES_NAME, values)
    return Features(
        sources=_ranked(table.column("source"), ranks),
        characters=characters,
        reasons=reasons,
        begins=text_begins(folder / PART_NAME),
        sizes=texts.sizes,
        quality=numbers_of(table.column("quality")),
        replaced=numbers_of(table.column("replaced")),
        read_characters=read_characters,
        identities=_identities(packed_column(table, "id")),
        hashes=_hashes(clean),
    )


def _ranked(sources: Any, ranks: dict[str, int]) -> np.ndarray:
    named = sources.combine_chunks().dictionary_encode()
    own = [ranks.setdefault(name, len(ranks)) for name in named.dictionary.to_pylist()]
    return np.array(own, np.int64)[numbers_of(named.indices)]


def _with_texts(table: Any, texts: Sequence[str]) -> Any:
    pyarrow, _ = arrow()
    place = table.schema.get_field_index("text")
    return table.set_column(place, "text", pyarrow.array(texts, pyarrow.large_string()))


def _identities(ids: PackedTexts) -> np.ndarray:
    """Hash each id to 64 bits: the sum of the hashes of its bytes with their places."""
    begin, ends = ids.starts[0], ids.starts - ids.starts[0]
    places = np.arange(ends[-1]) - np.repeat(ends[:-1], ids.sizes)
    data = ids.data[begin : begin + ends[-1]].astype(np.uint64)
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(hash_integers(data | places.astype(np.uint64) << np.uint64(8), 0), out=sums[1:])
    return np.diff(sums[ends])


def _hashes(texts: PackedTexts) -> np.ndarray:
    """Hash each text to 128 bits: two u64 (texts, 2)."""
    data = texts.data.data
    digests = b"".join(content_hash(data[a:b]) for a, b in pairwise(texts.starts.tolist()))
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def joined(pieces: Iterable[Features]) -> Features:
    """Concatenate the features of pieces."""
    columns = zip(*(vars(piece).values() for piece in pieces), strict=True)
    return Features(*map(np.concatenate, columns))


def save_features(features: Features, folder: Path) -> None:
    """Write features into ``folder``."""
    np.savez(folder / NUMBERS_NAME, *vars(features).values())


def load_features(folder: Path, ranks: np.ndarray) -> Features:
    """Read what ``save_features`` wrote; ``ranks`` maps the stored ranks of sources to new ones."""
    with np.load(folder / NUMBERS_NAME) as stored:
        features = Features(*(stored[name] for name in stored.files))
    return replace(features, sources=ranks[features.sources])
