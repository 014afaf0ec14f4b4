"""Measure bits per byte of text files; each file is one document."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from feldspar.core.errors import UserError
from feldspar.evaluate.loss.text_loss import DocumentLoss, document_losses
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.tokenizer.round_trip import require_given_back


def text_files(model: TextModel, files: Sequence[Path]) -> list[DocumentLoss]:
    """Return the loss of each file, in order.

    Raises UserError for a file that is missing, empty or not UTF-8, or whose text the tokenizer
    does not restore.
    """
    texts = [read_text(path) for path in files]
    documents = model.tokenizer.encode_documents(texts)
    changed: list[int] = []
    for path, text, document in zip(files, texts, documents, strict=True):
        changed += require_given_back(model.tokenizer, [text], [document], str(path))
    return _marked_losses(model, texts, documents, changed)


def text_losses(model: TextModel, texts: Sequence[str]) -> list[DocumentLoss]:
    """Return the loss of each text, in order.

    Raises UserError for a text that the tokenizer does not restore.
    """
    documents = model.tokenizer.encode_documents(texts)
    changed = require_given_back(model.tokenizer, texts, documents, "the texts")
    return _marked_losses(model, texts, documents, changed)


def _marked_losses(
    model: TextModel, texts: Sequence[str], documents: Sequence[np.ndarray], changed: Sequence[int]
) -> list[DocumentLoss]:
    """Return the losses, with the number of bytes of each text that its tokens do not restore."""
    losses = document_losses(model, documents, [len(text.encode()) for text in texts])
    return [replace(loss, changed_bytes=n) for loss, n in zip(losses, changed, strict=True)]


def read_text(path: Path) -> str:
    """Return the text of a file, byte for byte. Raises UserError if it is missing, without a word
    or not UTF-8."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a text file")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise UserError(f"{path} is empty; bits per byte need at least one byte")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte {error.start} cannot be decoded") from error
    if not text.strip():
        raise UserError(f"{path} holds white space only; there is no word to predict")
    return text
