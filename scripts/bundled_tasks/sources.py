"""Read the sources of the bundled tasks: WordNet, SCOWL, Jane Austen's novels, Python's tests."""

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PACKAGES = (
    "wordnet-base=1:3.0-39",
    "scowl=2020.12.07-4",
    "r-cran-janeaustenr=1.0.0-1",
    "libpython3.13-testsuite=3.13.5-2+deb13u5",
)
"""Packages of Debian 13 whose files are read, each with its version."""
CHARACTER_STRING = 9
"""The type of a string in R's serialization format."""


def shuffled(items: Iterable[T], key: str) -> list[T]:
    """Return the items in an order that only ``key`` and their text decide."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{key}\0{item}".encode()).digest())


@dataclass(frozen=True)
class Synset:
    """One meaning of WordNet."""

    offset: str
    words: tuple[str, ...]
    """Its lemmas, spaces as underscores."""
    topic: str
    """Number of the lexicographer's file, such as 05 for animals."""
    hypernyms: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]


def read_synsets(folder: Path, part: str) -> dict[str, Synset]:
    """Return the synsets of ``noun``, ``verb``, ``adj`` or ``adv``, by their offsets."""
    found = {}
    for line in (folder / f"usr/share/wordnet/data.{part}").read_text("utf-8").splitlines():
        if line.startswith("  "):
            continue
        record, _, gloss = line.partition(" | ")
        fields = record.split()
        count = int(fields[3], 16)
        words = tuple(re.sub(r"\(.*\)", "", word) for word in fields[4 : 4 + 2 * count : 2])
        pointers = fields[5 + 2 * count :]
        above = tuple(
            target
            for symbol, target in zip(pointers[::4], pointers[1::4], strict=False)
            if symbol == "@"
        )
        definition = gloss.split('; "')[0].split(";")[0].strip()
        examples = tuple(re.findall(r'"([^"]+)"', gloss))
        found[fields[0]] = Synset(fields[0], words, fields[1], above, definition, examples)
    return found


def first_senses(folder: Path, part: str) -> dict[str, str]:
    """Return for each lemma the offset of its most frequent meaning."""
    found = {}
    for line in (folder / f"usr/share/wordnet/index.{part}").read_text("utf-8").splitlines():
        if not line.startswith("  "):
            fields = line.split()
            found[fields[0]] = fields[6 + int(fields[3])]
    return found


def read_bands(folder: Path) -> dict[str, int]:
    """Return for each word the smallest of SCOWL's sizes that holds it: common words are in 10."""
    bands: dict[str, int] = {}
    for size in (10, 20, 35, 40, 50, 55, 60):
        for kind in ("english", "american"):
            path = folder / f"usr/share/dict/scowl/{kind}-words.{size}"
            if path.is_file():
                for word in path.read_text("latin-1").split():
                    bands.setdefault(word, size)
    return bands


def read_novels(folder: Path) -> dict[str, list[str]]:
    """Return the lines of each novel by its title, from the database of the R package.

    The database holds one record for each novel: its length in four bytes, then compressed data.
    """
    data = (folder / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    found, place = {}, 0
    while place < len(data):
        (length,) = struct.unpack_from(">i", data, place)
        packed = zlib.decompressobj()
        lines = _strings(packed.decompress(data[place + 4 :]))
        place = len(data) - len(packed.unused_data)
        found[next(line for line in lines if line).title()] = lines
        assert length > 0
    return found


def _strings(content: bytes) -> list[str]:
    """Return the strings of a character vector in R's binary format (XDR)."""
    found, place = [], content.find(b"\x00\x00\x00\x10")
    (count,) = struct.unpack_from(">i", content, place + 4)
    place += 8
    for _ in range(count):
        flags, length = struct.unpack_from(">ii", content, place)
        assert flags & 0xFF == CHARACTER_STRING
        text = content[place + 8 : place + 8 + max(length, 0)]
        found.append(text.decode("utf-8"))
        place += 8 + max(length, 0)
    return found
