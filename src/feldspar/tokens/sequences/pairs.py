"""Pairs of a source and a target: records by a template to texts, texts to tokens, tokens laid out.

A pair's sequence is [source][k soft vectors][target][end of document], or with the vectors first
(MediSwift, 2403.00952). Each vector is a token id beyond the vocabulary.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import numpy as np

from feldspar.core.errors import UserError, nearest, shorten
from feldspar.corpus.document import Tolerance
from feldspar.corpus.readers.jsonl import jsonl_records
from feldspar.corpus.readers.records import value_of
from feldspar.recipe.sections.phase_data import LABELS, PairLabels, PairTemplate
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

LABEL_SEPARATOR = ", "


@dataclass(frozen=True)
class PairText:
    """One pair as text, its labels where the template has a closed set, and where it was read."""

    source: str
    target: str
    labels: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Pair:
    """One pair as tokens, none of them special."""

    source: np.ndarray
    target: np.ndarray
    labels: tuple[str, ...]
    place: str


def read_pairs(path: Path, template: PairTemplate) -> list[PairText]:
    """Return the pairs of a file of JSON lines, in its order.

    Raises UserError, with file and line, for a record that the template does not fit.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: no pairs there")
    records = jsonl_records(str(path), path, path.name, Tolerance())
    pairs = [_pair(record, template, place) for place, record in records]
    if not pairs:
        raise UserError(f"{path} holds no pairs")
    return pairs


def _pair(record: Mapping[str, Any], template: PairTemplate, place: str) -> PairText:
    labels: tuple[str, ...] = ()
    if template.labels is not None:
        labels = _labels(record, template.labels, place)
    source = _filled(template.source, record, place)
    if template.labels is None:
        target = _filled(template.target, record, place)
    else:
        target = target_text(template, labels)
    if not source or not target:
        raise UserError(f"{place}: the {'target' if source else 'source'} is empty")
    return PairText(source, target, labels, place)


def target_text(template: PairTemplate, labels: Sequence[str]) -> str:
    """Return the target of a record with ``labels``."""
    return template.target.format(**{LABELS: LABEL_SEPARATOR.join(labels)})


def _labels(record: Mapping[str, Any], settings: PairLabels, place: str) -> tuple[str, ...]:
    """Return the record's labels in the order of the closed set."""
    value = value_of(record, settings.field)
    found = value if settings.several else [value]
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        wanted = "a list of labels" if settings.several else "a label"
        raise UserError(
            f"{place}: field {settings.field!r} holds not {wanted}", found=shorten(repr(value))
        )
    for label in found:
        if label not in settings.values:
            hint = nearest(label, settings.values)
            raise UserError(
                f"{place}: {shorten(label)!r} is none of the template's labels"
                + (f"; did you mean {hint!r}?" if hint else ""),
                allowed=settings.values,
            )
    return tuple(label for label in settings.values if label in found)


def _filled(text: str, record: Mapping[str, Any], place: str) -> str:
    parts = []
    for literal, name, *_ in Formatter().parse(text):
        parts.append(literal)
        if name is None:
            continue
        value = value_of(record, name)
        if not isinstance(value, str):
            raise UserError(
                f"{place}: the template asks for a text in the field {name!r}",
                found=shorten(repr(value)) if value is not None else shorten(", ".join(record)),
            )
        parts.append(value)
    return "".join(parts)


def encode_pairs(pairs: Sequence[PairText], tokenizer: TextTokenizer) -> list[Pair]:
    """Return the pairs as tokens; source and target are encoded apart."""
    sources = tokenizer.encode_documents([pair.source for pair in pairs])
    targets = tokenizer.encode_documents([pair.target for pair in pairs])
    return [
        Pair(source.astype(np.int64), target.astype(np.int64), pair.labels, pair.place)
        for pair, source, target in zip(pairs, sources, targets, strict=True)
    ]


@dataclass(frozen=True)
class PairLayout:
    """How a pair becomes one sequence of at most ``longest`` tokens, its last label counted."""

    longest: int
    end_of_document_id: int
    first_prompt_id: int
    """Ids from here on are soft vectors: the rows of the model's vocabulary."""
    prompt_length: int = 0
    place: Literal["between", "prefix"] = "between"
    truncate: bool = False
    """Whether a pair that is too long loses the beginning of its source."""

    def context(self, pair: Pair, target_tokens: int | None = None) -> np.ndarray:
        """What stands before the target (n,), i64: the source and the soft vectors.

        The target may have ``target_tokens`` (by default the pair's own), its end not counted.
        Raises UserError, with the lengths, when all of it does not fit.
        """
        target = len(pair.target) if target_tokens is None else target_tokens
        room = self.longest - self.prompt_length - target - 1
        source = pair.source
        if len(source) > room:
            if not self.truncate or room < 1:
                raise UserError(
                    f"{pair.place}: a source of {len(source)} tokens, {self.prompt_length} soft "
                    f"vectors and a target of {target} with its end do not fit into "
                    f"{self.longest - 1} tokens",
                    do="raise context_length" + (" or set truncate: source" if room > 0 else ""),
                )
            source = source[len(source) - room :]
        prompt = np.arange(self.prompt_length, dtype=np.int64) + self.first_prompt_id
        parts = (source, prompt) if self.place == "between" else (prompt, source)
        return np.concatenate(parts)

    def sequence(self, pair: Pair) -> tuple[np.ndarray, int]:
        """Return all of the pair's tokens (n,), i64, and how many stand before its target."""
        context = self.context(pair)
        return np.concatenate([context, pair.target, [self.end_of_document_id]]), len(context)


def sequences_of(pairs: Iterable[Pair], layout: PairLayout) -> list[tuple[np.ndarray, int]]:
    """Return each pair laid out. Raises UserError for the first that does not fit."""
    return [layout.sequence(pair) for pair in pairs]
