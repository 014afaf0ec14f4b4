"""Normalised text, which is kept, and cleaned text, which only decides what is equal.

SlimPajama's steps 1 and 2 (preprocessing scripts of arXiv 2309.10818): repair and NFC; then lower
case, no ASCII punctuation, single spaces.
"""

import string
import unicodedata
from typing import Literal

from feldspar.core.errors import missing_extra

Normalisation = Literal["nfc", "ftfy", "none"]

_PUNCTUATION = string.punctuation.encode("ascii")


def normalised(text: str, how: Normalisation) -> str:
    """The text as it is kept. Raises SetupError when ftfy is asked for and not installed."""
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
    """Lower case, without the 32 ASCII punctuation characters, stripped, ``\\s+`` to one space.

    Punctuation is deleted from the UTF-8 bytes, where an ASCII byte is never part of another
    character: several times faster than ``str.translate`` on non-ASCII text.
    """
    data = text.lower().encode("utf-8", "surrogatepass").translate(None, _PUNCTUATION)
    return " ".join(data.decode("utf-8", "surrogatepass").split())
