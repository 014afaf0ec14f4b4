"""Normalised text, which is kept, and cleaned text, which only decides what is equal.

SlimPajama's steps 1 and 2 (preprocessing scripts of arXiv 2309.10818): repair and NFC; then lower
case, no ASCII punctuation, single spaces.
"""

import re
import string
import sys
import unicodedata
from functools import cache
from typing import Literal

import numpy as np

from feldspar.core.errors import missing_extra
from feldspar.corpus.kernels import cleaning
from feldspar.corpus.kernels.selection import compiled
from feldspar.corpus.packed import PackedTexts

Normalisation = Literal["nfc", "ftfy", "none"]

_PUNCTUATION = string.punctuation.encode("ascii")
_GROWTH = 1.5
"""Lower case takes at most three bytes where upper case took two."""
_BLOCK = 1 << 8


def normalised(text: str, how: Normalisation) -> str:
    """Return the text as it is kept. Raises SetupError where ftfy is missing."""
    if how == "nfc":
        return text if text.isascii() else unicodedata.normalize("NFC", text)
    if how == "ftfy":
        try:
            import ftfy
        except ImportError as error:
            raise missing_extra("ftfy", "data") from error
        return ftfy.fix_text(text, normalization="NFC")
    return text


def cleaned(text: str) -> str:
    """Make lower case, delete ASCII punctuation (32 characters), strip, ``\\s+`` to one space.

    Punctuation is deleted from the UTF-8 bytes, where an ASCII byte is never part of another
    character: several times faster than ``str.translate`` on non-ASCII text.
    """
    data = text.lower().encode("utf-8", "surrogatepass").translate(None, _PUNCTUATION)
    return " ".join(data.decode("utf-8", "surrogatepass").split())


def cleaned_texts(texts: PackedTexts) -> tuple[PackedTexts, np.ndarray]:
    """Return ``cleaned`` of each text, and the code points of each (i64)."""
    if compiled():
        return _compiled_texts(texts)
    strings = [cleaned(texts.text(index)) for index in range(len(texts))]
    characters = np.fromiter(map(len, strings), np.int64, len(strings))
    return PackedTexts.of(text.encode("utf-8", "surrogatepass") for text in strings), characters


def _compiled_texts(texts: PackedTexts) -> tuple[PackedTexts, np.ndarray]:
    documents = len(texts)
    characters = np.zeros(documents, np.int64)
    starts = np.zeros(documents + 1, np.int64)
    sizes = texts.sizes
    room = int(sizes.sum() * _GROWTH)
    found, points = np.empty(room, np.uint8), np.empty(sizes.max(initial=0), np.uint32)
    byte_map, point_map = _maps()
    done = 0
    while done < documents:
        done = cleaning.clean(
            texts.data, texts.starts, done, byte_map, point_map, points, found, starts, characters
        )
        if done < documents:
            text = cleaned(texts.text(done))
            data = text.encode("utf-8", "surrogatepass")
            starts[done + 1] = starts[done] + len(data)
            found[starts[done] : starts[done + 1]] = np.frombuffer(data, np.uint8)
            characters[done] = len(text)
            done += 1
    return PackedTexts(found[: starts[-1]], starts), characters


@cache
def _maps() -> tuple[np.ndarray, np.ndarray]:
    """Return the results of ``cleaned`` for each byte (u8) and code point (u32) by this Python."""
    points = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    everything = points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    for start in range(0, len(points), _BLOCK):
        text = everything[start : start + _BLOCK]
        if text.lower() != text:
            for place, character in enumerate(text, start):
                lowered = character.lower()
                points[place] = ord(lowered) if len(lowered) == 1 else cleaning.ODD
    points[[space.start() for space in re.finditer(r"\s", everything)]] = 0x20
    points[0x3A3] = cleaning.ODD  # a capital sigma's lower case depends on its place in the word
    points[list(_PUNCTUATION)] = cleaning.DELETED
    letters = points[:128].astype(np.uint8)
    letters[list(_PUNCTUATION)] = cleaning.DELETED_BYTE
    return np.concatenate([letters, np.arange(128, 256, dtype=np.uint8)]), points
