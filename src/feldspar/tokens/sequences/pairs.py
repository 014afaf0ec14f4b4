"""Turn records into pairs of a source and a target: as text by a template, then as tokens.

The sequence of a pair is [source][k soft vectors][target][end of document], or it begins with the
vectors (MediSwift, 2403.00952). If the tokenizer begins a text with a token, that token comes
first. Each vector is a token id beyond the vocabulary.
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
from feldspar.tokens.sequences.example_reader import Example, RowLayout
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

LABEL_SEPARATOR = ", "


@dataclass(frozen=True)
class PairText:
    """One pair as text: its labels, if the template has a closed set, and the place it was read
    from."""

    source: str
    target: str
    labels: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Pair:
    """One pair as tokens; none of them is special."""

    source: np.ndarray
    target: np.ndarray
    labels: tuple[str, ...]
    place: str


def read_pairs(path: Path, template: PairTemplate) -> list[PairText]:
    """Return the pairs in a file of JSON lines, in order.

    Raises UserError, with file and line, for a record that does not fit the template.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist, so there are no pairs")
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
    """Return the labels of a record, in the order of the closed set."""
    value = value_of(record, settings.field)
    found = value if settings.several else [value]
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        wanted = "a list of labels" if settings.several else "a label"
        raise UserError(
            f"{place}: field {settings.field!r} must hold {wanted}", found=shorten(repr(value))
        )
    for label in found:
        if label not in settings.values:
            hint = nearest(label, settings.values)
            raise UserError(
                f"{place}: {shorten(label)!r} is not a label of the template"
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
                f"{place}: the template needs text in the field {name!r}",
                found=shorten(repr(value)) if value is not None else shorten(", ".join(record)),
            )
        parts.append(value)
    return "".join(parts)


def encode_pairs(pairs: Sequence[PairText], tokenizer: TextTokenizer) -> list[Pair]:
    """Return the pairs as tokens; source and target are encoded separately."""
    sources = tokenizer.encode_documents([pair.source for pair in pairs])
    targets = tokenizer.encode_documents([pair.target for pair in pairs])
    return [
        Pair(source.astype(np.int64), target.astype(np.int64), pair.labels, pair.place)
        for pair, source, target in zip(pairs, sources, targets, strict=True)
    ]


@dataclass(frozen=True)
class PairLayout(RowLayout):
    """Layout of a pair in one sequence of at most ``longest`` tokens, its last label included."""

    prompt_length: int = 0
    place: Literal["between", "prefix"] = "between"
    truncate: bool = False
    """True to cut the beginning of the source of a pair that is too long."""
    begin_ids: tuple[int, ...] = ()
    """The begin-of-sequence token, if the tokenizer begins a text with it."""

    def context(self, pair: Pair, target_tokens: int | None = None) -> np.ndarray:
        """Return everything before the target (n,), i64: beginning, source and soft vectors.

        ``target_tokens`` is the length of the target without its end token (default: the pair's
        own). Raises UserError, with the lengths, if all of it does not fit.
        """
        target = len(pair.target) if target_tokens is None else target_tokens
        room = self.longest - len(self.begin_ids) - self.prompt_length - target - 1
        source = pair.source
        if len(source) > room:
            if not self.truncate or room < 1:
                raise UserError(
                    f"{pair.place}: a source of {len(source)} tokens, "
                    f"{self.prompt_length} soft vectors and a target of {target} with its "
                    f"end do not fit in {self.longest - 1} tokens",
                    do="raise context_length" + (" or set truncate: source" if room > 0 else ""),
                )
            source = source[len(source) - room :]
        prompt = np.arange(self.prompt_length, dtype=np.int64) + self.first_prompt_id
        parts = (source, prompt) if self.place == "between" else (prompt, source)
        return np.concatenate([np.array(self.begin_ids, np.int64), *parts])

    def sequence(self, pair: Pair) -> tuple[np.ndarray, int]:
        """Return all tokens of the pair (n,), i64, and the number of tokens before its target."""
        context = self.context(pair)
        return np.concatenate([context, pair.target, [self.end_of_document_id]]), len(context)


def pair_examples(pairs: Iterable[Pair], layout: PairLayout) -> list[Example]:
    """Return each pair as an example. Raises UserError for the first one that does not fit."""
    sequences = map(layout.sequence, pairs)
    return [Example(tokens, ((begin, len(tokens)),)) for tokens, begin in sequences]
