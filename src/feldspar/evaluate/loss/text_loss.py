"""Measure the loss of whole documents; each token and the document's end is scored exactly once.

A document is [before] tokens [end of document]. The token before it is the end of another document,
or the begin-of-sequence token where texts begin with one; then each window begins with it, in place
of its first input. The document's first token is predicted from it alone, and the end of the text
is predicted too. The sum over documents does not depend on the batches, apart from rounding.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import RunError, UserError
from feldspar.core.progress import progress
from feldspar.evaluate.text_model import TextModel, with_separators
from feldspar.model.cross_entropy import IGNORED_LABEL
from feldspar.model.position_scaling import grows_with_length


@dataclass(frozen=True)
class Window:
    """Predictions ``begin`` to ``end`` - 1 of one document, scored from ``first_scored`` on.

    Prediction i is made at input i; its label is input i + 1.
    """

    document: int
    begin: int
    end: int
    first_scored: int

    @property
    def length(self) -> int:
        """Number of inputs."""
        return self.end - self.begin


def windows_of(
    document: int, predictions: int, context_length: int, stride: int | None = None
) -> Iterator[Window]:
    """Yield the windows of a document with this number of predictions; each is scored once.

    The first window scores all its predictions. Each later one begins a stride (default: half a
    context) after the one before it, and scores only what the one before did not reach. So a token
    beyond the first window has a context of at least a full context minus the stride. With a stride
    of a full context the windows do not overlap.
    """
    stride = stride or max(1, context_length // 2)
    begin = scored = 0
    while scored < predictions:
        end = min(begin + context_length, predictions)
        yield Window(document, begin, end, scored)
        begin, scored = begin + stride, end


BATCH_TOKENS = {"cpu": 4096}
"""Tokens scored at once on each kind of device: a number that fits a processor's caches, ..."""
BATCH_TOKENS_DEFAULT = 65_536
"""... or keeps an accelerator busy."""


@dataclass(frozen=True)
class DocumentLoss:
    """Summed loss of one or more documents; losses can be added."""

    nats: float = 0.0
    """Negative log-likelihood of all scored tokens."""
    tokens: int = 0
    """Number of scored tokens, with the ends of documents."""
    bytes: int = 0
    """UTF-8 bytes of the text."""
    changed_bytes: int = 0
    """Bytes of the text that its tokens do not restore."""

    def __add__(self, other: "DocumentLoss") -> "DocumentLoss":
        return DocumentLoss(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.changed_bytes + other.changed_bytes,
        )

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte; comparable between tokenizers and with compressors.

        Raises UserError for text without a byte.
        """
        if self.bytes == 0:
            raise UserError("bits per byte need at least one byte of text")
        return self.nats / log(2) / self.bytes

    @property
    def nats_per_token(self) -> float:
        """Mean loss."""
        return self.nats / self.tokens

    def as_dict(self) -> dict[str, float]:
        """Return the figures for ``--json``."""
        return {
            "bits_per_byte": self.bits_per_byte,
            "nats_per_token": self.nats_per_token,
            "tokens": self.tokens,
            "bytes": self.bytes,
            **({"changed_bytes": self.changed_bytes} if self.changed_bytes else {}),
        }


def total_loss(losses: Iterable[DocumentLoss]) -> DocumentLoss:
    """Return the sum of several losses."""
    return sum(losses, DocumentLoss())


def document_losses(
    model: TextModel,
    documents: Sequence[np.ndarray],
    document_bytes: Sequence[int],
    batch_tokens: int | None = None,
    stride: int | None = None,
    ends: bool = True,
) -> list[DocumentLoss]:
    """Return the loss of each document, in order.

    ``documents`` hold only their own tokens, without end-of-document tokens; ``document_bytes`` are
    the UTF-8 bytes of their texts. About ``batch_tokens`` tokens are scored at once. Windows begin
    ``stride`` tokens apart (default: half a context). Without ``ends`` (for documents that were
    cut) the end is not scored. Raises RunError if the model's loss is not finite.
    """
    budget = batch_tokens or BATCH_TOKENS.get(model.device.type, BATCH_TOKENS_DEFAULT)
    windows = [
        window
        for index, document in enumerate(documents)
        for window in windows_of(index, len(document) + ends, model.context_length, stride)
    ]
    nats = np.zeros(len(documents))
    was_training = model.decoder.training
    model.decoder.eval()
    try:
        with progress("scoring", sum(window.length for window in windows), "tokens") as advance:
            alike = grows_with_length(model.decoder.position_scaling)
            for batch in _batches(windows, budget, alike):
                losses = _window_losses(model, documents, batch)
                np.add.at(nats, [window.document for window in batch], losses)
                advance(sum(window.length for window in batch))
    finally:
        model.decoder.train(was_training)
    if not np.isfinite(nats).all():
        raise RunError(
            "the model's loss is not finite: its weights are damaged, or training diverged",
            found=f"{float(nats[~np.isfinite(nats)][0])} on one of {len(documents):,} documents",
        )
    return [
        DocumentLoss(float(loss), len(document) + ends, size)
        for loss, document, size in zip(nats, documents, document_bytes, strict=True)
    ]


def _batches(windows: list[Window], budget: int, alike: bool) -> Iterator[list[Window]]:
    """Yield batches of windows of similar length, the longest first, to keep padding small.

    With ``alike``, all windows of a batch have the same length, because the length of a row changes
    its positions.
    """
    ordered = sorted(windows, key=lambda window: -window.length)
    begin = 0
    while begin < len(ordered):
        end = begin + max(1, budget // ordered[begin].length)
        if alike:
            length = ordered[begin].length
            end = begin + sum(window.length == length for window in ordered[begin:end])
        yield ordered[begin:end]
        begin = end


def _window_losses(
    model: TextModel, documents: Sequence[np.ndarray], batch: list[Window]
) -> np.ndarray:
    """Return the summed loss of the scored tokens of each window."""
    length = batch[0].length
    # The model is causal, so padding after a row's tokens does not change earlier positions.
    inputs = np.full((len(batch), length), model.end_of_document_id, np.int64)
    labels = np.full((len(batch), length), IGNORED_LABEL, np.int64)
    begin = model.tokenizer.begin_ids
    for row, window in enumerate(batch):
        document = documents[window.document]
        tokens = with_separators(
            document, model.before_id, model.end_of_document_id, window.begin, window.end + 1
        )
        tokens[: len(begin)] = begin
        inputs[row, : window.length] = tokens[:-1]
        scored = window.first_scored - window.begin
        labels[row, scored : window.length] = tokens[scored + 1 :]
    losses: Tensor = model.decoder.token_losses(
        torch.from_numpy(inputs).to(model.device),
        torch.from_numpy(labels).to(model.device),
        n_real_vocab=model.n_real_vocab,
    )
    return losses.double().sum(dim=1).cpu().numpy()
