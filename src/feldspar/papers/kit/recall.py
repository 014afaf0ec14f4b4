"""Values that a model recalls from the text before them, by the distance that it has to look back.

The documents are those of the reader ``key_value``, as bytes: each pair is a token of its key and a
token of its value.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from feldspar.corpus.readers.key_value import PAIR_BYTES
from feldspar.evaluate.text_model import TextModel, with_separators

ROW_TOKENS = 16384
"""Tokens of a forward pass."""


@dataclass(frozen=True)
class Recall:
    """The values of repeated keys at some distances: how many, how well they are predicted."""

    count: int
    share: float
    """The share whose likeliest prediction is right; one in ten is chance."""
    nats: float
    """Mean loss of these values."""


def repetitions(document: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield place and distance, in tokens, of each value whose key was seen before."""
    last: dict[int, int] = {}
    for place in range(1, len(document), PAIR_BYTES):
        key = int(document[place - 1])
        if key in last:
            yield place, place - last[key]
        last[key] = place


def recall_by_distance(
    model: TextModel,
    documents: Sequence[np.ndarray],
    length_tokens: int,
    bands: Sequence[tuple[int, int]],
) -> list[Recall]:
    """Measure recall in the first ``length_tokens`` of each document, by bands of distances.

    A band (low, high) holds distances above ``low`` tokens and up to ``high``.
    """
    rows = max(1, ROW_TOKENS // length_tokens)
    distances, right, nats = [], [], []
    model.decoder.eval()
    for begin in range(0, len(documents), rows):
        batch = [document[:length_tokens] for document in documents[begin : begin + rows]]
        framed = [
            with_separators(own, model.before_id, model.end_of_document_id, 0, length_tokens + 1)
            for own in batch
        ]
        tokens = torch.from_numpy(np.stack(framed)).to(model.device)
        with torch.no_grad():
            logits = model.decoder.logits(model.decoder(tokens[:, :-1]))[..., : model.n_real_vocab]
        log_likelihoods = torch.log_softmax(logits.float(), -1)
        for row, document in enumerate(batch):
            for place, distance in repetitions(document):
                value = int(document[place])
                distances.append(distance)
                right.append(int(log_likelihoods[row, place].argmax()) == value)
                nats.append(-float(log_likelihoods[row, place, value]))
    far, was_right, lost = np.array(distances), np.array(right), np.array(nats)
    found = []
    for low, high in bands:
        chosen = (far > low) & (far <= high)
        found.append(
            Recall(int(chosen.sum()), float(was_right[chosen].mean()), float(lost[chosen].mean()))
        )
    return found
