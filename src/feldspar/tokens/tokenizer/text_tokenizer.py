"""Encode whole documents to ids, and decode ids to text.

Wraps ``tokenizers.Tokenizer``. The strings of special tokens in a text are encoded as ordinary
text, so that no document can end itself.
"""

import json
import shutil
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, models
from tokenizers.pre_tokenizers import ByteLevel

from feldspar.core.artifact import open_if_artifact
from feldspar.core.errors import RunError, UserError, nearest
from feldspar.core.files import digest_of, write_atomically
from feldspar.tokens.tokenizer.chat_template import ChatTemplate
from feldspar.tokens.tokenizer.declaration import DECLARATION_FILES, ID_KEYS, Declaration
from feldspar.tokens.tokenizer.extension import EXTENSION_FILE, Extension
from feldspar.tokens.tokenizer.plain_text import plain_text_encoder
from feldspar.tokens.tokenizer.pretokens import pattern_for

TOKENIZER_FILE = "tokenizer.json"
FILES = (TOKENIZER_FILE, *DECLARATION_FILES, EXTENSION_FILE)
"""Names of files that a tokenizer's folder may have."""
U16_VOCABULARY = 65_536
CACHED_PRETOKENS = 2**20
CACHED_CHARACTERS = 64
LAST_BITS = 10
"""Number of times that a Unigram is read until its scores stay; twice is the rule."""


class TextTokenizer:
    """Encode and decode documents; ``end_of_document`` must be a token of ``tokenizer``.

    ``extension`` records how it extends another tokenizer, ``declaration`` what the files beside
    its ``tokenizer.json`` say. Raises UserError if the token does not exist.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_of_document: str,
        extension: Extension | None = None,
        declaration: Declaration | None = None,
    ) -> None:
        tokenizer = _settled(tokenizer)
        self._tokenizer = tokenizer
        identifier = tokenizer.token_to_id(end_of_document)
        if identifier is None:
            known = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
            hint = nearest(end_of_document, known)
            raise UserError(
                (f"the tokenizer has no token {end_of_document!r}, which should end documents")
                + (f"; did you mean {hint!r}?" if hint else ""),
                allowed=known or None,
                do="name one with tokenizer.end_of_document",
            )
        # A special token is recognised by its string only where encode_special_tokens is off.
        tokenizer.add_special_tokens([AddedToken(end_of_document, special=True, normalized=False)])
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.extension = extension
        self.declaration = Declaration() if declaration is None else declaration
        self.end_of_document = end_of_document
        self.end_of_document_id: int = identifier
        self.vocab_size: int = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.digest = digest_of(tokenizer.to_str())
        self.dtype = token_dtype(self.vocab_size)
        self._encoder = plain_text_encoder(tokenizer)
        self._pretokens = (
            _PretokenIds(self._encoder, self.dtype) if is_plain_byte_bpe(tokenizer) else None
        )

    @classmethod
    def load(cls, folder: Path, end_of_document: str | None = None) -> "TextTokenizer":
        """Return the tokenizer in ``folder``; by default its own end-of-sequence token ends
        documents.

        The files of a finished folder are verified. Raises UserError if there is no tokenizer, and
        RunError for a damaged file.
        """
        if (finished := open_if_artifact(folder)) is not None:
            finished.files([name for name in finished.names() if name in FILES])
        return cls.from_file(
            folder / TOKENIZER_FILE, end_of_document or Declaration.read(folder).end_of_document
        )

    @classmethod
    def from_file(cls, path: Path, end_of_document: str | None) -> "TextTokenizer":
        """Read a ``tokenizer.json``. Raises UserError if it cannot be read."""
        if not path.is_file():
            raise UserError(f"{path} does not exist, so there is no tokenizer")
        if end_of_document is None:
            raise UserError(
                f"{path} has no end-of-sequence token",
                do="name the token that ends a document with tokenizer.end_of_document",
            )
        tokenizer, folder = _tokenizer_in(path), path.parent
        return cls(tokenizer, end_of_document, Extension.load(folder), Declaration.read(folder))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and the files beside it, as transformers' AutoTokenizer loads
        them."""
        write_atomically(folder / TOKENIZER_FILE, self._tokenizer.to_str(pretty=True) + "\n")
        begin = self._processed_begin if self.adds_begin_of_sequence else None
        name = None if begin is None else self.piece(begin)
        self.declaration.write(folder, self.end_of_document, name)
        if self.extension is not None:
            self.extension.save(folder)

    def encode(self, text: str) -> list[int]:
        """Return the ids of one text, without any end-of-document token."""
        return self.encode_documents([text])[0].tolist()

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, without its end-of-document token, as u16 or u32 arrays."""
        return [self.unpack(data) for data in self.encode_packed(texts)]

    def encode_packed(self, texts: Sequence[str]) -> list[bytes]:
        """Return the ids of each text as little-endian bytes (see ``encode_documents``)."""
        packed: list[bytes | None] = [None] * len(texts)
        slow = []
        for index, text in enumerate(texts):
            pattern = pattern_for(text) if self._pretokens is not None else None
            if pattern is None or self._pretokens is None:
                slow.append(index)
            else:
                packed[index] = b"".join(map(self._pretokens.__getitem__, pattern.findall(text)))
        encodings = self._encoder.encode_batch_fast(
            [texts[index] for index in slow], add_special_tokens=False
        )
        for index, encoding in zip(slow, encodings, strict=True):
            packed[index] = pack_ids(encoding.ids, self.dtype)
        return [data for data in packed if data is not None]

    def unpack(self, packed: bytes) -> np.ndarray:
        """Return the ids in the result of ``encode_packed``."""
        return np.frombuffer(packed, self.dtype)

    @cached_property
    def needed_rows(self) -> int:
        """Rows that a model needs for text: special tokens beyond them appear in no text."""
        added = self._tokenizer.get_added_tokens_decoder()
        special = {number for number, token in added.items() if token.special}
        special -= {self.end_of_document_id, *self.begin_ids}
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        return max((number for number in ids if number not in special), default=-1) + 1

    def id_of(self, token: str) -> int | None:
        """Return the id of a token given as a string; None if there is no such token."""
        return self._tokenizer.token_to_id(token)

    def piece(self, identifier: int) -> str | None:
        """Return a token in the vocabulary's spelling; None if the id is not used."""
        return self._tokenizer.id_to_token(identifier)

    def is_added(self, identifier: int) -> bool:
        """Tell whether an id is a token beside the model (a control token), found by its string."""
        return self._tokenizer.model.id_to_token(identifier) is None

    def merged(self, piece: str) -> list[int]:
        """Return the ids of a string in the vocabulary's spelling, by the merges alone.

        No normaliser, pre-tokenizer or added token is used.
        """
        return [token.id for token in self._tokenizer.model.tokenize(piece)]

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """Ids of all special tokens by their strings."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    @property
    def chat_template(self) -> str | None:
        """The chat template, a Jinja template over ``messages``; None if there is none."""
        return self.declaration.chat_template

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """Strings of the special tokens by name, such as ``bos_token``."""
        return {"eos_token": self.end_of_document} | self.declaration.special_tokens

    @cached_property
    def begin_of_sequence_id(self) -> int | None:
        """Id of the begin-of-sequence token; None if there is none."""
        if self._processed_begin is not None:
            return self._processed_begin
        declared = self.declaration.special_tokens.get("bos_token")
        return None if declared is None else self.id_of(declared)

    @cached_property
    def adds_begin_of_sequence(self) -> bool:
        """True if a text begins with the begin-of-sequence token.

        As in transformers (5), the post-processor of ``tokenizer.json`` decides.
        """
        return self._processed_begin is not None and not self.declaration.is_own

    @property
    def begin_ids(self) -> tuple[int, ...]:
        """The begin-of-sequence token where each text begins with it, else no token."""
        begin = self.begin_of_sequence_id
        return (begin,) if begin is not None and self.adds_begin_of_sequence else ()

    @property
    def before_id(self) -> int:
        """Id of the token before a text: the beginning of a sequence where texts begin with one,
        else the end of another document."""
        return self.begin_ids[0] if self.begin_ids else self.end_of_document_id

    @cached_property
    def _processed_begin(self) -> int | None:
        """Id of the token that the post-processor puts before each text; None: it puts none."""
        encoded = self._tokenizer.encode("a", add_special_tokens=True)
        return encoded.ids[0] if encoded.special_tokens_mask[:1] == [1] else None

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end generated text: those of the generation configuration (such as the end of a
        turn), the end-of-sequence token, and the end of a document."""
        end = self.id_of(self.special_tokens["eos_token"])
        ids = (*self.declaration.generation_end_ids, end, self.end_of_document_id)
        return tuple(dict.fromkeys(each for each in ids if each is not None))

    @property
    def generation(self) -> dict[str, Any]:
        """Generation configuration of a model with this tokenizer.

        A tokenizer that was trained here has one special token, which then stands for all.
        """
        end = self.end_of_document_id
        if not self.declaration.names_all:
            return dict.fromkeys(ID_KEYS, end)
        ids = {f"{name}_id": self.id_of(token) for name, token in self.special_tokens.items()}
        ends = self.end_ids
        own = {"eos_token_id": ends[0] if len(ends) == 1 else list(ends)}
        return {name: ids.get(name) for name in ID_KEYS} | {**self.declaration.generation, **own}

    @property
    def gives_back_all(self) -> bool:
        """True if every text is restored: byte-level BPE with all bytes and without
        normalisation."""
        return self._pretokens is not None and all(
            self.id_of(character) is not None for character in ByteLevel.alphabet()
        )

    def to_json(self) -> str:
        """Return the contents of its ``tokenizer.json``."""
        return self._tokenizer.to_str()

    def with_special_tokens(self, tokens: Sequence[str]) -> "TextTokenizer":
        """Return this tokenizer with special ``tokens``; those that it lacks are added after its
        vocabulary."""
        if not tokens:
            return self
        copy = Tokenizer.from_str(self.to_json())
        copy.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens])
        return TextTokenizer(copy, self.end_of_document, self.extension, self.declaration)

    def with_chat_template(self, template: str) -> "TextTokenizer":
        """Return this tokenizer with another chat template."""
        copy = Tokenizer.from_str(self.to_json())
        declaration = replace(self.declaration, template_file=template)
        return TextTokenizer(copy, self.end_of_document, self.extension, declaration)

    def decode(self, ids: Iterable[int] | np.ndarray, *, special_tokens: bool = True) -> str:
        """Return the text of ``ids``; special tokens appear as their strings, or not at all."""
        return self._tokenizer.decode(
            [int(token) for token in ids], skip_special_tokens=not special_tokens
        )


def _tokenizer_in(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises bare Exception
        raise UserError(
            f"{path} is not a tokenizer: {error}",
            do="get the file again, or remove it to use the model without a tokenizer",
        ) from error


def require_readable(folder: Path) -> None:
    """Raise UserError where the tokenizer in ``folder`` cannot be read, or its chat template cannot
    be parsed. Without jinja2, templates are not parsed."""
    _tokenizer_in(folder / TOKENIZER_FILE)
    template = Declaration.read(folder).chat_template
    if template is not None and find_spec("jinja2") is not None:
        ChatTemplate(template, {}, where=str(folder))


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a tokenizer's folder; the token that ends documents may be undeclared."""
    for name in (TOKENIZER_FILE, EXTENSION_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    Declaration.read(source).write(target)


class _PretokenIds(dict[str, bytes]):
    """Packed ids of the pre-tokens seen so far; limited, so that no text can fill the memory."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype) -> None:
        self._tokenizer = tokenizer
        self._dtype = dtype

    def __missing__(self, pretoken: str) -> bytes:
        data = pack_ids(self._tokenizer.encode(pretoken, add_special_tokens=False).ids, self._dtype)
        if len(pretoken) <= CACHED_CHARACTERS and len(self) < CACHED_PRETOKENS:
            self[pretoken] = data
        return data


def _settled(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that does not change when it is written and read.

    The library's reader may round the scores of a Unigram in their last bit, and the digest with
    them.
    """
    if not isinstance(tokenizer.model, models.Unigram):
        return tokenizer
    text = tokenizer.to_str()
    for _ in range(LAST_BITS):
        tokenizer = Tokenizer.from_str(text)
        before, text = text, tokenizer.to_str()
        if text == before:
            break
    return tokenizer


def token_dtype(vocab_size: int) -> np.dtype:
    """Return u16 for vocabularies of at most 65,536 tokens, else u32; always little-endian."""
    return np.dtype("<u2" if vocab_size <= U16_VOCABULARY else "<u4")


def pack_ids(ids: Sequence[int], dtype: np.dtype) -> bytes:
    """Return ids as bytes of ``dtype``. Raises RunError for an id that does not fit."""
    try:
        # Several times faster than NumPy for the few ids of a word.
        packed = array("H" if dtype.itemsize == 2 else "I", ids)
    except OverflowError as error:
        raise RunError(
            f"a token id does not fit in {dtype.name}: {error}",
            do="check the tokenizer's files: its ids exceed its vocabulary",
        ) from error
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def is_plain_byte_bpe(tokenizer: Tokenizer) -> bool:
    """Tell whether the ids of a text are the ids of its GPT-2 pre-tokens in a row."""
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    model, split = parts["model"], parts["pre_tokenizer"]
    return (
        parts["normalizer"] is None
        and (split or {}).get("type") == "ByteLevel"
        and split.get("add_prefix_space") is False
        and split.get("use_regex", True) is True
        and model["type"] == "BPE"
        and not model.get("dropout")
        and not model.get("byte_fallback")
        and all(token["special"] for token in parts["added_tokens"])
    )
