"""Predict labels of pairs, by likelihood and by greedy decoding, and compute accuracy and F1.

By likelihood there is always an answer: the whole target of each label, with its end, is scored,
and the most likely one is taken. A greedy answer is read back with the template; if that fails, it
counts as a failure. If examples have several labels, there are too many combinations to score, so
only greedy decoding is measured.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from feldspar.core.progress import progress
from feldspar.evaluate.tasks.continuations import Continuation, score_continuations
from feldspar.evaluate.tasks.generate_until import generate_until
from feldspar.evaluate.text_model import TextModel
from feldspar.recipe.sections.phase_data import LABELS, PairTemplate
from feldspar.tokens.sequences.pairs import (
    LABEL_SEPARATOR,
    Pair,
    PairLayout,
    target_text,
)

Labels = tuple[str, ...]


@dataclass(frozen=True)
class LabelFigures:
    """Comparison of predicted labels with the true ones."""

    accuracy: float
    """Share of examples whose predicted labels are exactly the true ones."""
    micro_f1: float
    """F1 over all decisions (example and label) together."""
    macro_f1: float
    """Mean F1 over the labels that are true or predicted in some example."""

    def as_dict(self) -> dict[str, float]:
        """Return plain values."""
        return asdict(self)


def label_figures(
    true: Sequence[Labels], found: Sequence[Labels | None], values: Sequence[str]
) -> LabelFigures:
    """Return the figures over examples; None is an answer that could not be read and predicts no
    label."""
    pairs = [(set(a), set(b or ())) for a, b in zip(true, found, strict=True)]
    right = sum(b is not None and set(a) == set(b) for a, b in zip(true, found, strict=True))
    counts = [_counts(label, pairs) for label in values]
    scores = [_f1(*count) for count in counts if any(count)]
    hits, false, missed = (sum(column) for column in zip(*counts, strict=True))
    micro = _f1(hits, false, missed)
    return LabelFigures(right / len(true), micro, sum(scores) / len(scores) if scores else 0.0)


def _counts(label: str, pairs: Sequence[tuple[set[str], set[str]]]) -> tuple[int, int, int]:
    """Count the examples where a label is correctly predicted, wrongly predicted, and missed."""
    hits = sum(label in a and label in b for a, b in pairs)
    false = sum(label not in a and label in b for a, b in pairs)
    missed = sum(label in a and label not in b for a, b in pairs)
    return hits, false, missed


def _f1(hits: int, false: int, missed: int) -> float:
    return 2 * hits / (2 * hits + false + missed) if hits else 0.0


@dataclass(frozen=True)
class LabelScore:
    """Results of a model on pairs with labels."""

    n_pairs: int
    by_likelihood: LabelFigures | None
    """None if examples have several labels."""
    by_generation: LabelFigures
    parse_failures: float
    """Share of generated answers that are not labels."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        likelihood = self.by_likelihood
        return {
            "pairs": self.n_pairs,
            "by_likelihood": None if likelihood is None else likelihood.as_dict(),
            "by_generation": self.by_generation.as_dict(),
            "parse_failures": self.parse_failures,
        }


def evaluate_labels(
    model: TextModel, pairs: Sequence[Pair], layout: PairLayout, template: PairTemplate
) -> LabelScore:
    """Return both measures on ``pairs``, with the layout of training. The template must have
    labels.

    Raises UserError for a pair that is too long for the layout.
    """
    settings = template.labels
    assert settings is not None, "the caller asks for labels"
    true = [pair.labels for pair in pairs]
    contexts, targets = _asked(model, pairs, layout, template)
    likelihood = None
    if not settings.several:
        likeliest = _likeliest(model, contexts, targets, settings.values)
        likelihood = label_figures(true, likeliest, settings.values)
    room = max(map(len, targets))
    if settings.several:
        (every,) = _encoded(model, [target_text(template, settings.values)])
        room = len(every)
    found: list[Labels | None] = []
    with progress("generating", len(pairs), "answers") as advance:
        for context in contexts:
            # One more than the longest target, so that a missing end is noticed.
            new = min(room + 1, layout.longest - 1 - len(context))
            found.append(parse_labels(generate_until(model, context, (), new), template))
            advance(1)
    failures = sum(labels is None for labels in found) / len(pairs)
    figures = label_figures(true, found, settings.values)
    return LabelScore(len(pairs), likelihood, figures, failures)


def parse_labels(text: str, template: PairTemplate) -> Labels | None:
    """Return the labels in a target, in the template's order; None if the text is not a target."""
    settings = template.labels
    assert settings is not None, "the caller asks for labels"
    # A label that no template can have shows the text around labels.
    before, after = template.target.format(**{LABELS: "\0"}).split("\0")
    if not (text.startswith(before) and text[len(before) :].endswith(after)):
        return None
    inner = text[len(before) : len(text) - len(after)]
    parts = [inner]
    if settings.several:
        parts = inner.split(LABEL_SEPARATOR) if inner else []
    if len(set(parts)) < len(parts) or not set(parts) <= set(settings.values):
        return None
    return tuple(label for label in settings.values if label in parts)


def likeliest_labels(
    model: TextModel, pairs: Sequence[Pair], layout: PairLayout, template: PairTemplate
) -> list[Labels]:
    """Return the label of each pair whose whole target, with its end, is the most likely.

    The template must have labels, one for each example.
    """
    settings = template.labels
    assert settings is not None and not settings.several, "one label an example"
    contexts, targets = _asked(model, pairs, layout, template)
    return _likeliest(model, contexts, targets, settings.values)


def _asked(
    model: TextModel, pairs: Sequence[Pair], layout: PairLayout, template: PairTemplate
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the tokens before the target of each pair, and the tokens of each label's target."""
    assert template.labels is not None, "the caller asks for labels"
    texts = [target_text(template, [label]) for label in template.labels.values]
    targets = _encoded(model, texts)
    longest = max(map(len, targets))
    return [layout.context(pair, longest).tolist() for pair in pairs], targets


def _likeliest(
    model: TextModel,
    contexts: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    values: Sequence[str],
) -> list[Labels]:
    end = model.end_of_document_id
    requests = [Continuation(c, [*target, end]) for c in contexts for target in targets]
    scores = [score.log_likelihood for score in score_continuations(model, requests)]
    found: list[Labels] = []
    for begin in range(0, len(scores), len(targets)):
        own = scores[begin : begin + len(targets)]
        found.append((values[own.index(max(own))],))
    return found


def _encoded(model: TextModel, texts: Sequence[str]) -> list[list[int]]:
    return [tokens.tolist() for tokens in model.tokenizer.encode_documents(texts)]
