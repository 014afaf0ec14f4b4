"""Fill gaps in held-out documents: measure the loss of the middle given both sides of it.

The text of a document, as much as fits in the context, is cut at two random places, as in training.
The model reads prefix and suffix in the order PSM and scores the middle. It also scores the same
middle after the prefix alone; the difference is the value of the suffix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import hash_integers, stream_seed
from feldspar.evaluate.loss.held_out_loss import held_out_documents, require_split
from feldspar.evaluate.tasks.continuations import Continuation, score_continuations
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.infilling import DRAWS, REPLACEMENT, Infiller

SLACK_TOKENS = 16
"""Room in the context for the special tokens, and for tokens that a cut divides in two."""


@dataclass(frozen=True)
class InfillingScore:
    """Scores of the middles of one or more sources; scores can be added."""

    documents: int = 0
    """Number of documents with a middle that is not empty and fits."""
    bytes: int = 0
    """UTF-8 bytes of the middles."""
    nats: float = 0.0
    """Negative log-likelihood of the middles after prefix and suffix."""
    nats_left_to_right: float = 0.0
    """The same after the prefix alone."""
    exact: int = 0
    """Number of middles that greedy decoding reproduces exactly, with their end."""

    def __add__(self, other: "InfillingScore") -> "InfillingScore":
        return InfillingScore(
            self.documents + other.documents,
            self.bytes + other.bytes,
            self.nats + other.nats,
            self.nats_left_to_right + other.nats_left_to_right,
            self.exact + other.exact,
        )

    def as_dict(self) -> dict[str, float | None]:
        """Return the figures for ``--json``; None if there was no middle to score."""
        bits = self.bytes * log(2)
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "bits_per_byte": self.nats / bits if bits else None,
            "bits_per_byte_left_to_right": self.nats_left_to_right / bits if bits else None,
            "exact_match": self.exact / self.documents if self.documents else None,
        }


@dataclass(frozen=True)
class Gap:
    """One document with a gap: the prompt before the middle, in two variants, and the middle."""

    prompt: list[int]
    """PRE prefix SUF suffix MID."""
    prefix: list[int]
    middle: list[int]
    middle_bytes: int


def evaluate_infilling(
    model: TextModel,
    shards: ShardSet,
    seed: int,
    split: str = "test",
    max_tokens_per_source: int | None = None,
) -> dict[str, InfillingScore]:
    """Return the score of each source of ``split``; ``seed`` draws the gaps.

    Raises UserError if the shards were made with another tokenizer or have no such split, or if the
    tokenizer cannot mark a gap.
    """
    if shards.tokenizer_digest != model.tokenizer.digest:
        raise UserError(f"{shards.path} was encoded with another tokenizer than the model's")
    infiller = Infiller(model.tokenizer)
    scores = {}
    for name in require_split(shards, split):
        documents = held_out_documents(shards, split, name, model.tokenizer, max_tokens_per_source)
        key = stream_seed(seed, "evaluate.infilling", split, name)
        scores[name] = _score(model, list(gaps(infiller, documents.tokens, model, key)))
    return scores


def gaps(
    infiller: Infiller, documents: list[np.ndarray], model: TextModel, key: int
) -> Iterator[Gap]:
    """Yield a gap in each document, drawn by ``key`` and the document's number; empty ones are left
    out."""
    room = model.context_length
    for number, document in enumerate(documents):
        text = infiller.text(document[: max(0, room - SLACK_TOKENS)]).rstrip(REPLACEMENT)
        draws = hash_integers(np.arange(DRAWS) + number * DRAWS, key).tolist()
        first, second = infiller.cuts(text, draws)
        ids = infiller.arrange(text, first, second, suffix_first=False).tolist()
        suffix, middle = (ids.index(token) for token in infiller.suffix_and_middle)
        if first < second and len(model.begun(ids)) <= room:
            size = len(text[first:second].encode())
            prompt = model.begun(ids[: middle + 1])
            yield Gap(prompt, ids[1:suffix], ids[middle + 1 :], size)


def _score(model: TextModel, found: list[Gap]) -> InfillingScore:
    end = model.end_of_document_id
    requests = [
        request
        for gap in found
        for request in (
            Continuation(gap.prompt, gap.middle),
            Continuation(gap.prompt, [*gap.middle, end]),
            Continuation([model.before_id, *gap.prefix], gap.middle),
        )
    ]
    scores = score_continuations(model, requests)
    return InfillingScore(
        documents=len(found),
        bytes=sum(gap.middle_bytes for gap in found),
        nats=-sum(score.log_likelihood for score in scores[::3]),
        nats_left_to_right=-sum(score.log_likelihood for score in scores[2::3]),
        exact=sum(score.is_greedy for score in scores[1::3]),
    )


def infilling_record(scores: dict[str, InfillingScore]) -> dict[str, Any]:
    """Return the figures for ``--json``: overall, and ``sources``."""
    overall = sum(scores.values(), InfillingScore())
    return {
        **overall.as_dict(),
        "sources": {name: score.as_dict() for name, score in scores.items()},
    }
