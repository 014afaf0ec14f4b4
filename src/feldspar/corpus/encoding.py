"""Decode bytes: what is not UTF-8 becomes U+FFFD and is counted."""

import codecs
import re

from feldspar.core.errors import UserError

REPLACEMENT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]")
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


def decode(data: bytes, place: str) -> str:
    """Decode UTF-8 without a byte-order mark; each invalid byte becomes half a surrogate pair.

    Such halves also come from JSON's escapes; ``repaired`` replaces and counts both. Raises
    UserError that names ``place`` when the bytes begin with the mark of UTF-16 or UTF-32.
    """
    if data.startswith(_OTHER_MARKS):
        raise UserError(
            f"{place} is UTF-16 or UTF-32, not UTF-8",
            do="convert it to UTF-8, or pass --skip-bad N to leave out up to N such records",
        )
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def repaired(text: str) -> tuple[str, int]:
    """Replace each half of a surrogate pair by U+FFFD; return the text and their number."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATE.subn(REPLACEMENT, text)
    return text, 0


def check_encodable(text: str, what: str) -> str:
    """Return ``text``. Raises UserError that names ``what`` for a character that is not UTF-8."""
    if repaired(text)[1]:
        raise UserError(f"{what} is not UTF-8", found=ascii(text))
    return text
