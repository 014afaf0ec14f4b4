"""Values that a model recalls from the text before them, by the distance that it has to look back.

The text is that of the reader ``key_value``, as bytes: each pair is a token of its key and a token
of its value, and a key that comes again has the same value.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from feldspar.core.streams import numpy_stream
from feldspar.corpus.readers.key_value import KEYS, PAIR_BYTES, pairs_of
from feldspar.evaluate.text_model import TextModel, with_separators

DOCUMENTS = 64
"""Documents that recall is measured on. They are drawn anew, so that no run has trained on them."""
ROW_TOKENS = 16384
"""Tokens of a forward pass."""

Band = tuple[int, int]
"""Distances in tokens: those above the first number, up to the second."""


@dataclass(frozen=True)
class Recall:
    """The values of repeated keys at some distances, and their prediction."""

    values: int
    """The number of these values."""
    share: float
    """The share whose likeliest prediction is right; chance is one in ten."""
    nats: float
    """The mean loss of these values."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a record of figures."""
        return asdict(self)


def recall_documents(model: TextModel, length_tokens: int) -> list[np.ndarray]:
    """Draw ``DOCUMENTS`` documents of pairs of all keys, with ``length_tokens`` tokens each."""
    count = length_tokens // PAIR_BYTES
    streams = (numpy_stream(0, "papers.recall", number) for number in range(DOCUMENTS))
    texts = ["".join(pairs_of(count, len(KEYS), stream)) for stream in streams]
    return model.tokenizer.encode_documents(texts)


def repetitions(document: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield place and distance, in tokens, of each value whose key was seen before."""
    last: dict[int, int] = {}
    for place in range(1, len(document), PAIR_BYTES):
        key = int(document[place - 1])
        if key in last:
            yield place, place - last[key]
        last[key] = place


def recall_in(
    model: TextModel, documents: Sequence[np.ndarray], bands: Sequence[Band]
) -> list[Recall]:
    """Measure recall in documents of one length that are read at once, by bands of distances.

    A band without any value has no share and no loss: NaN.
    """
    rows = max(1, ROW_TOKENS // len(documents[0]))
    found: list[tuple[int, bool, float]] = []
    model.decoder.eval()
    for begin in range(0, len(documents), rows):
        found += _predicted(model, documents[begin : begin + rows])
    distances, right, nats = (np.array(column) for column in zip(*found, strict=True))
    recalls = []
    for low, high in bands:
        chosen = (distances > low) & (distances <= high)
        recalls.append(
            Recall(int(chosen.sum()), float(right[chosen].mean()), float(nats[chosen].mean()))
        )
    return recalls


def _predicted(
    model: TextModel, documents: Sequence[np.ndarray]
) -> Iterator[tuple[int, bool, float]]:
    """Yield of each repeated value its distance, the prediction's rightness and the loss."""
    separators = model.before_id, model.end_of_document_id
    rows = [with_separators(own, *separators, end=len(own) + 1) for own in documents]
    tokens = torch.from_numpy(np.stack(rows)).to(model.device)
    with torch.no_grad():
        logits = model.decoder.logits(model.decoder(tokens[:, :-1]))[..., : model.n_real_vocab]
    losses = -torch.log_softmax(logits.float(), -1).gather(2, tokens[:, 1:, None])[..., 0]
    is_right = logits.argmax(-1) == tokens[:, 1:]
    for row, document in enumerate(documents):
        for place, distance in repetitions(document):
            yield distance, bool(is_right[row, place]), float(losses[row, place])
