"""Compute accuracy and F1 of labels: one or several for each example (PubMedQA, Hallmarks of
Cancer)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

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
