"""Encode documents in units of a few megabytes of text, in one process for each core.

The result of a unit depends only on its texts, and results are used in the units' order. So the
number of processes changes nothing.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from feldspar.core.errors import RunError, UserError
from feldspar.core.progress import progress
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

UNIT_CHARACTERS = 2**21


@dataclass(frozen=True)
class SourceCounts:
    """Counts of the shards of one split and source."""

    documents: int = 0
    tokens: int = 0
    """Tokens, with end-of-document tokens."""
    text_bytes: int = 0
    """UTF-8 bytes of the documents."""
    words: int = 0
    """Runs of non-space characters."""
    empty_documents: int = 0
    """Documents without text, which are left out."""

    @property
    def tokens_per_word(self) -> float | None:
        """Tokens for each word (fertility), without end-of-document tokens."""
        return (self.tokens - self.documents) / self.words if self.words else None

    @property
    def bytes_per_token(self) -> float | None:
        """Bytes of text for each token, without end-of-document tokens."""
        own = self.tokens - self.documents
        return self.text_bytes / own if own else None


@dataclass(frozen=True)
class EncodingUnit:
    """Some documents of one source, and the folder of their tokenizer."""

    tokenizer: Path
    tokenizer_digest: str
    order_seed: int
    texts: tuple[str, ...]
    in_process: bool = False
    """True if a process pool runs this unit; then the tokenizer uses no threads of its own."""


@dataclass(frozen=True)
class EncodedUnit:
    """Tokens of a unit: document after document, each with its end-of-document token."""

    tokens: bytes
    lengths: np.ndarray
    """Number of tokens of each document, i64."""
    keys: np.ndarray
    """Hashes that order the documents, u64."""
    text_bytes: int
    words: int
    empty_documents: int


def units_of(
    texts: Iterable[str],
    tokenizer: Path,
    digest: str,
    order_seed: int = 0,
    in_process: bool = False,
) -> Iterator[EncodingUnit]:
    """Divide a source into units of about two million characters.

    ``digest`` is the tokenizer's; each process loads the folder once for each digest.
    """
    held: list[str] = []
    characters = 0
    for text in texts:
        held.append(text)
        characters += len(text)
        if characters >= UNIT_CHARACTERS:
            yield EncodingUnit(tokenizer, digest, order_seed, tuple(held), in_process)
            held, characters = [], 0
    if held:
        yield EncodingUnit(tokenizer, digest, order_seed, tuple(held), in_process)


def encode_unit(unit: EncodingUnit) -> EncodedUnit:
    """Encode one unit. Raises RunError if a text contains the end-of-document token itself."""
    if unit.in_process:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = _tokenizer(unit.tokenizer, unit.tokenizer_digest)
    texts = [text for text in unit.texts if text and not text.isspace()]
    packed = tokenizer.encode_packed(texts)
    end = np.array([tokenizer.end_of_document_id], tokenizer.dtype).tobytes()
    tokens = b"".join(piece for data in packed for piece in (data, end))
    ids = np.frombuffer(tokens, tokenizer.dtype)
    if int(np.count_nonzero(ids == tokenizer.end_of_document_id)) != len(texts):
        raise RunError(
            f"the text of a document was encoded to the token {tokenizer.end_of_document!r}",
            do="choose another end-of-document token with tokenizer.end_of_document",
        )
    if ids.size and int(ids.max()) >= tokenizer.vocab_size:
        raise RunError(
            f"the token id {int(ids.max())} is outside the vocabulary of {tokenizer.vocab_size}"
        )
    raw = [text.encode() for text in texts]
    return EncodedUnit(
        tokens=tokens,
        lengths=np.array([len(data) for data in packed], np.int64) // tokenizer.dtype.itemsize + 1,
        keys=_order_keys(raw, unit.order_seed),
        text_bytes=sum(map(len, raw)),
        words=sum(len(text.split()) for text in texts),
        empty_documents=len(unit.texts) - len(texts),
    )


def _order_keys(raw: list[bytes], seed: int) -> np.ndarray:
    """Return the hash of each text with ``seed``; it does not depend on the document's place."""
    key = seed.to_bytes(8, "little")
    digests = b"".join(hashlib.blake2b(text, digest_size=8, key=key).digest() for text in raw)
    return np.frombuffer(digests, "<u8")


@lru_cache(maxsize=1)
def _tokenizer(folder: Path, digest: str) -> TextTokenizer:
    return TextTokenizer.load(folder)


def measure_fertility(
    tokenizer_folder: Path, documents: Path, split: str = "train"
) -> dict[str, SourceCounts]:
    """Encode one split and count, for each source.

    Raises UserError if the split has no documents.
    """
    from feldspar.corpus import store

    digest = TextTokenizer.load(tokenizer_folder).digest
    counted = {}
    with progress("encoding") as advance:
        for name in store.sources(documents):
            if not (documents / split / name).is_dir():
                continue
            texts = (document.text for document in store.documents(documents, split, name))
            found = 0, 0, 0, 0, 0
            for unit in units_of(texts, tokenizer_folder, digest):
                encoded = encode_unit(unit)
                now = (
                    len(encoded.lengths),
                    int(encoded.lengths.sum()),
                    encoded.text_bytes,
                    encoded.words,
                    encoded.empty_documents,
                )
                found = tuple(map(sum, zip(found, now, strict=True)))
                advance(len(encoded.lengths))
            counted[name] = SourceCounts(*found)
    if not counted:
        raise UserError(f"{documents} has no documents in its {split} split")
    return counted
