"""Fill gaps in held-out documents: measure the loss of the middle given both sides of it.

A document is read in windows that fit in the context, and each window has one gap of 1 to
MIDDLE_TOKENS tokens. The model reads the two sides of a gap in both orders of fill-in-the-middle,
PSM and SPM, and scores the middle. The same middle after the prefix alone shows the value of the
suffix. The suffix of another document shows which part of that value any text would bring.

A gap begins and ends between two tokens: a model that was trained from left to right has never
continued a text from within a token, and would be a weak baseline there.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import log
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import hash_integers, stream_seed
from feldspar.evaluate.loss.held_out_loss import held_out_documents, require_split
from feldspar.evaluate.tasks.continuations import Continuation, score_continuations
from feldspar.evaluate.text_model import TextModel
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.infilling import REPLACEMENT, Infiller

MIDDLE_TOKENS = 32
"""Most tokens of a middle; a middle is at most half of its window."""
LEAST_WINDOW = 16
"""Tokens below which the rest of a document has no gap."""
MARKS = 4
"""Room in the context for the three marks, and for a token that begins each text."""
WINDOWS_PER_DOCUMENT = 24
"""Most windows of a document, spread evenly over it, so that no long document decides a figure."""


class Reading(StrEnum):
    """The text that a model reads before it scores a middle."""

    PREFIX_FIRST = "prefix first"
    """PSM: prefix, suffix, middle."""
    SUFFIX_FIRST = "suffix first"
    """SPM: suffix, prefix, middle."""
    PREFIX_FIRST_OTHER = "prefix first, other suffix"
    """PSM with the suffix of another document."""
    SUFFIX_FIRST_OTHER = "suffix first, other suffix"
    """SPM with the suffix of another document."""
    PREFIX_ALONE = "prefix alone"


BOTH_ORDERS = (Reading.PREFIX_FIRST, Reading.SUFFIX_FIRST)
OTHER_SUFFIX = (Reading.PREFIX_FIRST_OTHER, Reading.SUFFIX_FIRST_OTHER)


@dataclass(frozen=True)
class Gap:
    """One gap in a window of a document, in tokens."""

    document: int
    """The number of the document in its source."""
    prefix: list[int]
    """All tokens of the window before the gap; never empty."""
    middle: list[int]
    suffix: list[int]
    """All tokens of the window behind the gap; never empty."""
    middle_bytes: int
    """UTF-8 bytes of the middle."""


@dataclass(frozen=True)
class InfillingScore:
    """Scores of the middles of a document, or of several; scores can be added."""

    gaps: int = 0
    bytes: int = 0
    """UTF-8 bytes of the middles."""
    nats: Mapping[Reading, float] = field(default_factory=dict)
    """Negative log-likelihood of the middles, by what was read before them."""
    exact: Mapping[Reading, int] = field(default_factory=dict)
    """Number of middles that greedy decoding reproduces token for token."""

    def __add__(self, other: "InfillingScore") -> "InfillingScore":
        readings = self.nats or other.nats
        return InfillingScore(
            self.gaps + other.gaps,
            self.bytes + other.bytes,
            {each: self.nats.get(each, 0.0) + other.nats.get(each, 0.0) for each in readings},
            {each: self.exact.get(each, 0) + other.exact.get(each, 0) for each in readings},
        )

    def bits_per_byte(self, reading: Reading) -> float:
        """Return the bits per byte of the middles. Raises UserError where there is no gap."""
        if not self.bytes:
            raise UserError("no held-out document is long enough for a gap")
        return self.nats[reading] / log(2) / self.bytes

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for ``--json``: each measure by reading, empty without a gap."""
        readings = self.nats if self.bytes else ()
        return {
            "gaps": self.gaps,
            "bytes": self.bytes,
            "bits_per_byte": {each.value: self.bits_per_byte(each) for each in readings},
            "exact_match": {each.value: self.exact[each] / self.gaps for each in readings},
        }


def evaluate_infilling(
    model: TextModel,
    shards: ShardSet,
    seed: int,
    split: str = "test",
    max_tokens_per_source: int | None = None,
    readings: Sequence[Reading] = (*BOTH_ORDERS, Reading.PREFIX_ALONE),
    window_tokens: int | None = None,
    sources: Collection[str] | None = None,
) -> dict[str, list[InfillingScore]]:
    """Return the score of each document with a gap, by source of ``split``.

    ``seed`` draws the gaps. ``sources`` are the sources to read, by default all. Windows have
    ``window_tokens``, by default as many as fit in the context. Raises UserError if the shards were
    made with another tokenizer or have no such split, if the tokenizer cannot mark a gap, or if a
    source has no second document for OTHER_SUFFIX.
    """
    if shards.tokenizer_digest != model.tokenizer.digest:
        raise UserError(f"{shards.path} was encoded with another tokenizer than the model's")
    infiller = Infiller(model.tokenizer)
    window = min(window_tokens or model.context_length, model.context_length - MARKS)
    scores = {}
    for name in require_split(shards, split):
        if sources is not None and name not in sources:
            continue
        documents = held_out_documents(shards, split, name, model.tokenizer, max_tokens_per_source)
        key = stream_seed(seed, "evaluate.infilling", split, name)
        found = list(gaps(infiller, documents.tokens, key, window))
        scores[name] = _score(model, infiller, found, readings)
    return scores


def gaps(
    infiller: Infiller, documents: Sequence[np.ndarray], key: int, window: int
) -> Iterator[Gap]:
    """Yield the gaps of each document, one for each of its windows.

    ``key``, the document and the window draw the length of the middle and its place. A middle that
    begins or ends within a character is left out.
    """
    for number, document in enumerate(documents):
        begins = [
            begin
            for begin in range(0, len(document), window)
            if len(document) - begin >= LEAST_WINDOW
        ]
        count = min(len(begins), WINDOWS_PER_DOCUMENT)
        for begin in (begins[index * len(begins) // count] for index in range(count)):
            ids = document[begin : begin + window].tolist()
            place = (number << 40) + 2 * begin
            size_draw, place_draw = hash_integers(np.arange(place, place + 2), key).tolist()
            size = 1 + _below(min(MIDDLE_TOKENS, len(ids) // 2), size_draw)
            first = 1 + _below(len(ids) - size - 1, place_draw)
            middle = ids[first : first + size]
            text = infiller.text(np.array(middle))
            if REPLACEMENT not in (text[:1], text[-1:]):
                yield Gap(number, ids[:first], middle, ids[first + size :], len(text.encode()))


def _below(count: int, draw: int) -> int:
    """Return a number from 0 to ``count`` - 1 for a draw below 2^64."""
    return (draw * count) >> 64


def _score(
    model: TextModel, infiller: Infiller, found: Sequence[Gap], readings: Sequence[Reading]
) -> list[InfillingScore]:
    """Return the score of each document that has a gap, in order."""
    strangers = _gaps_of_others(found) if set(readings) & set(OTHER_SUFFIX) else found
    requests = [
        Continuation(model.begun(_prompt(infiller, gap, stranger, reading)), gap.middle)
        for gap, stranger in zip(found, strangers, strict=True)
        for reading in readings
    ]
    scored = iter(score_continuations(model, requests))
    by_document: dict[int, InfillingScore] = {}
    for gap in found:
        own = {reading: next(scored) for reading in readings}
        score = InfillingScore(
            1,
            gap.middle_bytes,
            {reading: -each.log_likelihood for reading, each in own.items()},
            {reading: int(each.is_greedy) for reading, each in own.items()},
        )
        by_document[gap.document] = by_document.get(gap.document, InfillingScore()) + score
    return list(by_document.values())


def _gaps_of_others(found: Sequence[Gap]) -> list[Gap]:
    """Return for each gap one of another document, half of all gaps away or as near as may be.

    Raises UserError where all gaps are of one document.
    """
    if len({gap.document for gap in found}) < 2:
        raise UserError("the suffix of another document needs two held-out documents of a source")
    count = len(found)
    chosen = []
    for index, gap in enumerate(found):
        order = (found[(index + count // 2 + step) % count] for step in range(count))
        chosen.append(next(other for other in order if other.document != gap.document))
    return chosen


def _prompt(infiller: Infiller, gap: Gap, stranger: Gap, reading: Reading) -> list[int]:
    """Return the tokens before the middle; another suffix is as long as the true one."""
    if reading is Reading.PREFIX_ALONE:
        return gap.prefix
    suffix = gap.suffix
    if reading in OTHER_SUFFIX:
        suffix = [*stranger.prefix, *stranger.middle, *stranger.suffix][-len(suffix) :]
    suffix_first = reading in (Reading.SUFFIX_FIRST, Reading.SUFFIX_FIRST_OTHER)
    return infiller.prompt(gap.prefix, suffix, suffix_first)


def infilling_record(scores: Mapping[str, Sequence[InfillingScore]]) -> dict[str, Any]:
    """Return the figures for ``--json``: overall, and ``sources``."""
    sources = {name: sum(own, InfillingScore()) for name, own in scores.items()}
    overall = sum(sources.values(), InfillingScore())
    return {
        **overall.as_dict(),
        "sources": {name: score.as_dict() for name, score in sources.items()},
    }
