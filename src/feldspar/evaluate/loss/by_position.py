"""Measure loss by position in long documents, one document in each row, and group it in buckets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.evaluate.loss.text_loss import BATCH_TOKENS, BATCH_TOKENS_DEFAULT
from feldspar.evaluate.text_model import TextModel, with_separators

RISE = 1.02
"""Relative rise over the loss within the trained length from which a bucket counts as out
of reach."""


@dataclass(frozen=True)
class Bucket:
    """Positions ``begin`` to ``end`` - 1: mean loss over ``tokens``, and standard error over
    documents.

    The error is None for a single document.
    """

    begin: int
    end: int
    tokens: int
    nats_per_token: float
    standard_error: float | None


def losses_by_position(
    model: TextModel, documents: Sequence[np.ndarray], length_tokens: int
) -> np.ndarray:
    """Return the loss (documents, length), in nats, of each document's first tokens after a
    separator.

    Documents are not packed: position i has i tokens of its own document before it. Raises
    UserError for a document that is shorter.
    """
    shortest = min(map(len, documents))
    if shortest < length_tokens:
        raise UserError(f"a document of {shortest} tokens is shorter than {length_tokens}")
    budget = BATCH_TOKENS.get(model.device.type, BATCH_TOKENS_DEFAULT)
    rows = max(1, budget // length_tokens)
    found = []
    model.decoder.eval()
    with progress("loss by position", len(documents), "documents") as advance:
        for begin in range(0, len(documents), rows):
            batch = documents[begin : begin + rows]
            framed_rows = [
                with_separators(
                    document, model.before_id, model.end_of_document_id, 0, length_tokens + 1
                )
                for document in batch
            ]
            tokens = torch.from_numpy(np.stack(framed_rows)).to(model.device)
            losses = model.decoder.token_losses(
                tokens[:, :-1], tokens[:, 1:], n_real_vocab=model.n_real_vocab
            )
            found.append(losses.double().cpu().numpy())
            advance(len(batch))
    return np.concatenate(found)


def buckets_of(losses: np.ndarray, width_tokens: int) -> list[Bucket]:
    """Return means over buckets of ``width_tokens`` positions (the last may be narrower)."""
    n_documents, length = losses.shape
    buckets = []
    for begin in range(0, length, width_tokens):
        part = losses[:, begin : begin + width_tokens]
        means = part.mean(axis=1)
        error = float(means.std(ddof=1) / n_documents**0.5) if n_documents > 1 else None
        buckets.append(Bucket(begin, begin + part.shape[1], part.size, float(means.mean()), error))
    return buckets


def crossing(losses: np.ndarray, buckets: Sequence[Bucket], train_length: int) -> int | None:
    """Return the first position beyond L tokens whose loss is 2 % above the mean over [L/2, L).

    L is ``train_length``. Returns None if there is none, or if the documents end before L.
    """
    if losses.shape[1] < train_length:
        return None
    inside = float(losses[:, train_length // 2 : train_length].mean())
    beyond = (bucket for bucket in buckets if bucket.begin >= train_length)
    return next((bucket.begin for bucket in beyond if bucket.nats_per_token > RISE * inside), None)
