"""Train a byte-level BPE on documents, or read one from GPT-2's two files.

The alphabet has all 256 bytes and text is not normalised, so decoding always restores the text.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


def byte_level(model: models.BPE) -> Tokenizer:
    """Return a tokenizer with ``model`` and GPT-2's byte-level pre-tokenizer and decoder."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_characters() -> list[str]:
    """Return the character for each byte: itself if printable, else one from U+0100 on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    written = {ord(character): character for character in alphabet if ord(character) < 256}
    others = iter(character for character in alphabet if ord(character) >= 256)
    return [written.get(byte) or next(others) for byte in range(256)]


def train_bpe(
    texts: Iterable[str], vocab_size: int, special_tokens: tuple[str, ...]
) -> TextTokenizer:
    """Train a tokenizer on ``texts``; the first special token ends a document.

    The result does not depend on the order of the texts. Raises UserError if the texts have too few
    different words for ``vocab_size`` tokens.
    """
    if not special_tokens:
        raise UserError(
            "tokenizer.special_tokens is empty", do="give at least the token that ends a document"
        )
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = tokenizer.get_vocab_size(with_added_tokens=True)
    if found != vocab_size:
        raise UserError(
            f"the text is enough for {found:,} tokens only, not for the {vocab_size:,} of "
            "tokenizer.vocab_size",
            do=f"set tokenizer.vocab_size to {found} or less, or train on more text",
        )
    return TextTokenizer(tokenizer, special_tokens[0])


def read_bpe_files(vocab: Path, merges: Path, end_of_document: str) -> TextTokenizer:
    """Read GPT-2's ``encoder.json`` and ``vocab.bpe``. Raises UserError that names the file and
    line."""
    try:
        ids = json.loads(vocab.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer.vocab: {vocab} cannot be read: {error}") from error
    if not isinstance(ids, dict):
        raise UserError(f"tokenizer.vocab: {vocab} is not a mapping from token to id")
    tokenizer = byte_level(models.BPE(vocab=ids, merges=_merges(merges, ids)))
    if end_of_document not in ids:
        raise UserError(
            f"tokenizer.vocab: {vocab} has no token {end_of_document!r}",
            do="name the token that ends a document with tokenizer.end_of_document",
        )
    return TextTokenizer(tokenizer, end_of_document)


def _merges(path: Path, ids: dict[str, int]) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer.merges: {path} cannot be read: {error}") from error
    merges = []
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not {*pair, "".join(pair)} <= ids.keys():
            raise UserError(
                "tokenizer.merges: a merge must join two tokens of the vocabulary to form a third",
                where=f"{path}:{number}",
                found=line,
            )
        merges.append((pair[0], pair[1]))
    return merges
