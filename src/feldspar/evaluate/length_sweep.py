"""Evaluate one trained model at several lengths and with several position scalings."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from math import ceil, exp
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.evaluate.loss.by_position import buckets_of, crossing, losses_by_position
from feldspar.evaluate.loss.text_loss import document_losses, total_loss
from feldspar.evaluate.tasks.retrieval import TASKS, questions
from feldspar.evaluate.tasks.retrieval_score import NEW_TOKENS, answer_questions
from feldspar.evaluate.text_model import TextModel
from feldspar.recipe.sections.evaluation import LengthSweepSettings
from feldspar.recipe.sections.position_scaling import PositionScaling

BUCKETS = 32
"""Number of buckets of the longest length; shorter lengths have buckets of the same width."""


def sweep_lengths(
    model: TextModel,
    settings: LengthSweepSettings,
    documents: Sequence[np.ndarray],
    train_length: int,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return a record for each measure, length and scaling, all on the same documents and
    questions.

    ``documents`` (tokens without separators) are used for losses; those shorter than the longest
    length are left out. ``train_length`` is the context length in training. The model is not
    changed. Raises UserError if no document is long enough, or a scaling does not fit the
    positions.
    """
    losses = any(measure not in TASKS for measure in settings.measures)
    longest = max(settings.lengths)
    chosen = long_documents(documents, longest, settings.documents) if losses else []
    width = max(1, ceil(longest / BUCKETS))
    before = model.decoder.position_scaling
    records = []
    try:
        for measure in settings.measures:
            for length in settings.lengths:
                sized = replace(model, longest_context=length)
                for scaling in settings.scalings or (before,):
                    model.decoder.scale_positions(scaling)
                    if measure == "loss_by_position":
                        found = _by_position(sized, chosen, length, width, train_length)
                    elif measure == "sliding_window":
                        found = _windows(sized, chosen, length)
                    else:
                        found = _retrieval(sized, measure, length, settings.questions, seed)
                    head = {
                        "measure": measure,
                        "length_tokens": length,
                        "scaling": describe_scaling(scaling),
                    }
                    records.append(head | found)
    finally:
        model.decoder.scale_positions(before)
    return records


def long_documents(
    documents: Sequence[np.ndarray], length_tokens: int, count: int
) -> list[np.ndarray]:
    """Return the first ``count`` documents of at least ``length_tokens``, cut to that length.

    Prints how many were too short. Raises UserError if there is none.
    """
    long = [document for document in documents if len(document) >= length_tokens]
    if not long:
        raise UserError(
            f"no document has {length_tokens:,} tokens, the longest length to measure",
            found=f"{len(documents)} documents, the longest of "
            f"{max(map(len, documents), default=0):,} tokens",
            do="measure shorter lengths, or give a long text with --text",
        )
    say(
        f"{min(len(long), count)} documents of {length_tokens:,} tokens are measured; "
        f"{len(documents) - len(long):,} of {len(documents):,} are shorter and are left "
        "out"
    )
    return [document[:length_tokens] for document in long[:count]]


def describe_scaling(scaling: PositionScaling) -> str:
    """Return a scaling in one line: its type and the keys that are set."""
    keys = scaling.model_dump(exclude_none=True, exclude_defaults=True)
    keys.pop("type", None)
    return " ".join(
        [
            scaling.type,
            *(
                f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in keys.items()
            ),
        ]
    )


def _by_position(
    model: TextModel, documents: list[np.ndarray], length: int, width: int, train_length: int
) -> dict[str, Any]:
    losses = losses_by_position(model, documents, length)
    buckets = buckets_of(losses, width)
    return {
        "documents": len(documents),
        "nats_per_token": float(losses.mean()),
        "crossing_tokens": crossing(losses, buckets, train_length),
        "buckets": [asdict(bucket) for bucket in buckets],
    }


def _windows(model: TextModel, documents: list[np.ndarray], length: int) -> dict[str, Any]:
    """Return perplexity with windows that do not overlap, and with windows half a length apart.

    The first tokens of a window have little context, so the two figures differ; both are reported.
    """
    unknown, stride = [0] * len(documents), max(1, length // 2)
    apart, sliding = (
        total_loss(document_losses(model, documents, unknown, stride=tokens, ends=False))
        for tokens in (length, stride)
    )
    return {
        "documents": len(documents),
        "non_overlapping_perplexity": exp(apart.nats_per_token),
        "sliding_perplexity": exp(sliding.nats_per_token),
        "stride_tokens": stride,
    }


def _retrieval(model: TextModel, task: str, length: int, count: int, seed: int) -> dict[str, Any]:
    # The question has to fit too.
    asked = questions(task, model.tokenizer, length - NEW_TOKENS, count, seed)
    return answer_questions(model, asked)
