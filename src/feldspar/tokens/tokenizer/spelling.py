"""How the vocabulary of a BPE tokenizer spells text, and which pieces may be added to it.

Two kinds of vocabulary are in use: SentencePiece's, of characters with a mark for the space and
bytes for what it lacks (Llama), and the byte-level one, of bytes that are written as printable
characters (GPT-2). In both a new piece is a word's start or part: at most one leading space, then
target characters only. No text without a target character can then meet a new piece.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.bpe import byte_characters
from feldspar.tokens.tokenizer.scripts import TargetCharacters
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.words import Words

SPACE_MARK = "\u2581"
_TWO_DIGITS = re.compile("[0-9]{2}")


class Spelling:
    """SentencePiece's spelling: pieces are text, with U+2581 for the space."""

    space = SPACE_MARK

    def __init__(self, target: TargetCharacters, splits_digits: bool) -> None:
        self.target = target
        self.splits_digits = splits_digits
        """Whether every digit is a token of its own."""

    def spelled(self, text: str) -> str:
        """``text`` as the vocabulary writes it."""
        return text.replace(" ", self.space)

    def text(self, piece: str) -> str | None:
        """Return the text of a piece; None when it is no text (a part of a character)."""
        return piece.replace(self.space, " ")

    def characters(self, piece: str) -> list[str]:
        """Return a piece's characters, each as the vocabulary writes it."""
        return list(piece)

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
        """Tell whether a word holds a target character."""
        text = self.text(word)
        return text is not None and self.target.pattern.search(text) is not None

    def place_of(self, piece: str) -> Literal["start", "inside", "elsewhere"]:
        """Where in a new piece ``piece`` may stand: at its start only, anywhere, or nowhere."""
        own = self.characters(piece.removeprefix(self.space))
        if not all(map(self.is_part, own)):
            return "elsewhere"
        return "start" if piece.startswith(self.space) else "inside"


class ByteSpelling(Spelling):
    """GPT-2's spelling: one printable character a byte."""

    def __init__(self, target: TargetCharacters, splits_digits: bool) -> None:
        super().__init__(target, splits_digits)
        self._written = byte_characters()
        self._bytes = {character: byte for byte, character in enumerate(self._written)}
        self.space = self._written[ord(" ")]

    def spelled(self, text: str) -> str:
        """``text`` as the vocabulary writes it."""
        return "".join(map(self._written.__getitem__, text.encode()))

    def text(self, piece: str) -> str | None:
        """Return the text of a piece; None when its bytes are none, or it is no piece of bytes."""
        try:
            return bytes(map(self._bytes.__getitem__, piece)).decode()
        except (KeyError, UnicodeDecodeError):
            return None

    def characters(self, piece: str) -> list[str]:
        """Return a piece's whole characters, and between them the bytes that make none."""
        found = []
        place = 0
        while place < len(piece):
            length = _utf8_length(self._bytes.get(piece[place], 0))
            if self.text(piece[place : place + length]) is None:
                length = 1
            found.append(piece[place : place + length])
            place += length
        return found

    def is_target(self, character: str) -> bool:
        """Tell whether an item of ``characters`` is a target character."""
        text = self.text(character)
        return text is not None and text in self.target

    def is_part(self, character: str) -> bool:
        """Tell whether an item of ``characters`` may be part of a target character."""
        return self.text(character) is None or self.is_target(character)

    def fits(self, piece: str) -> bool:
        """Tell whether ``piece`` may be added: also all bytes but the last of target characters
        only.
        """
        return super().fits(piece) or self._is_target_prefix(piece.removeprefix(self.space))

    def prefix(self, character: str) -> str | None:
        """Return the bytes but the last of a target character, where only target characters have
        them.
        """
        prefix = character[:-1]
        return prefix if len(prefix) > 1 and self._is_target_prefix(prefix) else None

    def _is_target_prefix(self, piece: str) -> bool:
        text = self.text(piece + self._written[0x80]) if len(piece) > 1 else None
        return text is not None and len(text) == 1 and self.target.holds_row(ord(text))


def spelling_of(base: TextTokenizer, target: TargetCharacters) -> Spelling:
    """How ``base`` spells text. Raises UserError when it cannot be extended."""
    parts: dict[str, Any] = json.loads(base.to_json())
    model = parts["model"]
    if model["type"] == "Unigram":
        raise UserError(
            "a Unigram tokenizer cannot be extended: its scores are probabilities, and new pieces "
            "would change how old text is cut",
            do="use a BPE tokenizer as base",
        )
    if model["type"] != "BPE":
        raise UserError(
            f"a {model['type']} tokenizer cannot be extended", allowed="BPE", found=model["type"]
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UserError(f"a BPE tokenizer with {key} cannot be extended", found=model[key])
    vocabulary = model["vocab"]
    # Bytes and control tokens are written in brackets, and their digits are none.
    splits = not any(_TWO_DIGITS.search(piece) for piece in vocabulary if piece[:1] != "<")
    kinds = set(_types(parts["pre_tokenizer"])) | set(_types(parts["normalizer"]))
    if "ByteLevel" in kinds:
        _refuse_missing_bytes(byte_characters(), vocabulary)
        return ByteSpelling(target, splits)
    if not model.get("byte_fallback"):
        raise UserError(
            "the base is neither byte-level nor falls back to bytes: what it cannot spell is lost",
            do="use a byte-level BPE, or one with byte_fallback",
        )
    _refuse_missing_bytes([f"<0x{byte:02X}>" for byte in range(256)], vocabulary)
    if SPACE_MARK not in "".join(Words(base)("a b")):
        raise UserError("the base does not write U+2581 for the space: this spelling is not known")
    return Spelling(target, splits)


def _refuse_missing_bytes(pieces: list[str], vocabulary: dict[str, int]) -> None:
    missing = [piece for piece in pieces if piece not in vocabulary]
    if missing:
        raise UserError(
            f"the base lacks {len(missing)} of the 256 bytes: it cannot spell every text",
            found=", ".join(ascii(piece) for piece in missing[:5]),
        )


def _types(part: Any) -> Iterator[str]:
    """Yield the types of a part of tokenizer.json and of what it is a sequence of."""
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
