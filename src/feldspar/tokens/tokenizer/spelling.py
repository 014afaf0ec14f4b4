"""Spell text as the vocabulary of a tokenizer does, and decide which tokens may be added.

There are two kinds of vocabulary. SentencePiece (Llama, and each Unigram) uses characters, a mark
for the space, and bytes for what it lacks. Byte-level (GPT-2) uses bytes, written as printable
characters. In both, a new token is the start or a part of a word: at most one leading space, then
target characters only. So a text without a target character never meets a new token.
"""

import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.bpe import byte_characters
from feldspar.tokens.tokenizer.scripts import TargetCharacters, code_points
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.words import Words

SPACE_MARK = "\u2581"
_TWO_DIGITS = re.compile("[0-9]{2}")


class Spelling:
    """Spelling of SentencePiece: tokens are text, with U+2581 for the space."""

    space = SPACE_MARK

    def __init__(self, target: TargetCharacters, splits_digits: bool) -> None:
        self.target = target
        self.splits_digits = splits_digits
        """True if each digit is a token of its own."""

    def spelled(self, text: str) -> str:
        """Return ``text`` in the vocabulary's spelling."""
        return text.replace(" ", self.space)

    def text(self, piece: str) -> str | None:
        """Return the text of a token; None if it has none (a part of a character)."""
        return piece.replace(self.space, " ")

    def characters(self, piece: str) -> list[str]:
        """Return the characters of a token, each in the vocabulary's spelling."""
        return list(piece)

    def fallback(self, character: str) -> list[str]:
        """Return the tokens of bytes that spell a character which is no token itself."""
        return [f"<0x{byte:02X}>" for byte in character.encode()]

    def is_target(self, character: str) -> bool:
        """Tell whether an item of ``characters`` is a target character."""
        return character in self.target

    def is_part(self, character: str) -> bool:
        """Tell whether an item of ``characters`` may be part of a target character."""
        return self.is_target(character)

    def fits(self, piece: str) -> bool:
        """Tell whether ``piece`` may be added."""
        characters = self.characters(piece)
        own = characters[1:] if characters[:1] == [self.space] else characters
        if not own or not all(map(self.is_target, own)):
            return False
        return len(characters) == 1 or not (self.splits_digits and any(map(self._is_digit, own)))

    def _is_digit(self, character: str) -> bool:
        return (self.text(character) or "").isdecimal()

    def has_target(self, word: str) -> bool:
        """Tell whether a word contains a target character."""
        text = self.text(word)
        return text is not None and self.target.pattern.search(text) is not None

    def place_of(self, piece: str) -> Literal["start", "inside", "elsewhere"]:
        """Return where in a new token ``piece`` may be: only at its start, anywhere, or nowhere."""
        own = self.characters(piece.removeprefix(self.space))
        if not all(map(self.is_part, own)):
            return "elsewhere"
        return "start" if piece.startswith(self.space) else "inside"


class ByteSpelling(Spelling):
    """Spelling of GPT-2: one printable character for each byte."""

    def __init__(self, target: TargetCharacters, splits_digits: bool) -> None:
        super().__init__(target, splits_digits)
        self._written = byte_characters()
        self._bytes = {character: byte for byte, character in enumerate(self._written)}
        self.space = self._written[ord(" ")]

    def spelled(self, text: str) -> str:
        """Return ``text`` in the vocabulary's spelling."""
        return "".join(map(self._written.__getitem__, text.encode()))

    def text(self, piece: str) -> str | None:
        """Return the text of a token; None if its bytes are not text, or it is not made of
        bytes."""
        try:
            return bytes(map(self._bytes.__getitem__, piece)).decode()
        except (KeyError, UnicodeDecodeError):
            return None

    def characters(self, piece: str) -> list[str]:
        """Return the whole characters of a token, and between them the bytes that form none."""
        found = []
        place = 0
        while place < len(piece):
            length = _utf8_length(self._bytes.get(piece[place], 0))
            if self.text(piece[place : place + length]) is None:
                length = 1
            found.append(piece[place : place + length])
            place += length
        return found

    def fallback(self, character: str) -> list[str]:
        """Return the byte itself: each character of the spelling is one."""
        return [character]

    def is_target(self, character: str) -> bool:
        """Tell whether an item of ``characters`` is a target character."""
        text = self.text(character)
        return text is not None and text in self.target

    def is_part(self, character: str) -> bool:
        """Tell whether an item of ``characters`` may be part of a target character."""
        return self.text(character) is None or self.is_target(character)

    def fits(self, piece: str) -> bool:
        """Tell whether ``piece`` may be added. All bytes but the last of a target character may be
        too."""
        return super().fits(piece) or self._is_target_prefix(piece.removeprefix(self.space))

    def prefix(self, character: str) -> str | None:
        """Return all bytes of a target character but the last, if only target characters have
        them."""
        prefix = character[:-1]
        return prefix if len(prefix) > 1 and self._is_target_prefix(prefix) else None

    def _is_target_prefix(self, piece: str) -> bool:
        text = self.text(piece + self._written[0x80]) if len(piece) > 1 else None
        return text is not None and len(text) == 1 and self.target.holds_row(ord(text))


def spelling_of(base: TextTokenizer, target: TargetCharacters) -> Spelling:
    """Return the spelling of ``base``. Raises UserError if it cannot be extended."""
    parts: dict[str, Any] = json.loads(base.to_json())
    model = parts["model"]
    if model["type"] not in ("BPE", "Unigram"):
        raise UserError(
            f"a {model['type']} tokenizer cannot be extended",
            allowed="BPE, Unigram",
            found=model["type"],
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UserError(f"a BPE tokenizer with {key} cannot be extended", found=model[key])
    vocabulary = dict(model["vocab"])
    # Bytes and control tokens are written in brackets; their digits do not count.
    splits = not any(_TWO_DIGITS.search(piece) for piece in vocabulary if piece[:1] != "<")
    kinds = set(_types(parts["pre_tokenizer"])) | set(_types(parts["normalizer"]))
    if model["type"] == "Unigram":
        _require_marked_spaces(base)
        return Spelling(target, splits)
    if "ByteLevel" in kinds:
        _refuse_missing_bytes(byte_characters(), vocabulary, whole=False)
        return ByteSpelling(target, splits)
    if not model.get("byte_fallback"):
        raise UserError(
            "the base is neither byte-level nor uses byte_fallback, so it loses "
            "characters that it cannot spell",
            do="use a byte-level BPE, or one with byte_fallback",
        )
    _refuse_missing_bytes([f"<0x{byte:02X}>" for byte in range(256)], vocabulary, whole=True)
    _require_marked_spaces(base)
    return Spelling(target, splits)


def _require_marked_spaces(base: TextTokenizer) -> None:
    if SPACE_MARK not in "".join(Words(base)("a b")):
        raise UserError("the base does not write U+2581 for the space, so its spelling is unknown")


def _refuse_missing_bytes(pieces: list[str], vocabulary: dict[str, int], whole: bool) -> None:
    """Raise UserError if the base cannot spell an assigned character.

    ``pieces`` are the tokens of the 256 bytes. With ``whole``, a character may be a token. Control
    characters and private use do not count: published vocabularies lack some of them.
    """
    absent = {byte for byte, piece in enumerate(pieces) if piece not in vocabulary}
    if not absent:
        return
    tokens = vocabulary if whole else ()
    for character in assigned_characters():
        if not absent.isdisjoint(character.encode()) and character not in tokens:
            raise UserError(
                "the base cannot spell every text: it lacks bytes that assigned characters need",
                found=f"{code_points(character)} needs a byte that is no token; "
                f"{len(absent)} of the 256 bytes are none",
                do="use a base whose vocabulary holds these bytes",
            )


def assigned_characters() -> Iterator[str]:
    """Yield the characters of Unicode, without control characters, private use and surrogates."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) not in ("Cc", "Cn", "Co", "Cs"):
            yield SPACE_MARK if character == " " else character


def _types(part: Any) -> Iterator[str]:
    """Yield the types of a part of tokenizer.json and of the parts in it."""
    if isinstance(part, dict):
        if "type" in part:
            yield part["type"]
        for value in part.values():
            yield from _types(value)
    elif isinstance(part, list):
        for value in part:
            yield from _types(value)


def _utf8_length(first_byte: int) -> int:
    return 1 if first_byte < 0xC0 else 2 if first_byte < 0xE0 else 3 if first_byte < 0xF0 else 4
