"""Measure bits per byte of the held-out documents in shards, for each source."""

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
    """Loss of each source."""

    sources: dict[str, DocumentLoss]
    not_held_out: tuple[str, ...] = ()
    """Sources of the training text that have no document in the split, so no figure covers them."""
    changed_text: str | None = None
    """A change of the text by the tokenizer, such as of capitals; None where it restores text."""

    @property
    def overall(self) -> DocumentLoss:
        """Loss of all sources together: total bits / total bytes, not a mean of means."""
        return total_loss(self.sources.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for ``--json``: overall, and ``sources``."""
        sources = {name: loss.as_dict() for name, loss in self.sources.items()}
        return {
            **self.overall.as_dict(),
            "sources": sources,
            "not_held_out": list(self.not_held_out),
            **({"changed_text": self.changed_text} if self.changed_text else {}),
        }

    @property
    def warning(self) -> str | None:
        """Names of the sources that no figure covers; None if there are none."""
        if not self.not_held_out:
            return None
        names = ", ".join(self.not_held_out)
        return f"the figures do not cover {names}: the split has no document of it"


@dataclass(frozen=True)
class HeldOutDocuments:
    """Documents of one source without end-of-document tokens, and the bytes of their texts."""

    tokens: list[np.ndarray]
    text_bytes: int


def evaluate_shards(
    model: TextModel,
    shards: ShardSet,
    split: str = "test",
    max_tokens_per_source: int | None = None,
) -> HeldOutLoss:
    """Return the loss of each source of ``split``.

    Raises UserError if the shards were made with another tokenizer, have no such split, or have
    text that the tokenizer does not restore.
    """
    if shards.tokenizer_digest != model.tokenizer.digest:
        raise UserError(
            f"{shards.path} was encoded with another tokenizer than the model's",
            do="evaluate on text instead: --text FILE",
        )
    change = changed_by(model.tokenizer)
    if change is not None:
        say(
            f"warning: the tokenizer changes text ({change}), so the figures are those of "
            "changed text"
        )
    losses = {}
    for name in require_split(shards, split):
        documents = held_out_documents(shards, split, name, model.tokenizer, max_tokens_per_source)
        require_given_back_bytes(model.tokenizer, documents.tokens, documents.text_bytes, name)
        # Only the sum is exact: the shards count the bytes of a source, not of a document.
        unknown = [0] * len(documents.tokens)
        loss = total_loss(document_losses(model, documents.tokens, unknown))
        losses[name] = loss + DocumentLoss(bytes=documents.text_bytes)
    missing = [name for name in shards.sources("train") if name not in losses]
    return HeldOutLoss(losses, tuple(missing), change)


def require_split(shards: ShardSet, split: str) -> list[str]:
    """Return the sources of a split. Raises UserError if it has none."""
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
    """Return the documents of one source in the order of the shards, which is random.

    With ``max_tokens``, returns only as many whole documents as fit, at least one; their bytes are
    then those of the decoded text. Raises UserError for unknown names.
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
    """Return the text of a document's tokens; it is exact for byte-level tokenizers."""
    return tokenizer.decode(document)
