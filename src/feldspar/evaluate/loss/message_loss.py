"""Measure the loss of the assistant's turns in conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from feldspar.core.progress import progress
from feldspar.evaluate.text_model import TextModel
from feldspar.model.cross_entropy import IGNORED_LABEL
from feldspar.tokens.sequences.example_reader import Example, ExampleReader, RowLayout

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class MessageLoss:
    """Negative log-likelihood of all answers, their ends included."""

    nats: float
    tokens: int
    """Tokens of the answers."""
    conversations: int

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for ``--json``."""
        return {
            "nats_per_token": self.nats / self.tokens,
            "tokens": self.tokens,
            "conversations": self.conversations,
        }


def message_loss(model: TextModel, examples: Sequence[Example]) -> MessageLoss:
    """Return the loss of the targets of ``examples``, which must fit in the model's context."""
    longest = max(len(each.tokens) for each in examples)
    rows = model.decoder.token_embedding.num_embeddings
    layout = RowLayout(longest, model.end_of_document_id, rows)
    reader = ExampleReader(examples, layout, seed=0, phase="evaluation", on_target=True)
    nats, tokens, step = 0.0, 0, max(1, BATCH_TOKENS // longest)
    with progress("conversations", reader.n_rows, "rows") as advance:
        for first in range(0, reader.n_rows, step):
            batch = reader.read(first, min(first + step, reader.n_rows))
            assert batch.document_ids is not None and batch.label_mask is not None
            read = torch.from_numpy(batch.tokens).to(model.device)
            counts = torch.from_numpy(batch.label_mask).to(model.device)
            losses = model.decoder.token_losses(
                read[:, :-1],
                read[:, 1:].masked_fill(~counts, IGNORED_LABEL),
                torch.from_numpy(batch.document_ids).to(model.device),
                model.n_real_vocab,
            )
            nats += losses.double().sum().item()
            tokens += int(counts.sum())
            advance(len(read))
    return MessageLoss(nats, tokens, len(examples))
