"""Bits per byte of held-out documents, source by source: the documents of a shard set's split."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.evaluate.loss.text_loss import DocumentLoss, document_losses, total_loss
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.round_trip import changed_by, require_given_back_bytes
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class HeldOutLoss:
    """The loss of each source."""

    sources: dict[str, DocumentLoss]
    not_held_out: tuple[str, ...] = ()
    """Sources of the training text of which the split holds nothing: no figure covers them."""

    @property
    def overall(self) -> DocumentLoss:
        """All sources together: total bits over total bytes, no mean of means."""
        return total_loss(self.sources.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for ``--json``: overall, and ``sources``."""
        sources = {name: loss.as_dict() for name, loss in self.sources.items()}
        return {
            **self.overall.as_dict(),
            "sources": sources,
            "not_held_out": list(self.not_held_out),
        }

    @property
    def warning(self) -> str | None:
        """Name the sources that no figure covers; None where there is none."""
        if not self.not_held_out:
            return None
        names = ", ".join(self.not_held_out)
        return f"the figures leave out {names}: the split holds no document of it"


@dataclass(frozen=True)
class HeldOutDocuments:
    """Documents of one source without their end-of-document tokens, and their texts' bytes."""

    tokens: list[np.ndarray]
    text_bytes: int


def evaluate_shards(
    model: TextModel,
    shards: ShardSet,
    split: str = "test",
    max_tokens_per_source: int | None = None,
) -> HeldOutLoss:
    """Return the loss of every source of ``split``.

    Raises UserError when the shards were made with another tokenizer, hold no such split, or hold
    text that the tokenizer does not give back.
    """
    if shards.tokenizer_digest != model.tokenizer.digest:
        raise UserError(
            f"{shards.path} was encoded with another tokenizer than the model's",
            do="evaluate on text instead: --text FILE",
        )
    change = changed_by(model.tokenizer)
    if change is not None:
        say(f"warning: the tokenizer changes text ({change}): figures are those of changed text")
    losses = {}
    for name in require_split(shards, split):
        documents = held_out_documents(shards, split, name, model.tokenizer, max_tokens_per_source)
        require_given_back_bytes(model.tokenizer, documents.tokens, documents.text_bytes, name)
        # Only the sum is known to the byte: the shards count a source's bytes, not a document's.
        unknown = [0] * len(documents.tokens)
        loss = total_loss(document_losses(model, documents.tokens, unknown))
        losses[name] = loss + DocumentLoss(bytes=documents.text_bytes)
    missing = [name for name in shards.sources("train") if name not in losses]
    return HeldOutLoss(losses, tuple(missing))


def require_split(shards: ShardSet, split: str) -> list[str]:
    """Return the sources of a split. Raises UserError when it holds none."""
    sources = shards.sources(split)
    if not sources:
        raise UserError(f"{shards.path} has no {split} split", allowed=shards.splits)
    return sources


def held_out_documents(
    shards: ShardSet,
    split: str,
    source: str,
    tokenizer: TextTokenizer,
    max_tokens: int | None = None,
) -> HeldOutDocuments:
    """Return the documents of one source in the shards' order, which is as good as drawn.

    With ``max_tokens``, only as many whole documents as fit, at least one; their bytes are then
    those of their decoded text. Raises UserError for unknown names.
    """
    stored = shards.read(split, source)
    count = len(stored.lengths)
    if max_tokens is not None:
        fitting = int(np.searchsorted(np.cumsum(stored.lengths), max_tokens, side="right"))
        count = min(count, max(1, fitting))
    documents = [stored.document(index)[:-1] for index in range(count)]
    if count == len(stored.lengths):
        return HeldOutDocuments(documents, shards.text_bytes(split, source))
    return HeldOutDocuments(documents, sum(len(text_of(tokenizer, d).encode()) for d in documents))


def text_of(tokenizer: TextTokenizer, document: np.ndarray) -> str:
    """Return the text of a document's tokens; exact for byte-level tokenizers."""
    return tokenizer.decode(document)
